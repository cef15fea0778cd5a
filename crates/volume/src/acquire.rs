//! Taking a volume into use.

use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use sys::mount::{IDMAP, overlay_options};

use crate::option::{self, Backing, Mount};
use crate::view::Who;
use crate::volumes::lock;
use crate::{Error, Result, Volume, Volumes, copy_up, event, overlay, owners, plugin, record, references};

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
    /// Directory or file below the volume's root to show; empty: the root.
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
            let new = references::add(transaction, &volume.id, wanted)?;
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
        overlay::remove(&self.root, &volume.id, (consumer, target))?;
        self.unmount_unused(&volume.id)
    }

    fn show(&self, volume: &Volume, wanted: &Acquire) -> Result<Mount> {
        let backing = option::backing_of(volume)?;
        let mut own = self.reach(volume, &backing, wanted.who())?;
        if let Backing::Bind { .. } = backing {
            std::fs::metadata(&own).map_err(Error::io("find", &own))?;
        }
        if let (true, Some(content)) = (backing.has_home() && !backing.is_read_only(), &wanted.copy_up) {
            copy_up::fill(&self.directory(&volume.id), &self.home(volume, &backing), content)?;
        }
        // Whoever exchanges the data does it alone, and then sees our reference.
        let views = wanted.overlay || !wanted.subpath.is_empty();
        let how = if views { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
        let _kept = lock(&self.directory(&volume.id), how)?;
        if !wanted.subpath.is_empty() {
            own = self.pin(volume, wanted.who(), &own, &wanted.subpath)?;
        }
        if wanted.overlay {
            if !own.is_dir() {
                let (name, subpath) = (volume.name.clone(), wanted.subpath.clone());
                return Err(Error::Subpath {
                    name,
                    subpath,
                    why: "a file has no overlay: a directory is needed".into(),
                });
            }
            return self.over(volume, &backing, &own, wanted);
        }
        self.bind(volume, &backing, &own, wanted)
    }

    /// Where the data of a volume is, mounted if it has to be.
    pub(crate) fn reach(&self, volume: &Volume, backing: &Backing, (consumer, target): Who<'_>) -> Result<PathBuf> {
        self.ensure_mounted(volume, backing)?;
        match backing {
            Backing::Plugin => plugin::mount(self, volume, &references::mount_id(consumer, target)),
            backing => Ok(self.data_path(volume, backing)),
        }
    }

    /// The consumer's own changes over the data: mounted here when owners look different, else for the consumer to mount.
    fn over(&self, volume: &Volume, backing: &Backing, own: &Path, wanted: &Acquire) -> Result<Mount> {
        let (fstype, source, mut options) = match self.owners(volume, backing, own, wanted)? {
            Some(map) => {
                self.references.write("note owners", |transaction| {
                    references::note_map(transaction, &volume.id, wanted, &map).map_err(Into::into)
                })?;
                let merged = self.overlaid(volume, wanted.who(), own, &map)?;
                ("bind", merged.display().to_string(), vec!["rbind".to_owned()])
            }
            None => {
                let changes = overlay::make(&self.root, &volume.id, wanted.who(), own)?;
                let (upper, work) = overlay::upper(&changes);
                ("overlay", "overlay".to_owned(), overlay_options(&[own.to_owned()], Some((&upper, &work))))
            }
        };
        options.push("rw".into());
        options.extend(Some(&wanted.propagation).filter(|it| !it.is_empty()).cloned());
        Ok(Mount { fstype: fstype.into(), source, target: wanted.target.clone(), options })
    }

    fn bind(&self, volume: &Volume, backing: &Backing, own: &Path, wanted: &Acquire) -> Result<Mount> {
        let mut options = vec!["rbind".to_owned()];
        options.extend(backing.bind_options().iter().cloned());
        // "ro" of the volume itself stays; a reader never makes it writable.
        options.retain(|word| word != "ro" && word != "rw");
        options.push(if wanted.read_only || backing.is_read_only() { "ro".into() } else { "rw".to_owned() });
        if wanted.read_only && wanted.recursive {
            options.push("rro".into());
        }
        if !wanted.propagation.is_empty() {
            options.push(wanted.propagation.clone());
        }
        let map = self.owners(volume, backing, own, wanted)?;
        options.extend(map.map(|map| format!("{IDMAP}{map}")));
        let source = own.display().to_string();
        Ok(Mount { fstype: "bind".into(), source, target: wanted.target.clone(), options })
    }

    /// Runs work while this process uses the volume; what it holds when it is killed is given back by the next look.
    pub(crate) fn in_use<T>(&self, volume: &Volume, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let consumer = format!("{WORKER}{}:{:08x}", std::process::id(), rand::random::<u32>());
        let wanted = Acquire { name: volume.id.clone(), consumer: consumer.clone(), ..Default::default() };
        let mount = self.acquire(&wanted)?;
        let done = work(mount.source.as_ref());
        let released = self.release(&consumer, Some(&volume.id), false);
        done.and_then(|value| released.map(|_| value))
    }
}

impl Acquire {
    fn who(&self) -> Who<'_> {
        (&self.consumer, &self.target)
    }
}

/// Consumers of this name are processes at work with a volume: `process:<pid>:<random>`.
pub(crate) const WORKER: &str = "process:";

/// Whether a consumer is a process that has ended.
pub(crate) fn is_dead_worker(consumer: &str) -> bool {
    let pid = consumer.strip_prefix(WORKER).and_then(|rest| rest.split(':').next());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}

fn check(wanted: &Acquire) -> Result<()> {
    let invalid = |field, value: &str, why: &str| Err(Error::Invalid { field, value: value.into(), why: why.into() });
    if wanted.consumer.is_empty() {
        return invalid("consumer", "", "it is required");
    }
    if !wanted.propagation.is_empty() && !PROPAGATIONS.contains(&wanted.propagation.as_str()) {
        return invalid("propagation", &wanted.propagation, "no such mode");
    }
    if wanted.overlay && (wanted.read_only || wanted.owner.is_some()) {
        return invalid("overlay", "", "it goes neither with read-only nor with a change of owners");
    }
    if !wanted.idmap.is_empty() && wanted.owner.is_some() {
        return invalid("owner", "", "it does not go with idmap");
    }
    if wanted.recursive && !wanted.read_only {
        return invalid("recursive", "", "it goes with read-only");
    }
    owners::namespace(&wanted.userns).map(drop)
}
