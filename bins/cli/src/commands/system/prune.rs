//! `pier system prune`

use api::engine::v1::{PruneRequest, PruneResponse};

use crate::client::{Answer, Client};
use crate::commands::{confirmed, reclaimed, say};
use crate::flags::filter::filters;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// All images that no container uses, not only nameless ones
    #[arg(short, long)]
    all: bool,
    /// Also anonymous volumes
    #[arg(long)]
    volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// label=, until=
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let images = if self.all { "all images that no container uses" } else { "all images without a name" };
        let volumes = if self.volumes { ", all anonymous volumes that no container uses" } else { "" };
        let question = format!(
            "This removes all stopped containers, all networks that no container is on, {images}{volumes} and the build cache."
        );
        if !confirmed(&question, self.force)? {
            return Ok(0);
        }
        let request = PruneRequest {
            containers: true,
            networks: true,
            images: true,
            all_images: self.all,
            volumes: self.volumes,
            build_cache: true,
            filters: filters(&self.filter)?,
        };
        told(&client.engine().await?.prune(request).await.answer()?)?;
        Ok(0)
    }
}

fn told(answer: &PruneResponse) -> anyhow::Result<()> {
    for (title, names) in [
        ("Containers", &answer.containers),
        ("Networks", &answer.networks),
        ("Volumes", &answer.volumes),
        ("Images", &answer.images),
        ("Build Cache", &answer.build_cache),
    ] {
        if !names.is_empty() {
            say(format_args!("Deleted {title}:"))?;
            names.iter().try_for_each(say)?;
            say("")?;
        }
    }
    reclaimed(answer.reclaimed_bytes)
}
