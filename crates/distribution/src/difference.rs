//! What differs between two images, or between an image and a snapshot.

use crate::Store;
use crate::error::{Error, Result};
use crate::image::{find, unpack};
use crate::layer::{Change, View, between};
use crate::pull::Lease;
use crate::store::Staging;
use crate::transport::pump::blocking;

/// Lists what `new` has otherwise than `old`. Each is an image (by name or id) or a snapshot (by key). Times do not count.
///
/// # Errors
/// [`Error::ImageNotFound`]; those of unpacking.
pub async fn difference(store: &Store, old: &str, new: &str) -> Result<Vec<Change>> {
    let lease = Lease::of(store, None).await?;
    let (store, id) = (store.clone(), lease.id().to_owned());
    let (old, new) = (old.to_owned(), new.to_owned());
    blocking(move || {
        let (_keep, before) = tree(&store, &old, &id)?;
        let (_keep, after) = tree(&store, &new, &id)?;
        between(&before, &after)
    })
    .await
}

/// The merged tree of an image or snapshot; of an image as long as the staging directory is there.
fn tree(store: &Store, name: &str, lease: &str) -> Result<(Option<Staging>, View)> {
    match find(store, name) {
        Ok((record, _)) => {
            unpack(store, &record, Some(lease))?;
            let (staging, view) = store.snapshots().tree(&record.diff_ids)?;
            Ok((Some(staging), view))
        }
        Err(missing @ (Error::ImageNotFound { .. } | Error::NameInvalid { .. })) => {
            match store.snapshots().get(name)? {
                Some(_) => Ok((None, store.snapshots().view(name)?)),
                None => Err(missing),
            }
        }
        Err(other) => Err(other),
    }
}
