//! One small file per image beside the database, `images/<target>-<manifest>.json`: its record and names. The database is the
//! truth and nothing reads these files while it is sound; when it is lost, names and records come back from them.
//!
//! They are written after the transaction and removed before it, so that a process that dies between says too little and
//! never too much. They are not synced: a power cut that takes the database with it may take the names of the last seconds.
use super::ImageRecord;
use crate::store::names;
use crate::{Error, Result, Store};
use oci::Digest;
use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::SystemTime;

/// What one file says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Mirrored {
    pub record: ImageRecord,
    pub names: Vec<String>,
}

/// Half of each digest is enough to tell images apart; the file says the whole.
fn path(store: &Store, target: &Digest, manifest: &Digest) -> PathBuf {
    let half = |digest: &Digest| digest.hex().get(..32).unwrap_or_default().to_owned();
    store.dir("images").join(format!("{}-{}.json", half(target), half(manifest)))
}

/// Brings an image's file up to date. A file that cannot be written is a warning: the image itself is recorded.
pub(super) fn update(store: &Store, id: i64) {
    if let Err(error) = try_update(store, id) {
        tracing::warn!(%error, "an image is recorded in the database only");
    }
}

fn try_update(store: &Store, id: i64) -> Result<()> {
    // In a transaction, so that of two processes the later one writes what is true then.
    store.db().transaction("write an image's file", |tx| {
        let read = || -> rusqlite::Result<Option<(String, bool, Vec<String>)>> {
            let sql = "SELECT record, leased FROM images WHERE id = ?1";
            let found = tx.query_row(sql, [id], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
            let Some((record, leased)) = found else { return Ok(None) };
            let mut q = tx.prepare_cached("SELECT name FROM names WHERE image = ?1 ORDER BY name")?;
            let names = q.query_map([id], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok(Some((record, leased, names)))
        };
        match read().map_err(Error::db("read an image"))? {
            Some((record, false, names)) => match serde_json::from_str(&record) {
                Ok(record) => write(store, &Mirrored { record, names }),
                // Damaged: `check` says so, and may need the file.
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    })
}

fn write(store: &Store, image: &Mirrored) -> Result<()> {
    let to = path(store, &image.record.target.digest, &image.record.manifest.digest);
    store.write_record(&to, image)
}

/// Writes an image's file unless it is there: for stores that are older than these files.
pub(crate) fn ensure(store: &Store, id: i64, record: &ImageRecord) {
    if of(store, &record.target.digest, &record.manifest.digest).is_none() {
        update(store, id);
    }
}

/// Removes an image's file; absent is fine.
pub(super) fn remove(store: &Store, target: &Digest, manifest: &Digest) {
    crate::store::empty(&path(store, target, manifest));
}

/// What one image's file says, if there is a sound one.
pub(crate) fn of(store: &Store, target: &Digest, manifest: &Digest) -> Option<Mirrored> {
    let text = std::fs::read(path(store, target, manifest)).ok()?;
    let found: Mirrored = serde_json::from_slice(&text).ok()?;
    (found.record.target.digest == *target && found.record.manifest.digest == *manifest).then_some(found)
}

/// All sound ones, the oldest first: of two that claim a name, the later one had it.
pub(crate) fn all(store: &Store) -> Result<Vec<Mirrored>> {
    let mut found: Vec<(SystemTime, Mirrored)> = Vec::new();
    for (_, path) in names(&store.dir("images"))? {
        let time = std::fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let image = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        found.extend(image.map(|image| (time, image)));
    }
    found.sort_by_key(|(time, _)| *time);
    Ok(found.into_iter().map(|(_, image)| image).collect())
}
