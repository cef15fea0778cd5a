//! `pier network prune`

use api::network::v1::PruneNetworksRequest;

use crate::client::{Answer, Client};
use crate::commands::{confirmed, say};
use crate::flags::filter::filters;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// label=, until=
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if !confirmed("This removes all networks that no container is on.", self.force)? {
            return Ok(0);
        }
        let request = PruneNetworksRequest { filters: filters(&self.filter)? };
        let answer = client.network().await?.prune_networks(request).await.answer()?;
        if !answer.removed.is_empty() {
            say("Deleted Networks:")?;
            answer.removed.iter().try_for_each(say)?;
        }
        Ok(0)
    }
}
