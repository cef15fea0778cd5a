//! A blob made of changes: archive, diff ID, compression and blob digest in one pass.
use super::compress::Encoder;
use super::diff::{Sink, TarSink};
use super::{Compression, tree};
use crate::store::Staging;
use crate::{Error, Result};
use oci::digest::Hasher;
use oci::{Descriptor, Digest};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

const WRITE_BUFFER: usize = 256 * 1024;

/// A blob in a staging directory, synced.
pub(crate) struct Made {
    pub file: PathBuf,
    pub descriptor: Descriptor,
    pub diff_id: Digest,
    pub root_entry: bool,
    pub whiteouts: bool,
    pub entries: u64,
}

/// An archive on its way into a file: hashed, compressed, hashed again.
pub(crate) type Packing = Hashing<Encoder<Hashing<BufWriter<File>>>>;

/// Such a file.
pub(crate) struct Packed {
    /// Written, not synced.
    pub file: File,
    /// The blob, of the compression's type.
    pub descriptor: Descriptor,
    /// Of the archive.
    pub diff_id: Digest,
}

/// Begins an archive that is compressed into `file`.
pub(crate) fn pack(file: File, compression: Compression) -> io::Result<Packing> {
    let blob = Hashing::new(BufWriter::with_capacity(WRITE_BUFFER, file));
    Ok(Hashing::new(Encoder::new(compression, blob)?))
}

/// Ends it.
pub(crate) fn packed(archive: Packing, compression: Compression) -> io::Result<Packed> {
    let (encoder, diff_id, _) = archive.finish();
    let (out, digest, size) = encoder.finish()?.finish();
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Packed { file, descriptor: Descriptor::new(compression.media_type(), digest, size), diff_id })
}

/// Lets `fill` tell the changes and makes a blob of them; `None` when it says that there are none.
pub(crate) fn make(
    staging: &Staging,
    compression: Compression,
    latest: Option<i64>,
    fill: impl FnOnce(&mut dyn Sink) -> Result<bool>,
) -> Result<Option<Made>> {
    let path = staging.path().join("blob");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    let archive = pack(file, compression).map_err(Error::io("compress into", &path))?;
    let mut sink = TarSink::new(archive, latest);
    if !fill(&mut sink)? {
        return Ok(None);
    }
    let (root_entry, whiteouts, entries) = (sink.root_entry, sink.whiteouts, sink.entries);
    let archive = sink.finish().map_err(tree::failed("write the archive of", b""))?;
    let Packed { file, descriptor, diff_id } =
        packed(archive, compression).map_err(Error::io("compress into", &path))?;
    file.sync_all().map_err(Error::io("sync", &path))?;
    Ok(Some(Made { file: path, descriptor, diff_id, root_entry, whiteouts, entries }))
}

/// Hashes and counts what passes through.
pub(crate) struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::sha256(), bytes: 0 }
    }

    pub(crate) fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.bytes)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
