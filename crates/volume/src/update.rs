//! Changing what a volume is called, its labels, and its size.

use std::collections::BTreeMap;

use rustix::fs::FlockOperation;

use crate::mounted::{IMAGE, is_mount};
use crate::option::{self, Backing};
use crate::volumes::{described, lock, sync_directory, unsupported};
use crate::{Error, Result, Volume, Volumes, event, image_file, names, project, record};

/// What to change of a volume.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Labels to take away.
    pub remove_labels: Vec<String>,
    /// A new limit, in bytes.
    pub size_bytes: Option<u64>,
}

impl Volumes {
    /// Gives a volume another name, also while it is used: its data stays where it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NameTaken`], [`Error::InvalidName`].
    pub fn rename(&self, name: &str, new: &str) -> Result<Volume> {
        record::check_name(name)?;
        record::check_name(new)?;
        if oci::name::is_id(new) {
            let why = "a name of 64 hex digits would look like an id".into();
            return Err(Error::Invalid { field: "name", value: new.into(), why });
        }
        // Before the database's lock, which nobody may hold while he waits for another.
        let id = self.find(name)?.id;
        let _alone = lock(&self.directory(&id), FlockOperation::LockExclusive)?;
        self.references.write("rename a volume", |transaction| {
            // By the id: the name may be another's since.
            let mut volume = self.find(&id)?;
            if volume.name == new {
                return Ok(());
            }
            if names::resolve(&self.volumes(), new)?.is_some() {
                return Err(Error::NameTaken(new.into()).into());
            }
            let old = std::mem::replace(&mut volume.name, new.into());
            volume.anonymous = false;
            // The record first: what it says of the name counts only when the link is lost.
            record::write(&self.directory(&volume.id), &volume)?;
            if !names::rename(&self.volumes(), &old, new, &volume.id)? {
                return Err(Error::NameTaken(new.into()).into());
            }
            let mut attributes = described(&volume);
            attributes.insert("oldName".into(), old);
            event::append(transaction, "rename", new, &attributes)?;
            Ok(())
        })?;
        sync_directory(&self.volumes())?;
        self.get(new, false)
    }

    /// Changes labels and size.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the size cannot be changed, or not while the volume is used.
    pub fn update(&self, name: &str, changes: &Changes) -> Result<Volume> {
        record::check_name(name)?;
        let found = self.find(name)?;
        let alone = lock(&self.directory(&found.id), FlockOperation::LockExclusive)?;
        // Again, now that nobody else changes it; the name may be another's since.
        let mut volume = self.find(&found.id)?;
        volume.labels.retain(|label, _| !changes.remove_labels.contains(label));
        volume.labels.extend(changes.set_labels.clone());
        if let Some(size) = changes.size_bytes {
            self.resize(&mut volume, size)?;
        }
        record::write(&self.directory(&volume.id), &volume)?;
        drop(alone);
        self.references.write("record a change", |transaction| {
            event::append(transaction, "update", &volume.name, &described(&volume)).map_err(Into::into)
        })?;
        self.get(&volume.id, false)
    }

    /// The caller holds the volume's lock.
    fn resize(&self, volume: &mut Volume, size: u64) -> Result<()> {
        let refuse = |why: &str| Err(unsupported(&volume.name, "a change of its size", why));
        let used = is_mount(&self.mount_place(&volume.id));
        match option::backing_of(volume)? {
            Backing::Directory => {
                if !project::change(&self.directory(&volume.id).join("_data"), size)? {
                    return refuse("it was made without one; its export can be imported into one that has one");
                }
            }
            Backing::Tmpfs { .. } if used => return refuse("it is in use"),
            Backing::Tmpfs { .. } => {}
            Backing::Image { from: Some(_), .. } => return refuse("it is a finished image"),
            Backing::Image { .. } if used => return refuse("it is in use"),
            Backing::Image { key: Some(key), .. } if key.whole => return refuse("it is encrypted as a whole"),
            Backing::Image { .. } if size < volume.size_limit_bytes.unwrap_or(0) => {
                return refuse("the file system in a file only grows");
            }
            Backing::Image { fstype, .. } if fstype == "xfs" => return refuse("XFS grows only while it is mounted"),
            Backing::Image { fstype, .. } => {
                image_file::grow(&self.directory(&volume.id).join(IMAGE), &fstype, size)?;
            }
            _ => return refuse("its driver has no sizes"),
        }
        volume.size_limit_bytes = Some(size);
        Ok(())
    }
}
