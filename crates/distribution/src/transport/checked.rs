//! A blob that is verified as it passes, and small ones that are verified before anybody sees them.

use std::io::{self, Read};

use oci::digest::Hasher;
use oci::{Descriptor, Digest};

use super::{Source, pump};
use crate::error::{Error, Result};
use crate::registry::MANIFEST_MAX;

/// Hashes and counts what passes.
pub(crate) struct Checked<'a, R: ?Sized> {
    from: &'a mut R,
    hasher: Hasher,
    /// Bytes so far.
    pub(crate) size: u64,
}

impl<'a, R: Read + ?Sized> Checked<'a, R> {
    pub(crate) fn new(from: &'a mut R, digest: &Digest) -> Self {
        Self { from, hasher: Hasher::like(digest), size: 0 }
    }

    /// Whether what has passed is the blob.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`].
    pub(crate) fn verify(self, digest: &Digest) -> Result<()> {
        same("blob", digest, self.hasher.finish())
    }
}

impl<R: Read + ?Sized> Read for Checked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}

/// Whether bytes at hand are what a digest says.
///
/// # Errors
/// [`Error::DigestMismatch`].
pub(crate) fn verify(what: &'static str, digest: &Digest, bytes: &[u8]) -> Result<()> {
    same(what, digest, digest.like(bytes))
}

fn same(what: &'static str, expected: &Digest, actual: Digest) -> Result<()> {
    match actual == *expected {
        true => Ok(()),
        false => Err(Error::DigestMismatch { what, expected: expected.clone(), actual }),
    }
}

/// A config or another small blob of a source, verified; when it came damaged, from the next place that has it. `what` is for
/// messages.
///
/// # Errors
/// The source's; [`Error::ManifestInvalid`] for one that is too large, [`Error::DigestMismatch`].
pub(crate) async fn small(
    source: &dyn Source,
    descriptor: &Descriptor,
    kind: &'static str,
    what: &str,
) -> Result<Vec<u8>> {
    if descriptor.size > MANIFEST_MAX {
        return Err(Error::manifest(what, format!("a {kind} of {} bytes", descriptor.size)));
    }
    loop {
        let stream = source.open(descriptor, 0).await?;
        let bytes = pump::collect(stream, what, descriptor.size).await?;
        match verify(kind, &descriptor.digest, &bytes) {
            Ok(()) => return Ok(bytes),
            Err(_) if source.distrust(descriptor) => {}
            Err(error) => return Err(error),
        }
    }
}
