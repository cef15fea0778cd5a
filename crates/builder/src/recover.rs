//! What builders that died left: working directories, snapshots, containers of the runtime, unfinished records.

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;

use crate::cache::Cache;
use crate::config::Config;
use crate::error::Error;
use crate::store::Store;
use crate::work::{ROOT_LABEL, WORK_LABEL, remove_dir};

/// Removes it. Goes on past errors, which are logged. Directories whose lock is held belong to builders that live.
pub async fn recover(config: &Config, cache: &Cache, store: &Store) -> Result<(), Error> {
    let (dead, alive) = survey(config)?;
    let root = config.root.to_string_lossy();
    for (key, labels) in store.snapshots().await? {
        let ours = labels.get(ROOT_LABEL).is_some_and(|label| *label == root);
        let orphan = labels.get(WORK_LABEL).is_some_and(|work| !alive.contains(work));
        if ours
            && orphan
            && let Err(error) = store.remove(&key).await
        {
            tracing::warn!(snapshot = key, %error, "remove a dead builder's snapshot");
        }
    }
    for record in cache.list()? {
        if record.pending && !alive.contains(&record.owner) {
            store.delete_lease(&record.lease).await?;
            cache.remove(&record.id)?;
        }
    }
    for (id, _lock) in dead {
        let dir = config.work().join(&id);
        delete_container(config, &dir, &id).await;
        store.delete_lease(&id).await?;
        remove_dir(&dir);
    }
    Ok(())
}

type Dead = Vec<(String, statedir::Lock)>;

/// Names of working directories: those without a process (locked by us now) and those with one.
fn survey(config: &Config) -> Result<(Dead, HashSet<String>), Error> {
    let (mut dead, mut alive) = (Vec::new(), HashSet::new());
    let work = config.work();
    let _nobody_makes_one = statedir::Lock::acquire(&config.work_lock())?;
    for entry in std::fs::read_dir(&work).map_err(Error::io("read", &work))? {
        let entry = entry.map_err(Error::io("read", &work))?;
        let id = entry.file_name().to_string_lossy().into_owned();
        match statedir::Lock::try_acquire(&entry.path().join("lock")) {
            Ok(Some(lock)) => dead.push((id, lock)),
            Ok(None) => drop(alive.insert(id)),
            // It is being removed at this moment.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((dead, alive))
}

/// Ends a container whose builder died.
async fn delete_container(config: &Config, dir: &Path, id: &str) {
    let state = dir.join("runtime");
    if !state.is_dir() {
        return;
    }
    let mut command = tokio::process::Command::new(&config.runtime);
    command.arg("--root").arg(&state).args(["delete", "--force", id]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.status().await {
        tracing::warn!(container = id, %error, "delete a dead builder's container");
    }
}
