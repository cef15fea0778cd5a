//! `pier push`

use std::collections::HashMap;

use anyhow::ensure;
use api::distribution::v1::{ListImagesRequest, PushRequest, push_response};
use api::types::v1::StringList;
use oci::Reference;

use super::pull::{Registry, tagless};
use crate::client::{Answer, Client, filled, next};
use crate::commands::say;
use crate::show::progress::Shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME[:TAG]
    reference: String,
    /// Everything that is here under that name
    #[arg(short, long)]
    all_tags: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    /// Also what belongs to the image and came with it: signatures, attestations
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    registry: Registry,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if !self.all_tags {
            self.one(client, &self.reference).await?;
            return Ok(0);
        }
        let name = tagless(&self.reference)?;
        let names = names(client, &name).await?;
        ensure!(!names.is_empty(), "no image is here under the name {}", name.familiar_name());
        for name in names {
            self.one(client, &name).await?;
        }
        Ok(0)
    }

    async fn one(&self, client: &Client, name: &str) -> anyhow::Result<()> {
        let reference: Reference = name.parse()?;
        let request = PushRequest {
            reference: name.to_owned(),
            registry: Some(self.registry.options()?),
            referrers: self.referrers,
            ..Default::default()
        };
        let mut shown = Shown::new(self.quiet);
        let mut stream = client.distribution().await?.push(request).await.answer()?;
        let mut result = None;
        while let Some(message) = next(&mut stream).await? {
            match message.payload {
                Some(push_response::Payload::Progress(progress)) => shown.update(&progress),
                Some(push_response::Payload::Result(done)) => result = Some(done),
                None => {}
            }
        }
        drop(shown);
        let result = filled(result, "digest")?;
        if self.quiet {
            return say(reference);
        }
        let tag = reference.tag().unwrap_or_default();
        say(format_args!("{tag}: digest: {} size: {}", result.digest, result.size_bytes))
    }
}

/// The names that images of the store have in a repository.
async fn names(client: &Client, repository: &Reference) -> anyhow::Result<Vec<String>> {
    let filter = StringList { values: vec![repository.name()] };
    let request = ListImagesRequest { filters: HashMap::from([("reference".to_owned(), filter)]) };
    let images = client.distribution().await?.list_images(request).await.answer()?.images;
    let own = |name: &String| name.parse::<Reference>().is_ok_and(|own| own.name() == repository.name());
    let mut names: Vec<String> = images.into_iter().flat_map(|image| image.names).filter(own).collect();
    names.sort();
    Ok(names)
}
