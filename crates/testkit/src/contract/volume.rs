//! `pier.volume.v1`.
use crate::refused;
use anyhow::{Result, ensure};
use api::volume::v1::volume_service_client::VolumeServiceClient;
use api::volume::v1::*;
use rpc::Code;
use tonic::transport::Channel;

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
