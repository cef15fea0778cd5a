//! `pier container prune`

use api::engine::v1::PruneRequest;

use crate::client::{Answer, Client};
use crate::commands::{confirmed, reclaimed, say};
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
        if !confirmed("This removes all stopped containers.", self.force)? {
            return Ok(0);
        }
        let request = PruneRequest { containers: true, filters: filters(&self.filter)?, ..Default::default() };
        let answer = client.engine().await?.prune(request).await.answer()?;
        if !answer.containers.is_empty() {
            say("Deleted Containers:")?;
            answer.containers.iter().try_for_each(say)?;
        }
        reclaimed(answer.reclaimed_bytes)?;
        Ok(0)
    }
}
