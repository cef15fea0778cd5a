//! The store: where things lie, how directories are made and removed so that a crash leaves nothing, recovery.
use crate::db::{self, Db};
use crate::layer::{Marks, Privilege};
use crate::snapshot::{Driver, Probes};
use crate::{Error, Result, content, image_record, layer, lease, snapshot};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub(crate) mod rebuild;
mod recover;
mod reserve;
pub mod usage;

pub(crate) use recover::names;

/// Directories of a store.
pub(crate) const DIRS: &[&str] = &[
    "blobs/sha256",
    "blobs/sha512",
    "chains",
    "images",
    "ingest",
    "layers",
    "leases",
    "quarantine",
    "registry",
    "snapshots",
    "staging",
    "trash",
    "uploads",
];

/// A handle on a store directory. Cheap to clone; several handles and processes may use one directory.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    root: PathBuf,
    db: Db,
    marks: Marks,
    probes: Probes,
    /// The snapshotter to use where none is asked for.
    preferred: OnceLock<String>,
}

impl Store {
    /// Opens (or makes) the store in `root`, the tool's own directory, and removes what dead processes left half
    /// made. One damaged object never makes this fail.
    pub fn open(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root).map_err(Error::io("create", root))?;
        let root = root.canonicalize().map_err(Error::io("resolve", root))?;
        // Layers hold other systems' set-id programs; and a set-group-id bit would be inherited by what is unpacked.
        chmod(&root, 0o700)?;
        choose_marks(&root)?;
        make_dirs(&root)?;
        reserve::settle(&root);
        let db = rebuild::open(&root)?;
        let store = Self::with(&root, db);
        recover::run(&store);
        Ok(store)
    }

    /// Nothing is recovered: of a database that is being made anew, nothing is known yet.
    fn with(root: &Path, db: Db) -> Self {
        let marks = if root.join(USER_MARKS).exists() { Marks::User } else { Marks::Trusted };
        let (probes, preferred) = Default::default();
        Self(Arc::new(Inner { root: root.to_owned(), db, marks, probes, preferred }))
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Blobs, named by digest.
    pub fn content(&self) -> content::Content<'_> {
        content::Content(self)
    }

    /// Unpacked layers, named by diff ID.
    pub fn layers(&self) -> layer::Layers<'_> {
        layer::Layers(self)
    }

    /// Images and their names.
    pub fn images(&self) -> image_record::Images<'_> {
        image_record::Images(self)
    }

    /// Filesystems made of layers.
    pub fn snapshots(&self) -> snapshot::Snapshots<'_> {
        snapshot::Snapshots(self)
    }

    /// Leases.
    pub fn leases(&self) -> lease::Leases<'_> {
        lease::Leases(self)
    }

    /// The snapshotter that is used here, why others are not, and what else is not as it is for root of the machine.
    ///
    /// # Errors
    /// [`Error::SnapshotterUnavailable`] when the one of [`Self::prefer`] does not work.
    pub fn snapshotter(&self) -> Result<(&'static str, Vec<String>)> {
        let mut notes = self.0.probes.refusals(self);
        if self.0.marks == Marks::User {
            notes.push("overlay marks are user attributes (userxattr): the store was made without privilege".into());
        }
        if Privilege::of_process() != Privilege::Machine {
            notes.push("owners that this process cannot give become its own, devices are left out".into());
        }
        Ok((self.driver("", 0)?.name(), notes))
    }

    /// From now on this snapshotter is used where none is asked for; the first call decides. Empty: what works here.
    pub fn prefer(&self, snapshotter: &str) {
        if !snapshotter.is_empty() {
            self.0.preferred.get_or_init(|| snapshotter.to_owned());
        }
    }

    /// The driver of that name; of an empty one, the preferred or the best for so many layers.
    pub(crate) fn driver(&self, name: &str, layers: usize) -> Result<&'static dyn Driver> {
        let preferred = self.0.preferred.get().map_or("", String::as_str);
        match if name.is_empty() { preferred } else { name } {
            "" => Ok(self.0.probes.choose(self, layers)),
            name => self.0.probes.force(self, name, layers),
        }
    }

    /// Whether a snapshotter works here.
    pub(crate) fn can(&self, snapshotter: &str) -> bool {
        self.0.probes.works(self, snapshotter)
    }

    /// How directories of layers say that they hide others.
    pub(crate) fn marks(&self) -> Marks {
        self.0.marks
    }

    /// Whether this process can read them.
    pub(crate) fn sees_marks(&self) -> bool {
        self.0.marks == Marks::User || Privilege::of_process() == Privilege::Machine
    }

    pub(crate) fn db(&self) -> &Db {
        &self.0.db
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.0.root.join(name)
    }

    /// A new directory below `staging/`, locked as long as the returned value lives and removed with it.
    pub(crate) fn stage(&self) -> Result<Staging> {
        loop {
            let path = self.dir("staging").join(db::random_name());
            rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)).map_err(Error::io("create", &path))?;
            if let Some(lock) = lock_dir(&path, FlockOperation::LockExclusive)? {
                return Ok(Staging { store: self.clone(), path, _lock: lock });
            }
        }
    }

    /// Renames a file or directory into the trash, from where anybody may delete it. Gone already is fine.
    pub(crate) fn discard(&self, path: &Path) -> Result<Option<PathBuf>> {
        let to = self.dir("trash").join(db::random_name());
        match std::fs::rename(path, &to) {
            Ok(()) => Ok(Some(to)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("move away", path)(e)),
        }
    }

    /// Writes a small record that nothing reads while the database is sound. To be called in a write transaction: one
    /// name for what is not whole yet is enough then. Not synced.
    pub(crate) fn write_record(&self, to: &Path, record: &impl serde::Serialize) -> Result<()> {
        let new = to.with_file_name("new");
        std::fs::write(&new, db::to_json(record)).map_err(Error::io("write", &new))?;
        std::fs::rename(&new, to).map_err(Error::io("publish", to))
    }

    /// Moves what is damaged, and may be wanted, into `quarantine/`. Gone already is fine.
    pub(crate) fn set_aside(&self, path: &Path) -> Result<()> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("object");
        let kind = path.parent().and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or("store");
        let to = self.dir("quarantine").join(format!("{kind}-{name}.{}", db::random_name()));
        match std::fs::rename(path, to) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("set aside", path)(e)),
            _ => Ok(()),
        }
    }

    /// [`Self::discard`], then deletes. What cannot be deleted stays in the trash for the next time.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        if let Some(trashed) = self.discard(path)? {
            empty(&trashed);
        }
        Ok(())
    }
}

/// A file in a store that was made by a process that may not set trusted attributes.
const USER_MARKS: &str = "userxattr";

/// Decided when a store is made, for all who use it later.
fn choose_marks(root: &Path) -> Result<()> {
    let path = root.join(USER_MARKS);
    if root.join("layers").exists() || Marks::possible(root) == Marks::Trusted {
        return Ok(());
    }
    std::fs::write(&path, b"").map_err(Error::io("write", path))
}

/// Makes the store's directories. The first time they are synced, so that what is synced below them later can be found.
fn make_dirs(root: &Path) -> Result<()> {
    let mut new = false;
    for dir in DIRS {
        let path = root.join(dir);
        if !path.is_dir() {
            std::fs::create_dir_all(&path).map_err(Error::io("create", path))?;
            new = true;
        }
    }
    if new {
        sync_dir(&root.join("blobs"))?;
        sync_dir(root)?;
        sync_dir(root.parent().unwrap_or(root))?;
    }
    Ok(())
}

/// A directory that lives as long as this value, unless it is renamed away before.
pub(crate) struct Staging {
    store: Store,
    path: PathBuf,
    _lock: OwnedFd,
}

impl Staging {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = self.store.remove(&self.path) {
            tracing::warn!(%error, "a staging directory stays behind until the next start");
        }
    }
}

/// Opens and locks a directory; `None` when it was removed meanwhile (or, without waiting, when it is locked).
pub(crate) fn lock_dir(path: &Path, how: FlockOperation) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(Error::io("open", path)(e)),
    };
    Ok(lock_and_confirm(&fd, path, how)?.then_some(fd))
}

/// Locks an open file or directory; false when its name has gone (or, without waiting, when it is locked).
pub(crate) fn lock_and_confirm(fd: &OwnedFd, path: &Path, how: FlockOperation) -> Result<bool> {
    match retry(|| rustix::fs::flock(fd, how)) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
        Err(e) => return Err(Error::io("lock", path)(e)),
    }
    let mine = rustix::fs::fstat(fd).map_err(Error::io("inspect", path))?;
    match rustix::fs::lstat(path) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(e) => Err(Error::io("inspect", path)(e)),
    }
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut f: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match f() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Deletes a file or tree; several processes may be at it, and what fails is left for the next time.
pub(crate) fn empty(path: &Path) {
    let is_dir = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let mut result = if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if is_dir && result.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied) {
        open_dirs(path);
        result = std::fs::remove_dir_all(path);
    }
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot delete from the trash");
    }
}

/// Without privilege, an image's directories may be closed to their own owner.
fn open_dirs(path: &Path) {
    let _ = rustix::fs::chmod(path, Mode::RWXU);
    for (_, inner) in names(path).into_iter().flatten() {
        if std::fs::symlink_metadata(&inner).is_ok_and(|m| m.is_dir()) {
            open_dirs(&inner);
        }
    }
}

/// Makes renames into a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let dir = std::fs::File::open(path).map_err(Error::io("open", path))?;
    dir.sync_all().map_err(Error::io("sync", path))
}

pub(crate) fn chmod(path: &Path, mode: u32) -> Result<()> {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(Error::io("set the mode of", path))
}
