//! Snapshots: filesystems made of a chain of layers, writable or not, handed out as mounts.
pub(crate) mod copy;
pub(crate) mod overlay;

use crate::layer::{Change, Compression};
use crate::{Result, Store};
use oci::{Descriptor, Digest};
use std::collections::BTreeMap;
use sys::mount::Mount;

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its unique name.
    pub key: String,
    /// Diff IDs of the layers below it, lowest first.
    pub parents: Vec<Digest>,
    /// "overlay" or "copy".
    pub snapshotter: String,
    /// RFC 3339.
    pub created_at: String,
    /// Id of the image it was made from.
    pub image_id: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Cannot be written to.
    pub read_only: bool,
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
    /// "overlay" or "copy"; empty: what works here.
    pub snapshotter: &'a str,
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
    pub fn prepare(&self, wanted: &Prepare<'_>) -> Result<(Snapshot, Vec<Mount>)>;
    /// How to mount a snapshot that exists.
    pub fn mounts(&self, key: &str) -> Result<(Snapshot, Vec<Mount>)>;
    /// One snapshot.
    pub fn get(&self, key: &str) -> Result<Option<Snapshot>>;
    /// All of them, by key.
    pub fn list(&self, with_size: bool) -> Result<Vec<Snapshot>>;
    /// Idempotent, also for a snapshot whose directories are damaged or gone.
    pub fn remove(&self, key: &str) -> Result<()>;
    /// Makes a layer of what was written. `None` when nothing was (a snapshot that is not kept is removed then, too).
    pub fn commit(&self, key: &str, how: Commit<'_>) -> Result<Option<Committed>>;
    /// Paths that differ from the parents, sorted.
    pub fn diff(&self, key: &str) -> Result<Vec<Change>>;
    /// Writes the whole filesystem as a tar; gives its bytes.
    pub fn export<W: std::io::Write>(&self, key: &str, out: W) -> Result<u64>;
}
