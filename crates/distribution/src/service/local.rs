//! What some calls on the store need beside one call of the library.

use api::distribution::v1 as pb;
use oci::Platform;

use crate::convert;
use crate::error::{Error, Result};
use crate::image;
use crate::snapshot::Prepare;
use crate::{ImageRecord, Store};

/// Refuses an image of another platform than asked for.
pub(super) fn check_platform(record: &ImageRecord, wanted: Option<&Platform>, name: &str) -> Result<()> {
    match wanted {
        Some(wanted) if wanted.match_rank(&record.platform).is_none() => Err(Error::PlatformMissing {
            what: name.into(),
            platform: wanted.to_string(),
            available: record.platform.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Makes a snapshot on an image, which is unpacked first, or on layers.
pub(super) fn prepare(
    store: &Store,
    from: &pb::PrepareSnapshotRequest,
    lease: &str,
) -> Result<pb::PrepareSnapshotResponse> {
    let (parents, image_id) = match from.image.as_str() {
        "" => (from.parents.iter().map(|id| convert::digest(id)).collect::<Result<Vec<_>>>()?, None),
        name => {
            let (record, _) = image::find(store, name)?;
            image::unpack(store, &record, Some(lease))?;
            (record.diff_ids, Some(record.config.to_string()))
        }
    };
    let idmap = convert::idmap(&from.idmap)?;
    let wanted = Prepare {
        key: &from.key,
        parents: &parents,
        read_only: from.read_only,
        labels: from.labels.clone().into_iter().collect(),
        image_id: image_id.as_deref(),
        lease: Some(lease),
        snapshotter: &from.snapshotter,
        idmap: idmap.as_ref(),
    };
    let (snapshot, mounts) = store.snapshots().prepare(&wanted)?;
    let mounts = mounts.into_iter().map(convert::mount).collect();
    Ok(pb::PrepareSnapshotResponse { snapshot: Some(convert::snapshot(snapshot)), mounts })
}
