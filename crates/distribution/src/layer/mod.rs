//! Layers: archives unpacked into directories, each independent of its parents and named by its diff ID (the digest
//! of the uncompressed archive).
//!
//! Whiteouts become what overlayfs understands: `.wh.x` a character device 0:0 named `x`, `.wh..wh..opq` the
//! attribute `trusted.overlay.opaque=y` (or its `user.` form, see [`Marks`]). What an archive says only in terms of its parents (a directory without an
//! entry, a hard link to a parent's file) is recorded beside the layer and settled when a snapshot is prepared.
mod apply;
mod archive;
mod commit;
pub mod compress;
mod diff;
mod entry;
mod gzip;
mod marks;
mod merged;
mod recompress;
mod record;
mod root;
pub(crate) mod tree;
mod unpack;
pub(crate) mod volatile;

pub use apply::unpack_into;
pub(crate) use apply::{Outcome, RATIO_FREE, RATIO_MAX, sync_filesystem};
pub(crate) use commit::{Hashing, Made, Packed, make, pack, packed};
pub use compress::Compression;
pub use diff::{Change, ChangeKind};
pub(crate) use diff::{ChangeList, Place, Prepared, Sink, Stamp, TarSink, between, compare, upper};
pub(crate) use marks::Marks;
pub(crate) use merged::{Found, Part, View};
pub(crate) use recompress::recompress;
pub(crate) use record::{
    Bytes, RECORD_FILE, Row, Unresolved, read_beside, renew, restore, row, rows, upsert, write_beside,
};
pub(crate) use root::{is_dir, is_whiteout, proc_path, split};
pub(crate) use unpack::Privilege;

use crate::lease::{Kind, hold};
use crate::store::Staging;
use crate::{Error, Result, Store};
use oci::{Descriptor, Digest};
use std::io::Read;
use std::path::PathBuf;

/// An unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// False when it was there already.
    pub new: bool,
}

/// The layers of a store.
pub struct Layers<'a>(pub(crate) &'a Store);

impl Layers<'_> {
    /// Whether a layer is there, unpacked.
    pub fn has(&self, diff_id: &Digest) -> Result<bool> {
        Ok(self.find(diff_id)?.is_some())
    }

    /// [`Self::has`], and from now on the lease keeps the layer.
    pub fn hold(&self, diff_id: &Digest, lease: Option<&str>) -> Result<bool> {
        // What is not there needs no turn among the writers.
        if !self.has(diff_id)? {
            return Ok(false);
        }
        self.0.db().passing("hold a layer", |tx| {
            let there = row(tx, diff_id)?.is_some_and(|r| self.fs(r.id).is_dir());
            if there {
                hold(tx, lease, Kind::Layer, diff_id.as_str())?;
            }
            Ok(there)
        })
    }

    /// Unpacks a layer from its blob, in one pass, verifying the diff ID; on any failure nothing of it stays. The blob is
    /// the store's and on the disk; the layer need not be for a while (see [`volatile`]).
    ///
    /// One thread of its own decompresses while this one hashes and writes. The blob is read to its end, also past
    /// the archive's, so that a reader that hashes what passes through can verify its own digest afterwards; but when
    /// the layer is there already (another thread or process unpacked it), nothing is read.
    pub fn apply<R: Read + Send>(
        &self,
        blob: R,
        descriptor: &Descriptor,
        expected: &Digest,
        lease: Option<&str>,
    ) -> Result<LayerInfo> {
        apply::apply(self.0, blob, descriptor, Some(expected), lease)
    }

    /// The first half of [`Self::apply`], for who has the blob only at the end of it.
    pub(crate) fn unpack<R: Read + Send>(
        &self,
        blob: R,
        descriptor: &Descriptor,
        expected: &Digest,
        lease: Option<&str>,
    ) -> Result<Outcome> {
        apply::prepare(self.0, blob, descriptor, Some(expected), lease)
    }

    /// [`Self::apply`] for an archive whose diff ID is not known before.
    pub fn apply_unnamed<R: Read + Send>(
        &self,
        blob: R,
        descriptor: &Descriptor,
        lease: Option<&str>,
    ) -> Result<LayerInfo> {
        apply::apply(self.0, blob, descriptor, None, lease)
    }

    /// The directory of a layer.
    pub fn path(&self, diff_id: &Digest) -> Result<PathBuf> {
        self.find(diff_id)?.map(|r| self.fs(r.id)).ok_or_else(|| Error::not_found("layer", diff_id))
    }

    /// Bytes on disk of a layer.
    pub fn usage(&self, diff_id: &Digest) -> Result<u64> {
        self.find(diff_id)?.map(|r| r.size_bytes).ok_or_else(|| Error::not_found("layer", diff_id))
    }

    /// All layers.
    pub fn list(&self) -> Result<Vec<LayerInfo>> {
        let rows = self.0.db().look(rows)?;
        Ok(rows.into_iter().map(|r| r.info(false)).collect())
    }

    /// Bytes on disk of a layer's directory and of what was made of it, counted now.
    pub(crate) fn disk_usage(&self, id: i64) -> u64 {
        crate::snapshot::disk_usage(&self.home(id))
    }

    fn find(&self, diff_id: &Digest) -> Result<Option<Row>> {
        let found = self.0.db().look(|c| row(c, diff_id))?;
        Ok(found.filter(|r| self.fs(r.id).is_dir()))
    }

    /// Unpacks a layer once more into a staging directory: what it should look like.
    pub(crate) fn unpack_again<R: Read + Send>(&self, blob: R, descriptor: &Descriptor) -> Result<(Staging, Row)> {
        apply::unpack_staged(self.0, blob, descriptor)
    }

    /// Where the layer with this row id lies, with its record.
    pub(crate) fn home(&self, id: i64) -> PathBuf {
        self.0.dir("layers").join(id.to_string())
    }

    /// The directory of the layer with this row id.
    pub(crate) fn fs(&self, id: i64) -> PathBuf {
        self.home(id).join("fs")
    }
}
