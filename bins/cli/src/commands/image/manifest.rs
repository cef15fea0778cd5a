//! `pier manifest`: indexes that are put together here, and manifests of registries.

use api::distribution::v1::{
    DeleteIndexRequest, EditIndexRequest, IndexAnnotation, Origin, PushIndexRequest, push_index_response,
};
use api::types::v1::Platform;
use clap::Subcommand;
use oci::Reference;

use super::manifest_inspect;
use super::pull::Registry;
use crate::client::{Answer, Client, filled, next};
use crate::commands::{each_quietly, say};
use crate::show::progress::Shown;

/// `pier manifest ...`
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Begin an index of images that registries have
    Create {
        /// Name of the index
        list: String,
        /// At a registry; of an index all its images
        #[arg(required = true)]
        manifests: Vec<String>,
        /// Add to an index that exists
        #[arg(short, long)]
        amend: bool,
        #[command(flatten)]
        registry: Registry,
    },
    /// Change what an index says of an image
    Annotate(Annotate),
    /// Print an index that is being put together, or a manifest or index of a registry
    Inspect(manifest_inspect::Args),
    /// Copy the images of an index, and the index, to its registry
    Push {
        list: String,
        /// Forget the index when it has arrived
        #[arg(short, long)]
        purge: bool,
        #[command(flatten)]
        registry: Registry,
    },
    /// Forget indexes; what was pushed stays
    Rm {
        #[arg(required = true)]
        lists: Vec<String>,
    },
}

/// Flags of `annotate`.
#[derive(Debug, clap::Args)]
pub struct Annotate {
    list: String,
    /// As it was given, or its digest
    manifest: String,
    #[arg(long, default_value = "")]
    arch: String,
    #[arg(long, default_value = "")]
    os: String,
    /// Several with commas between
    #[arg(long, value_delimiter = ',')]
    os_features: Vec<String>,
    #[arg(long, default_value = "")]
    os_version: String,
    #[arg(long, default_value = "")]
    variant: String,
}

impl Noun {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Create { list, manifests, amend, registry } => {
                create(client, &list, &manifests, amend, &registry).await
            }
            Self::Annotate(args) => args.run(client).await,
            Self::Inspect(args) => args.run(client).await,
            Self::Push { list, purge, registry } => push(client, &list, purge, &registry).await,
            Self::Rm { lists } => each_quietly(&lists, async |list| forget(client, list).await).await,
        }
    }
}

/// A name at a registry as a location.
pub fn remote(name: &str) -> anyhow::Result<String> {
    name.parse::<Reference>()?;
    Ok(format!("docker://{name}"))
}

async fn create(
    client: &Client,
    list: &str,
    manifests: &[String],
    amend: bool,
    registry: &Registry,
) -> anyhow::Result<u8> {
    let options = registry.options()?;
    let origin = |name: &String| -> anyhow::Result<Origin> {
        Ok(Origin { location: remote(name)?, registry: Some(options.clone()) })
    };
    let request = EditIndexRequest {
        name: list.to_owned(),
        create: true,
        amend,
        add: manifests.iter().map(origin).collect::<anyhow::Result<_>>()?,
        ..Default::default()
    };
    let index = filled(client.distribution().await?.edit_index(request).await.answer()?.index, "index")?;
    say(format_args!("Created manifest list {}", index.name))?;
    Ok(0)
}

impl Annotate {
    async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let platform = Platform {
            os: self.os,
            architecture: self.arch,
            variant: self.variant,
            os_version: self.os_version,
            os_features: self.os_features,
        };
        let annotation =
            IndexAnnotation { image: self.manifest, platform: Some(platform), annotations: Default::default() };
        let request = EditIndexRequest { name: self.list, annotate: vec![annotation], ..Default::default() };
        client.distribution().await?.edit_index(request).await.answer()?;
        Ok(0)
    }
}

async fn push(client: &Client, list: &str, purge: bool, registry: &Registry) -> anyhow::Result<u8> {
    let options = registry.options()?;
    let target = api::distribution::v1::Target {
        location: String::new(),
        registry: Some(options.clone()),
        ..Default::default()
    };
    let request = PushIndexRequest {
        name: list.to_owned(),
        target: Some(target),
        source_registry: Some(options),
        ..Default::default()
    };
    let mut shown = Shown::new(false);
    let mut stream = client.distribution().await?.push_index(request).await.answer()?;
    let mut result = None;
    while let Some(message) = next(&mut stream).await? {
        match message.payload {
            Some(push_index_response::Payload::Progress(progress)) => shown.update(&progress),
            Some(push_index_response::Payload::Result(done)) => result = Some(done),
            None => {}
        }
    }
    drop(shown);
    let digest = filled(result, "digest")?.digest;
    if purge {
        forget(client, list).await?;
    }
    say(digest)?;
    Ok(0)
}

async fn forget(client: &Client, list: &str) -> anyhow::Result<()> {
    client.distribution().await?.delete_index(DeleteIndexRequest { name: list.to_owned() }).await.answer()?;
    Ok(())
}
