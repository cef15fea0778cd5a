//! A source behind the trust policy: of an image nothing comes out unless its manifest is let in.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::{Descriptor, Digest};

use super::{ByteStream, Location, Source};
use crate::error::Result;
use crate::registry::RawManifest;
use crate::trust::{self, Door, Subject};

struct Guarded {
    inner: Box<dyn Source>,
    door: Door,
}

/// Puts the policy in force before what a location has. The store's images were let in before.
///
/// # Errors
/// Those of the policy.
pub fn guard(inner: Box<dyn Source>, location: &Location, setting: &trust::Setting) -> Result<Box<dyn Source>> {
    let Some(subject) = Subject::of(location) else { return Ok(inner) };
    Ok(match trust::in_force(setting)? {
        Some(policy) => Box::new(Guarded { inner, door: Door::new(policy, subject) }),
        None => inner,
    })
}

impl Source for Guarded {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn root(&self) -> BoxFuture<'_, Result<RawManifest>> {
        async {
            let raw = self.inner.root().await?;
            self.door.root(self.inner.as_ref(), &raw).await?;
            Ok(raw)
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<RawManifest>> {
        async {
            let raw = self.inner.manifest(descriptor).await?;
            self.door.manifest(self.inner.as_ref(), descriptor, &raw).await?;
            Ok(raw)
        }
        .boxed()
    }

    fn open<'a>(&'a self, descriptor: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<ByteStream>> {
        self.inner.open(descriptor, offset)
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        self.inner.has(descriptor)
    }

    fn notes(&self) -> BoxFuture<'_, Vec<String>> {
        self.inner.notes()
    }

    fn distrust(&self, descriptor: &Descriptor) -> bool {
        self.inner.distrust(descriptor)
    }

    fn known_at(&self, registry: &str, digest: &Digest) -> Vec<String> {
        self.inner.known_at(registry, digest)
    }

    fn sibling<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, Result<Option<RawManifest>>> {
        async move {
            let found = self.inner.sibling(tag).await?;
            if let Some(raw) = &found {
                self.door.beside(self.inner.as_ref(), raw).await?;
            }
            Ok(found)
        }
        .boxed()
    }

    fn referrers<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>>> {
        self.inner.referrers(digest)
    }
}
