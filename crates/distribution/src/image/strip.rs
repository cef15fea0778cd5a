//! One platform of an image goes, the others stay.

use oci::Platform;

use super::variant::{best, variant, variants};
use super::{Removed, find, remove, users};
use crate::error::{Error, Result};
use crate::{ImageRecord, Store, events, gc};

/// Takes the image for a platform out of what a name or id stands for. When it is the one that the names mean, they mean another
/// one of the index from then on, this host's if it is there. The last one goes as with [`remove`].
///
/// # Errors
/// [`Error::PlatformMissing`]; [`Error::ImageInUse`] when snapshots were made from it, unless forced.
pub fn remove_platform(store: &Store, text: &str, platform: &Platform, force: bool) -> Result<Removed> {
    let (record, _) = find(store, text)?;
    let gone = variant(store, &record, platform, text)?;
    let rest: Vec<ImageRecord> =
        variants(store, &record)?.into_iter().filter(|image| image.manifest.digest != gone.manifest.digest).collect();
    let users = users(store, &gone)?;
    if !users.is_empty() && !force {
        return Err(Error::ImageInUse { name: text.into(), by: format!("snapshots {}", users.join(", ")) });
    }
    let Some(next) = best(&rest, &Platform::host()).or(rest.first()) else { return remove(store, text, force) };
    let alone = ImageRecord { target: gone.manifest.clone(), attached: Vec::new(), ..gone.clone() };
    let released = gc::reachable(store, &alone)?;
    let own = gone.manifest.digest == record.manifest.digest;
    let mut left = if own { next.clone() } else { record.clone() };
    left.dropped.push(gone.manifest.digest.clone());
    let images = store.images();
    images.put(&left, None, None)?;
    if own {
        // Who dies here leaves names of either; both are whole.
        record.names.iter().try_for_each(|name| images.put(&left, Some(name), None))?;
        images.remove(&record)?;
    }
    events::record(store, "delete", gone.config.as_str(), text);
    Ok(Removed { untagged: Vec::new(), deleted: vec![gone.manifest.digest.to_string()], released })
}
