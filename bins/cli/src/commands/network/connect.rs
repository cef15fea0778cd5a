//! `pier network connect`

use api::engine::v1::{ConnectNetworkRequest, NetworkAttachment};

use crate::client::{Answer, Client};
use crate::flags::network::address;

#[derive(Debug, clap::Args)]
pub struct Args {
    network: String,
    container: String,
    /// Another name on the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// IPv4 address
    #[arg(long)]
    ip: Option<String>,
    /// IPv6 address
    #[arg(long)]
    ip6: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let addresses = self.ip.iter().chain(&self.ip6).map(|ip| address(ip)).collect::<anyhow::Result<_>>()?;
        let attachment =
            NetworkAttachment { network: self.network, aliases: self.alias, addresses, mac_address: String::new() };
        let request = ConnectNetworkRequest { container: self.container, attachment: Some(attachment) };
        client.engine().await?.connect_network(request).await.answer()?;
        Ok(0)
    }
}
