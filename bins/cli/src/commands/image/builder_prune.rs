//! `pier builder prune`

use api::builder::v1::PruneRequest;

use crate::client::{Answer, Client};
use crate::commands::{confirmed, reclaimed, say};
use crate::flags::{quantity, time};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also what is in use by images
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Keep so much
    #[arg(long, value_name = "SIZE")]
    keep_storage: Option<String>,
    /// Keep what was used in this time
    #[arg(long, value_name = "DURATION")]
    keep: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if !confirmed("This removes the build cache.", self.force)? {
            return Ok(0);
        }
        let request = PruneRequest {
            all: self.all,
            keep_seconds: self.keep.as_deref().map_or(Ok(0), time::duration_ns)? / 1_000_000_000,
            keep_bytes: self.keep_storage.as_deref().map_or(Ok(0), quantity::bytes)?,
        };
        let answer = client.builder().await?.prune(request).await.answer()?;
        answer.removed.iter().try_for_each(say)?;
        reclaimed(answer.reclaimed_bytes)?;
        Ok(0)
    }
}
