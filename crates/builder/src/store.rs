//! The image store, pier-distribution, through its gRPC service.

use api::distribution::v1 as pb;
use api::distribution::v1::distribution_service_client::DistributionServiceClient;
use api::types::v1 as types;
use oci::{Descriptor, ImageConfig};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use sys::mount::Mount;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::convert;
use crate::error::Error;
use crate::layer::{Chain, Layer};
use crate::progress::{Event, Sink};

/// A client of the store.
#[derive(Debug, Clone)]
pub struct Store {
    client: DistributionServiceClient<Channel>,
}

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its config.
    pub id: String,
    /// Digest of its manifest.
    pub manifest: String,
    /// Its names.
    pub names: Vec<String>,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers.
    pub chain: Chain,
}

/// What a new snapshot is made of.
#[derive(Debug, Clone, Default)]
pub struct Prepare<'a> {
    /// Unique.
    pub key: &'a str,
    /// The layers below.
    pub parents: Vec<String>,
    /// Nothing can be written.
    pub read_only: bool,
    /// Found again at the next start.
    pub labels: HashMap<String, String>,
    /// What it uses stays while this lives.
    pub lease: &'a str,
}

/// How a snapshot becomes a layer.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// Holds the layer.
    pub lease: &'a str,
    /// "gzip", "zstd", "none".
    pub compression: &'a str,
    /// Newer times become this, in seconds since the epoch.
    pub source_date_epoch: Option<i64>,
}

impl Store {
    /// A client on a channel.
    pub fn new(channel: Channel) -> Self {
        // Image configs and manifests come in messages; 16 MiB leaves room for the largest allowed.
        Self { client: DistributionServiceClient::new(channel).max_decoding_message_size(16 << 20) }
    }

    fn client(&self) -> DistributionServiceClient<Channel> {
        self.client.clone()
    }

    /// Brings an image in. `policy` is "always" or "missing".
    pub async fn pull(
        &self,
        reference: &str,
        platform: &str,
        policy: &str,
        lease: &str,
        sink: &Sink,
    ) -> Result<Image, Error> {
        let action = format!("pull {reference}");
        let request = pb::PullRequest {
            reference: reference.to_owned(),
            platform: convert::platform(platform),
            policy: policy.to_owned(),
            lease: lease.to_owned(),
            ..Default::default()
        };
        let mut stream = self.client().pull(request).await.map_err(Error::store(&action))?.into_inner();
        let mut result = None;
        while let Some(message) = stream.next().await {
            match message.map_err(Error::store(&action))?.payload {
                Some(pb::pull_response::Payload::Progress(progress)) => sink.send(Event::Transfer(progress)),
                Some(pb::pull_response::Payload::Result(done)) => result = done.image,
                None => {}
            }
        }
        image(&action, result)
    }

    /// An image that is there.
    pub async fn image(&self, reference: &str, platform: &str) -> Result<Image, Error> {
        let action = format!("find the image {reference}");
        let request = pb::GetImageRequest {
            reference: reference.to_owned(),
            platform: convert::platform(platform),
            ..Default::default()
        };
        let answer = self.client().get_image(request).await.map_err(Error::store(&action))?;
        image(&action, answer.into_inner().image)
    }

    /// Makes a snapshot and returns its mounts.
    pub async fn prepare(&self, new: Prepare<'_>) -> Result<Vec<Mount>, Error> {
        let action = "prepare a snapshot".to_owned();
        let request = pb::PrepareSnapshotRequest {
            key: new.key.to_owned(),
            parents: new.parents,
            read_only: new.read_only,
            labels: new.labels,
            lease: new.lease.to_owned(),
            ..Default::default()
        };
        let answer = self.client().prepare_snapshot(request).await.map_err(Error::store(action))?;
        Ok(answer.into_inner().mounts.into_iter().map(convert::mount).collect())
    }

    /// Turns what was written into a layer; none when nothing was.
    pub async fn commit(&self, key: &str, how: Commit<'_>) -> Result<Option<Layer>, Error> {
        let action = "commit the files of the step";
        let request = pb::CommitSnapshotRequest {
            key: key.to_owned(),
            lease: how.lease.to_owned(),
            compression: how.compression.to_owned(),
            keep: false,
            source_date_epoch: how.source_date_epoch,
        };
        let answer = self.client().commit_snapshot(request).await.map_err(Error::store(action))?.into_inner();
        if !answer.changed {
            return Ok(None);
        }
        let descriptor = answer.layer.map(convert::descriptor).transpose()?;
        let descriptor = descriptor.ok_or_else(|| convert::incomplete(action, "layer"))?;
        Ok(Some(Layer { diff_id: answer.diff_id, descriptor, lease: how.lease.to_owned() }))
    }

    /// Removes a snapshot; one that is not there is no error.
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        let request = pb::RemoveSnapshotRequest { key: key.to_owned() };
        self.client().remove_snapshot(request).await.map(drop).map_err(Error::store("remove a snapshot"))
    }

    /// Keys and labels of all snapshots.
    pub async fn snapshots(&self) -> Result<Vec<(String, HashMap<String, String>)>, Error> {
        let request = pb::ListSnapshotsRequest { with_size: false };
        let answer = self.client().list_snapshots(request).await.map_err(Error::store("list snapshots"))?;
        Ok(answer.into_inner().snapshots.into_iter().map(|snapshot| (snapshot.key, snapshot.labels)).collect())
    }

    /// Makes a lease.
    pub async fn create_lease(&self, id: &str, life: Duration) -> Result<(), Error> {
        let ttl_seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        let labels = HashMap::from([("pier.builder".to_owned(), "1".to_owned())]);
        let request = pb::CreateLeaseRequest { id: id.to_owned(), ttl_seconds, labels };
        self.client().create_lease(request).await.map(drop).map_err(Error::store("create a lease"))
    }

    /// Ends a lease; one that is not there is no error.
    pub async fn delete_lease(&self, id: &str) -> Result<(), Error> {
        match self.client().delete_lease(pb::DeleteLeaseRequest { id: id.to_owned() }).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
            Err(status) => Err(Error::store("delete a lease")(status)),
        }
    }

    /// Removes what nothing holds; returns the bytes.
    pub async fn collect_garbage(&self) -> Result<i64, Error> {
        let request = pb::CollectGarbageRequest::default();
        let answer = self.client().collect_garbage(request).await.map_err(Error::store("collect garbage"))?;
        Ok(answer.into_inner().reclaimed_bytes)
    }

    /// Makes an image of layers that are there.
    pub async fn create_image(
        &self,
        config: Vec<u8>,
        chain: &Chain,
        names: &[String],
        lease: &str,
    ) -> Result<Image, Error> {
        let action = "create the image";
        let (first, more) = names.split_first().map_or(("", &[][..]), |(first, more)| (first.as_str(), more));
        let request = pb::CreateImageRequest {
            reference: first.to_owned(),
            config,
            layers: chain.0.iter().map(|layer| convert::layer_descriptor(&layer.descriptor)).collect(),
            annotations: HashMap::new(),
            lease: lease.to_owned(),
            tags: more.to_vec(),
        };
        let answer = self.client().create_image(request).await.map_err(Error::store(action))?;
        image(action, answer.into_inner().image)
    }

    /// Writes an image to an archive or directory.
    pub async fn save(&self, references: Vec<String>, path: &Path, format: &str, sink: &Sink) -> Result<(), Error> {
        let action = format!("write {}", path.display());
        let (path, format) = (convert::path(path), format.to_owned());
        let request = pb::SaveRequest { references, path, format, ..Default::default() };
        let mut stream = self.client().save(request).await.map_err(Error::store(&action))?.into_inner();
        while let Some(message) = stream.next().await {
            if let Some(pb::save_response::Payload::Progress(progress)) =
                message.map_err(Error::store(&action))?.payload
            {
                sink.send(Event::Transfer(progress));
            }
        }
        Ok(())
    }

    /// Sends an image to its registry.
    pub async fn push(&self, reference: &str, sink: &Sink) -> Result<(), Error> {
        let action = format!("push {reference}");
        let request = pb::PushRequest { reference: reference.to_owned(), ..Default::default() };
        let mut stream = self.client().push(request).await.map_err(Error::store(&action))?.into_inner();
        while let Some(message) = stream.next().await {
            if let Some(pb::push_response::Payload::Progress(progress)) =
                message.map_err(Error::store(&action))?.payload
            {
                sink.send(Event::Transfer(progress));
            }
        }
        Ok(())
    }

    /// Writes the files of a snapshot as a tar.
    pub async fn export(&self, snapshot: &str, path: &Path) -> Result<(), Error> {
        let action = format!("write {}", path.display());
        let request =
            pb::ExportRequest { snapshot: snapshot.to_owned(), reference: String::new(), path: convert::path(path) };
        self.client().export(request).await.map(drop).map_err(Error::store(action))
    }
}

fn image(action: &str, image: Option<pb::Image>) -> Result<Image, Error> {
    let image = image.ok_or_else(|| convert::incomplete(action, "image"))?;
    let config = serde_json::from_slice(&image.config).map_err(|error| {
        Error::Request(format!("the configuration of the image {} cannot be read: {error}", image.id))
    })?;
    let layers: Vec<types::Descriptor> = image.layers;
    if layers.len() != image.diff_ids.len() {
        return Err(convert::incomplete(action, "list of layers"));
    }
    let layer = |(diff_id, descriptor): (String, Descriptor)| Layer { diff_id, descriptor, lease: String::new() };
    let descriptors = layers.into_iter().map(convert::descriptor).collect::<Result<Vec<_>, _>>()?;
    Ok(Image {
        id: image.id,
        manifest: image.manifest.map(|manifest| manifest.digest).unwrap_or_default(),
        names: image.names,
        config,
        chain: Chain(image.diff_ids.into_iter().zip(descriptors).map(layer).collect()),
    })
}
