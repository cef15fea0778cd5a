//! `pier inspect`: whatever has the name.

use anyhow::bail;
use api::distribution::v1::GetImageRequest;
use api::engine::v1::InspectContainerRequest;
use api::network::v1::GetNetworkRequest;
use api::types::v1::Platform;
use api::volume::v1::GetVolumeRequest;
use serde_json::Value;

use crate::client::{Answer, Client, filled, is_not_found};
use crate::flags::config::platform;
use crate::show::{document, image, listing};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    names: Vec<String>,
    /// A template such as {{.Id}}, or "json"
    #[arg(short, long)]
    format: Option<String>,
    /// Only this kind: container, image, network, volume
    #[arg(long = "type")]
    kind: Option<Kind>,
    /// Also the size on disk
    #[arg(short, long)]
    size: bool,
}

/// What may be inspected, in the order of looking.
#[derive(Debug, Clone, Copy, clap::ValueEnum, PartialEq, Eq)]
pub enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let kinds = match self.kind {
            Some(kind) => vec![kind],
            None => vec![Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        };
        let how = How { size: self.size, platform: None };
        many(client, &self.names, &kinds, self.format.as_deref(), &how).await
    }
}

/// What is asked for beside the names.
struct How {
    size: bool,
    platform: Option<Platform>,
}

/// Flags of `inspect` below a noun.
#[derive(Debug, clap::Args)]
pub struct OfKind {
    #[arg(required = true)]
    names: Vec<String>,
    /// A template such as {{.Id}}, or "json"
    #[arg(short, long)]
    format: Option<String>,
    /// Also the size on disk
    #[arg(short, long)]
    size: bool,
}

impl OfKind {
    pub async fn run(self, client: &Client, kind: Kind) -> anyhow::Result<u8> {
        let how = How { size: self.size, platform: None };
        many(client, &self.names, &[kind], self.format.as_deref(), &how).await
    }
}

/// Flags of `image inspect`.
#[derive(Debug, clap::Args)]
pub struct OfImage {
    #[command(flatten)]
    names: OfKind,
    /// The image for os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
}

impl OfImage {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let OfKind { names, format, size } = self.names;
        let how = How { size, platform: self.platform.as_deref().map(platform).transpose()? };
        many(client, &names, &[Kind::Image], format.as_deref(), &how).await
    }
}

async fn many(
    client: &Client,
    names: &[String],
    kinds: &[Kind],
    format: Option<&str>,
    how: &How,
) -> anyhow::Result<u8> {
    let (mut documents, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match any(client, name, kinds, how).await {
            Ok(document) => documents.push(document),
            Err(error) => failures.push(error),
        }
    }
    listing::inspect(&documents, format)?;
    match failures.pop() {
        None => Ok(0),
        Some(last) => {
            failures.iter().for_each(|failure| eprintln!("Error: {failure:#}"));
            Err(last)
        }
    }
}

async fn any(client: &Client, name: &str, kinds: &[Kind], how: &How) -> anyhow::Result<Value> {
    for kind in kinds {
        match one(client, name, *kind, how).await {
            Err(error) if kinds.len() > 1 && is_no_such(&error) => {}
            other => return other,
        }
    }
    bail!("no such object: {name}")
}

/// A name that one kind of object cannot have is no object of that kind.
fn is_no_such(error: &anyhow::Error) -> bool {
    let invalid = |cause: &rpc::Failure| cause.code == rpc::Code::InvalidArgument;
    is_not_found(error) || error.chain().any(|cause| cause.downcast_ref::<rpc::Failure>().is_some_and(invalid))
}

async fn one(client: &Client, name: &str, kind: Kind, how: &How) -> anyhow::Result<Value> {
    let size = how.size;
    Ok(match kind {
        Kind::Container => {
            let request = InspectContainerRequest { id: name.into(), with_size: size };
            let answer = client.engine().await?.inspect_container(request).await.answer()?;
            document::container(&filled(answer.container, "container")?, size)
        }
        Kind::Image => {
            let request = GetImageRequest { reference: name.into(), platform: how.platform.clone(), beside: true };
            let answer = client.distribution().await?.get_image(request).await.answer()?;
            image::document(&filled(answer.image, "image")?)
        }
        Kind::Network => {
            let answer = client.network().await?.get_network(GetNetworkRequest { name: name.into() }).await.answer()?;
            document::network(&filled(answer.network, "network")?, &answer.endpoints)
        }
        Kind::Volume => {
            let request = GetVolumeRequest { name: name.into(), with_size: size };
            let answer = client.volume().await?.get_volume(request).await.answer()?;
            document::volume(&filled(answer.volume, "volume")?)
        }
    })
}
