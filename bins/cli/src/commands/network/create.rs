//! `pier network create`

use anyhow::bail;
use api::network::v1::{CreateNetworkRequest, Subnet};

use crate::client::{Answer, Client, filled};
use crate::commands::say;
use crate::flags::environment;

#[derive(Debug, clap::Args)]
pub struct Args {
    name: String,
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// CIDR; twice for both families
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,
    /// The bridge's own address, one for each subnet
    #[arg(long, value_name = "IP")]
    gateway: Vec<String>,
    /// Part of the subnet that addresses are taken from
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<String>,
    /// No way out
    #[arg(long)]
    internal: bool,
    /// Also IPv6
    #[arg(long)]
    ipv6: bool,
    /// Option of the driver, KEY=VALUE
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    opts: Vec<String>,
    /// Label, KEY=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// Containers do not look up each other's names
    #[arg(long)]
    disable_dns: bool,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = CreateNetworkRequest {
            subnets: subnets(&self.subnet, &self.gateway, &self.ip_range)?,
            name: self.name,
            driver: self.driver,
            internal: self.internal,
            ipv6: self.ipv6,
            options: environment::pairs("--opt", &self.opts)?,
            labels: environment::labels(&[], &self.label)?,
            disable_dns: self.disable_dns,
            exist_ok: false,
        };
        let answer = client.network().await?.create_network(request).await.answer()?;
        say(filled(answer.network, "network")?.id)?;
        Ok(0)
    }
}

/// The n-th gateway and range belong to the n-th subnet.
fn subnets(subnets: &[String], gateways: &[String], ranges: &[String]) -> anyhow::Result<Vec<Subnet>> {
    if gateways.len() > subnets.len() || ranges.len() > subnets.len() {
        bail!("each --gateway and --ip-range needs a --subnet");
    }
    let at = |all: &[String], index: usize| all.get(index).cloned().unwrap_or_default();
    Ok(subnets
        .iter()
        .enumerate()
        .map(|(index, subnet)| Subnet {
            subnet: subnet.clone(),
            gateway: at(gateways, index),
            ip_range: at(ranges, index),
        })
        .collect())
}
