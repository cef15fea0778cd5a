//! `pier volume rm`

use api::volume::v1::RemoveVolumeRequest;

use crate::client::{Answer, Client};
use crate::commands::each;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    volumes: Vec<String>,
    /// A missing one is no error
    #[arg(short, long)]
    force: bool,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.volumes, async |name| {
            let request = RemoveVolumeRequest { name: name.into(), force: self.force };
            client.volume().await?.remove_volume(request).await.answer()?;
            Ok(name.to_owned())
        })
        .await
    }
}
