//! The images of a new container, its own and those it mounts: in the store, or pulled by policy.
use crate::engine::Engine;
use crate::error::Error;
use crate::tools::Tool;
use api::distribution::v1::pull_response::Payload;
use api::distribution::v1::{GetImageRequest, Image, PullRequest};
use api::engine::v1::{ContainerConfig, MountKind};
use api::types::v1::Progress;
use oci::ImageConfig;

/// When the registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Missing,
    Always,
    Never,
}

impl Policy {
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "" | "missing" => Ok(Self::Missing),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(Error::invalid("pull policy", other, "it is missing, always or never")),
        }
    }
}

/// An image that is to be in the store.
struct Wanted<'a> {
    reference: &'a str,
    pull: &'a str,
    /// Platform and registry are the container's.
    config: &'a ContainerConfig,
}

/// The container's image, and its configuration.
pub async fn resolve(
    engine: &Engine,
    config: &ContainerConfig,
    progress: &Progressing<'_>,
) -> Result<(Image, ImageConfig), Error> {
    let image = get(engine, &Wanted { reference: &config.image, pull: &config.pull, config }, progress).await?;
    let parsed = serde_json::from_slice(&image.config)
        .map_err(|source| Error::Encoding { what: "image configuration", source })?;
    Ok((image, parsed))
}

/// Hears of a pull.
pub type Progressing<'a> = dyn Fn(Progress) + Send + Sync + 'a;

/// Ids of the images that the container mounts, in the order of its mounts.
pub async fn of_mounts(
    engine: &Engine,
    config: &ContainerConfig,
    progress: &Progressing<'_>,
) -> Result<Vec<String>, Error> {
    let mut ids = Vec::new();
    for mount in config.mounts.iter().filter(|mount| mount.kind() == MountKind::Image) {
        let pull = if mount.pull.is_empty() { &config.pull } else { &mount.pull };
        ids.push(get(engine, &Wanted { reference: &mount.source, pull, config }, progress).await?.id);
    }
    Ok(ids)
}

async fn get(engine: &Engine, wanted: &Wanted<'_>, progress: &Progressing<'_>) -> Result<Image, Error> {
    match Policy::parse(wanted.pull)? {
        Policy::Always => pull(engine, wanted, progress).await,
        policy => match stored(engine, wanted).await {
            Err(error) if policy == Policy::Missing && error.is_not_found() => pull(engine, wanted, progress).await,
            other => other,
        },
    }
}

async fn stored(engine: &Engine, wanted: &Wanted<'_>) -> Result<Image, Error> {
    let request = GetImageRequest {
        reference: wanted.reference.into(),
        platform: wanted.config.platform.clone(),
        ..Default::default()
    };
    let answer = engine.clients().image_get(request).await?;
    answer.image.ok_or_else(|| nothing(wanted.reference))
}

async fn pull(engine: &Engine, wanted: &Wanted<'_>, progress: &Progressing<'_>) -> Result<Image, Error> {
    let request = PullRequest {
        reference: wanted.reference.into(),
        platform: wanted.config.platform.clone(),
        registry: wanted.config.registry.clone(),
        policy: "always".into(),
        ..Default::default()
    };
    let mut stream = engine.clients().image_pull(request).await?;
    let mut image = None;
    let failed = |s: tonic::Status| Error::Tool { tool: Tool::Distribution, failure: s.into() };
    while let Some(message) = stream.message().await.map_err(failed)? {
        match message.payload {
            Some(Payload::Progress(update)) => progress(update),
            Some(Payload::Result(result)) => image = result.image,
            None => {}
        }
    }
    image.ok_or_else(|| nothing(wanted.reference))
}

fn nothing(reference: &str) -> Error {
    let message = format!("{} gave no image for {reference}", Tool::Distribution.program());
    Error::Tool { tool: Tool::Distribution, failure: rpc::Failure::new(rpc::Code::Internal, "NO_IMAGE", message) }
}
