//! What is printed of images and snapshots.

use distribution::snapshot::Snapshot;
use distribution::transport::referrers::Attached;
use distribution::{ImageRecord, Store};
use oci::Reference;
use serde::Serialize;

/// An image, for JSON.
#[derive(Debug, Serialize)]
pub struct Image {
    pub id: String,
    pub names: Vec<String>,
    pub repo_digests: Vec<String>,
    pub digest: String,
    pub media_type: String,
    pub manifest_digest: String,
    pub created_at: String,
    pub platform: String,
    /// Bytes on disk of the unpacked layers.
    pub size_bytes: u64,
    pub layers: Vec<oci::Descriptor>,
    pub diff_ids: Vec<oci::Digest>,
    /// Signatures, attestations.
    pub attached: Vec<Attached>,
    pub config: serde_json::Value,
}

impl Image {
    pub fn of(store: &Store, record: &ImageRecord) -> Self {
        let config = distribution::image::raw_config(store, record).ok();
        Self {
            id: record.config.to_string(),
            names: record.names.clone(),
            repo_digests: record.repo_digests.clone(),
            digest: record.target.digest.to_string(),
            media_type: record.target.media_type.clone(),
            manifest_digest: record.manifest.digest.to_string(),
            created_at: record.created_at.clone(),
            platform: record.platform.to_string(),
            size_bytes: distribution::image::size_on_disk(store, record),
            layers: record.layers.clone(),
            diff_ids: record.diff_ids.clone(),
            attached: record.attached.clone(),
            config: config.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default(),
        }
    }
}

/// Repository and tag as people write them.
pub fn familiar(name: &str) -> (String, String) {
    match name.parse::<Reference>() {
        Ok(reference) => (reference.familiar_name(), reference.tag().unwrap_or("<none>").to_owned()),
        Err(_) => (name.to_owned(), "<none>".into()),
    }
}

/// A snapshot, for JSON.
#[derive(Debug, Serialize)]
pub struct SnapshotView {
    pub key: String,
    pub snapshotter: String,
    pub created_at: String,
    pub image_id: Option<String>,
    pub read_only: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub idmap: String,
    pub size_bytes: u64,
    pub parents: Vec<oci::Digest>,
    pub labels: std::collections::BTreeMap<String, String>,
}

impl From<Snapshot> for SnapshotView {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            key: snapshot.key,
            snapshotter: snapshot.snapshotter,
            created_at: snapshot.created_at,
            image_id: snapshot.image_id,
            read_only: snapshot.read_only,
            idmap: snapshot.idmap,
            size_bytes: snapshot.size_bytes,
            parents: snapshot.parents,
            labels: snapshot.labels,
        }
    }
}

/// A mount, for JSON: the fields of the OCI runtime specification.
#[derive(Debug, Serialize)]
pub struct MountView {
    pub r#type: String,
    pub source: String,
    pub destination: String,
    pub options: Vec<String>,
}

impl From<&sys::mount::Mount> for MountView {
    fn from(mount: &sys::mount::Mount) -> Self {
        Self {
            r#type: mount.fstype.clone(),
            source: mount.source.display().to_string(),
            destination: mount.target.display().to_string(),
            options: mount.options.clone(),
        }
    }
}
