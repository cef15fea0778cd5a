//! `pier.distribution.v1`, the part that needs no registry.
use crate::refused;
use anyhow::{Context, Result, ensure};
use api::distribution::v1::distribution_service_client::DistributionServiceClient;
use api::distribution::v1::*;
use rpc::Code;
use std::path::Path;
use tonic::transport::Channel;

/// Import of the tar at `rootfs`, names, snapshots, commit, garbage collection.
pub async fn distribution(channel: Channel, rootfs: &Path) -> Result<()> {
    let mut client = DistributionServiceClient::new(channel);
    let missing = GetImageRequest { reference: "contract/none:1".into(), ..Default::default() };
    refused(client.get_image(missing).await, Code::NotFound, "IMAGE_NOT_FOUND")?;
    let bad = GetImageRequest { reference: "NOT A NAME".into(), ..Default::default() };
    refused(client.get_image(bad).await, Code::InvalidArgument, "NAME_INVALID")?;

    let import = ImportRequest {
        path: rootfs.display().to_string(),
        reference: "contract/image:1".into(),
        changes: vec!["ENV A=b".into()],
        ..Default::default()
    };
    let mut stream = client.import(import).await?.into_inner();
    let mut result = None;
    while let Some(message) = stream.message().await? {
        if let Some(import_response::Payload::Result(r)) = message.payload {
            result = r.image;
        }
    }
    let image = result.context("import ended without a result")?;
    ensure!(image.diff_ids.len() == 1 && image.id.starts_with("sha256:"), "{image:?}");
    client.tag_image(TagImageRequest { source: "contract/image:1".into(), target: "contract/image:2".into() }).await?;

    let prepare = PrepareSnapshotRequest { key: "contract-snap".into(), image: image.id.clone(), ..Default::default() };
    let mounts = client.prepare_snapshot(prepare.clone()).await?.into_inner().mounts;
    ensure!(!mounts.is_empty(), "no mounts");
    refused(client.prepare_snapshot(prepare).await, Code::AlreadyExists, "SNAPSHOT_EXISTS")?;
    let listed = client.mount_snapshot(MountSnapshotRequest { key: "contract-snap".into() }).await?.into_inner().mounts;
    ensure!(listed == mounts, "the mounts differ when asked again");
    let commit = CommitSnapshotRequest { key: "contract-snap".into(), keep: true, ..Default::default() };
    ensure!(!client.commit_snapshot(commit).await?.into_inner().changed, "nothing was written, yet it changed");
    let remove = RemoveSnapshotRequest { key: "contract-snap".into() };
    client.remove_snapshot(remove.clone()).await?;
    client.remove_snapshot(remove).await?;

    for reference in ["contract/image:1", "contract/image:2"] {
        client.remove_image(RemoveImageRequest { reference: reference.into(), force: false, platform: None }).await?;
    }
    client.collect_garbage(CollectGarbageRequest::default()).await?;
    let blob = ReadBlobRequest { digest: image.id };
    refused(client.read_blob(blob).await, Code::NotFound, "BLOB_NOT_FOUND")
}
