//! `docker://`: a repository of a registry.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::{Descriptor, Reference};

use super::pump::bytes_stream;
use super::{ByteStream, Layer, Sink, Source};
use crate::error::Result;
use crate::registry::{self, RawManifest, Registry, fetch, upload};

/// A repository, and the tag or digest that is meant.
#[derive(Clone)]
pub struct Remote {
    registry: Registry,
    reference: Reference,
}

impl Remote {
    /// Prepares; nothing is asked yet. No policy stands before it: see [`super::guarded`].
    ///
    /// # Errors
    /// See [`Registry::open`].
    pub async fn open(reference: &Reference, options: &registry::Options) -> Result<Self> {
        let registry = Registry::open(reference.registry(), options).await?;
        Ok(Self { registry, reference: reference.clone() })
    }

    fn repository(&self) -> &str {
        self.reference.repository()
    }

    /// The tag or digest; the digest when there are both.
    fn version(&self) -> &str {
        match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => digest.as_str(),
            (None, tag) => tag.unwrap_or("latest"),
        }
    }
}

impl Source for Remote {
    fn describe(&self) -> String {
        self.reference.to_string()
    }

    fn root(&self) -> BoxFuture<'_, Result<RawManifest>> {
        async { Ok(self.registry.manifest(self.repository(), self.version()).await?) }.boxed()
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<RawManifest>> {
        async { Ok(self.registry.manifest(self.repository(), descriptor.digest.as_str()).await?) }.boxed()
    }

    fn open<'a>(&'a self, descriptor: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<ByteStream>> {
        let stream = fetch::blob(self.registry.clone(), self.repository().into(), descriptor.clone(), offset);
        async { Ok(stream) }.boxed()
    }

    fn notes(&self) -> BoxFuture<'_, Vec<String>> {
        async { self.registry.limit().await.map(|limit| format!("rate limit: {limit}")).into_iter().collect() }.boxed()
    }

    fn distrust(&self, descriptor: &Descriptor) -> bool {
        self.registry.distrust(self.repository(), &descriptor.digest)
    }

    fn known_at(&self, registry: &str, _digest: &oci::Digest) -> Vec<String> {
        if registry == self.reference.registry() { vec![self.repository().into()] } else { Vec::new() }
    }

    fn sibling<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, Result<Option<RawManifest>>> {
        async move {
            match self.registry.manifest(self.repository(), tag).await {
                Ok(raw) => Ok(Some(raw)),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn referrers<'a>(&'a self, digest: &'a oci::Digest) -> BoxFuture<'a, Result<Vec<Descriptor>>> {
        async move { Ok(self.registry.referrers(self.repository(), digest, None).await?) }.boxed()
    }
}

impl Sink for Remote {
    fn small<'a>(&'a self, descriptor: &'a Descriptor, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        async move {
            let open = |offset| async move { Ok(bytes_stream(bytes.to_vec(), offset)) }.boxed();
            let sent = std::sync::Arc::new(|_| {});
            upload::blob(&self.registry, self.repository(), descriptor, &[], &open, sent).await.map(drop)
        }
        .boxed()
    }

    fn layer<'a>(&'a self, source: &'a dyn Source, layer: Layer<'a>) -> BoxFuture<'a, Result<()>> {
        async move {
            let from = source.known_at(self.reference.registry(), &layer.descriptor.digest);
            let open = |offset: u64| {
                layer.track.set(offset);
                source.open(layer.descriptor, offset)
            };
            let track = layer.track.clone();
            let sent = std::sync::Arc::new(move |bytes| track.add("uploading", bytes));
            let outcome = upload::blob(&self.registry, self.repository(), layer.descriptor, &from, &open, sent).await?;
            layer.track.finish(match outcome {
                upload::Outcome::Exists => "exists",
                upload::Outcome::Mounted => "mounted",
                upload::Outcome::Uploaded => "done",
            });
            Ok(())
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, manifest: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        async { Ok(self.registry.put_manifest(self.repository(), manifest.digest.as_str(), manifest).await?) }.boxed()
    }

    fn attach<'a>(&'a self, manifest: &'a RawManifest, tag: Option<&'a str>) -> BoxFuture<'a, Result<bool>> {
        async move {
            let reference = tag.unwrap_or(manifest.digest.as_str());
            self.registry.put_manifest(self.repository(), reference, manifest).await?;
            Ok(true)
        }
        .boxed()
    }

    fn finish<'a>(&'a self, root: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        async {
            match self.reference.tag() {
                Some(tag) => Ok(self.registry.put_manifest(self.repository(), tag, root).await?),
                None => Ok(()),
            }
        }
        .boxed()
    }
}
