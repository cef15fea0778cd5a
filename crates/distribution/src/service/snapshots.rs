//! The calls on snapshots. Each converts and calls what the verb of that name calls.

use api::distribution::v1 as pb;

use crate::error::Result;
use crate::layer::Compression;
use crate::snapshot::{Commit, Prepare};
use crate::{Store, convert, image};

/// Makes a snapshot on an image, which is unpacked first, or on layers.
pub fn prepare(store: &Store, from: &pb::PrepareSnapshotRequest, lease: &str) -> Result<pb::PrepareSnapshotResponse> {
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

pub fn mounts(store: &Store, from: &pb::MountSnapshotRequest) -> Result<pb::MountSnapshotResponse> {
    let (snapshot, mounts) = store.snapshots().mounts(&from.key)?;
    let mounts = mounts.into_iter().map(convert::mount).collect();
    Ok(pb::MountSnapshotResponse { snapshot: Some(convert::snapshot(snapshot)), mounts })
}

pub fn list(store: &Store, from: pb::ListSnapshotsRequest) -> Result<pb::ListSnapshotsResponse> {
    let snapshots = store.snapshots().list(from.with_size)?;
    Ok(pb::ListSnapshotsResponse { snapshots: snapshots.into_iter().map(convert::snapshot).collect() })
}

pub fn commit(store: &Store, from: &pb::CommitSnapshotRequest) -> Result<pb::CommitSnapshotResponse> {
    let how = Commit {
        compression: Compression::parse(&from.compression)?,
        keep: from.keep,
        source_date_epoch: from.source_date_epoch,
        lease: Some(from.lease.as_str()).filter(|lease| !lease.is_empty()),
    };
    let committed = store.snapshots().commit(&from.key, how)?;
    Ok(committed.map_or_else(pb::CommitSnapshotResponse::default, |layer| pb::CommitSnapshotResponse {
        layer: Some(convert::descriptor(&layer.descriptor)),
        diff_id: layer.diff_id.to_string(),
        changed: true,
    }))
}

pub fn diff(store: &Store, from: &pb::DiffSnapshotRequest) -> Result<pb::DiffSnapshotResponse> {
    let changes = store.snapshots().diff(&from.key)?;
    Ok(pb::DiffSnapshotResponse { changes: changes.into_iter().map(convert::change).collect() })
}
