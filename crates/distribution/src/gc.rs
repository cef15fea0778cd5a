//! Garbage collection: mark and sweep in one write transaction.
//!
//! Roots are images with a name, images without one that nobody removed (docker keeps those until they are pruned),
//! snapshots, and what live leases hold. From manifests and indexes everything they mention is followed, as far as it
//! is there. Blobs of layers are kept as long as an image mentions them, so that it can be pushed; unpacked layers as
//! long as an image or a snapshot is made of them. What belongs to an image (signatures, attestations) is kept as it is.
//! Damaged objects that were set aside go when they have lain there for 30 days.
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
use crate::layer::{Row, rows, volatile};
use crate::snapshot::sweep_chains;
use crate::store::{empty, names};
use crate::{Error, ImageRecord, Result, Store};
use oci::Digest;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub mod automatic;
mod mark;

/// What was (or would be) removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs.
    pub removed_blobs: Vec<Digest>,
    /// Layers, by diff ID.
    pub removed_layers: Vec<Digest>,
    /// Bytes on disk, partial downloads included.
    pub reclaimed_bytes: u64,
}

/// How much of what nothing needs goes.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Only say what would go.
    pub dry_run: bool,
    /// What is younger stays, though nothing holds it: somebody may be about to use it.
    pub grace: Duration,
    /// What a removal has just given up; its age does not matter.
    pub released: Reached,
    /// Also what interrupted operations have left for their next try.
    pub abandoned: bool,
    /// Also what was set aside less than [`QUARANTINE`] ago.
    pub quarantine: bool,
}

/// Damaged objects that were set aside are deleted after this: 30 days.
pub const QUARANTINE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A partial download that nobody goes on with is given up after this.
const STALE_PARTIAL: Duration = Duration::from_secs(24 * 3600);

/// Removes what nothing needs; with `dry_run` only says what that would be.
pub fn collect(store: &Store, dry_run: bool) -> Result<Report> {
    run(store, &Policy { dry_run, ..Policy::default() })
}

/// [`collect`] by a policy.
pub fn run(store: &Store, policy: &Policy) -> Result<Report> {
    if policy.dry_run {
        return rehearse(store, policy);
    }
    let mut report = Report::default();
    if policy.abandoned {
        store.leases().end_abandoned()?;
    }
    // By itself, so that no row outlives the content that is renamed away below when this process dies between.
    store.db().write("remove expired leases", expire)?;
    store.leases().sweep_marks()?;
    let (plan, mut trashed) = loop {
        match sweep(store, policy, &mut report)? {
            Some(swept) => break swept,
            None => volatile::secure(store)?,
        }
    };
    for layer in &plan.layers {
        trashed.push(store.discard(&store.layers().home(layer.id))?);
    }
    for path in trashed.iter().flatten() {
        empty(path);
    }
    if !plan.layers.is_empty() {
        sweep_chains(store, None)?;
    }
    report.reclaimed_bytes += store.db().look(|c| partials(store, c, false))?;
    report.reclaimed_bytes += set_aside(store, policy)?;
    Ok(report)
}

/// What goes, and where the blobs went. `None`: a layer that stays has to be on the disk before blobs may go.
fn sweep(store: &Store, policy: &Policy, report: &mut Report) -> Result<Option<(Plan, Vec<Option<PathBuf>>)>> {
    store.db().transaction("collect garbage", |tx| {
        let plan = plan(store, tx, policy)?;
        if !plan.blobs.is_empty() && volatile::at_risk(tx)? {
            return Ok(None);
        }
        forget(tx, &plan).map_err(Error::db("remove what nothing needs"))?;
        plan.describe(store, report);
        let blobs = plan.blobs.iter().map(|digest| store.discard(&store.content().path(digest)));
        let trashed = blobs.collect::<Result<Vec<_>>>()?;
        Ok(Some((plan, trashed)))
    })
}

/// The same steps in a transaction that is taken back.
fn rehearse(store: &Store, policy: &Policy) -> Result<Report> {
    let step = "rehearse a collection";
    let dead = if policy.abandoned { store.leases().abandoned()? } else { Vec::new() };
    store.db().rehearsal(step, |tx| {
        for id in dead {
            tx.execute("DELETE FROM leases WHERE id = ?1", [id]).map_err(Error::db(step))?;
        }
        expire(tx).map_err(Error::db(step))?;
        let mut report = Report::default();
        plan(store, tx, policy)?.describe(store, &mut report);
        report.reclaimed_bytes += partials(store, tx, true)? + set_aside(store, policy)?;
        Ok(report)
    })
}

/// What goes.
struct Plan {
    blobs: Vec<Digest>,
    layers: Vec<Row>,
}

impl Plan {
    fn describe(&self, store: &Store, report: &mut Report) {
        report.removed_blobs.clone_from(&self.blobs);
        report.removed_layers = self.layers.iter().map(|row| row.diff_id.clone()).collect();
        let blobs: u64 = self.blobs.iter().map(|digest| store.content().disk_usage(digest)).sum();
        let layers: u64 = self.layers.iter().map(|row| store.layers().disk_usage(row.id)).sum();
        report.reclaimed_bytes = blobs + layers;
    }
}

fn plan(store: &Store, c: &Conn, policy: &Policy) -> Result<Plan> {
    let live = mark::mark(store, c)?;
    let goes = |path: &Path, digest: &Digest, released: &HashSet<Digest>| {
        policy.grace.is_zero() || released.contains(digest) || age(path) >= policy.grace
    };
    let blobs = store.content().list()?.into_iter().map(|(digest, _)| digest).filter(|digest| {
        !live.blobs.contains(digest) && goes(&store.content().path(digest), digest, &policy.released.blobs)
    });
    let layers = rows(c)?.into_iter().filter(|row| {
        !live.layers.contains(&row.diff_id) && goes(&store.layers().home(row.id), &row.diff_id, &policy.released.layers)
    });
    Ok(Plan { blobs: blobs.collect(), layers: layers.collect() })
}

/// Since a file's content, or a directory's list of names, last changed; nothing for one that has gone.
pub(crate) fn age(path: &Path) -> Duration {
    let modified = std::fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok();
    modified.and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default()
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

/// Partial content that nobody writes: whose leases are all gone, or that is old. Gives its bytes on disk.
fn partials(store: &Store, c: &Conn, dry_run: bool) -> Result<u64> {
    let held = leased(c)?.remove("blob").unwrap_or_default();
    let mut bytes = 0;
    for (name, path) in names(&store.dir("ingest"))? {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if age(&path) < STALE_PARTIAL && held.contains(&name.replacen('-', ":", 1)) {
            continue;
        }
        if let Some(_lock) = lock_file_now(&path)? {
            bytes += meta.blocks() * 512;
            if !dry_run {
                empty(&path);
            }
        }
    }
    Ok(bytes)
}

/// What was set aside long enough ago. Gives its bytes on disk.
fn set_aside(store: &Store, policy: &Policy) -> Result<u64> {
    let mut bytes = 0;
    for (_, path) in names(&store.dir("quarantine"))? {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        // Its last change was the renaming: inode(7), "ctime".
        let since = (now_ms() / 1000).saturating_sub(meta.ctime());
        if !policy.quarantine && u64::try_from(since).unwrap_or(0) < QUARANTINE.as_secs() {
            continue;
        }
        bytes += meta.blocks() * 512 + if meta.is_dir() { crate::snapshot::disk_usage(&path) } else { 0 };
        if !policy.dry_run {
            store.remove(&path)?;
        }
    }
    Ok(bytes)
}

/// Blobs and layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// By digest.
    pub blobs: HashSet<Digest>,
    /// By diff ID.
    pub layers: HashSet<Digest>,
}

/// What an image is made of, all platforms of an index that are here included.
pub fn reachable(store: &Store, image: &ImageRecord) -> Result<Reached> {
    let mut live = Reached::default();
    mark::image(store, &Mentioned::of(image), &mut live);
    live.blobs.retain(|digest| store.content().has(digest).is_ok_and(|size| size.is_some()));
    Ok(live)
}

/// What an image's row mentions by itself.
struct Mentioned {
    blobs: Vec<Digest>,
    diff_ids: Vec<Digest>,
    /// Not these, though something of it mentions them.
    dropped: HashSet<Digest>,
}

impl Mentioned {
    fn of(image: &ImageRecord) -> Self {
        let own = [&image.target.digest, &image.manifest.digest, &image.config].map(Clone::clone);
        let layers = image.layers.iter().map(|layer| layer.digest.clone());
        let attached = image.attached.iter().map(|own| own.manifest.digest.clone());
        let blobs = own.into_iter().chain(layers).chain(attached).collect();
        Self { blobs, diff_ids: image.diff_ids.clone(), dropped: image.dropped.iter().cloned().collect() }
    }
}

/// What every image mentions, without those that only a dead lease wanted. A damaged record still has its columns, and
/// they lead to the rest.
fn mentioned(c: &Conn) -> Result<Vec<Mentioned>> {
    let sql = "SELECT record, target, manifest, config FROM images WHERE NOT leased OR EXISTS
        (SELECT 1 FROM lease_refs r JOIN leases l ON l.id = r.lease
         WHERE r.kind = 'image' AND r.key = CAST(images.id AS TEXT) AND l.expires_at_ms > ?1)";
    let read = |r: &rusqlite::Row<'_>| -> rusqlite::Result<Mentioned> {
        if let Ok(image) = serde_json::from_str::<ImageRecord>(&r.get::<_, String>(0)?) {
            return Ok(Mentioned::of(&image));
        }
        let columns = [r.get::<_, String>(1)?, r.get(2)?, r.get(3)?];
        let blobs = columns.iter().filter_map(|text| text.parse().ok()).collect();
        Ok(Mentioned { blobs, diff_ids: Vec::new(), dropped: HashSet::new() })
    };
    let all = c.prepare(sql).and_then(|mut q| q.query_map([now_ms()], read)?.collect());
    all.map_err(Error::db("list images"))
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
