//! Snapshots: filesystems made of a chain of layers, writable or not, handed out as mounts.
mod btrfs;
mod commit;
mod copy;
mod driver;
pub(crate) mod erofs;
mod export;
mod overlay;
mod prepare;
mod record;
mod settle;

use crate::layer::{Change, ChangeList, Compression, Part, Row, Sink, View, compare, upper};
use crate::{Error, Result, Store};
use oci::idmap::IdMap;
use oci::{Descriptor, Digest};
use record::Record;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use sys::mount::{IDMAP, Mount};

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// Its unique name.
    pub key: String,
    /// Diff IDs of the layers below it, lowest first.
    pub parents: Vec<Digest>,
    /// "overlay", "btrfs", "fuse-overlayfs", "copy" or "erofs".
    pub snapshotter: String,
    /// RFC 3339.
    pub created_at: String,
    /// Id of the image it was made from.
    pub image_id: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Cannot be written to.
    pub read_only: bool,
    /// Which stored ids are which where it is mounted, in the words of mount(8)'s X-mount.idmap; empty: themselves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub idmap: String,
    /// Bytes on disk of its own part; 0 when it was not asked for.
    pub size_bytes: u64,
}

/// What a new snapshot is to be.
#[derive(Clone, Debug, Default)]
pub struct Prepare<'a> {
    /// Its unique name.
    pub key: &'a str,
    /// Diff IDs of layers of the store, lowest first; none: an empty root.
    pub parents: &'a [Digest],
    /// Without a writable part.
    pub read_only: bool,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Id of the image it is made from.
    pub image_id: Option<&'a str>,
    /// Keeps the layers, too.
    pub lease: Option<&'a str>,
    /// "overlay", "btrfs", "fuse-overlayfs", "copy" or "erofs"; empty: what works here.
    pub snapshotter: &'a str,
    /// For a user namespace: its mappings. Files keep the ids that the image has; only the mount shows others.
    pub idmap: Option<&'a IdMap>,
}

/// How to make a layer of a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commit<'a> {
    /// Of the blob.
    pub compression: Compression,
    /// Leave the snapshot as it is; else it is consumed, and must not be mounted any more.
    pub keep: bool,
    /// Times after this (seconds since the epoch) become this.
    pub source_date_epoch: Option<i64>,
    /// Keeps the new blob and layer.
    pub lease: Option<&'a str>,
}

/// A layer made of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its blob.
    pub descriptor: Descriptor,
    /// Its unpacked form.
    pub diff_id: Digest,
}

/// The snapshots of a store.
pub struct Snapshots<'a>(pub(crate) &'a Store);

impl Snapshots<'_> {
    /// Makes a snapshot and says how to mount it. The key must be new.
    pub fn prepare(&self, wanted: &Prepare<'_>) -> Result<(Snapshot, Vec<Mount>)> {
        let record = prepare::prepare(self.0, wanted)?;
        let mounts = self.mounts_of(&record)?;
        Ok((record.snapshot, mounts))
    }

    /// How to mount a snapshot that exists.
    pub fn mounts(&self, key: &str) -> Result<(Snapshot, Vec<Mount>)> {
        let record = self.find(key)?;
        let mounts = self.mounts_of(&record)?;
        Ok((record.snapshot, mounts))
    }

    /// One snapshot.
    pub fn get(&self, key: &str) -> Result<Option<Snapshot>> {
        Ok(record::get(self.0, key)?.map(|record| record.snapshot))
    }

    /// All of them, by key; sizes need a walk through each.
    pub fn list(&self, with_size: bool) -> Result<Vec<Snapshot>> {
        let mut all = Vec::new();
        for record in record::all(self.0)? {
            let size_bytes = if with_size { disk_usage(&record.fs(self.0)) } else { 0 };
            all.push(Snapshot { size_bytes, ..record.snapshot });
        }
        Ok(all)
    }

    /// Idempotent, also for a snapshot whose directories are damaged or gone.
    pub fn remove(&self, key: &str) -> Result<()> {
        let id = self.0.db().write("remove a snapshot", |tx| record::remove(tx, key))?;
        match id {
            Some(id) => self.0.remove(&self.0.dir("snapshots").join(id.to_string())),
            None => Ok(()),
        }
    }

    /// Makes a layer of what was written. `None` when nothing was; a snapshot that is not kept is removed then, too.
    pub fn commit(&self, key: &str, how: Commit<'_>) -> Result<Option<Committed>> {
        commit::commit(self.0, self.find(key)?, how)
    }

    /// Paths that differ from the parents, in the order of a walk.
    pub fn diff(&self, key: &str) -> Result<Vec<Change>> {
        let record = self.find(key)?;
        let mut list = ChangeList::new(View::open(&self.parts(&record)?)?);
        self.changes(&record, &mut list)?;
        Ok(list.changes)
    }

    /// Writes the whole filesystem as a tar; gives its bytes.
    pub fn export<W: io::Write>(&self, key: &str, out: W) -> Result<u64> {
        export::export(&self.view(key)?, out)
    }

    /// Writes the merged filesystem of layers, lowest first, as a tar; gives its bytes. No snapshot is made. The caller
    /// keeps the layers.
    pub fn export_layers<W: io::Write>(&self, diff_ids: &[Digest], out: W) -> Result<u64> {
        let (_staging, view) = prepare::tree(self.0, diff_ids)?;
        export::export(&view, out)
    }

    /// The merged tree of a snapshot.
    pub(crate) fn view(&self, key: &str) -> Result<View> {
        let record = self.find(key)?;
        let mut parts = self.parts(&record)?;
        let marks = driver(&record)?.marks(self.0);
        if marks.is_none() {
            parts.clear();
        }
        parts.insert(0, Part { fs: record.fs(self.0), opaque_root: false, marks: marks.unwrap_or(self.0.marks()) });
        View::open(&parts)
    }

    /// The merged tree of layers, there as long as the staging directory is.
    pub(crate) fn tree(&self, diff_ids: &[Digest]) -> Result<(crate::store::Staging, View)> {
        prepare::tree(self.0, diff_ids)
    }

    fn find(&self, key: &str) -> Result<Record> {
        record::get(self.0, key)?.ok_or_else(|| Error::not_found("snapshot", key))
    }

    /// The layers below a snapshot, topmost first, as far as they show through.
    fn parts(&self, record: &Record) -> Result<Vec<Part>> {
        if record.layers.len() != record.snapshot.parents.len() {
            return Err(damaged(record, "one of its layers is missing"));
        }
        parts(self.0, &record.layers).map_err(|problem| damaged(record, problem))
    }

    /// Fails when [`Self::mounts`] would, or would have to make something first; makes nothing.
    pub(crate) fn examine(&self, key: &str) -> Result<()> {
        let record = self.find(key)?;
        let parts = self.whole(&record)?;
        let lacking = if is_stacked(&record, &parts) { driver(&record)?.lacking(&parts) } else { None };
        lacking.map_or(Ok(()), |problem| Err(damaged(&record, problem)))
    }

    /// [`Self::parts`] of a snapshot whose own part is there.
    fn whole(&self, record: &Record) -> Result<Vec<Part>> {
        let parts = self.parts(record)?;
        match record.fs(self.0).is_dir() {
            true => Ok(parts),
            false => Err(damaged(record, "its directory is missing")),
        }
    }

    fn mounts_of(&self, record: &Record) -> Result<Vec<Mount>> {
        let parts = self.whole(record)?;
        let (fs, read_only) = (record.fs(self.0), record.snapshot.read_only);
        let mut mount = match parts.as_slice() {
            parts if is_stacked(record, parts) => {
                driver(record)?.mount(self.0, parts, &record.dir(self.0), read_only)?
            }
            [only] => overlay::bind(&only.fs, true),
            _ => overlay::bind(&fs, read_only),
        };
        if !record.snapshot.idmap.is_empty() {
            mount.options.push(format!("{IDMAP}{}", record.snapshot.idmap));
        }
        Ok(vec![mount])
    }

    /// Tells the sink what the snapshot changed.
    fn changes(&self, record: &Record, sink: &mut dyn Sink) -> Result<bool> {
        let fs = record.fs(self.0);
        let parts = self.parts(record)?;
        match driver(record)?.marks(self.0) {
            None => compare(&fs, &parts, &record.prepared, sink),
            Some(marks) => upper(&fs, marks, &parts, &record.prepared, sink),
        }
    }
}

/// Whether the snapshot's own driver mounts it. Where nothing but the root was prepared and nothing is deleted, the one layer
/// of a read-only snapshot can be shown as it is.
fn is_stacked(record: &Record, parts: &[Part]) -> bool {
    let plain = record.prepared.len() <= 1 && !record.layers.iter().any(|layer| layer.whiteouts);
    match parts {
        [] => false,
        [_] => !(record.snapshot.read_only && plain),
        _ => true,
    }
}

/// The directories of layers (lowest first), topmost first, down to one that hides the rest.
fn parts(store: &Store, layers: &[Row]) -> std::result::Result<Vec<Part>, String> {
    let mut all = Vec::new();
    for layer in layers.iter().rev() {
        let fs = store.layers().fs(layer.id);
        if !fs.is_dir() {
            return Err(format!("the directory of its layer {} is missing", layer.diff_id));
        }
        if layer.whiteouts && !store.sees_marks() {
            let why = "hides things by attributes that only root of the machine can see; use a store of your own";
            return Err(format!("its layer {} {why}", layer.diff_id));
        }
        all.push(Part { fs, opaque_root: layer.unresolved.opaque_root, marks: store.marks() });
        if layer.unresolved.opaque_root {
            break;
        }
    }
    Ok(all)
}

fn driver(record: &Record) -> Result<&'static dyn driver::Driver> {
    let name = &record.snapshot.snapshotter;
    driver::by_name(name).ok_or_else(|| damaged(record, format!("its snapshotter {name:?} is unknown to this release")))
}

fn damaged(record: &Record, problem: impl Into<String>) -> Error {
    Error::SnapshotDamaged { key: record.snapshot.key.clone(), problem: problem.into() }
}

/// Bytes on disk of a tree, files with several names once; what cannot be read counts nothing.
pub(crate) fn disk_usage(path: &std::path::Path) -> u64 {
    let mut seen = HashSet::new();
    let mut open = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
                bytes += meta.blocks() * 512;
            }
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    bytes
}

pub(crate) use btrfs::sweep_chains;
pub(crate) use commit::finish_commit;
pub(crate) use driver::{Driver, Probes};
pub(crate) use record::{confirm_beside, insert as insert_row, read_beside, was_committed, was_removed};
