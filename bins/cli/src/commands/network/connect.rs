//! `pier network connect`

use api::engine::v1::{ConnectNetworkRequest, NetworkAttachment};

use crate::client::{Answer, Client};
use crate::flags::network::{address, driver_option};

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
    /// MAC address
    #[arg(long, default_value = "", value_name = "MAC", hide_default_value = true)]
    mac_address: String,
    /// Of the container's networks the one with the highest is the default route
    #[arg(long, default_value_t = 0, allow_hyphen_values = true, value_name = "NUMBER")]
    gw_priority: i32,
    /// com.docker.network.endpoint.ifname=NAME
    #[arg(long, value_name = "KEY=VALUE")]
    driver_opt: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let addresses = self.ip.iter().chain(&self.ip6).map(|ip| address(ip)).collect::<anyhow::Result<_>>()?;
        let mut attachment = NetworkAttachment {
            network: self.network,
            aliases: self.alias,
            addresses,
            mac_address: self.mac_address,
            gateway_priority: self.gw_priority,
            ..Default::default()
        };
        self.driver_opt.iter().try_for_each(|option| driver_option(&mut attachment, option))?;
        let request = ConnectNetworkRequest { container: self.container, attachment: Some(attachment) };
        client.engine().await?.connect_network(request).await.answer()?;
        Ok(0)
    }
}
