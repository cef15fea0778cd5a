//! What an opening store does about the leftovers of dead processes. Nothing here may fail the opening.
use super::{Store, empty, lock_dir};
use crate::db::Conn;
use crate::layer::volatile::{any_stale, drop_stale, secure_old};
use crate::{Error, Result};
use rusqlite::OptionalExtension;
use rustix::fs::FlockOperation;
use std::path::{Path, PathBuf};

/// Goes through every place where a killed process may have left something.
pub(super) fn run(store: &Store) {
    let results = [
        ("staging", staging(store)),
        ("layers", layers(store)),
        ("snapshots", snapshots(store)),
        ("unpacked layers", unpacked(store)),
        ("trash", trash(store)),
    ];
    for (place, result) in results {
        if let Err(error) = result {
            tracing::warn!(place, %error, "recovery left something behind");
        }
    }
}

/// Names in one of the store's directories.
pub(crate) fn names(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("list", dir))?;
    Ok(entries
        .filter_map(std::result::Result::ok)
        .filter_map(|e| Some((e.file_name().into_string().ok()?, e.path())))
        .collect())
}

/// A staging directory that nobody holds a lock on is a dead process's.
fn staging(store: &Store) -> Result<()> {
    for (_, path) in names(&store.dir("staging"))? {
        if let Ok(Some(_lock)) = lock_dir(&path, FlockOperation::NonBlockingLockExclusive) {
            store.remove(&path)?;
        }
    }
    Ok(())
}

/// A layer's directory without a row was renamed into place by a process that died before it committed the row; or
/// garbage collection died after it removed the row. A row that still names a snapshot is finished when its
/// directory has arrived.
fn layers(store: &Store) -> Result<()> {
    let dir = store.dir("layers");
    let unfinished: Vec<(i64, i64)> = store.db().read("look for unfinished commits", |c| {
        let mut q = c.prepare("SELECT id, from_snapshot FROM layers WHERE from_snapshot IS NOT NULL")?;
        q.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
    })?;
    for (layer, snapshot) in unfinished {
        if dir.join(layer.to_string()).join("fs").is_dir() {
            store.db().transaction("finish a commit", |tx| crate::snapshot::finish_commit(tx, layer, snapshot))?;
        }
    }
    orphans(store, &dir, "SELECT 1 FROM layers WHERE id = ?1", |_, _, _| Ok(false))
}

/// A record has its lasting name from the commit of the row on, and a removal is remembered: another directory without a row that
/// has such a record, and more than preparation put there, is somebody's data whose row was lost, and is kept. Else its process
/// died before it could commit the row, or before it could remove the directory.
fn snapshots(store: &Store) -> Result<()> {
    let dir = store.dir("snapshots");
    let known: Vec<i64> = store.db().read("list snapshots", |c| {
        let mut q = c.prepare("SELECT id FROM snapshots")?;
        q.query_map([], |r| r.get(0))?.collect()
    })?;
    for id in known {
        // Its process may have died after the commit.
        crate::snapshot::confirm_beside(&dir.join(id.to_string()));
    }
    orphans(store, &dir, "SELECT 1 FROM snapshots WHERE id = ?1", |tx, id, path| {
        let prepared = crate::snapshot::read_beside(path).map_or(0, |beside| beside.prepared.len());
        Ok(crate::snapshot::was_committed(path)
            && !crate::snapshot::was_removed(tx, id)?
            && entries(&path.join("fs")) >= prepared.max(1))
    })
}

/// Entries below a directory.
fn entries(dir: &Path) -> usize {
    let inner = |path: &PathBuf| if path.is_dir() && !path.is_symlink() { entries(path) } else { 0 };
    names(dir).map_or(0, |found| found.iter().map(|(_, path)| 1 + inner(path)).sum())
}

/// Layers of an earlier boot are dropped and made again, and what snapshots have made of them. The rows tell of the layers until
/// they are there; of the rest this file tells, so that the next start goes on where one dies.
fn unpacked(store: &Store) -> Result<()> {
    let note = store.dir("remount");
    let stale = any_stale(store)?;
    if stale {
        // A full disk is no reason to keep what may be damaged.
        if let Err(error) = std::fs::write(&note, []) {
            tracing::warn!(path = %note.display(), %error, "a crash of the recovery would not be noticed");
        }
        drop_stale(store)?;
    }
    if !stale && !note.exists() {
        return secure_old(store);
    }
    remount(store)?;
    match std::fs::remove_file(&note) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", note)(error)),
        _ => Ok(()),
    }
}

/// Containers keep their mounts across a restart of the machine: what these need of layers that were unpacked again is made
/// again, too.
fn remount(store: &Store) -> Result<()> {
    for snapshot in store.snapshots().list(false)? {
        if store.snapshots().examine(&snapshot.key).is_err()
            && let Err(error) = store.snapshots().mounts(&snapshot.key)
        {
            tracing::warn!(snapshot = snapshot.key, %error, "cannot be mounted after the machine's restart");
        }
    }
    Ok(())
}

/// Removes directories whose row is missing; sets aside what is precious. The second look happens under the write lock, where no other process
/// can be between its rename and its commit.
fn orphans(
    store: &Store,
    dir: &Path,
    known: &'static str,
    precious: impl Fn(&Conn, i64, &Path) -> rusqlite::Result<bool>,
) -> Result<()> {
    let step = "look for orphans";
    let names = names(dir)?;
    let has = |c: &Conn, name: &str| -> rusqlite::Result<bool> {
        let Ok(id) = name.parse::<i64>() else { return Ok(false) };
        Ok(c.prepare_cached(known)?.query_row([id], |_| Ok(())).optional()?.is_some())
    };
    let suspects: Vec<_> = store.db().read(step, |c| {
        let mut found = Vec::new();
        for entry in names {
            if !has(c, &entry.0)? {
                found.push(entry);
            }
        }
        Ok(found)
    })?;
    for (name, path) in suspects {
        let trashed = store.db().transaction(step, |tx| {
            if has(tx, &name).map_err(Error::db(step))? {
                return Ok(None);
            }
            let id = name.parse().unwrap_or_default();
            if precious(tx, id, &path).map_err(Error::db(step))? {
                tracing::warn!(path = %path.display(), "a snapshot without a row is kept in the quarantine");
                return store.set_aside(&path).map(|()| None);
            }
            store.discard(&path)
        })?;
        if let Some(trashed) = trashed {
            tracing::info!(path = %path.display(), "removed an orphan");
            empty(&trashed);
        }
    }
    Ok(())
}

fn trash(store: &Store) -> Result<()> {
    for (_, path) in names(&store.dir("trash"))? {
        empty(&path);
    }
    Ok(())
}
