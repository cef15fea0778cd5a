//! Records of containers on disk, and what a container's status is.
//!
//! The status is never stored: it is read from the process (pid and start time), the freezer and the start fifo, so that a
//! killed runtime, a reused pid or an outside pause cannot make it wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hooks, LinuxNamespaceType, Spec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::Placement;
use crate::error::Context;
use crate::harden::namespace;
use crate::process::Identity;
use crate::{Error, Result, id, key_case};

/// Version of the record's format.
const FORMAT: u32 = 1;
const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
const FIFO: &str = "exec.fifo";

/// What is remembered of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format.
    pub format: u32,
    /// The container's id.
    pub id: String,
    /// Version of the runtime specification its configuration names.
    pub oci_version: String,
    /// Absolute path.
    pub bundle: PathBuf,
    /// Absolute path, symlinks resolved.
    pub rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub created: String,
    /// User who ran `create`.
    pub owner: u32,
    /// The runtime process that set it up: while it lives and `init` is absent, the status is `creating`.
    pub creator: Identity,
    /// The container's first process; absent until setup is complete.
    pub init: Option<Identity>,
    /// Where its cgroups are.
    pub cgroup: Placement,
    /// Whether it has a pid namespace of its own (killing init then kills all).
    pub own_pid_namespace: bool,
    /// Copied from the configuration.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Directories of its Intel RDT class, to be removed with it.
    #[serde(default)]
    pub intel_rdt: Vec<PathBuf>,
}

impl Record {
    /// A record of a container that is being created now.
    #[must_use]
    pub fn new(id: &str, bundle: PathBuf, rootfs: PathBuf, creator: Identity) -> Self {
        Self {
            format: FORMAT,
            id: id.to_owned(),
            oci_version: String::new(),
            bundle,
            rootfs,
            created: jiff::Timestamp::now().to_string(),
            owner: rustix::process::getuid().as_raw(),
            creator,
            init: None,
            cgroup: Placement::default(),
            own_pid_namespace: false,
            annotations: BTreeMap::new(),
            intel_rdt: vec![],
        }
    }

    /// The record of a container that this process makes from a configuration.
    pub(crate) fn of(spec: &Spec, id: &str, bundle: PathBuf, rootfs: PathBuf, cgroup: Placement) -> Result<Self> {
        let me = Identity::of(std::process::id().cast_signed()).step(|| "cannot read /proc/self/stat".into())?;
        Ok(Self {
            oci_version: spec.version().clone(),
            annotations: spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            own_pid_namespace: matches!(namespace(spec, LinuxNamespaceType::Pid), Some(None)),
            cgroup,
            ..Self::new(id, bundle, rootfs, me)
        })
    }
}

/// Status words of the runtime specification, plus runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// Set up, waiting for `start`.
    Created,
    /// The program runs.
    Running,
    /// Frozen.
    Paused,
    /// The process has ended.
    Stopped,
}

impl Status {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container as `state` and `list` show it.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its directory under the root.
    pub dir: PathBuf,
    /// Its record.
    pub record: Record,
    /// Its status now.
    pub status: Status,
}

impl Container {
    /// The init process, if it lives.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn init(&self) -> Result<Identity> {
        match (self.status, self.record.init) {
            (Status::Created | Status::Running | Status::Paused, Some(init)) => Ok(init),
            _ => Err(Error::NotRunning { id: self.record.id.clone(), status: self.status.as_str() }),
        }
    }

    /// Its fifo: one byte starts the program.
    #[must_use]
    pub fn fifo(&self) -> PathBuf {
        self.dir.join(FIFO)
    }

    /// Whether `create` came far enough to know that its cgroups are nobody else's; before, they may be.
    #[must_use]
    pub fn owns_cgroups(&self) -> bool {
        self.record.init.is_some() || self.dir.join(CONFIG).exists()
    }

    /// The hardened configuration it was created with.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn config(&self) -> Result<Spec> {
        self.read_config()
    }

    /// Its hooks.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn hooks(&self) -> Result<Option<Hooks>> {
        Ok(self.read_config::<OnlyHooks>()?.hooks)
    }

    fn read_config<T: DeserializeOwned>(&self) -> Result<T> {
        let path = self.dir.join(CONFIG);
        let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
        let bytes = fs::read(&path).map_err(|e| damaged(e.to_string()))?;
        key_case::from_slice(&bytes).map_err(|e| damaged(e.to_string()))
    }
}

/// The part of a configuration that `start` and `delete` need; the rest is skipped, not built.
#[derive(Deserialize)]
struct OnlyHooks {
    hooks: Option<Hooks>,
}

/// All containers under one root directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store in that directory; it is made at the first `create`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reserves an id: makes its directory, mode 0700.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::InvalidId`].
    pub fn reserve(&self, id: &str) -> Result<PathBuf> {
        id::check(id)?;
        let dir = self.root.join(id);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        match builder.create(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.root)
                    .step(|| self.making(&self.root))?;
                builder.create(&dir).step(|| self.making(&dir))?;
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(Error::Exists { id: id.to_owned() }),
            other => other.step(|| self.making(&dir))?,
        }
        Ok(dir)
    }

    fn making(&self, dir: &Path) -> String {
        format!("cannot make the state directory {}", dir.display())
    }

    /// Writes the record, replacing the old one in one step.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn save(&self, record: &Record) -> Result<()> {
        let dir = self.root.join(&record.id);
        let bytes = serde_json::to_vec(record).map_err(io::Error::from).step(|| "cannot encode the state".into())?;
        replace(&dir, RECORD, &bytes)
    }

    /// Makes the cgroups of a reserved id. Whoever deletes what a killed `create` or `restore` has left knows of them from the
    /// record, saved before; the configuration comes after, and says that they are this container's
    /// ([`Container::owns_cgroups`]). Returns warnings.
    ///
    /// # Errors
    /// [`Error::Step`], [`Error::Refused`]; no cgroup is left behind then.
    pub(crate) fn begin(&self, record: &mut Record, spec: &Spec) -> Result<Vec<String>> {
        self.save(record)?;
        let planned = record.cgroup.clone();
        let warnings = record.cgroup.set_up(spec)?;
        let saved = if record.cgroup == planned { Ok(()) } else { self.save(record) };
        let saved = saved.and_then(|()| self.save_config(&record.id, spec));
        saved.map(|()| warnings).inspect_err(|_| {
            let _ = record.cgroup.remove();
        })
    }

    /// Writes the configuration that `exec` and `delete` will use.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn save_config(&self, id: &str, spec: &Spec) -> Result<()> {
        let bytes =
            serde_json::to_vec(spec).map_err(io::Error::from).step(|| "cannot encode the configuration".into())?;
        replace(&self.root.join(id), CONFIG, &bytes)
    }

    /// Makes the start fifo and opens it for both directions (so that neither end ever sees it closed).
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn make_fifo(&self, id: &str) -> Result<fs::File> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let path = self.root.join(id).join(FIFO);
        let failed = || format!("cannot make {}", path.display());
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).step(failed)?;
        fs::OpenOptions::new().read(true).write(true).open(&path).step(failed)
    }

    /// One container.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Damaged`].
    pub fn load(&self, id: &str) -> Result<Container> {
        id::check(id)?;
        let dir = self.root.join(id);
        let path = dir.join(RECORD);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // A directory without a record is one that is being made or removed, or the rest of a killed create.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound { id: id.to_owned() });
            }
            Err(e) => return Err(Error::Damaged { path, reason: e.to_string() }),
        };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|e| Error::Damaged { path: path.clone(), reason: e.to_string() })?;
        if record.format != FORMAT || record.id != id {
            return Err(Error::Damaged { path, reason: "of another version or container".into() });
        }
        let status = status(&dir, &record);
        Ok(Container { dir, record, status })
    }

    /// All containers, by id; the second list names directories that cannot be read as one.
    ///
    /// # Errors
    /// [`Error::Step`] when the root cannot be listed.
    pub fn list(&self) -> Result<(Vec<Container>, Vec<Error>)> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((vec![], vec![])),
            other => other.step(|| format!("cannot list {}", self.root.display()))?,
        };
        let (mut good, mut bad) = (vec![], vec![]);
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().filter(|n| id::check(n).is_ok() && !n.starts_with('.')) else { continue };
            match self.load(id) {
                Ok(container) => good.push(container),
                Err(Error::NotFound { .. }) => {}
                Err(e) => bad.push(e),
            }
        }
        good.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok((good, bad))
    }

    /// Forgets a container. Idempotent.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn remove(&self, id: &str) -> Result<()> {
        let dir = self.root.join(id);
        // The common files first, by name: cheaper than listing.
        for name in [FIFO, CONFIG, crate::seccomp::SAVED, RECORD] {
            let _ = fs::remove_file(dir.join(name));
        }
        match fs::remove_dir(&dir) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => fs::remove_dir_all(&dir).step(|| format!("cannot remove {}", dir.display())),
        }
    }
}

/// Derives the status of a record.
fn status(dir: &Path, record: &Record) -> Status {
    match record.init {
        None if record.creator.is_alive() => Status::Creating,
        None => Status::Stopped,
        Some(init) if !init.is_alive() => Status::Stopped,
        Some(_) if record.cgroup.is_frozen() => Status::Paused,
        Some(_) if dir.join(FIFO).exists() => Status::Created,
        Some(_) => Status::Running,
    }
}

/// Stage and rename. No fsync: processes do not survive a power loss, so their records need not either.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let staged = dir.join(format!(".{name}.{}", std::process::id()));
    let target = dir.join(name);
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&staged, &target))
        .step(|| format!("cannot write {}", target.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn store() -> (PathBuf, Store) {
        let dir =
            std::env::temp_dir().join(format!("pier-rt-{}-{:?}", std::process::id(), std::thread::current().id()));
        let _ = fs::remove_dir_all(&dir);
        (dir.clone(), Store::new(dir))
    }

    #[test]
    fn reserve_is_exclusive_and_remove_idempotent() {
        let (dir, store) = store();
        store.reserve("a").unwrap();
        assert!(matches!(store.reserve("a"), Err(Error::Exists { .. })));
        store.remove("a").unwrap();
        store.remove("a").unwrap();
        assert!(matches!(store.load("a"), Err(Error::NotFound { .. })));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn status_follows_the_process() {
        let (dir, store) = store();
        store.reserve("a").unwrap();
        let me = Identity::of(std::process::id().cast_signed()).unwrap();
        let mut record = Record::new("a", "/b".into(), "/b/rootfs".into(), me);
        store.save(&record).unwrap();
        assert_eq!(store.load("a").unwrap().status, Status::Creating);
        record.init = Some(me);
        store.save(&record).unwrap();
        assert_eq!(store.load("a").unwrap().status, Status::Running);
        store.make_fifo("a").unwrap();
        assert_eq!(store.load("a").unwrap().status, Status::Created);
        record.init = Some(Identity { start_time: me.start_time + 7, ..me });
        store.save(&record).unwrap();
        assert_eq!(store.load("a").unwrap().status, Status::Stopped, "a reused pid is not our process");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn damage_is_named_and_does_not_hide_others() {
        let (dir, store) = store();
        store.reserve("bad").unwrap();
        fs::write(dir.join("bad").join(RECORD), b"{\"format\":").unwrap();
        store.reserve("good").unwrap();
        let me = Identity::of(std::process::id().cast_signed()).unwrap();
        store.save(&Record::new("good", "/b".into(), "/b".into(), me)).unwrap();
        let (good, bad) = store.list().unwrap();
        assert_eq!(good.len(), 1);
        assert!(bad[0].to_string().contains("bad/state.json"));
        fs::remove_dir_all(dir).unwrap();
    }
}
