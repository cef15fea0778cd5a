//! The rows of layers.
use super::LayerInfo;
use crate::db::{self, Conn};
use crate::lease::{Kind, hold};
use crate::store::Staging;
use crate::{Error, Result, Store};
use oci::{Descriptor, Digest};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What an archive left to its parents to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unresolved {
    /// Directories that have no entry of their own: their owner and mode are the parent's, where it has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<Bytes>,
    /// Hard links (path, target) to files that are not in this archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(Bytes, Bytes)>,
    /// Nothing of the parents shows through.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque_root: bool,
}

/// A path as bytes, in JSON as text where it is UTF-8 and as numbers where it is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Bytes {
    Text(String),
    Raw(Vec<u8>),
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.into()),
            Err(_) => Self::Raw(bytes.into()),
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Raw(raw) => raw,
        }
    }
}

/// A layer's row. Also written beside the layer, in `layers/<id>/record.json`, from where a lost database gets it back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(skip)]
    pub id: i64,
    pub diff_id: Digest,
    pub size_bytes: u64,
    pub entries: u64,
    /// The archive says what the root directory is like.
    pub root_entry: bool,
    /// It deletes things of its parents.
    pub whiteouts: bool,
    pub unresolved: Unresolved,
    /// What it was unpacked from, where that is known: not every image that has the layer need be in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
    /// The boot in which it was unpacked, as long as it is not sure to be on the disk; see [`super::volatile`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volatile: Option<String>,
}

impl Row {
    pub(crate) fn info(&self, new: bool) -> LayerInfo {
        LayerInfo { diff_id: self.diff_id.clone(), size_bytes: self.size_bytes, entries: self.entries, new }
    }
}

/// Name of a layer's or snapshot's record beside its `fs`.
pub(crate) const RECORD_FILE: &str = "record.json";

/// Writes a layer's record into the directory that becomes the layer's. What syncs the layer syncs it, too.
pub(crate) fn write_beside(dir: &Path, row: &Row) -> Result<()> {
    let path = dir.join(RECORD_FILE);
    std::fs::write(&path, db::to_json(row)).map_err(Error::io("write", path))
}

/// The record beside a layer, if there is a sound one.
pub(crate) fn read_beside(dir: &Path, id: i64) -> Option<Row> {
    let row: Row = serde_json::from_slice(&std::fs::read(dir.join(RECORD_FILE)).ok()?).ok()?;
    Some(Row { id, ..row })
}

const COLUMNS: &str = "id, diff_id, size_bytes, entries, root_entry, whiteouts, unresolved, volatile, blob";

fn parse(r: &rusqlite::Row<'_>) -> rusqlite::Result<Result<Row>> {
    let diff_id: String = r.get(1)?;
    let unresolved: String = r.get(6)?;
    let damaged = |problem: String| Error::Record { what: format!("layer {diff_id}"), problem };
    let digest = match diff_id.parse::<Digest>() {
        Ok(digest) => digest,
        Err(e) => return Ok(Err(damaged(e.to_string()))),
    };
    let unresolved = match serde_json::from_str(&unresolved) {
        Ok(unresolved) => unresolved,
        Err(e) => return Ok(Err(damaged(e.to_string()))),
    };
    Ok(Ok(Row {
        id: r.get(0)?,
        diff_id: digest,
        size_bytes: r.get::<_, i64>(2)?.unsigned_abs(),
        entries: r.get::<_, i64>(3)?.unsigned_abs(),
        root_entry: r.get(4)?,
        whiteouts: r.get(5)?,
        unresolved,
        volatile: r.get(7)?,
        blob: r.get::<_, Option<String>>(8)?.and_then(|text| serde_json::from_str(&text).ok()),
    }))
}

/// The row of a finished layer, whether or not its directory is there.
pub(crate) fn row(c: &Conn, diff_id: &Digest) -> Result<Option<Row>> {
    let sql = format!("SELECT {COLUMNS} FROM layers WHERE diff_id = ?1 AND from_snapshot IS NULL");
    let found = c.prepare_cached(&sql).and_then(|mut q| q.query_row([diff_id.as_str()], parse).optional());
    // A damaged row is as good as none: the layer is unpacked again, and that renews the row.
    Ok(found.map_err(Error::db("read a layer"))?.and_then(|r| r.inspect_err(|error| tracing::warn!(%error)).ok()))
}

/// All rows of finished layers that read well.
pub(crate) fn rows(c: &Conn) -> Result<Vec<Row>> {
    let sql = format!("SELECT {COLUMNS} FROM layers WHERE from_snapshot IS NULL ORDER BY id");
    let all: rusqlite::Result<Vec<Result<Row>>> =
        c.prepare_cached(&sql).and_then(|mut q| q.query_map([], parse)?.collect());
    let all = all.map_err(Error::db("list layers"))?;
    Ok(all.into_iter().filter_map(|r| r.inspect_err(|error| tracing::warn!(%error, "left out")).ok()).collect())
}

/// Brings a finished staging directory (holding `fs`) in as a layer. When another process was first, the staging
/// directory stays where it is and goes with its owner. A row whose directory was lost gets this one. A power cut takes
/// the layer as a whole.
pub(crate) fn insert(store: &Store, staging: &Staging, row: &Row, lease: Option<&str>) -> Result<LayerInfo> {
    store.db().passing("record a layer", |tx| publish(tx, store, staging, row, lease))
}

fn publish(tx: &Conn, store: &Store, staging: &Staging, row: &Row, lease: Option<&str>) -> Result<LayerInfo> {
    hold(tx, lease, Kind::Layer, row.diff_id.as_str())?;
    let there = self::row(tx, &row.diff_id)?;
    if let Some(there) = &there
        && store.layers().fs(there.id).is_dir()
    {
        return Ok(there.info(false));
    }
    let id = upsert(tx, row, None).map_err(Error::db("record a layer"))?;
    let dir = store.dir("layers").join(id.to_string());
    // No row was visible, so whatever lies there is a dead process's.
    store.discard(&dir)?;
    std::fs::rename(staging.path(), &dir).map_err(Error::io("publish", &dir))?;
    Ok(row.info(true))
}

/// Writes a damaged row anew, under the id it has. A row of the same layer that was made meanwhile goes.
pub(crate) fn renew(tx: &Conn, row: &Row) -> rusqlite::Result<()> {
    let other = tx.execute("DELETE FROM layers WHERE diff_id = ?1 AND id <> ?2", params![row.diff_id.as_str(), row.id]);
    other?;
    let sql = "UPDATE layers SET diff_id = ?2 WHERE id = ?1";
    tx.execute(sql, params![row.id, row.diff_id.as_str()])?;
    upsert(tx, row, None).map(drop)
}

/// Puts back a row that was lost, under the id that the layer's directory has.
pub(crate) fn restore(tx: &Conn, row: &Row) -> rusqlite::Result<()> {
    let id = upsert(tx, row, None)?;
    if id != row.id {
        tx.execute("UPDATE layers SET id = ?2 WHERE id = ?1", [id, row.id])?;
    }
    Ok(())
}

/// Inserts the row, or renews that of the same diff ID; gives its id.
pub(crate) fn upsert(tx: &Conn, row: &Row, from_snapshot: Option<i64>) -> rusqlite::Result<i64> {
    tx.query_row(
        "INSERT INTO layers (diff_id, size_bytes, entries, created_at, root_entry, whiteouts, unresolved, from_snapshot, volatile, blob)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (diff_id) DO UPDATE SET size_bytes = ?2, entries = ?3, root_entry = ?5, whiteouts = ?6,
             unresolved = ?7, from_snapshot = ?8, volatile = ?9,
             blob = ?10
         RETURNING id",
        params![
            row.diff_id.as_str(),
            i64::try_from(row.size_bytes).unwrap_or(i64::MAX),
            i64::try_from(row.entries).unwrap_or(i64::MAX),
            db::now_text(),
            row.root_entry,
            row.whiteouts,
            db::to_json(&row.unresolved),
            from_snapshot,
            row.volatile,
            row.blob.as_ref().map(db::to_json),
        ],
        |r| r.get(0),
    )
}
