//! The image store (pier-distribution), asked over its socket, or started for the length of one call: content of images
//! as volumes, and volumes as artifacts.

use std::path::{Path, PathBuf};

use api::distribution::v1 as proto;
use api::distribution::v1::distribution_service_client::DistributionServiceClient;
use rpc::spawn::{Tool, find_program};
use rpc::{Code, Failure};
use tonic::transport::Channel;

use crate::option::Pull;
use crate::{Error, Result};

/// What an exported volume is in a registry.
const ARTIFACT_TYPE: &str = "application/vnd.pier.volume.v1";
/// The one file of it.
pub(crate) const ARTIFACT_FILE: &str = "volume.tar";
const MEDIA_TYPE: &str = "application/vnd.pier.volume.v1.tar";

type Client = DistributionServiceClient<Channel>;

/// Where the image store is.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
    run: PathBuf,
}

impl Store {
    pub(crate) fn new(root: &Path, run: &Path) -> Self {
        Self { root: root.into(), run: run.into() }
    }

    /// Connects and asks; a store that had to be started is ended.
    fn ask<T>(
        &self,
        step: &'static str,
        work: impl AsyncFnOnce(&mut Client) -> std::result::Result<T, tonic::Status>,
    ) -> Result<T> {
        let failed = |source| Error::Tool { step, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| {
            failed(Failure::new(Code::Internal, "RUNTIME", "start the async runtime").with_cause(&error))
        })?;
        runtime.block_on(async {
            let tool = Tool {
                name: "distribution".into(),
                program: find_program("pier-distribution").map_err(failed)?,
                root: self.root.clone(),
                run: self.run.clone(),
                args: Vec::new(),
            };
            let (channel, running) = tool.for_one_verb().await.map_err(failed)?;
            let answer = work(&mut Client::new(channel)).await.map_err(|status| failed(Failure::from(status)));
            if let Some(running) = running {
                running.stop().await;
            }
            answer
        })
    }

    /// Mounts the content of an image, fetched when that is wanted, which the store keeps for the volume from now on.
    pub(crate) fn mount(&self, id: &str, image: &str, pull: Pull, place: &Path) -> Result<()> {
        let request = proto::PrepareSnapshotRequest {
            key: key(id),
            image: image.into(),
            read_only: true,
            labels: [("pier.volume".to_owned(), id.to_owned())].into(),
            ..Default::default()
        };
        let mounts = self.ask("show the content of the image", async |client| {
            match client.mount_snapshot(proto::MountSnapshotRequest { key: key(id) }).await {
                Ok(answer) => return Ok(answer.into_inner().mounts),
                Err(status) if status.code() == tonic::Code::NotFound => {}
                Err(status) => return Err(status),
            }
            if pull == Pull::Always {
                fetch(client, image).await?;
            }
            let prepared = match client.prepare_snapshot(request.clone()).await {
                Err(status) if pull == Pull::Missing && status.code() == tonic::Code::NotFound => {
                    fetch(client, image).await?;
                    client.prepare_snapshot(request).await?
                }
                other => other?,
            };
            Ok(prepared.into_inner().mounts)
        })?;
        let mounts: Vec<sys::mount::Mount> = mounts
            .into_iter()
            .map(|mount| sys::mount::Mount {
                fstype: mount.r#type,
                source: mount.source.into(),
                target: mount.target.into(),
                options: mount.options,
            })
            .collect();
        sys::mount::mount_all(place, &mounts).map_err(|error| Error::Io {
            step: "mount the image on",
            path: place.into(),
            source: error.cause,
        })
    }

    /// Lets the content go.
    pub(crate) fn unmount(&self, id: &str) -> Result<()> {
        self.ask("let the content of the image go", async |client| {
            match client.remove_snapshot(proto::RemoveSnapshotRequest { key: key(id) }).await {
                Err(status) if status.code() != tonic::Code::NotFound => Err(status),
                _ => Ok(()),
            }
        })
    }

    /// Sends a tar as an artifact.
    pub(crate) fn push(&self, location: &str, tar: &Path, volume: &str) -> Result<()> {
        let request = proto::PushArtifactRequest {
            target: Some(proto::Target { location: location.into(), ..Default::default() }),
            files: vec![proto::ArtifactFile { path: tar.display().to_string(), media_type: MEDIA_TYPE.into() }],
            artifact_type: ARTIFACT_TYPE.into(),
            annotations: [("org.opencontainers.image.title".to_owned(), volume.to_owned())].into(),
            ..Default::default()
        };
        self.ask("send the artifact", async |client| {
            let mut stream = client.push_artifact(request).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok(())
        })
    }

    /// Writes the files of an artifact into a directory.
    pub(crate) fn pull(&self, location: &str, directory: &Path) -> Result<()> {
        let request = proto::PullArtifactRequest {
            origin: Some(proto::Origin { location: location.into(), ..Default::default() }),
            path: directory.display().to_string(),
            replace: true,
        };
        self.ask("fetch the artifact", async |client| {
            let mut stream = client.pull_artifact(request).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok(())
        })
    }
}

async fn fetch(client: &mut Client, image: &str) -> std::result::Result<(), tonic::Status> {
    let request = proto::PullRequest { reference: image.into(), policy: "always".into(), ..Default::default() };
    let mut stream = client.pull(request).await?.into_inner();
    while stream.message().await?.is_some() {}
    Ok(())
}

fn key(id: &str) -> String {
    format!("volume-{id}")
}
