//! Clones and snapshots: copies that share blocks where the file system can.
//!
//! A clone is a volume of its own. A snapshot is a copy that belongs to its volume, below `volumes/<id>/snapshots/<name>`:
//! made aside and moved into place, it is whole or not there. A restore puts a copy of it in place of the data in one step.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};

use crate::copy_up::{copy, merged};
use crate::handle::Handle;
use crate::mounted::{IMAGE, is_mount, sync_filesystem, take_away};
use crate::option::{self, Backing};
use crate::replace::{REPLACING, discard};
use crate::volumes::{lock, sync_directory, unsupported};
use crate::{Error, Result, Volume, Volumes, event, project, record, references, size};

/// A copy that is being made; recovery removes it.
const PARTIAL: &str = ".partial-";

/// A state of a volume that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Unique in its volume.
    pub name: String,
    /// RFC 3339.
    pub created_at: String,
    /// Bytes on disk; blocks that are shared count here too.
    pub size_bytes: u64,
}

impl Volumes {
    /// Makes a volume with the same content, driver, options and limit (a volume that only shows something else becomes
    /// a directory with a copy).
    ///
    /// # Errors
    /// [`Error::NameTaken`]; a file system in use that cannot be copied at one instant.
    pub fn clone_volume(&self, name: &str, new: &str, labels: BTreeMap<String, String>) -> Result<Volume> {
        record::check_name(name)?;
        record::check_name(new)?;
        if crate::names::resolve(&self.volumes(), new)?.is_some() {
            return Err(Error::NameTaken(new.into()));
        }
        let source = self.find(name)?;
        let backing = option::backing_of(&source)?;
        let mut volume = Volume {
            id: record::random_id(),
            name: new.into(),
            created_at: jiff::Timestamp::now().to_string(),
            anonymous: false,
            labels: if labels.is_empty() { source.labels.clone() } else { labels },
            ..source.clone()
        };
        if !matches!(backing, Backing::Directory | Backing::Image { .. }) {
            volume.driver = record::LOCAL.into();
            volume.options.clear();
            volume.size_limit_bytes = None;
        }
        let made = self.place(&volume, |staged| {
            if !matches!(backing, Backing::Image { .. }) {
                self.data_directory(&volume, &staged.join("_data"))?;
            }
            project::within_limit(|| self.copy(&source, &backing, staged))
        })?;
        if made { self.get(new, false) } else { Err(Error::NameTaken(new.into())) }
    }

    /// Copies a volume's image, or its data into the `_data` there is, into a directory, durably.
    fn copy(&self, source: &Volume, backing: &Backing, into: &Path) -> Result<()> {
        if let Backing::Image { .. } = backing {
            // Nobody mounts it meanwhile.
            let _alone = lock(&self.directory(&source.id), FlockOperation::LockExclusive)?;
            let mounted = is_mount(&self.mount_place(&source.id));
            if mounted {
                sync_filesystem(&self.mount_place(&source.id))?;
            }
            let disk = Handle::of(&self.directory(&source.id).join(IMAGE))?;
            let shared = copy::contents(&disk, &into.join(IMAGE))?;
            if mounted && !shared {
                let why = "the file system that holds its image cannot copy it at one instant (FICLONE)";
                return Err(unsupported(&source.name, "a copy while it is in use", why));
            }
        } else {
            self.with_data(source, |data| copy::tree(&merged::Directory::plain(data)?, &into.join("_data")))?;
        }
        sync_filesystem(into)
    }

    fn snapshots_of(&self, volume: &Volume) -> PathBuf {
        self.directory(&volume.id).join("snapshots")
    }

    fn with_own_data(&self, name: &str) -> Result<(Volume, Backing)> {
        record::check_name(name)?;
        let volume = self.find(name)?;
        let backing = option::backing_of(&volume)?;
        if matches!(backing, Backing::Directory | Backing::Image { .. }) {
            return Ok((volume, backing));
        }
        Err(unsupported(&volume.name, "a snapshot", "its data is not on this host's disk; a clone copies it there"))
    }

    /// Keeps the present state of a volume.
    ///
    /// # Errors
    /// [`Error::Snapshot`] when there is one of that name; as [`Volumes::clone_volume`].
    pub fn snapshot(&self, name: &str, snapshot: &str) -> Result<Snapshot> {
        record::check_name(snapshot)?;
        let (volume, backing) = self.with_own_data(name)?;
        let (parent, place) = (self.snapshots_of(&volume), self.snapshots_of(&volume).join(snapshot));
        let exists = || Error::Snapshot { volume: volume.name.clone(), snapshot: snapshot.into(), why: "exists" };
        if place.exists() {
            return Err(exists());
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&parent).map_err(Error::io("create", &parent))?;
        let partial = parent.join(format!("{PARTIAL}{}", record::random_id()));
        DirBuilder::new().mode(0o700).create(&partial).map_err(Error::io("create", &partial))?;
        // Held while it is made, so that recovery knows it from one that was left.
        let _making = lock(&partial, FlockOperation::LockExclusive)?;
        let made = self.keep(&volume, &backing, &partial).and_then(|()| {
            sync_directory(&partial)?;
            match rustix::fs::renameat_with(CWD, &partial, CWD, &place, RenameFlags::NOREPLACE) {
                Err(rustix::io::Errno::EXIST) => Err(exists()),
                other => other.map_err(Error::io("make", &place)),
            }
        });
        if let Err(error) = made {
            let _ = discard(&partial);
            return Err(error);
        }
        sync_directory(&parent)?;
        self.tell("snapshot", &volume, snapshot)?;
        read(&place, snapshot)
    }

    /// What is kept does not count for the volume's limit: its directory is in no project.
    fn keep(&self, volume: &Volume, backing: &Backing, partial: &Path) -> Result<()> {
        if !matches!(backing, Backing::Image { .. }) {
            let data = partial.join("_data");
            DirBuilder::new().mode(0o700).create(&data).map_err(Error::io("create", &data))?;
        }
        self.copy(volume, backing, partial)
    }

    /// The snapshots of a volume, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn snapshots(&self, name: &str) -> Result<Vec<Snapshot>> {
        record::check_name(name)?;
        let volume = self.find(name)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(self.snapshots_of(&volume)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if record::check_name(&name).is_ok() {
                found.push(read(&entry.path(), &name)?);
            }
        }
        found.sort_by(|one, other| (&one.created_at, &one.name).cmp(&(&other.created_at, &other.name)));
        Ok(found)
    }

    /// Puts a copy of a snapshot in place of the volume's data, which is gone then.
    ///
    /// # Errors
    /// [`Error::InUse`]; [`Error::Snapshot`] when there is none of that name.
    pub fn restore(&self, name: &str, snapshot: &str) -> Result<()> {
        record::check_name(snapshot)?;
        let (volume, backing) = self.with_own_data(name)?;
        let (directory, kept) = (self.directory(&volume.id), self.snapshots_of(&volume).join(snapshot));
        if !kept.exists() {
            return Err(missing(&volume, snapshot));
        }
        let _alone = lock(&directory, FlockOperation::LockExclusive)?;
        let consumers =
            self.references.read("read references", |connection| references::consumers(connection, &volume.id))?;
        if !consumers.is_empty() {
            return Err(Error::InUse { name: volume.name, consumers });
        }
        if let Backing::Image { .. } = backing {
            // One that a killed process left would go on to show what was.
            take_away(&self.mount_place(&volume.id))?;
            let fresh = directory.join(REPLACING);
            discard(&fresh)?;
            copy::contents(&Handle::of(&kept.join(IMAGE))?, &fresh)?;
            sync_filesystem(&fresh)?;
            fs::rename(&fresh, directory.join(IMAGE)).map_err(Error::io("place", &fresh))?;
            sync_directory(&directory)?;
        } else {
            let kept = merged::Directory::plain(&kept.join("_data"))?;
            self.replace_data(&volume, &directory, |fresh| copy::tree(&kept, fresh))?;
        }
        self.tell("restore", &volume, snapshot)
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// [`Error::Snapshot`] when there is none of that name.
    pub fn remove_snapshot(&self, name: &str, snapshot: &str) -> Result<()> {
        record::check_name(name)?;
        record::check_name(snapshot)?;
        let volume = self.find(name)?;
        let kept = self.snapshots_of(&volume).join(snapshot);
        let gone = self.root.join("removing").join(record::random_id());
        match fs::rename(&kept, &gone) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing(&volume, snapshot)),
            other => other.map_err(Error::io("remove", &kept))?,
        }
        sync_directory(&self.snapshots_of(&volume))?;
        discard(&gone)
    }

    fn tell(&self, action: &str, volume: &Volume, snapshot: &str) -> Result<()> {
        let attributes = BTreeMap::from([("snapshot".to_owned(), snapshot.to_owned())]);
        self.references.write("record an event", |connection| {
            event::append(connection, action, &volume.name, &attributes).map_err(Into::into)
        })
    }
}

fn missing(volume: &Volume, snapshot: &str) -> Error {
    Error::Snapshot { volume: volume.name.clone(), snapshot: snapshot.into(), why: "does not exist" }
}

fn read(place: &Path, name: &str) -> Result<Snapshot> {
    let metadata = fs::metadata(place).map_err(Error::io("read", place))?;
    let created = jiff::Timestamp::from_second(metadata.ctime()).unwrap_or_default();
    Ok(Snapshot { name: name.into(), created_at: created.to_string(), size_bytes: size::of_tree(place)? })
}

/// Removes what a killed process left in the directory of a volume.
pub(crate) fn recover(volume: &Path) -> Result<()> {
    for entry in fs::read_dir(volume.join("snapshots")).into_iter().flatten().flatten() {
        let left = entry.file_name().to_string_lossy().starts_with(PARTIAL);
        if left && let Ok(_alone) = lock(&entry.path(), FlockOperation::NonBlockingLockExclusive) {
            discard(&entry.path())?;
        }
    }
    let left = [volume.join(REPLACING), volume.join("volume.json.tmp")];
    if left.iter().any(|path| path.exists())
        && let Ok(_alone) = lock(volume, FlockOperation::NonBlockingLockExclusive)
    {
        left.iter().try_for_each(|path| discard(path))?;
    }
    Ok(())
}
