//! A step's working directory: its mounts and snapshots, and how all of it goes away.
//!
//! `<root>/builder/work/<id>/`: `lock` (held while its process lives), `rootfs/` (mount point), `in<n>/` (inputs),
//! and for RUN `bundle/` and `runtime/`. Snapshots carry the labels [`ROOT_LABEL`] and [`WORK_LABEL`], so that those
//! of a builder that died are found. Mounts are in the process's own mount namespace and die with it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use sys::mount;

use crate::config::Config;
use crate::error::Error;
use crate::layer::Chain;
use crate::store::{Commit, Prepare, Store};

/// Label of a snapshot: the builder's root directory.
pub const ROOT_LABEL: &str = "pier.builder.root";
/// Label of a snapshot: the name of the working directory.
pub const WORK_LABEL: &str = "pier.builder.work";

/// A working directory. End it with [`Work::clear`].
#[derive(Debug)]
pub struct Work {
    id: String,
    dir: PathBuf,
    root: PathBuf,
    store: Store,
    lease: String,
    held: Mutex<Held>,
    _lock: statedir::Lock,
}

#[derive(Debug, Default)]
struct Held {
    mounts: Vec<PathBuf>,
    snapshots: Vec<String>,
}

impl Work {
    /// Makes a directory. `lease` keeps what the step uses.
    pub fn create(config: &Config, store: &Store, lease: &str) -> Result<Self, Error> {
        let id = format!("build-{}", crate::cache::random());
        let dir = config.work().join(&id);
        // Against recovery in another process, which would take a directory that is not locked yet for a dead one.
        let _making = statedir::Lock::acquire_shared(&config.work_lock())?;
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let lock = statedir::Lock::acquire(&dir.join("lock"))?;
        Ok(Self {
            id,
            dir,
            root: config.root.clone(),
            store: store.clone(),
            lease: lease.to_owned(),
            held: Mutex::default(),
            _lock: lock,
        })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a snapshot on `parents` and mounts it at `<dir>/<name>`.
    pub async fn mount(&self, name: &str, parents: &Chain, read_only: bool) -> Result<PathBuf, Error> {
        let target = self.dir.join(name);
        std::fs::create_dir_all(&target).map_err(Error::io("create", &target))?;
        let key = self.key(name);
        self.note(|held| held.snapshots.push(key.clone()));
        let labels = HashMap::from([
            (ROOT_LABEL.to_owned(), self.root.to_string_lossy().into_owned()),
            (WORK_LABEL.to_owned(), self.id.clone()),
        ]);
        let new = Prepare { key: &key, parents: parents.diff_ids(), read_only, labels, lease: &self.lease };
        let mounts = self.store.prepare(new).await?;
        let at = target.clone();
        let mounted = tokio::task::spawn_blocking(move || mount::mount_all(&at, &mounts)).await;
        mounted.map_err(|error| Error::Panic(error.to_string()))??;
        self.note(|held| held.mounts.push(target.clone()));
        Ok(target)
    }

    /// Key of the snapshot called `name`.
    pub fn key(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// Unmounts the snapshot `name` and turns it into a layer on top of `parents`.
    pub async fn commit(&self, name: &str, parents: &Chain, how: Commit<'_>) -> Result<Chain, Error> {
        self.unmount();
        let layer = self.store.commit(&self.key(name), how).await?;
        Ok(parents.with(layer))
    }

    fn note(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn unmount(&self) {
        let mut mounts = Vec::new();
        self.note(|held| mounts = std::mem::take(&mut held.mounts));
        for target in mounts.iter().rev() {
            if let Err(error) = mount::unmount(target) {
                tracing::warn!(target = %target.display(), %error, "unmount");
            }
        }
    }

    /// Undoes everything; goes on past errors, which are logged: what stays is removed at the next start.
    pub async fn clear(self) {
        self.unmount();
        let mut snapshots = Vec::new();
        self.note(|held| snapshots = std::mem::take(&mut held.snapshots));
        let mut clean = true;
        for key in snapshots {
            if let Err(error) = self.store.remove(&key).await {
                tracing::warn!(snapshot = key, %error, "remove a snapshot");
                clean = false;
            }
        }
        if clean {
            remove_dir(&self.dir);
        }
    }
}

/// Removes a working directory that has no mounts in it any more.
pub(crate) fn remove_dir(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "remove a working directory");
    }
}
