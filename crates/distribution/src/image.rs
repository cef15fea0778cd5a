//! What people call images: names, ids and their beginnings, [filters](filter); and what may be removed.

mod filter;
mod strip;
mod variant;

use oci::{Digest, ImageConfig, Platform, Reference};

use crate::error::{Error, Result};
use crate::registry::MANIFEST_MAX;
use crate::{ImageRecord, Store, events, gc};
pub use filter::{Filters, list};
pub use strip::remove_platform;
pub use variant::variant;

/// Shortest beginning of an id that is taken for one.
const PREFIX_MIN: usize = 2;

/// Reads an image reference; what is left out becomes docker's defaults.
///
/// # Errors
/// [`Error::NameInvalid`].
pub fn parse(text: &str) -> Result<Reference> {
    text.parse().map_err(|e: oci::reference::InvalidReference| Error::NameInvalid {
        what: "image reference",
        name: text.into(),
        problem: e.why.into(),
    })
}

/// The name under which the store keeps a reference: by tag, else by digest.
#[must_use]
pub fn canonical(reference: &Reference) -> String {
    match (reference.tag(), reference.digest()) {
        (Some(tag), _) => format!("{}:{tag}", reference.name()),
        (None, Some(digest)) => format!("{}@{digest}", reference.name()),
        (None, None) => format!("{}:latest", reference.name()),
    }
}

/// How a text was found to mean an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// By one of its names.
    Name(String),
    /// By its id, a digest or a beginning of one.
    Id,
}

/// Finds an image by name, id, digest or the unique beginning of an id.
///
/// # Errors
/// [`Error::ImageNotFound`], [`Error::IdAmbiguous`].
pub fn find(store: &Store, text: &str) -> Result<(ImageRecord, Found)> {
    let images = store.images();
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let maybe_id = (PREFIX_MIN..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let reference = match parse(text) {
        Ok(reference) => Some(reference),
        Err(_) if maybe_id => None,
        Err(error) => return Err(error),
    };
    if let Some(reference) = reference {
        let name = canonical(&reference);
        let named = images.get(&name)?;
        let wanted = reference.digest();
        if let Some(record) = named.filter(|record| wanted.is_none_or(|digest| is(record, digest))) {
            return Ok((record, Found::Name(name)));
        }
        if let Some(digest) = wanted {
            let repository = reference.name();
            let of_repository = |record: &ImageRecord| knows(record, &repository);
            let all = images.by_digest(digest)?;
            return all.into_iter().find(of_repository).map(|r| (r, Found::Id)).ok_or_else(|| not_found(text));
        }
    }
    if !maybe_id {
        return Err(not_found(text));
    }
    let mut found = images.by_prefix(hex)?;
    found.sort_by(|a, b| a.config.cmp(&b.config));
    // One id may stand in several records (the same config in two manifests): any of them will do.
    found.dedup_by(|a, b| a.config == b.config);
    match found.len() {
        0 => Err(not_found(text)),
        1 => Ok((found.swap_remove(0), Found::Id)),
        count => Err(Error::IdAmbiguous { prefix: text.into(), count }),
    }
}

fn not_found(text: &str) -> Error {
    Error::ImageNotFound { name: text.into() }
}

fn is(record: &ImageRecord, digest: &Digest) -> bool {
    [&record.target.digest, &record.manifest.digest, &record.config].contains(&digest)
}

/// Whether a record has a name or a digest in a repository.
fn knows(record: &ImageRecord, repository: &str) -> bool {
    let in_repository = |name: &String| {
        name.strip_prefix(repository).is_some_and(|rest| rest.starts_with(':') || rest.starts_with('@'))
    };
    record.names.iter().any(in_repository) || record.repo_digests.iter().any(in_repository)
}

/// Refuses an image of another platform than asked for.
///
/// # Errors
/// [`Error::PlatformMissing`].
pub fn check_platform(record: &ImageRecord, wanted: Option<&Platform>, name: &str) -> Result<()> {
    match wanted {
        Some(wanted) if wanted.match_rank(&record.platform).is_none() => Err(Error::PlatformMissing {
            what: name.into(),
            platform: wanted.to_string(),
            available: record.platform.to_string(),
        }),
        _ => Ok(()),
    }
}

/// The raw config of an image.
///
/// # Errors
/// [`Error::NotFound`] when the blob has gone.
pub fn raw_config(store: &Store, record: &ImageRecord) -> Result<Vec<u8>> {
    store.content().read(&record.config, MANIFEST_MAX)
}

/// The config of an image.
///
/// # Errors
/// [`Error::ManifestInvalid`], [`Error::NotFound`].
pub fn config(store: &Store, record: &ImageRecord) -> Result<ImageConfig> {
    let bytes = raw_config(store, record)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::manifest(record.config.to_string(), format!("its config: {e}")))
}

/// Bytes on disk of an image's unpacked layers; those that are not unpacked count nothing.
#[must_use]
pub fn size_on_disk(store: &Store, record: &ImageRecord) -> u64 {
    record.diff_ids.iter().filter_map(|diff_id| store.layers().usage(diff_id).ok()).sum()
}

/// Unpacks what is not unpacked yet, from the blobs of the store.
///
/// # Errors
/// [`Error::LayerCorrupt`]; [`Error::NotFound`] when a blob has gone.
pub fn unpack(store: &Store, record: &ImageRecord, lease: Option<&str>) -> Result<()> {
    for (layer, diff_id) in record.layers.iter().zip(&record.diff_ids) {
        if store.layers().hold(diff_id, lease)? {
            continue;
        }
        let blob = store.content().open(&layer.digest)?;
        let applied = store.layers().apply(blob, layer, diff_id, lease);
        applied.map_err(|e| match e {
            e if e.is_full() => e,
            e => Error::LayerCorrupt { digest: layer.digest.clone(), source: Box::new(e) },
        })?;
    }
    Ok(())
}

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// Ids of images that are gone.
    pub deleted: Vec<String>,
    /// What these were made of: garbage now, unless something else needs it.
    pub released: gc::Reached,
}

/// Removes a name; with its last name, or by id, the image. Content goes with garbage collection.
///
/// # Errors
/// [`Error::ImageInUse`] unless forced: snapshots were made from it, or an id has several names.
pub fn remove(store: &Store, text: &str, force: bool) -> Result<Removed> {
    let (record, found) = find(store, text)?;
    let images = store.images();
    if let Found::Name(name) = &found
        && record.names.len() > 1
    {
        images.untag(name)?;
        events::record(store, "untag", record.config.as_str(), name);
        return Ok(Removed { untagged: vec![name.clone()], ..Removed::default() });
    }
    if record.names.len() > 1 && !force {
        let by = format!("it has the names {}", record.names.join(", "));
        return Err(Error::ImageInUse { name: text.into(), by });
    }
    // The same image may stand in two records, when it came in two archives or indexes: one of them can go.
    let last = images.by_digest(&record.config)?.iter().filter(|other| other.config == record.config).count() < 2;
    let users = users(store, &record)?;
    if last && !users.is_empty() && !force {
        return Err(Error::ImageInUse { name: text.into(), by: format!("snapshots {}", users.join(", ")) });
    }
    let released = gc::reachable(store, &record)?;
    images.remove(&record)?;
    events::record(store, "delete", record.config.as_str(), text);
    Ok(Removed { untagged: record.names.clone(), deleted: vec![record.config.to_string()], released })
}

/// Keys of the snapshots that were made from an image.
fn users(store: &Store, record: &ImageRecord) -> Result<Vec<String>> {
    let id = record.config.to_string();
    let snapshots = store.snapshots().list(false)?;
    Ok(snapshots.into_iter().filter(|s| s.image_id.as_ref() == Some(&id)).map(|s| s.key).collect())
}

/// Removes images without names; with `all`, also those that no snapshot uses.
///
/// # Errors
/// Those of [`list`].
pub fn prune(store: &Store, all: bool, filters: &Filters) -> Result<Removed> {
    let mut removed = Removed::default();
    for record in list(store, filters)? {
        if (all || record.names.is_empty()) && users(store, &record)?.is_empty() {
            let released = gc::reachable(store, &record)?;
            removed.released.blobs.extend(released.blobs);
            removed.released.layers.extend(released.layers);
            store.images().remove(&record)?;
            events::record(store, "delete", record.config.as_str(), record.names.first().map_or("", String::as_str));
            removed.untagged.extend(record.names);
            removed.deleted.push(record.config.to_string());
        }
    }
    Ok(removed)
}

/// Gives an image one more name.
///
/// # Errors
/// [`Error::NameInvalid`], those of [`find`].
pub fn tag(store: &Store, source: &str, target: &str) -> Result<()> {
    let reference = parse(target)?;
    if reference.digest().is_some() {
        let problem = "a name that is given has a tag, not a digest".into();
        return Err(Error::NameInvalid { what: "image reference", name: target.into(), problem });
    }
    let (record, _) = find(store, source)?;
    let name = canonical(&reference);
    store.images().put(&record, Some(&name), None)?;
    events::record(store, "tag", record.config.as_str(), &name);
    Ok(())
}
