//! `pier pause`

use api::supervisor::v1::PauseContainerRequest;

use crate::client::{Answer, Client};
use crate::commands::each;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.containers, async |name| {
            let request = PauseContainerRequest { id: name.into() };
            client.supervisor().await?.pause_container(request).await.answer()?;
            Ok(name.to_owned())
        })
        .await
    }
}
