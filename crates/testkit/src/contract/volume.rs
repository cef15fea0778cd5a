//! `pier.volume.v1`.
use crate::refused;
use anyhow::{Result, ensure};
use api::volume::v1::volume_service_client::VolumeServiceClient;
use api::volume::v1::*;
use rpc::Code;
use tonic::transport::Channel;

/// What can be done to a volume in use, and to its content: names, labels, copies.
async fn changes(client: &mut VolumeServiceClient<Channel>, name: &str) -> Result<()> {
    let get = |name: &str| GetVolumeRequest { name: name.into(), with_size: false };
    let before = client.get_volume(get(name)).await?.into_inner().volume.unwrap_or_default();
    ensure!(before.id.len() == 64, "id {:?}", before.id);
    let rename = |from: &str, to: &str| RenameVolumeRequest { name: from.into(), new_name: to.into() };
    client.rename_volume(rename(name, "contract-other")).await?;
    refused(client.get_volume(get(name)).await, Code::NotFound, "VOLUME_NOT_FOUND")?;
    let renamed = client.get_volume(get(&before.id)).await?.into_inner().volume.unwrap_or_default();
    ensure!(renamed.name == "contract-other" && renamed.mountpoint == before.mountpoint, "{renamed:?}");
    client.rename_volume(rename("contract-other", name)).await?;
    let update = UpdateVolumeRequest {
        name: name.into(),
        set_labels: [("a".to_owned(), "b".to_owned())].into(),
        ..Default::default()
    };
    let updated = client.update_volume(update).await?.into_inner().volume.unwrap_or_default();
    ensure!(updated.labels.get("a").is_some_and(|value| value == "b"), "{updated:?}");
    let clone = CloneVolumeRequest { name: name.into(), new_name: "contract-twin".into(), ..Default::default() };
    client.clone_volume(clone.clone()).await?;
    refused(client.clone_volume(clone).await, Code::AlreadyExists, "VOLUME_NAME_TAKEN")?;
    client.remove_volume(RemoveVolumeRequest { name: "contract-twin".into(), force: false }).await?;
    let snapshot = CreateSnapshotRequest { volume: name.into(), name: "one".into() };
    client.create_snapshot(snapshot.clone()).await?;
    refused(client.create_snapshot(snapshot).await, Code::AlreadyExists, "VOLUME_SNAPSHOT")?;
    client.restore_snapshot(RestoreSnapshotRequest { volume: name.into(), name: "one".into() }).await?;
    let gone = RestoreSnapshotRequest { volume: name.into(), name: "two".into() };
    refused(client.restore_snapshot(gone).await, Code::NotFound, "VOLUME_SNAPSHOT")?;
    let relative = ExportVolumeRequest { name: name.into(), path: "relative".into(), ..Default::default() };
    refused(client.export_volume(relative).await, Code::InvalidArgument, "VOLUME_REQUEST_INVALID")?;
    let found = client.check(CheckRequest { repair: false }).await?.into_inner().findings;
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

/// Create is idempotent, a held volume is not removed, release frees it, unknown names are NOT_FOUND.
pub async fn volume(channel: Channel) -> Result<()> {
    let mut client = VolumeServiceClient::new(channel);
    let name = "contract-volume";
    let create = CreateVolumeRequest { name: name.into(), ..Default::default() };
    let first = client.create_volume(create.clone()).await?.into_inner();
    ensure!(first.created, "a new volume was there already");
    ensure!(!client.create_volume(create).await?.into_inner().created, "the second create made another");
    let bad = CreateVolumeRequest { name: "../x".into(), ..Default::default() };
    refused(client.create_volume(bad).await, Code::InvalidArgument, "VOLUME_NAME_INVALID")?;

    changes(&mut client, name).await?;

    let acquire = AcquireVolumeRequest {
        name: name.into(),
        consumer: "someone".into(),
        target: "/data".into(),
        read_only: true,
        ..Default::default()
    };
    let mount = client.acquire_volume(acquire).await?.into_inner().mount.unwrap_or_default();
    ensure!(mount.target == "/data" && mount.options.iter().any(|o| o == "ro"), "mount {mount:?}");
    ensure!(std::path::Path::new(&mount.source).is_dir(), "{} is no directory", mount.source);
    let remove = RemoveVolumeRequest { name: name.into(), force: false };
    refused(client.remove_volume(remove.clone()).await, Code::FailedPrecondition, "VOLUME_IN_USE")?;
    let release = ReleaseVolumeRequest { consumer: "someone".into(), ..Default::default() };
    client.release_volume(release.clone()).await?;
    client.release_volume(release).await?;
    client.remove_volume(remove.clone()).await?;
    refused(client.remove_volume(remove).await, Code::NotFound, "VOLUME_NOT_FOUND")?;
    let get = GetVolumeRequest { name: name.into(), with_size: false };
    refused(client.get_volume(get).await, Code::NotFound, "VOLUME_NOT_FOUND")
}
