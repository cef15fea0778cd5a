//! One image among those for several platforms that came under one name. The name means one of them; the others lie beside it.

use oci::manifest::{Document, Index};
use oci::{Descriptor, Platform};

use crate::error::{Error, Result};
use crate::image_record::from_blobs;
use crate::registry::{MANIFEST_MAX, RawManifest};
use crate::transport::copy::{DEPTH_MAX, parse};
use crate::{ImageRecord, Store};

/// The image for a platform: the record's own, or one of its index whose manifest, config and layers are in the store. That one
/// is no image of its own: it has the names of the record, and is there as long as that is.
///
/// # Errors
/// [`Error::PlatformMissing`] that names those that are here; [`Error::ManifestInvalid`].
pub fn variant(store: &Store, record: &ImageRecord, wanted: &Platform, name: &str) -> Result<ImageRecord> {
    let here = variants(store, record)?;
    match best(&here, wanted) {
        Some(image) => Ok(image.clone()),
        None => {
            let mut available: Vec<String> = here.iter().map(|image| image.platform.to_string()).collect();
            available.sort();
            available.dedup();
            let (platform, available) = (wanted.to_string(), available.join(", "));
            Err(Error::PlatformMissing { what: name.into(), platform, available })
        }
    }
}

/// The image that fits a platform best; the first of equals.
pub(super) fn best<'a>(images: &'a [ImageRecord], wanted: &Platform) -> Option<&'a ImageRecord> {
    let ranked = images.iter().filter_map(|image| Some((wanted.match_rank(&image.platform)?, image)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, image)| image)
}

/// The record's own image, and those of its index that are in the store.
pub(super) fn variants(store: &Store, record: &ImageRecord) -> Result<Vec<ImageRecord>> {
    let mut here = vec![record.clone()];
    if record.target.digest != record.manifest.digest {
        beside(store, record, &record.target, 1, &mut here)?;
    }
    Ok(here)
}

fn beside(
    store: &Store,
    record: &ImageRecord,
    index: &Descriptor,
    depth: usize,
    here: &mut Vec<ImageRecord>,
) -> Result<()> {
    for entry in entries(store, index)? {
        let known = here.iter().any(|known| known.manifest.digest == entry.digest);
        if known || record.dropped.contains(&entry.digest) || !has(store, &entry)? {
            continue;
        }
        if oci::media_type::is_index(&entry.media_type) {
            if depth < DEPTH_MAX {
                beside(store, record, &entry, depth + 1, here)?;
            }
            continue;
        }
        // An attestation in the index is no image, and one whose config did not come along cannot be used.
        if let Ok(image) = from_blobs(store, &record.target.digest, &entry.digest)
            && image.layers.iter().all(|layer| has(store, layer).unwrap_or(false))
            && image.diff_ids.len() == image.layers.len()
        {
            let (names, repo_digests) = (record.names.clone(), record.repo_digests.clone());
            let (attached, dropped) = (record.attached.clone(), record.dropped.clone());
            let platform = entry.platform.unwrap_or(image.platform);
            here.push(ImageRecord { names, repo_digests, attached, dropped, platform, ..image });
        }
    }
    Ok(())
}

fn entries(store: &Store, index: &Descriptor) -> Result<Vec<Descriptor>> {
    let bytes = store.content().read(&index.digest, MANIFEST_MAX)?;
    let raw = RawManifest { bytes, media_type: index.media_type.clone(), digest: index.digest.clone() };
    Ok(match parse(&raw, &index.digest.to_string())? {
        Document::Index(Index { manifests, .. }) => manifests,
        Document::Manifest(_) => Vec::new(),
    })
}

fn has(store: &Store, descriptor: &Descriptor) -> Result<bool> {
    Ok(store.content().has(&descriptor.digest)?.is_some())
}
