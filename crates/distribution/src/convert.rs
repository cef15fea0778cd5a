//! Between this crate's values and the protocol's.

use std::collections::HashMap;
use std::path::PathBuf;

use api::distribution::v1 as pb;
use api::types::v1 as types;
use oci::{Descriptor, Platform};
use sys::mount::Mount;

use crate::error::{Error, Result};
use crate::events::Event;
use crate::image::{self, Filters};
use crate::layer::{Change, ChangeKind};
use crate::progress::Update;
use crate::registry::{Credentials, Options};
use crate::snapshot::Snapshot;
use crate::transport::referrers::Attached;
use crate::{ImageRecord, Store};

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A descriptor for the wire.
#[must_use]
pub fn descriptor(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
        platform: descriptor.platform.as_ref().map(platform),
        annotations: descriptor.annotations.clone().into_iter().collect(),
        artifact_type: descriptor.artifact_type.clone().unwrap_or_default(),
    }
}

/// A descriptor from the wire.
///
/// # Errors
/// [`Error::NameInvalid`] for a bad digest or size.
pub fn read_descriptor(from: types::Descriptor) -> Result<Descriptor> {
    let invalid = |problem: String| Error::NameInvalid { what: "descriptor", name: from.digest.clone(), problem };
    let digest = from.digest.parse().map_err(|e: oci::digest::InvalidDigest| invalid(e.to_string()))?;
    let size = u64::try_from(from.size).map_err(|_| invalid("its size is negative".into()))?;
    let mut to = Descriptor::new(&from.media_type, digest, size);
    to.platform = from.platform.map(read_platform);
    to.annotations = from.annotations.into_iter().collect();
    to.artifact_type = Some(from.artifact_type).filter(|text| !text.is_empty());
    Ok(to)
}

/// A platform for the wire.
#[must_use]
pub fn platform(platform: &Platform) -> types::Platform {
    types::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// A platform from the wire; what is left out is this host's.
#[must_use]
pub fn read_platform(from: types::Platform) -> Platform {
    let host = Platform::host();
    let or = |text: String, default: String| if text.is_empty() { default } else { text };
    Platform {
        os: or(from.os, host.os),
        architecture: or(from.architecture, host.architecture),
        variant: from.variant,
        os_version: from.os_version,
        os_features: from.os_features,
    }
}

/// A mount for the wire.
#[must_use]
pub fn mount(mount: Mount) -> types::Mount {
    types::Mount {
        r#type: mount.fstype,
        source: mount.source.display().to_string(),
        target: mount.target.display().to_string(),
        options: mount.options,
    }
}

/// An image for the wire, with its config.
///
/// # Errors
/// [`Error::NotFound`] when the config has gone.
pub fn image(store: &Store, record: &ImageRecord) -> Result<pb::Image> {
    Ok(pb::Image {
        id: record.config.to_string(),
        target: Some(descriptor(&record.target)),
        manifest: Some(descriptor(&record.manifest)),
        names: record.names.clone(),
        repo_digests: record.repo_digests.clone(),
        config: image::raw_config(store, record)?,
        layers: record.layers.iter().map(descriptor).collect(),
        diff_ids: record.diff_ids.iter().map(ToString::to_string).collect(),
        size_bytes: signed(image::size_on_disk(store, record)),
        created_at: record.created_at.clone(),
        platform: Some(platform(&record.platform)),
        attached: record.attached.iter().map(attached).collect(),
    })
}

fn attached(own: &Attached) -> pb::AttachedManifest {
    let tag = own.tag.clone().unwrap_or_default();
    pb::AttachedManifest { manifest: Some(descriptor(&own.manifest)), tag }
}

/// A snapshot for the wire.
#[must_use]
pub fn snapshot(snapshot: Snapshot) -> pb::Snapshot {
    pb::Snapshot {
        key: snapshot.key,
        parents: snapshot.parents.iter().map(ToString::to_string).collect(),
        snapshotter: snapshot.snapshotter,
        created_at: snapshot.created_at,
        image_id: snapshot.image_id.unwrap_or_default(),
        labels: snapshot.labels.into_iter().collect(),
        size_bytes: signed(snapshot.size_bytes),
        idmap: snapshot.idmap,
    }
}

/// Mappings of ids from the wire; an empty text is none.
///
/// # Errors
/// [`Error::NameInvalid`].
pub fn idmap(text: &str) -> Result<Option<oci::idmap::IdMap>> {
    let problem = |e: oci::idmap::BadIdMap| Error::NameInvalid {
        what: "mapping of ids",
        name: text.into(),
        problem: e.problem.into(),
    };
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(problem) }
}

/// A changed path for the wire.
#[must_use]
pub fn change(change: Change) -> pb::Change {
    let kind = match change.kind {
        ChangeKind::Modified => pb::ChangeKind::Modified,
        ChangeKind::Added => pb::ChangeKind::Added,
        ChangeKind::Deleted => pb::ChangeKind::Deleted,
    };
    pb::Change { path: change.path, kind: kind.into() }
}

/// Progress for the wire.
#[must_use]
pub fn progress(update: Update) -> types::Progress {
    types::Progress {
        id: update.id,
        status: update.status.into(),
        current: signed(update.current),
        total: signed(update.total),
        message: update.message,
    }
}

/// An event for the wire.
#[must_use]
pub fn event(event: Event) -> types::Event {
    types::Event {
        time_unix_nano: event.time_unix_nano,
        r#type: event.kind,
        action: event.action,
        id: event.id,
        attributes: event.attributes.into_iter().collect(),
    }
}

/// Filters from the wire.
#[must_use]
pub fn filters(from: HashMap<String, types::StringList>) -> Filters {
    from.into_iter().map(|(key, list)| (key, list.values)).collect()
}

/// How a registry is reached; what is left out is the service's default.
#[must_use]
pub fn registry(from: Option<pb::RegistryOptions>, default: &Options) -> Options {
    let from = from.unwrap_or_default();
    let given = Some(from.auth_file).filter(|file| !file.is_empty()).map(PathBuf::from);
    Options {
        credentials: from.credentials.and_then(credentials),
        auth_file: given.or_else(|| default.auth_file.clone()),
        plain_http: from.plain_http,
        tls_skip_verify: from.tls_skip_verify,
        insecure: from.insecure,
        ..default.clone()
    }
}

fn credentials(from: pb::Credentials) -> Option<Credentials> {
    if !from.identity_token.is_empty() {
        return Some(Credentials::IdentityToken(from.identity_token));
    }
    let named = !from.username.is_empty();
    named.then_some(Credentials::Password { username: from.username, password: from.password })
}

/// An absolute path from the wire.
///
/// # Errors
/// [`Error::NameInvalid`] for a relative one: the service has a current directory of its own.
pub fn path(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Error::NameInvalid { what: "path", name: text.into(), problem: "it must be absolute".into() })
}

/// A digest from the wire.
///
/// # Errors
/// [`Error::NameInvalid`].
pub fn digest(text: &str) -> Result<oci::Digest> {
    text.parse().map_err(|e: oci::digest::InvalidDigest| Error::NameInvalid {
        what: "digest",
        name: text.into(),
        problem: e.to_string(),
    })
}

/// Whether an event passes a filter.
#[must_use]
pub fn event_passes(event: &Event, filters: &Filters) -> bool {
    filters.iter().all(|(key, values)| {
        values.is_empty()
            || values.iter().any(|value| match key.as_str() {
                "type" => event.kind == *value,
                "event" => event.action == *value,
                "image" => {
                    event.id.trim_start_matches("sha256:").starts_with(value.trim_start_matches("sha256:"))
                        || event.attributes.get("name").is_some_and(|name| same_name(name, value))
                }
                _ => false,
            })
    })
}

fn same_name(name: &str, wanted: &str) -> bool {
    name == wanted || wanted.parse::<oci::Reference>().is_ok_and(|wanted| image::canonical(&wanted) == name)
}

/// How much space is used; with `detail` also by image and snapshot.
pub fn usage(of: crate::store::usage::Detail, detail: bool) -> pb::DiskUsageResponse {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let one = |usage: crate::store::usage::ImageUsage| pb::ImageUsage {
        id: usage.image.config.to_string(),
        names: usage.image.names,
        created_at: usage.image.created_at,
        size_bytes: signed(usage.size_bytes),
        shared_bytes: signed(usage.shared_bytes),
        unique_bytes: signed(usage.unique_bytes),
        snapshots: signed(usage.snapshots),
    };
    let (by_image, by_snapshot) = if detail { (of.images, of.snapshots) } else { Default::default() };
    pb::DiskUsageResponse {
        blobs_bytes: signed(of.usage.blobs_bytes),
        layers_bytes: signed(of.usage.layers_bytes),
        snapshots_bytes: signed(of.usage.snapshots_bytes),
        reclaimable_bytes: signed(of.usage.reclaimable_bytes),
        images: signed(of.usage.images),
        snapshots: signed(of.usage.snapshots),
        by_image: by_image.into_iter().map(one).collect(),
        by_snapshot: by_snapshot.into_iter().map(snapshot).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn descriptors_survive_the_wire() {
        let mut before = Descriptor::of("text/plain", b"x");
        before.platform = Some(Platform::new("linux", "arm64", "v8"));
        before.annotations.insert("a".into(), "b".into());
        assert_eq!(read_descriptor(descriptor(&before)).unwrap(), before);
        assert!(read_descriptor(types::Descriptor::default()).is_err());
        assert!(path("relative").is_err() && digest("sha256:x").is_err());
    }

    #[test]
    fn events_are_filtered_by_all_keys() {
        let event = Event {
            time_unix_nano: 1,
            kind: "image".into(),
            action: "pull".into(),
            id: "sha256:abc".into(),
            attributes: [("name".to_owned(), "docker.io/library/busybox:latest".to_owned())].into(),
        };
        let filter = |key: &str, value: &str| Filters::from([(key.to_owned(), vec![value.to_owned()])]);
        assert!(event_passes(&event, &filter("image", "busybox")));
        assert!(event_passes(&event, &filter("image", "abc")));
        assert!(event_passes(&event, &filter("event", "pull")));
        assert!(!event_passes(&event, &filter("type", "container")));
    }
}
