//! `pier volume prune`

use api::volume::v1::PruneVolumesRequest;

use crate::client::{Answer, Client};
use crate::commands::{confirmed, reclaimed, say};
use crate::flags::filter::filters;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Named ones too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// label=, label!=
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let which = if self.all { "all volumes" } else { "all anonymous volumes" };
        if !confirmed(&format!("This removes {which} that no container uses, with their data."), self.force)? {
            return Ok(0);
        }
        let request = PruneVolumesRequest { all: self.all, filters: filters(&self.filter)? };
        let answer = client.volume().await?.prune_volumes(request).await.answer()?;
        if !answer.removed.is_empty() {
            say("Deleted Volumes:")?;
            answer.removed.iter().try_for_each(say)?;
        }
        reclaimed(answer.reclaimed_bytes)?;
        Ok(0)
    }
}
