//! An image that is made here: documents of its own, and blobs that are read where they are. Nothing is copied before a sink
//! asks for it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::manifest::Document;
use oci::{Descriptor, Digest};
use serde::Serialize;

use super::copy::{fetch, parse};
use super::pump::{bytes_stream, file_stream};
use super::{ByteStream, Source};
use crate::error::{Error, Result};
use crate::registry::RawManifest;

/// Where a blob is.
#[derive(Clone)]
pub enum Part {
    /// Here.
    Bytes(Vec<u8>),
    /// In an unnamed file.
    Spool(Arc<File>),
    /// In a file.
    File(PathBuf),
    /// At another source.
    Of(Arc<dyn Source>),
}

/// A source of documents and blobs from anywhere.
pub struct Made {
    name: String,
    root: RawManifest,
    manifests: HashMap<Digest, RawManifest>,
    parts: HashMap<Digest, Part>,
    /// Asked for whatever is not in the maps.
    rest: Option<Arc<dyn Source>>,
}

impl Made {
    /// Something that is called `name` and begins at `root`.
    #[must_use]
    pub fn new(name: impl Into<String>, root: RawManifest) -> Self {
        Self { name: name.into(), root, manifests: HashMap::new(), parts: HashMap::new(), rest: None }
    }

    /// What is not given comes from there.
    #[must_use]
    pub fn over(mut self, source: Arc<dyn Source>) -> Self {
        self.rest = Some(source);
        self
    }

    /// One of several manifests.
    pub fn put(&mut self, raw: RawManifest) {
        self.manifests.insert(raw.digest.clone(), raw);
    }

    /// A manifest of another source with all that it names.
    ///
    /// # Errors
    /// [`Error::ManifestInvalid`]; the source's, for nested indexes.
    pub fn adopt<'a>(&'a mut self, source: &'a Arc<dyn Source>, raw: RawManifest) -> BoxFuture<'a, Result<()>> {
        async move {
            match parse(&raw, &self.name)? {
                Document::Manifest(manifest) => {
                    for blob in manifest.layers.iter().chain([&manifest.config]) {
                        self.part(&blob.digest, Part::Of(source.clone()));
                    }
                }
                Document::Index(index) => {
                    for entry in index.manifests.iter().filter(|entry| source.has(entry)) {
                        let nested = fetch(source.as_ref(), entry, &self.name).await?;
                        self.adopt(source, nested).await?;
                    }
                }
            }
            self.put(raw);
            Ok(())
        }
        .boxed()
    }

    /// Where one blob is.
    pub fn part(&mut self, digest: &Digest, part: Part) {
        self.parts.insert(digest.clone(), part);
    }

    fn missing(&self, digest: &Digest) -> Error {
        Error::manifest(&self.name, format!("{digest} is missing"))
    }

    fn source_of(&self, digest: &Digest) -> Option<&Arc<dyn Source>> {
        match self.parts.get(digest) {
            Some(Part::Of(source)) => Some(source),
            Some(_) => None,
            None => self.rest.as_ref(),
        }
    }
}

/// A new document: serialised once, here.
///
/// # Errors
/// [`Error::ManifestInvalid`].
pub fn document<T: Serialize>(document: &T, media_type: &str, what: &str) -> Result<RawManifest> {
    let bytes = serde_json::to_vec(document).map_err(|e| Error::manifest(what, e))?;
    Ok(RawManifest::of(media_type, bytes))
}

/// An unnamed file as a stream, from an opening of its own: a duplicate would share the position.
fn spool_stream(file: &File, offset: u64) -> Result<ByteStream> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    path_stream(path, offset)
}

fn path_stream(path: PathBuf, offset: u64) -> Result<ByteStream> {
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    let size = file.metadata().map_err(Error::io("inspect", &path))?.len();
    Ok(file_stream(file, &path, offset, size.saturating_sub(offset)))
}

impl Source for Made {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn root(&self) -> BoxFuture<'_, Result<RawManifest>> {
        async { Ok(self.root.clone()) }.boxed()
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<RawManifest>> {
        async move {
            if let Some(raw) = self.manifests.get(&descriptor.digest) {
                return Ok(raw.clone());
            }
            let source = self.source_of(&descriptor.digest).ok_or_else(|| self.missing(&descriptor.digest))?;
            source.manifest(descriptor).await
        }
        .boxed()
    }

    fn open<'a>(&'a self, descriptor: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<ByteStream>> {
        async move {
            match self.parts.get(&descriptor.digest) {
                Some(Part::Bytes(bytes)) => Ok(bytes_stream(bytes.clone(), offset)),
                Some(Part::Spool(file)) => spool_stream(file, offset),
                Some(Part::File(path)) => path_stream(path.clone(), offset),
                Some(Part::Of(source)) => source.open(descriptor, offset).await,
                None => match &self.rest {
                    Some(source) => source.open(descriptor, offset).await,
                    None => Err(self.missing(&descriptor.digest)),
                },
            }
        }
        .boxed()
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        let own = self.manifests.contains_key(&descriptor.digest);
        own || match self.parts.get(&descriptor.digest) {
            Some(Part::Of(source)) => source.has(descriptor),
            Some(_) => true,
            None => self.rest.as_ref().is_some_and(|source| source.has(descriptor)),
        }
    }

    fn known_at(&self, registry: &str, digest: &Digest) -> Vec<String> {
        self.source_of(digest).map(|source| source.known_at(registry, digest)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::pump::collect;
    use super::*;

    #[tokio::test]
    async fn parts_come_from_where_they_are() {
        let raw = |text: &str| RawManifest {
            bytes: text.into(),
            media_type: oci::media_type::MANIFEST.into(),
            digest: Digest::of(text.as_bytes()),
        };
        let descriptor = |text: &str| Descriptor::of("text/plain", text.as_bytes());
        let mut below = Made::new("below", raw("a"));
        below.part(&descriptor("far").digest, Part::Bytes(b"far".to_vec()));
        let mut made = Made::new("made", raw("b")).over(Arc::new(below));
        let mut spool = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut spool, b"spooled").unwrap();
        made.part(&descriptor("spooled").digest, Part::Spool(Arc::new(spool)));
        for (text, offset) in [("far", 1), ("spooled", 3), ("spooled", 0)] {
            let stream = made.open(&descriptor(text), offset as u64).await.unwrap();
            assert_eq!(collect(stream, "it", (text.len() - offset) as u64).await.unwrap(), &text.as_bytes()[offset..]);
        }
        let missing = made.open(&descriptor("nothing"), 0).await.err().unwrap();
        assert!(missing.to_string().contains("below"), "{missing}");
        assert!(made.has(&descriptor("spooled")) && !made.has(&descriptor("nothing")));
    }
}
