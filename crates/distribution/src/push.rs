//! From the store to a registry: manifests byte for byte, layers that the registry has are not sent.

use oci::{Digest, Reference};

use crate::Store;
use crate::error::Result;
use crate::image::{find, parse};
use crate::progress::Reporter;
use crate::registry;
use crate::transport::copy::Select;
use crate::transport::pump::blocking;
use crate::transport::referrers::transfer;
use crate::transport::remote::Remote;
use crate::transport::stored::StoreSource;

/// What to push, and where.
#[derive(Debug, Clone)]
pub struct Push {
    /// Name or id in the store.
    pub reference: String,
    /// Name at the registry; none: the same.
    pub destination: Option<Reference>,
    /// How the registry is reached.
    pub registry: registry::Options,
    /// All platforms that are in the store.
    pub all_platforms: bool,
    /// Also what belongs to the image and came with it: signatures, attestations.
    pub referrers: bool,
}

/// What the registry has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest or index.
    pub digest: Digest,
    /// Bytes of the manifest and all that it names.
    pub size_bytes: u64,
}

/// Pushes an image.
///
/// # Errors
/// [`crate::Error::ImageNotFound`]; those of the registry.
pub async fn push(store: &Store, wanted: &Push, reporter: &Reporter) -> Result<Pushed> {
    let destination = match &wanted.destination {
        Some(destination) => destination.clone(),
        None => parse(&wanted.reference)?,
    };
    let (reader, name) = (store.clone(), wanted.reference.clone());
    let (record, _) = blocking(move || find(&reader, &name)).await?;
    let source = StoreSource::new(store, record.clone(), wanted.all_platforms);
    let options = registry::Options { uploads: Some(store.root().join("pushes")), ..wanted.registry.clone() };
    let sink = Remote::open(&destination, &options).await?;
    let copied = transfer(&source, &sink, &Select::All, wanted.referrers, reporter).await?;
    let digest = copied.root.digest.clone();
    remember(store, &record, format!("{}@{digest}", destination.name())).await?;
    crate::events::record(store, "push", record.config.as_str(), &destination.to_string());
    let blobs = copied
        .images
        .iter()
        .flat_map(|image| image.manifest.layers.iter().chain([&image.manifest.config, &image.descriptor]));
    Ok(Pushed { digest, size_bytes: blobs.map(|blob| blob.size).sum() })
}

/// Notes that a registry has the image, for listings and for mounting its layers into other repositories.
async fn remember(store: &Store, record: &crate::ImageRecord, at: String) -> Result<()> {
    if record.repo_digests.contains(&at) {
        return Ok(());
    }
    let (store, mut record) = (store.clone(), record.clone());
    blocking(move || {
        record.repo_digests.push(at);
        let name = record.names.first().cloned();
        store.images().put(&record, name.as_deref(), None)
    })
    .await
}
