//! Garbage collection (skeleton).
use crate::{Result, Store};
use oci::Digest;
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
// pub fn collect(store: &Store, dry_run: bool) -> Result<Report>;
