//! The image of a new container: the one in the store, or pulled by policy.
use crate::engine::Engine;
use crate::error::Error;
use crate::tools::Tool;
use api::distribution::v1::pull_response::Payload;
use api::distribution::v1::{GetImageRequest, Image, PullRequest};
use api::engine::v1::ContainerConfig;
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

/// The image, and its configuration.
pub async fn resolve(
    engine: &Engine,
    config: &ContainerConfig,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(Image, ImageConfig), Error> {
    let image = match Policy::parse(&config.pull)? {
        Policy::Always => pull(engine, config, progress).await?,
        policy => match stored(engine, config).await {
            Err(error) if policy == Policy::Missing && error.is_not_found() => pull(engine, config, progress).await?,
            other => other?,
        },
    };
    let parsed = serde_json::from_slice(&image.config)
        .map_err(|source| Error::Encoding { what: "image configuration", source })?;
    Ok((image, parsed))
}

/// The image in the store.
pub async fn stored(engine: &Engine, config: &ContainerConfig) -> Result<Image, Error> {
    let request = GetImageRequest { reference: config.image.clone(), platform: config.platform.clone() };
    let answer = engine.clients().image_get(request).await?;
    answer.image.ok_or_else(|| nothing(&config.image))
}

async fn pull(
    engine: &Engine,
    config: &ContainerConfig,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Image, Error> {
    let request = PullRequest {
        reference: config.image.clone(),
        platform: config.platform.clone(),
        registry: config.registry.clone(),
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
    image.ok_or_else(|| nothing(&config.image))
}

fn nothing(reference: &str) -> Error {
    let message = format!("{} gave no image for {reference}", Tool::Distribution.program());
    Error::Tool { tool: Tool::Distribution, failure: rpc::Failure::new(rpc::Code::Internal, "NO_IMAGE", message) }
}
