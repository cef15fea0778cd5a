//! `pier network disconnect`

use api::engine::v1::DisconnectNetworkRequest;

use crate::client::{Answer, Client};

#[derive(Debug, clap::Args)]
pub struct Args {
    network: String,
    container: String,
    /// Even when the container cannot be reached
    #[arg(short, long)]
    force: bool,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = DisconnectNetworkRequest { container: self.container, network: self.network, force: self.force };
        client.engine().await?.disconnect_network(request).await.answer()?;
        Ok(0)
    }
}
