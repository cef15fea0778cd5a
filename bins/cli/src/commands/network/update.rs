//! `pier network update`

use api::network::v1::UpdateNetworkRequest;

use crate::client::{Answer, Client, filled};
use crate::commands::say;

#[derive(Debug, clap::Args)]
pub struct Args {
    network: String,
    /// Another upstream name server
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    dns_add: Vec<String>,
    /// No longer this upstream name server
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    dns_drop: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = UpdateNetworkRequest { name: self.network, dns_add: self.dns_add, dns_drop: self.dns_drop };
        let answer = client.network().await?.update_network(request).await.answer()?;
        say(filled(answer.network, "network")?.name)?;
        Ok(0)
    }
}
