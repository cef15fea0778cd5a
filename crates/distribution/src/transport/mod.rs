//! Where images come from and go to. A [`Source`] gives manifests and blobs, a [`Sink`] takes them, [`copy::copy`] connects any
//! two of them; pull, push, save, load and copy are all that.
//!
//! | transport | source | sink |
//! |---|---|---|
//! | `docker://` a registry | [`remote`] | [`remote`] |
//! | `oci:` an OCI layout directory | [`oci_layout`] | [`oci_layout`] |
//! | `oci-archive:` the same as a tar | [`oci_layout`] | [`oci_layout`] |
//! | `docker-archive:` what `docker save` writes | [`docker_archive`] | [`docker_archive`] |
//! | `dir:` skopeo's plain directory | [`dir`] | [`dir`] |
//! | `store:` this tool's store | [`stored`] | [`stored`] |

pub mod archive;
pub(crate) mod checked;
pub mod copy;
pub mod dir;
pub mod docker_archive;
pub mod guarded;
pub mod location;
pub mod made;
pub mod oci_layout;
pub mod pump;
pub mod recast;
pub mod referrers;
pub mod remote;
pub mod stored;

use futures::future::BoxFuture;
use oci::{Descriptor, Digest};

use crate::error::Result;
use crate::progress::Track;
use crate::registry::RawManifest;
pub use crate::registry::fetch::ByteStream;
pub use location::Location;

/// Something an image can be read from.
pub trait Source: Send + Sync {
    /// For messages.
    fn describe(&self) -> String;

    /// The manifest or index that the name stands for.
    fn root(&self) -> BoxFuture<'_, Result<RawManifest>>;

    /// A manifest or index that an index lists. The caller checks nothing: bytes and digest agree.
    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<RawManifest>>;

    /// The content of a blob from a byte on. The caller checks the digest.
    fn open<'a>(&'a self, descriptor: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<ByteStream>>;

    /// Whether the content is at hand; a source that cannot tell says yes.
    fn has(&self, _descriptor: &Descriptor) -> bool {
        true
    }

    /// What people should know of the source once it has been asked: a rate limit.
    fn notes(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// What was read of a blob was damaged. True when it is worth reading again, from another place.
    fn distrust(&self, _descriptor: &Descriptor) -> bool {
        false
    }

    /// Repositories of `registry` that have the blob, as far as this source knows.
    fn known_at(&self, _registry: &str, _digest: &Digest) -> Vec<String> {
        Vec::new()
    }

    /// What another tag of the same repository stands for: signatures lie beside images that way. Sources without tags have none.
    fn sibling<'a>(&'a self, _tag: &'a str) -> BoxFuture<'a, Result<Option<RawManifest>>> {
        Box::pin(async { Ok(None) })
    }

    /// Manifests of the same repository whose subject has the digest.
    fn referrers<'a>(&'a self, _digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Something an image can be written to. Blobs come before the manifest that names them.
pub trait Sink: Send + Sync {
    /// A config or another small blob; bytes and digest agree.
    fn small<'a>(&'a self, descriptor: &'a Descriptor, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>>;

    /// A layer. `diff_id` is known for container images. The sink checks the digest.
    fn layer<'a>(&'a self, source: &'a dyn Source, layer: Layer<'a>) -> BoxFuture<'a, Result<()>>;

    /// A manifest or index, after all that it names.
    fn manifest<'a>(&'a self, manifest: &'a RawManifest) -> BoxFuture<'a, Result<()>>;

    /// What the name stands for; stored by [`Sink::manifest`] before.
    fn finish<'a>(&'a self, root: &'a RawManifest) -> BoxFuture<'a, Result<()>>;

    /// A manifest that belongs to an image, under a tag of its own or to be found by its subject; its blobs came before. False:
    /// there is no place for such here.
    fn attach<'a>(&'a self, _manifest: &'a RawManifest, _tag: Option<&'a str>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async { Ok(false) })
    }

    /// A config or manifest that is here already, sound: it need not be fetched.
    fn at_hand(&self, _descriptor: &Descriptor) -> Option<Vec<u8>> {
        None
    }

    /// Waits for others that fetch the same small blob into the same place; it is at hand then. The value is our turn.
    fn turn<'a>(&'a self, _descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Send>>>> {
        Box::pin(async { Ok(None) })
    }

    /// Whether an index may be stored of which some images are missing.
    fn takes_partial_index(&self) -> bool {
        false
    }
}

/// A layer on its way.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    /// Its blob.
    pub descriptor: &'a Descriptor,
    /// Its uncompressed digest.
    pub diff_id: Option<&'a Digest>,
    /// Its line of progress.
    pub track: &'a Track,
}
