//! A database that is damaged or lost is made anew from what lies beside the objects: the records of layers and snapshots,
//! and the files of images and of repositories' manifests. Only leases are lost, and blobs of repositories that no manifest
//! names yet.
//!
//! The new database is filled under another name and takes the place of the old one in one rename; the old one is kept in
//! `quarantine/`. Processes that had the old one open notice that it is another file now.
use super::{Store, names, sync_dir};
use crate::content::lock_file;
use crate::db::{self, Db};
use crate::image_record::mirror;
use crate::layer::{self, Row, Unresolved};
use crate::{Error, Result, snapshot};
use oci::Digest;
use std::collections::BTreeMap;
use std::path::Path;

const DB: &str = "store.db";
const NEW: &str = "store.db.new";
/// What SQLite keeps beside a database.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Opens the store's database; makes it anew when it cannot be read, or when it has gone and the objects have not.
pub(super) fn open(root: &Path) -> Result<Db> {
    match attempt(root) {
        Err(error) if error.is_corrupt_database() => {
            tracing::warn!(%error, "the image database is damaged and is made anew");
            run(root)?;
            Db::open(&root.join(DB), false)
        }
        other => other,
    }
}

fn attempt(root: &Path) -> Result<Db> {
    Db::open(&root.join(DB), !has_objects(root))
}

fn has_objects(root: &Path) -> bool {
    ["images", "layers", "registry", "snapshots"]
        .iter()
        .any(|dir| names(&root.join(dir)).is_ok_and(|found| !found.is_empty()))
}

/// Makes the database anew, unless another process has just done so.
fn run(root: &Path) -> Result<()> {
    let _one_at_a_time = lock_file(&root.join("rebuild.lock"))?;
    if attempt(root).is_ok() {
        return Ok(());
    }
    replace(root)
}

/// [`run`] for a database that opens and has damage inside.
pub(crate) fn by_force(store: &Store) -> Result<()> {
    let _one_at_a_time = lock_file(&store.dir("rebuild.lock"))?;
    replace(store.root())
}

fn replace(root: &Path) -> Result<()> {
    let (old, new) = (root.join(DB), root.join(NEW));
    for name in std::iter::once("").chain(BESIDE) {
        super::empty(&root.join(format!("{NEW}{name}")));
    }
    let filled = Store::with(root, Db::open(&new, true)?);
    fill(&filled)?;
    // The last connection that closes takes the log with it.
    drop(filled);
    std::fs::File::open(&new).and_then(|file| file.sync_all()).map_err(Error::io("sync", &new))?;
    let keep = root.join("quarantine").join(format!("{DB}.{}", db::random_name()));
    match std::fs::hard_link(&old, &keep) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("set aside", &old)(e)),
        _ => {}
    }
    for name in BESIDE {
        super::empty(&root.join(format!("{DB}{name}")));
    }
    std::fs::rename(&new, &old).map_err(Error::io("publish", &old))?;
    sync_dir(root)
}

fn fill(store: &Store) -> Result<()> {
    let mut ids = layers(store)?;
    keep_ids(store)?;
    for (name, path) in names(&store.dir("snapshots"))? {
        if let (Ok(id), Some(beside)) = (name.parse(), snapshot::read_beside(&path)) {
            let rows =
                beside.snapshot.parents.iter().map(|d| parent(store, &mut ids, d)).collect::<Result<Vec<_>>>()?;
            let prepared = beside.prepared.iter().map(|(path, stamp)| (path.as_ref().to_vec(), *stamp)).collect();
            store.db().transaction("record a snapshot", |tx| {
                snapshot::insert_row(tx, Some(id), &beside.snapshot, &rows, &prepared)
            })?;
        }
    }
    for image in mirror::all(store)? {
        restore_image(store, &image)?;
    }
    crate::server::mirror::restore(store)
}

/// The layers that have a record, by diff ID. A directory without one is left to recovery: the layer is unpacked again
/// from its blob when it is needed.
fn layers(store: &Store) -> Result<BTreeMap<Digest, Row>> {
    let mut all = BTreeMap::new();
    for (name, path) in names(&store.dir("layers"))? {
        let row = name.parse().ok().and_then(|id| layer::read_beside(&path, id));
        if let Some(row) = row.filter(|_| path.join("fs").is_dir()) {
            store.db().write("record a layer", |tx| layer::restore(tx, &row))?;
            all.insert(row.diff_id.clone(), row);
        }
    }
    Ok(all)
}

/// Ids that directories have, known or not, are never given again.
fn keep_ids(store: &Store) -> Result<()> {
    for table in ["layers", "snapshots"] {
        let taken =
            names(&store.dir(table))?.iter().filter_map(|(name, _)| name.parse::<i64>().ok()).max().unwrap_or(0);
        store.db().write("keep ids", |tx| {
            tx.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [table])?;
            tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", rusqlite::params![table, taken])
        })?;
    }
    Ok(())
}

/// A snapshot's layer; one that was lost gets a row without a directory, so that the snapshot says what it misses.
fn parent(store: &Store, known: &mut BTreeMap<Digest, Row>, diff_id: &Digest) -> Result<Row> {
    if let Some(row) = known.get(diff_id) {
        return Ok(row.clone());
    }
    let lost = Row {
        id: 0,
        diff_id: diff_id.clone(),
        size_bytes: 0,
        entries: 0,
        root_entry: false,
        whiteouts: true,
        unresolved: Unresolved::default(),
        volatile: None,
        blob: None,
    };
    let id = store.db().write("record a layer", |tx| layer::upsert(tx, &lost, None))?;
    known.insert(diff_id.clone(), Row { id, ..lost.clone() });
    Ok(Row { id, ..lost })
}

/// Records an image whose content is here.
fn restore_image(store: &Store, image: &mirror::Mirrored) -> Result<()> {
    let names: Vec<Option<&str>> = match image.names.as_slice() {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    for name in names {
        match store.images().put(&image.record, name, None) {
            // Removed a moment before, or damaged as well: then there is nothing to name.
            Err(Error::NotFound { .. }) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}
