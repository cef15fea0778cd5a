//! Images out of registries.

use oci::{Digest, Reference};

use crate::error::Result;
use crate::registry::{Error, Options, Registry};

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// The tag; the manifest and its other tags stay.
    Tag(String),
    /// The manifest, and so all its tags.
    Manifest(Digest),
}

/// Deletes a tag, or with `manifest` what it stands for, which takes all tags of that; a reference by digest always means the
/// manifest. Blobs go when the registry collects its garbage.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Refused`] by registries that delete nothing, or no tags.
pub async fn delete(reference: &Reference, manifest: bool, options: &Options) -> Result<Deleted> {
    let registry = Registry::open(reference.registry(), options).await?;
    let repository = reference.repository();
    let tag = reference.tag().unwrap_or("latest");
    let digest = match reference.digest() {
        Some(digest) => digest.clone(),
        None if manifest => resolve(&registry, reference, tag).await?,
        None => {
            registry.delete_tag(repository, tag).await?;
            return Ok(Deleted::Tag(tag.to_owned()));
        }
    };
    registry.delete_manifest(repository, &digest).await?;
    Ok(Deleted::Manifest(digest))
}

async fn resolve(registry: &Registry, reference: &Reference, tag: &str) -> Result<Digest, Error> {
    let known = registry.manifest_digest(reference.repository(), tag).await?;
    match known.and_then(|text| text.parse().ok()) {
        Some(digest) => Ok(digest),
        // A registry that does not tell is asked for the whole.
        None => Ok(registry.manifest(reference.repository(), tag).await?.digest),
    }
}
