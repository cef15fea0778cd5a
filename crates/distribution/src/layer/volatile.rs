//! Layers that are there and not on the disk yet.
//!
//! A layer can be made again from its blob, and that is on the disk before the layer is seen. So nobody waits until the
//! thousands of files of a layer are there, too: its row names the boot of the machine in which it was unpacked.
//!
//! ```text
//! unpacked ─▶ volatile ── secure (syncfs) ─▶ lasting
//!                │ the machine starts anew
//!                ▼
//!              stale ─ its directory goes; it is unpacked again when it is needed, at once when a snapshot is made of it
//! ```
//!
//! Who gives up a blob whose layer stays has to [`secure`] before: a stale layer without a blob is lost.
use super::record::{Row, rows};
use super::sync_filesystem;
use crate::db::Conn;
use crate::{Error, Result, Store};
use oci::{Descriptor, Digest};
use std::collections::HashMap;
use std::time::Duration;

/// A name that this machine gives itself anew at each start (proc(5), /proc/sys/kernel/random).
pub(crate) fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(text.trim().to_owned())
}

/// The kernel has written most of what is older than this by itself, and the rest costs little.
const WRITTEN: Duration = Duration::from_secs(60);

/// [`secure`] when it is cheap.
pub(crate) fn secure_old(store: &Store) -> Result<()> {
    let old = |id: &i64| crate::gc::age(&store.layers().home(*id)) >= WRITTEN;
    if volatile(store)?.iter().any(old) { secure(store) } else { Ok(()) }
}

/// Makes every layer that is volatile now last. Does nothing, quickly, when there is none.
pub(crate) fn secure(store: &Store) -> Result<()> {
    let volatile = volatile(store)?;
    if volatile.is_empty() {
        return Ok(());
    }
    sync_filesystem(&store.dir("layers"))?;
    store.db().write("record that layers are on the disk", |tx| {
        let mut q = tx.prepare_cached("UPDATE layers SET volatile = NULL WHERE id = ?1")?;
        volatile.iter().try_for_each(|id| q.execute([id]).map(drop))
    })
}

/// The layers of this boot that are not sure to be on the disk.
fn volatile(store: &Store) -> Result<Vec<i64>> {
    let boot = boot_id()?;
    store.db().read("look for layers that are not on the disk", |c| {
        let mut q = c.prepare_cached("SELECT id FROM layers WHERE volatile = ?1")?;
        q.query_map([&boot], |r| r.get(0))?.collect()
    })
}

/// Whether one of them is kept by a snapshot or a lease: then its blob may go before it does.
pub(crate) fn at_risk(tx: &Conn) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM layers l WHERE volatile = ?1 AND (
                   EXISTS (SELECT 1 FROM snapshot_layers WHERE layer = l.id)
                   OR EXISTS (SELECT 1 FROM lease_refs WHERE kind = 'layer' AND key = l.diff_id)))";
    tx.query_row(sql, [boot_id()?], |r| r.get(0)).map_err(Error::db("look for layers that are not on the disk"))
}

/// Whether there are layers of an earlier boot. Asked at each opening of a store, so without reading them.
pub(crate) fn any_stale(store: &Store) -> Result<bool> {
    let boot = boot_id()?;
    store.db().read("look for layers of an earlier boot", |c| {
        let mut q = c.prepare_cached("SELECT EXISTS (SELECT 1 FROM layers WHERE volatile <> ?1)")?;
        q.query_row([&boot], |r| r.get::<_, bool>(0))
    })
}

/// What the last boot's layers have become nobody knows: they go, and those that snapshots are made of come back.
pub(crate) fn drop_stale(store: &Store) -> Result<()> {
    let boot = boot_id()?;
    let is_stale = |row: &Row| row.volatile.as_ref().is_some_and(|of| *of != boot);
    let stale: Vec<Row> = store.db().look(rows)?.into_iter().filter(is_stale).collect();
    for row in &stale {
        let trashed = store.db().transaction("forget a layer", |tx| {
            let step = Error::db("forget a layer");
            let sql = "DELETE FROM layers WHERE id = ?1 AND volatile = ?2
                       AND NOT EXISTS (SELECT 1 FROM snapshot_layers WHERE layer = ?1)";
            tx.execute(sql, rusqlite::params![row.id, row.volatile]).map_err(step)?;
            let still = super::row(tx, &row.diff_id)?;
            // Another process may have made it again already.
            match still.is_some_and(|now| !is_stale(&now)) {
                true => Ok(None),
                false => store.discard(&store.layers().home(row.id)),
            }
        })?;
        trashed.iter().for_each(|path| crate::store::empty(path));
    }
    if stale.is_empty() { Ok(()) } else { remake(store) }
}

/// Unpacks again what a snapshot is made of and is not there, as far as its blob is.
fn remake(store: &Store) -> Result<()> {
    let missing: Vec<Row> = store.db().look(rows)?.into_iter().filter(|row| row.volatile.is_some()).collect();
    let missing: Vec<Row> = missing.into_iter().filter(|row| !store.layers().fs(row.id).is_dir()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let blobs = blobs(store)?;
    for row in missing {
        let made = blobs.get(&row.diff_id).ok_or_else(|| Error::not_found("blob of layer", &row.diff_id));
        let made = made.and_then(|blob| {
            let file = store.content().open(&blob.digest)?;
            store.layers().apply(file, blob, &row.diff_id, None)
        });
        match made {
            Ok(_) => tracing::info!(layer = %row.diff_id, "unpacked again after the machine's restart"),
            Err(error) => tracing::warn!(layer = %row.diff_id, %error, "cannot be unpacked again"),
        }
    }
    Ok(())
}

/// Which blob unpacks to a layer, of those that are here.
pub(crate) fn blobs(store: &Store) -> Result<HashMap<Digest, Descriptor>> {
    let own = store.db().look(rows)?.into_iter().filter_map(|row| Some((row.blob?, row.diff_id)));
    let images = store.images().list()?.into_iter().flat_map(|image| image.layers.into_iter().zip(image.diff_ids));
    let mut all = HashMap::new();
    for (blob, diff_id) in own.chain(images) {
        if store.content().has(&blob.digest)? == Some(blob.size) {
            all.insert(diff_id, blob);
        }
    }
    Ok(all)
}
