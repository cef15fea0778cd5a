//! Garbage collection: mark and sweep in one write transaction.
//!
//! Roots are images with a name, images without one that nobody removed (docker keeps those until they are pruned),
//! snapshots, and what live leases hold. From manifests and indexes everything they mention is followed, as far as it
//! is there. Blobs of layers are kept as long as an image mentions them, so that it can be pushed; unpacked layers as
//! long as an image or a snapshot is made of them.
//!
//! Safe against everything that goes on meanwhile, without a lock of its own: whoever relies on an object either puts
//! it under a lease or records an image or snapshot that uses it, each in a write transaction that looks for the
//! object. That comes before this transaction (and the object is marked) or after (and the object is not found).
//!
//! The order of a sweep: in the transaction go the rows of layers and, renamed into the trash, the blobs, which have no
//! rows. The layers' directories follow after it: their ids are never given again, so that without a row nobody can
//! reach them. A crash at any moment leaves at most directories without rows, or trash; the next opening of the store
//! deletes both.
use crate::content::lock_file_now;
use crate::db::{Conn, now_ms};
use crate::layer::{Row, rows};
use crate::store::{empty, names};
use crate::{Error, ImageRecord, Result, Store};
use oci::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

mod mark;

/// What was (or would be) removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs.
    pub removed_blobs: Vec<Digest>,
    /// Layers, by diff ID.
    pub removed_layers: Vec<Digest>,
    /// Bytes on disk.
    pub reclaimed_bytes: u64,
}

/// A partial download that nobody goes on with is given up after this.
const STALE_PARTIAL: Duration = Duration::from_secs(24 * 3600);

/// Removes what nothing needs; with `dry_run` only says what that would be.
pub fn collect(store: &Store, dry_run: bool) -> Result<Report> {
    let mut report = Report::default();
    if dry_run {
        let plan = store.db().look(|c| plan(store, c))?;
        plan.describe(&mut report);
        return Ok(report);
    }
    let (plan, mut trashed) = store.db().transaction("collect garbage", |tx| {
        expire(tx).map_err(Error::db("remove expired leases"))?;
        let plan = plan(store, tx)?;
        forget(tx, &plan).map_err(Error::db("remove what nothing needs"))?;
        let blobs = plan.blobs.iter().map(|(digest, _)| store.discard(&store.content().path(digest)));
        let trashed = blobs.collect::<Result<Vec<_>>>()?;
        Ok((plan, trashed))
    })?;
    plan.describe(&mut report);
    for layer in &plan.layers {
        trashed.push(store.discard(&store.dir("layers").join(layer.id.to_string()))?);
    }
    for path in trashed.iter().flatten() {
        empty(path);
    }
    report.reclaimed_bytes += partials(store)?;
    Ok(report)
}

/// What goes.
struct Plan {
    blobs: Vec<(Digest, u64)>,
    layers: Vec<Row>,
}

impl Plan {
    fn describe(&self, report: &mut Report) {
        report.removed_blobs = self.blobs.iter().map(|(digest, _)| digest.clone()).collect();
        report.removed_layers = self.layers.iter().map(|row| row.diff_id.clone()).collect();
        report.reclaimed_bytes = self.blobs.iter().map(|(_, size)| size).sum::<u64>()
            + self.layers.iter().map(|row| row.size_bytes).sum::<u64>();
    }
}

fn plan(store: &Store, c: &Conn) -> Result<Plan> {
    let live = mark::mark(store, c)?;
    let blobs = store.content().list()?.into_iter().filter(|(digest, _)| !live.blobs.contains(digest)).collect();
    let layers = rows(c)?.into_iter().filter(|row| !live.layers.contains(&row.diff_id)).collect();
    Ok(Plan { blobs, layers })
}

fn expire(tx: &Conn) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM leases WHERE expires_at_ms <= ?1", [now_ms()])?;
    // A nameless image that only a lease wanted goes with it.
    tx.execute(
        "DELETE FROM images WHERE leased AND NOT EXISTS
            (SELECT 1 FROM lease_refs WHERE kind = 'image' AND key = CAST(images.id AS TEXT))",
        [],
    )?;
    // The begun commit of a snapshot that is gone.
    tx.execute(
        "DELETE FROM layers WHERE from_snapshot IS NOT NULL AND from_snapshot NOT IN (SELECT id FROM snapshots)",
        [],
    )?;
    Ok(())
}

fn forget(tx: &Conn, plan: &Plan) -> rusqlite::Result<()> {
    let mut q = tx.prepare_cached("DELETE FROM layers WHERE id = ?1")?;
    for layer in &plan.layers {
        q.execute([layer.id])?;
    }
    Ok(())
}

/// Partial content that nobody writes: whose leases are all gone, or that is old. Gives its bytes.
fn partials(store: &Store) -> Result<u64> {
    let held: BTreeSet<String> = store.db().read("read leases", |c| {
        let mut q = c.prepare("SELECT key FROM lease_refs WHERE kind = 'blob'")?;
        q.query_map([], |r| r.get::<_, String>(0))?.collect()
    })?;
    let mut bytes = 0;
    for (name, path) in names(&store.dir("ingest"))? {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        let age = meta.modified().ok().and_then(|t| SystemTime::now().duration_since(t).ok()).unwrap_or_default();
        if age < STALE_PARTIAL && held.contains(&name.replacen('-', ":", 1)) {
            continue;
        }
        if let Some(_lock) = lock_file_now(&path)? {
            bytes += meta.len();
            empty(&path);
        }
    }
    Ok(bytes)
}

/// Every image's record with what only a lease keeps left out when that lease is gone.
fn image_records(c: &Conn) -> Result<Vec<ImageRecord>> {
    let step = "list images";
    let sql = "SELECT record FROM images WHERE NOT leased OR EXISTS
        (SELECT 1 FROM lease_refs r JOIN leases l ON l.id = r.lease
         WHERE r.kind = 'image' AND r.key = CAST(images.id AS TEXT) AND l.expires_at_ms > ?1)";
    let texts: Vec<String> =
        c.prepare(sql).and_then(|mut q| q.query_map([now_ms()], |r| r.get(0))?.collect()).map_err(Error::db(step))?;
    let damaged = |e: serde_json::Error| Error::Record { what: "an image".into(), problem: e.to_string() };
    texts.iter().map(|text| serde_json::from_str(text).map_err(damaged)).collect()
}

/// What live leases hold, by kind.
fn leased(c: &Conn) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let sql = "SELECT r.kind, r.key FROM lease_refs r JOIN leases l ON l.id = r.lease WHERE l.expires_at_ms > ?1";
    let pairs: Vec<(String, String)> = c
        .prepare(sql)
        .and_then(|mut q| q.query_map([now_ms()], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
        .map_err(Error::db("read leases"))?;
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (kind, key) in pairs {
        all.entry(kind).or_default().insert(key);
    }
    Ok(all)
}
