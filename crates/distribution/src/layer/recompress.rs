//! A layer's blob in another compression: its archive, and so its diff ID, is the same.
use super::Compression;
use super::compress::{Encoder, decoder};
use crate::{Error, Result};
use oci::Descriptor;
use std::io::{Read, Write};

/// Bytes that are compressed at once: whole ones, since a compressor may decide by what it is handed, and the same archive
/// shall give the same blob however it came.
const CHUNK: usize = 256 << 10;

/// Passes the archive of a blob through to `out`. The caller verifies the blob's digest; it may have bytes left.
pub(crate) fn recompress<R: Read + Send, W: Write>(
    from: &mut R,
    blob: &Descriptor,
    out: &mut W,
    how: Compression,
    level: Option<i32>,
) -> Result<()> {
    let mut plain = decoder(from, &blob.media_type)?;
    let format = plain.format.name();
    let failed = |source| Error::Io { step: "compress", path: blob.digest.as_str().into(), source };
    let mut encoder = Encoder::leveled(how, level, out).map_err(failed)?;
    let mut chunk = Vec::with_capacity(CHUNK);
    loop {
        chunk.clear();
        let read = plain.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        read.map_err(|source| Error::LayerCorrupt {
            digest: blob.digest.clone(),
            source: Box::new(Error::Decompress { format, source }),
        })?;
        if chunk.is_empty() {
            break;
        }
        encoder.write_all(&chunk).map_err(failed)?;
    }
    encoder.finish().and_then(|out| out.flush()).map_err(failed)
}
