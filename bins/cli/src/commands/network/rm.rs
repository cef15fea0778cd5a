//! `pier network rm`

use api::network::v1::RemoveNetworkRequest;

use crate::client::{Answer, Client};
use crate::commands::each;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    networks: Vec<String>,
    /// Detach what is on it; a missing one is no error
    #[arg(short, long)]
    force: bool,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.networks, async |name| {
            let request = RemoveNetworkRequest { name: name.into(), force: self.force };
            client.network().await?.remove_network(request).await.answer()?;
            Ok(name.to_owned())
        })
        .await
    }
}
