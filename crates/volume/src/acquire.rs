//! Taking a volume into use.

use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::option::{self, Backing, Mount};
use crate::volumes::lock;
use crate::{Error, Result, Volume, Volumes, copy_up, event, overlay, owners, plugin, record, references, subpath};

/// Who wants which volume, and how.
#[derive(Debug, Clone, Default)]
pub struct Acquire {
    /// The volume.
    pub name: String,
    /// Who uses it: any non-empty string, a container's id.
    pub consumer: String,
    /// Becomes the mount's target.
    pub target: String,
    /// The mount is read-only.
    pub read_only: bool,
    /// So is all that is mounted below it (with `read_only`).
    pub recursive: bool,
    /// Directory below the volume's root to show; empty: the root.
    pub subpath: String,
    /// Content for a volume that is still empty.
    pub copy_up: Option<CopyUp>,
    /// What is written goes to a directory of this consumer's own, and away with its reference (podman's `:O`).
    pub overlay: bool,
    /// How the owners of files look to the consumer: `uids=DISK-SEEN-COUNT#...;gids=...` or `keep-id:uid=U,gid=G`. Empty: as
    /// they are.
    pub idmap: String,
    /// The consumer's own ids and what they are on the host, when it is in a user namespace: [`oci::idmap`] as text. What the
    /// consumer sees is then said in its ids, and what is on disk is the same for all consumers.
    pub userns: String,
    /// All files are to be this user's and group's, as the consumer counts (podman's `:U`): a directory of the host that
    /// belongs to one owner only looks so; else owners change on disk.
    pub owner: Option<(u32, u32)>,
    /// "rprivate", "rslave", "rshared", ...; empty: what the runtime does.
    pub propagation: String,
}

/// Image content that a volume begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyUp {
    /// Root directories of unpacked layers, lowest first; later ones win, with overlayfs whiteouts and opaque directories.
    pub layers: Vec<PathBuf>,
    /// Path inside them; symbolic links on the way are followed inside. Nothing there: nothing is copied.
    pub path: PathBuf,
}

const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];

impl Volumes {
    /// Takes a reference and returns the mount that shows the volume. The same call again returns the same.
    ///
    /// # Errors
    /// [`Error::NotFound`], a bad subpath, a bind whose directory is missing, a failed copy; no reference is left then.
    pub fn acquire(&self, wanted: &Acquire) -> Result<Mount> {
        record::check_name(&wanted.name)?;
        check(wanted)?;
        let (volume, new) = self.references.write("acquire", |transaction| {
            // Below the write lock: no removal comes between the look and the reference.
            let volume = self.find(&wanted.name)?;
            let new = references::add(transaction, &volume.id, &wanted.consumer, &wanted.target, wanted.read_only)?;
            if new {
                let about = references::about(&wanted.consumer, &wanted.target);
                event::append(transaction, "mount", &volume.name, &about)?;
            }
            Ok((volume, new))
        })?;
        let mount = self.show(&volume, wanted);
        if mount.is_err() && new {
            self.give_back(&volume, &wanted.consumer, &wanted.target)?;
        }
        mount
    }

    fn give_back(&self, volume: &Volume, consumer: &str, target: &str) -> Result<()> {
        self.references.write("give back", |transaction| {
            let key = (&volume.id, consumer, target);
            transaction
                .execute("DELETE FROM refs WHERE volume = ?1 AND consumer = ?2 AND target = ?3", key)
                .map_err(Into::into)
        })?;
        overlay::remove(&self.root, &volume.id, consumer, target)?;
        self.unmount_unused(&volume.id)
    }

    fn show(&self, volume: &Volume, wanted: &Acquire) -> Result<Mount> {
        let backing = option::backing_of(volume)?;
        self.ensure_mounted(volume, &backing)?;
        let mut own = match &backing {
            Backing::Plugin => plugin::mount(self, volume, &references::mount_id(&wanted.consumer, &wanted.target))?,
            backing => self.data_path(volume, backing),
        };
        if let Backing::Bind { .. } = backing {
            std::fs::metadata(&own).map_err(Error::io("find", &own))?;
        }
        if let (true, Some(content)) = (backing.has_home() && !backing.is_read_only(), &wanted.copy_up) {
            copy_up::fill(&self.directory(&volume.id), &self.home(volume, &backing), content)?;
        }
        // Whoever exchanges the data does it alone, and then sees our reference.
        let _shared = lock(&self.directory(&volume.id), FlockOperation::LockShared)?;
        if !wanted.subpath.is_empty() {
            own = subpath::resolve(&volume.name, &own, &wanted.subpath)?;
        }
        self.bind(volume, &backing, &own, wanted)
    }

    fn bind(&self, volume: &Volume, backing: &Backing, own: &Path, wanted: &Acquire) -> Result<Mount> {
        let (fstype, source, mut options) = if wanted.overlay {
            let made = overlay::make(&self.root, &volume.id, wanted, own)?;
            ("overlay", "overlay".to_owned(), made)
        } else {
            let mut options = vec!["rbind".to_owned()];
            options.extend(backing.bind_options().iter().cloned());
            ("bind", own.display().to_string(), options)
        };
        // "ro" of the volume itself stays; a reader never makes it writable. What an overlay takes goes elsewhere.
        let fixed = backing.is_read_only() && !wanted.overlay;
        options.retain(|word| word != "ro" && word != "rw");
        options.push(if wanted.read_only || fixed { "ro".into() } else { "rw".to_owned() });
        if wanted.read_only && wanted.recursive {
            options.push("rro".into());
        }
        if !wanted.propagation.is_empty() {
            options.push(wanted.propagation.clone());
        }
        options.extend(self.owners(volume, backing, own, wanted)?);
        Ok(Mount { fstype: fstype.into(), source, target: wanted.target.clone(), options })
    }
}

fn check(wanted: &Acquire) -> Result<()> {
    let invalid = |field, value: &str, why: &str| Err(Error::Invalid { field, value: value.into(), why: why.into() });
    if wanted.consumer.is_empty() {
        return invalid("consumer", "", "it is required");
    }
    if !wanted.propagation.is_empty() && !PROPAGATIONS.contains(&wanted.propagation.as_str()) {
        return invalid("propagation", &wanted.propagation, "no such mode");
    }
    let other_owners = !wanted.idmap.is_empty() || wanted.owner.is_some();
    if wanted.overlay && (wanted.read_only || other_owners || !wanted.userns.is_empty()) {
        return invalid("overlay", "", "it goes neither with read-only nor with other owners or a user namespace");
    }
    if !wanted.idmap.is_empty() && wanted.owner.is_some() {
        return invalid("owner", "", "it does not go with idmap");
    }
    if wanted.recursive && !wanted.read_only {
        return invalid("recursive", "", "it goes with read-only");
    }
    owners::namespace(&wanted.userns).map(drop)
}
