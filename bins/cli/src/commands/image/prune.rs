//! `pier image prune`

use api::distribution::v1::PruneImagesRequest;

use crate::client::{Answer, Client};
use crate::commands::{confirmed, reclaimed, say};
use crate::flags::filter::filters;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also images with names that no container uses
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// label=, label!=, until= (a time, or an age such as 24h)
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let what = if self.all { "all images that no container uses" } else { "all images without a name" };
        if !confirmed(&format!("This removes {what}."), self.force)? {
            return Ok(0);
        }
        let request = PruneImagesRequest { all: self.all, filters: filters(&self.filter)? };
        let answer = client.distribution().await?.prune_images(request).await.answer()?;
        answer.untagged.iter().try_for_each(|name| say(format_args!("untagged: {name}")))?;
        answer.deleted.iter().try_for_each(|id| say(format_args!("deleted: {id}")))?;
        reclaimed(answer.reclaimed_bytes)?;
        Ok(0)
    }
}
