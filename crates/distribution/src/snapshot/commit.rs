//! From a snapshot to a layer.
//!
//! A snapshot that is consumed gives its upper directory away: first the layer's row is written with the snapshot's
//! id in it, then, in a second transaction, the directory is renamed and the rows settled. A process that dies
//! between leaves either a row without a directory, which nobody sees and the next try takes over, or both, which the
//! next opening of the store finishes. Nothing that was written is lost.
use super::{Commit, Committed, Record, disk_usage, driver};
use crate::db::Conn;
use crate::layer::{Made, Row, Unresolved, make, row, sync_filesystem, upsert, write_beside};
use crate::lease::{Kind, hold};
use crate::store::sync_dir;
use crate::{Error, Result, Store};

pub(super) fn commit(store: &Store, record: Record, how: Commit<'_>) -> Result<Option<Committed>> {
    if record.snapshot.read_only {
        let problem = "is read-only: there is nothing to commit";
        return Err(Error::SnapshotState { key: record.snapshot.key, problem });
    }
    let staging = store.stage()?;
    let made = make(&staging, how.compression, how.source_date_epoch, |sink| store.snapshots().changes(&record, sink))?;
    let Some(made) = made else {
        if !how.keep {
            store.snapshots().remove(&record.snapshot.key)?;
        }
        return Ok(None);
    };
    store.content().adopt(&made.file, &made.descriptor.digest, how.lease)?;
    // What preparation wrote is in the directory and not in the archive: such a one is unpacked like any other.
    let as_archived = record.prepared.len() <= 1 && how.source_date_epoch.is_none();
    // And what another kind of overlay wrote means nothing to the store's.
    let movable = !how.keep && driver(&record)?.marks(store) == Some(store.marks()) && as_archived;
    if movable && !store.layers().hold(&made.diff_id, how.lease)? {
        give_away(store, &record, &made, how)?;
    } else {
        let blob = store.content().open(&made.descriptor.digest)?;
        store.layers().apply(blob, &made.descriptor, &made.diff_id, how.lease)?;
    }
    if !how.keep {
        store.snapshots().remove(&record.snapshot.key)?;
    }
    Ok(Some(Committed { descriptor: made.descriptor, diff_id: made.diff_id }))
}

/// The upper directory becomes the layer's.
fn give_away(store: &Store, record: &Record, made: &Made, how: Commit<'_>) -> Result<()> {
    let fs = record.fs(store);
    let new = Row {
        id: 0,
        diff_id: made.diff_id.clone(),
        size_bytes: disk_usage(&fs),
        entries: made.entries,
        root_entry: made.root_entry,
        whiteouts: made.whiteouts || !record.layers.is_empty(),
        unresolved: Unresolved::default(),
        volatile: None,
        blob: Some(made.descriptor.clone()),
    };
    sync_filesystem(&fs)?;
    let step = "record a layer";
    let id = store.db().transaction(step, |tx| {
        hold(tx, how.lease, Kind::Layer, new.diff_id.as_str())?;
        match row(tx, &new.diff_id)? {
            // Its directory was lost, or somebody was faster.
            Some(there) => Ok(there.id),
            None => upsert(tx, &new, Some(record.id)).map_err(Error::db(step)),
        }
    })?;
    store.db().transaction(step, |tx| {
        let to = store.layers().fs(id);
        if !to.is_dir() {
            let dir = store.dir("layers").join(id.to_string());
            std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
            write_beside(&dir, &new)?;
            std::fs::rename(&fs, &to).map_err(Error::io("publish", &to))?;
            sync_dir(&dir)?;
            sync_dir(&store.dir("layers"))?;
            let lasting = "UPDATE layers SET volatile = NULL WHERE id = ?1";
            tx.execute(lasting, [id]).map_err(Error::db(step))?;
        }
        finish_commit(tx, id, record.id)
    })?;
    store.remove(&record.dir(store))
}

/// Makes the layer visible and ends the snapshot.
pub(crate) fn finish_commit(tx: &Conn, layer: i64, snapshot: i64) -> Result<()> {
    let finish = || -> rusqlite::Result<()> {
        tx.execute("UPDATE layers SET from_snapshot = NULL WHERE id = ?1", [layer])?;
        tx.execute("DELETE FROM snapshots WHERE id = ?1", [snapshot])?;
        Ok(())
    };
    finish().map_err(Error::db("finish a commit"))
}
