//! Signatures and attestations go where their image goes: unchanged, with the same digests.

use oci::Digest;

use super::sign::{SUFFIXES, belongings};
use crate::error::Result;
use crate::registry::MANIFEST_MAX;
use crate::transport::{Sink, Source};

/// Copies what belongs to the manifests with these digests, as far as the sink takes it. Gives how many manifests that were.
///
/// # Errors
/// Those of both sides.
pub async fn along(source: &dyn Source, sink: &dyn Sink, digests: &[Digest]) -> Result<usize> {
    let mut count = 0;
    for digest in digests {
        for found in belongings(source, digest, SUFFIXES).await? {
            let blobs = std::iter::once(&found.manifest.config).chain(&found.manifest.layers);
            // Whatever else refers to an image may be as large as it likes: that is for `copy` of its own.
            if blobs.clone().any(|blob| blob.size > MANIFEST_MAX) {
                continue;
            }
            for blob in blobs {
                sink.small(blob, &super::evidence::blob(source, blob).await?).await?;
            }
            count += usize::from(sink.attach(&found.raw, found.tag.as_deref()).await?);
        }
    }
    Ok(count)
}
