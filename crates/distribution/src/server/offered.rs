//! What the store's own images add to a repository of their name, with what belongs to them (signatures, attestations): read
//! each time, so that it is never out of date.

use std::collections::{HashMap, HashSet};

use oci::manifest::Document;
use oci::{Descriptor, Digest};

use crate::registry::{MANIFEST_MAX, RawManifest};
use crate::transport::oci_layout::referrer;
use crate::transport::referrers::Attached;
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
            image.attached.iter().for_each(|own| offered.follow(store, &own.manifest));
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

/// What belongs to images of a repository and is about `subject`, as a list of referrers has it. What cannot be read is not
/// offered.
pub(super) fn referrers(store: &Store, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
    let attached = images(store, repository)?.into_iter().flat_map(|image| image.attached);
    let found = attached.filter_map(|Attached { manifest, .. }| {
        let bytes = store.content().read(&manifest.digest, MANIFEST_MAX).ok()?;
        let (media_type, digest) = (manifest.media_type.clone(), manifest.digest.clone());
        referrer(&RawManifest { bytes, media_type, digest }, manifest, subject)
    });
    Ok(found.collect())
}

/// What a tag of something that belongs to an image stands for; what came last, when several images have one.
pub(super) fn companion(store: &Store, repository: &str, tag: &str) -> Result<Option<Digest>> {
    let mut attached = images(store, repository)?.into_iter().rev().flat_map(|image| image.attached);
    Ok(attached.find(|own| own.tag.as_deref() == Some(tag)).map(|own| own.manifest.digest))
}

/// Takes the names of images that are this manifest from a repository, or the manifest from the images that it belongs to.
/// False when there were none.
pub(super) fn remove(store: &Store, repository: &str, digest: &Digest) -> Result<bool> {
    let mut any = detach(store, repository, |own| own.manifest.digest == *digest)?;
    for image in images(store, repository)? {
        if image.target.digest == *digest || image.manifest.digest == *digest {
            for name in image.names.iter().filter(|name| split(name).is_some_and(|(own, _)| own == repository)) {
                any |= store.images().untag(name)?;
            }
        }
    }
    Ok(any)
}

/// Takes something from what belongs to the images of a repository, whatever their other names are. False when there was none.
pub(super) fn detach(store: &Store, repository: &str, gone: impl Fn(&Attached) -> bool) -> Result<bool> {
    let mut any = false;
    for image in images(store, repository)? {
        any |= store.images().detach(&image, &gone)?;
    }
    Ok(any)
}

/// Repository and tag of every image's name, and of what belongs to it.
pub(super) fn names(store: &Store) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for image in store.images().list()? {
        for (repository, tag) in image.names.iter().filter_map(|name| split(name)) {
            let tags = std::iter::once(tag).chain(image.attached.iter().filter_map(|own| own.tag.as_deref()));
            all.extend(tags.map(|tag| (repository.to_owned(), tag.to_owned())));
        }
    }
    Ok(all)
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
