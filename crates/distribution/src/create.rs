//! A new image from a config and layers that are in the store.

use std::collections::BTreeMap;

use oci::image::History;
use oci::manifest::Manifest;
use oci::{Descriptor, ImageConfig, media_type};

use crate::error::{Error, Result};
use crate::image::{canonical, parse};
use crate::pull::Lease;
use crate::registry::{LAYERS_MAX, MANIFEST_MAX};
use crate::snapshot::Commit;
use crate::transport::copy::read_config;
use crate::{ImageRecord, Store};

/// What the image is made of.
#[derive(Debug, Clone, Default)]
pub struct Create {
    /// First name; empty: none.
    pub reference: String,
    /// More names.
    pub tags: Vec<String>,
    /// The image config as JSON.
    pub config: Vec<u8>,
    /// Blobs of the store, lowest first.
    pub layers: Vec<Descriptor>,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Holds the image when it has no name.
    pub lease: String,
}

/// Writes config and manifest, and names the image.
///
/// # Errors
/// [`Error::ManifestInvalid`] when config and layers do not fit, [`Error::NotFound`] for a layer that is not in the store.
pub fn create(store: &Store, wanted: &Create) -> Result<ImageRecord> {
    let names: Vec<String> = std::iter::once(&wanted.reference)
        .chain(&wanted.tags)
        .filter(|name| !name.is_empty())
        .map(|name| Ok(canonical(&parse(name)?)))
        .collect::<Result<_>>()?;
    let what = names.first().cloned().unwrap_or_else(|| "the new image".into());
    if wanted.config.len() as u64 > MANIFEST_MAX || wanted.layers.len() > LAYERS_MAX {
        return Err(Error::manifest(what, "its config or its list of layers is too long"));
    }
    let lease = Some(wanted.lease.as_str()).filter(|lease| !lease.is_empty());
    // Without the caller's lease, one of our own until the names hold what is made.
    let until_named = Lease::take(store, lease)?;
    let held = Some(until_named.id());
    for layer in &wanted.layers {
        match store.content().hold(&layer.digest, held)? {
            Some(size) if size == layer.size => {}
            Some(actual) => {
                return Err(Error::SizeMismatch { digest: layer.digest.clone(), expected: layer.size, actual });
            }
            None => return Err(Error::not_found("blob", &layer.digest)),
        }
    }
    let config = Descriptor::of(media_type::CONFIG, &wanted.config);
    let annotations = wanted.annotations.clone();
    let manifest = Manifest { annotations, ..Manifest::new(config, wanted.layers.clone()) };
    let config = read_config(&wanted.config, &manifest, &what)?;
    let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::manifest(&what, e))?;
    let target = Descriptor::of(media_type::MANIFEST, &bytes);
    store.content().write(&wanted.config, media_type::CONFIG, held)?;
    store.content().write(&bytes, media_type::MANIFEST, held)?;
    let record = record(&config, manifest, target);
    if names.is_empty() {
        store.images().put(&record, None, lease)?;
    }
    for name in &names {
        store.images().put(&record, Some(name), None)?;
    }
    let same = |image: &ImageRecord| image.target.digest == record.target.digest;
    let stored = store.images().by_digest(&record.manifest.digest)?.into_iter().find(same);
    Ok(stored.unwrap_or(record))
}

fn record(config: &ImageConfig, manifest: Manifest, target: Descriptor) -> ImageRecord {
    let mut chosen = target.clone();
    chosen.platform = Some(config.platform());
    ImageRecord {
        target,
        manifest: chosen,
        config: manifest.config.digest,
        layers: manifest.layers,
        diff_ids: config.rootfs.diff_ids.clone(),
        created_at: config.created.clone().unwrap_or_else(|| jiff::Timestamp::now().to_string()),
        platform: config.platform(),
        repo_digests: Vec::new(),
        attached: Vec::new(),
        dropped: Vec::new(),
        names: Vec::new(),
    }
}

/// Makes an image of what was written into a snapshot: that of the snapshot's image with one more layer. Blocks.
///
/// # Errors
/// Those of committing and of [`create`]; [`Error::NameInvalid`] for a change that cannot be applied.
pub fn commit(
    store: &Store,
    key: &str,
    how: Commit<'_>,
    reference: &str,
    changes: &[String],
    message: &str,
) -> Result<ImageRecord> {
    let snapshot = store.snapshots().get(key)?.ok_or_else(|| Error::not_found("snapshot", key))?;
    parse(reference)?;
    let (mut config, mut layers) = match &snapshot.image_id {
        Some(id) => {
            let (base, _) = crate::image::find(store, id)?;
            (crate::image::config(store, &base)?, base.layers)
        }
        None => (empty_config(), Vec::new()),
    };
    crate::change::apply(&mut config.config, changes)?;
    let now = jiff::Timestamp::now().to_string();
    // The snapshot goes last: whoever dies before has lost nothing that was written.
    let committed = store.snapshots().commit(key, Commit { keep: true, ..how })?;
    config.created = Some(now.clone());
    config.history.push(History {
        created: Some(now),
        comment: Some(message.to_owned()).filter(|message| !message.is_empty()),
        empty_layer: committed.is_none(),
        ..History::default()
    });
    if let Some(layer) = committed {
        config.rootfs.diff_ids.push(layer.diff_id);
        layers.push(layer.descriptor);
    }
    let config = serde_json::to_vec(&config).map_err(|e| Error::manifest(reference, e))?;
    let image = create(store, &Create { reference: reference.into(), config, layers, ..Create::default() })?;
    if !how.keep {
        store.snapshots().remove(key)?;
    }
    Ok(image)
}

fn empty_config() -> ImageConfig {
    let host = oci::Platform::host();
    ImageConfig { os: host.os, architecture: host.architecture, ..ImageConfig::default() }
}
