//! The rows of snapshots.
use super::Snapshot;
use crate::db::{self, Conn};
use crate::layer::{Bytes, Prepared, RECORD_FILE, Row, Stamp, row};
use crate::{Error, Result, Store};
use oci::Digest;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A snapshot's row and those of its layers.
pub(crate) struct Record {
    pub id: i64,
    pub snapshot: Snapshot,
    /// Lowest first, as far as their rows read.
    pub layers: Vec<Row>,
    pub prepared: Prepared,
}

impl Record {
    /// Its directory.
    pub(crate) fn dir(&self, store: &Store) -> PathBuf {
        store.dir("snapshots").join(self.id.to_string())
    }

    /// Its own part of the filesystem; for a copy, the whole.
    pub(crate) fn fs(&self, store: &Store) -> PathBuf {
        self.dir(store).join("fs")
    }
}

/// The same in a file beside the snapshot, from where a lost database gets it back.
#[derive(Serialize, Deserialize)]
pub(crate) struct Beside {
    pub snapshot: Snapshot,
    pub prepared: Stamps,
}

/// [`Prepared`] as it is stored.
pub(crate) type Stamps = Vec<(Bytes, Stamp)>;

/// The record's name until the snapshot's row is committed. A directory without a row that has only this is what is left of a
/// process that died before; with [`RECORD_FILE`] it is somebody's data, whose row was lost.
const STAGED_FILE: &str = "record.new";

/// Writes the record into the directory that becomes the snapshot's.
pub(crate) fn write_beside(dir: &Path, record: &Record) -> Result<()> {
    let beside = Beside { snapshot: record.snapshot.clone(), prepared: stamps(&record.prepared) };
    let path = dir.join(STAGED_FILE);
    std::fs::write(&path, db::to_json(&beside)).map_err(Error::io("write", path))
}

/// Gives the record its lasting name. To be called when the row is committed; whoever opens the store does it for a process
/// that died, so it may be done already.
pub(crate) fn confirm_beside(dir: &Path) {
    match std::fs::rename(dir.join(STAGED_FILE), dir.join(RECORD_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "a snapshot's record waits for the next opening of the store");
        }
        _ => {}
    }
}

/// Whether the row of the snapshot in this directory was committed.
pub(crate) fn was_committed(dir: &Path) -> bool {
    dir.join(RECORD_FILE).exists()
}

/// The record beside a snapshot, if there is a sound one.
pub(crate) fn read_beside(dir: &Path) -> Option<Beside> {
    let read = |name| serde_json::from_slice(&std::fs::read(dir.join(name)).ok()?).ok();
    read(RECORD_FILE).or_else(|| read(STAGED_FILE))
}

pub(super) fn stamps(prepared: &Prepared) -> Stamps {
    prepared.iter().map(|(path, stamp)| ((&**path).into(), *stamp)).collect()
}

pub(super) fn read_stamps(stamps: Stamps) -> Prepared {
    stamps.into_iter().map(|(path, stamp)| (path.as_ref().to_vec(), stamp)).collect()
}

const COLUMNS: &str = "id, key, snapshotter, read_only, image_id, labels, created_at, prepared, idmap";

struct Flat {
    id: i64,
    snapshot: Snapshot,
    prepared: String,
}

fn parse(r: &rusqlite::Row<'_>) -> rusqlite::Result<Flat> {
    let snapshot = Snapshot {
        key: r.get(1)?,
        parents: Vec::new(),
        snapshotter: r.get(2)?,
        read_only: r.get(3)?,
        image_id: r.get(4)?,
        labels: db::labels(r.get(5)?),
        created_at: r.get(6)?,
        idmap: r.get(8)?,
        size_bytes: 0,
    };
    Ok(Flat { id: r.get(0)?, snapshot, prepared: r.get(7)? })
}

/// Adds the layers.
fn complete(c: &Conn, flat: Flat) -> Result<Record> {
    let sql = "SELECT l.diff_id FROM snapshot_layers s JOIN layers l ON l.id = s.layer WHERE s.snapshot = ?1 ORDER BY s.position";
    let mut snapshot = flat.snapshot;
    let ids: Vec<String> = c
        .prepare_cached(sql)
        .and_then(|mut q| q.query_map([flat.id], |r| r.get(0))?.collect())
        .map_err(Error::db("read a snapshot's layers"))?;
    snapshot.parents = ids.iter().filter_map(|id| id.parse::<Digest>().ok()).collect();
    let mut layers = Vec::new();
    for diff_id in &snapshot.parents {
        layers.extend(row(c, diff_id)?);
    }
    // Unreadable stamps only mean that what preparation wrote counts as the user's.
    let prepared = read_stamps(serde_json::from_str(&flat.prepared).unwrap_or_default());
    Ok(Record { id: flat.id, snapshot, layers, prepared })
}

pub(crate) fn get(store: &Store, key: &str) -> Result<Option<Record>> {
    store.db().look(|c| {
        let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE key = ?1");
        let flat = c.prepare_cached(&sql).and_then(|mut q| q.query_row([key], parse).optional());
        flat.map_err(Error::db("read a snapshot"))?.map(|flat| complete(c, flat)).transpose()
    })
}

pub(crate) fn all(store: &Store) -> Result<Vec<Record>> {
    store.db().look(|c| {
        let sql = format!("SELECT {COLUMNS} FROM snapshots ORDER BY key");
        let flat: rusqlite::Result<Vec<Flat>> =
            c.prepare_cached(&sql).and_then(|mut q| q.query_map([], parse)?.collect());
        flat.map_err(Error::db("list snapshots"))?.into_iter().map(|flat| complete(c, flat)).collect()
    })
}

/// How long it is remembered that a snapshot was removed, in milliseconds: longer than any file system keeps a rename to itself.
const REMEMBERED_MS: i64 = 3_600_000;

/// Removes the row; gives its id, `None` when there was none. That it was removed is remembered: until the disk knows that the
/// directory went, a power cut may bring it back.
pub(super) fn remove(tx: &Conn, key: &str) -> rusqlite::Result<Option<i64>> {
    let id: Option<i64> =
        tx.query_row("DELETE FROM snapshots WHERE key = ?1 RETURNING id", [key], |r| r.get(0)).optional()?;
    if let Some(id) = id {
        tx.execute("DELETE FROM removed_snapshots WHERE at_ms < ?1", [db::now_ms() - REMEMBERED_MS])?;
        tx.execute("INSERT INTO removed_snapshots (id, at_ms) VALUES (?1, ?2)", [id, db::now_ms()])?;
    }
    Ok(id)
}

/// Whether the snapshot with that id was removed a short while ago.
pub(crate) fn was_removed(c: &Conn, id: i64) -> rusqlite::Result<bool> {
    c.prepare_cached("SELECT 1 FROM removed_snapshots WHERE id = ?1")?.exists([id])
}

/// Inserts the row and its layers, with an id of its own unless one is given; gives its id, `None` when the key is taken.
pub(crate) fn insert(
    tx: &Conn,
    id: Option<i64>,
    snapshot: &Snapshot,
    layers: &[Row],
    prepared: &Prepared,
) -> Result<Option<i64>> {
    let stamps = stamps(prepared);
    let insert = || -> rusqlite::Result<Option<i64>> {
        let id = tx
            .query_row(
                "INSERT INTO snapshots (key, snapshotter, read_only, image_id, labels, created_at, prepared, id, idmap)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (key) DO NOTHING RETURNING id",
                params![
                    snapshot.key,
                    snapshot.snapshotter,
                    snapshot.read_only,
                    snapshot.image_id,
                    db::to_json(&snapshot.labels),
                    snapshot.created_at,
                    db::to_json(&stamps),
                    id,
                    snapshot.idmap,
                ],
                |r| r.get::<_, i64>(0),
            )
            .optional()?;
        if let Some(id) = id {
            let mut q =
                tx.prepare_cached("INSERT INTO snapshot_layers (snapshot, position, layer) VALUES (?1, ?2, ?3)")?;
            for (position, layer) in layers.iter().enumerate() {
                q.execute(params![id, i64::try_from(position).unwrap_or(0), layer.id])?;
            }
        }
        Ok(id)
    };
    insert().map_err(Error::db("record a snapshot"))
}
