//! What the store's own images add to a repository of their name: read each time, so that it is never out of date.

use std::collections::{HashMap, HashSet};

use oci::manifest::Document;
use oci::{Descriptor, Digest};

use crate::registry::MANIFEST_MAX;
use crate::{ImageRecord, Result, Store};

/// Content of the store's images of one repository.
#[derive(Default)]
pub(super) struct Offered {
    /// With their types.
    pub manifests: HashMap<Digest, String>,
    pub blobs: HashSet<Digest>,
}

impl Offered {
    /// Looks through the images that have a name in the repository.
    pub fn of(store: &Store, repository: &str) -> Result<Self> {
        let mut offered = Self::default();
        for image in images(store, repository)? {
            offered.follow(store, &image.target);
            offered.follow(store, &image.manifest);
        }
        Ok(offered)
    }

    /// Adds a manifest, and what it names as far as it is here. What cannot be read is not offered.
    fn follow(&mut self, store: &Store, manifest: &Descriptor) {
        if self.manifests.contains_key(&manifest.digest) {
            return;
        }
        let Ok(bytes) = store.content().read(&manifest.digest, MANIFEST_MAX) else { return };
        let Ok(document) = Document::parse(&bytes, &manifest.media_type) else { return };
        self.manifests.insert(manifest.digest.clone(), manifest.media_type.clone());
        match document {
            Document::Index(index) => index.manifests.iter().for_each(|entry| self.follow(store, entry)),
            Document::Manifest(manifest) => {
                self.blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
                self.blobs.insert(manifest.config.digest);
            }
        }
    }
}

/// Takes the names of images that are this manifest from a repository. False when there were none.
pub(super) fn remove(store: &Store, repository: &str, digest: &Digest) -> Result<bool> {
    let mut any = false;
    for image in images(store, repository)? {
        if image.target.digest == *digest || image.manifest.digest == *digest {
            for name in image.names.iter().filter(|name| split(name).is_some_and(|(own, _)| own == repository)) {
                any |= store.images().untag(name)?;
            }
        }
    }
    Ok(any)
}

/// Repository and tag of every image's name.
pub(super) fn names(store: &Store) -> Result<Vec<(String, String)>> {
    let images = store.images().list()?;
    let names = images.iter().flat_map(|image| &image.names).filter_map(|name| split(name));
    Ok(names.map(|(repository, tag)| (repository.to_owned(), tag.to_owned())).collect())
}

fn images(store: &Store, repository: &str) -> Result<Vec<ImageRecord>> {
    let mut images = store.images().list()?;
    images.retain(|image| image.names.iter().any(|name| split(name).is_some_and(|(own, _)| own == repository)));
    Ok(images)
}

/// A canonical name's repository and tag; names by digest have no tag.
fn split(name: &str) -> Option<(&str, &str)> {
    let (repository, tag) = name.rsplit_once(':')?;
    (!tag.contains('/') && !repository.contains('@')).then_some((repository, tag))
}
