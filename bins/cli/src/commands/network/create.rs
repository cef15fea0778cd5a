//! `pier network create`

use anyhow::{Context, bail};
use api::network::v1::{CreateNetworkRequest, Ipam, Route, Subnet};

use crate::client::{Answer, Client, filled};
use crate::commands::say;
use crate::flags::environment;

#[derive(Debug, clap::Args)]
pub struct Args {
    name: String,
    /// bridge, veth, macvlan, ipvlan, vlan, overlay, cni, rootless, or the name of a plugin; bridge when absent
    #[arg(short, long, default_value = "", hide_default_value = true)]
    driver: String,
    /// CIDR; several times for both families, or for more room
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,
    /// The network's own address, one for each subnet
    #[arg(long, value_name = "IP")]
    gateway: Vec<String>,
    /// Part of the subnet that addresses are taken from, CIDR or FIRST-LAST
    #[arg(long, value_name = "RANGE")]
    ip_range: Vec<String>,
    /// No way out
    #[arg(long)]
    internal: bool,
    /// Also IPv6
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    ipv6: bool,
    /// IPv4; --ipv4=false for a network without
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    ipv4: bool,
    /// An address that belongs to somebody else, NAME=IP
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
    /// Who gives addresses: default, dhcp, none, or the name of a plugin
    #[arg(long, default_value = "", hide_default_value = true)]
    ipam_driver: String,
    /// What an IPAM plugin is told, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    ipam_opt: Vec<String>,
    /// A route that every container gets, DESTINATION[,GATEWAY|TYPE[,METRIC]]; TYPE is blackhole, unreachable or prohibit
    #[arg(long)]
    route: Vec<String>,
    /// Another host of an overlay network
    #[arg(long, value_name = "IP")]
    peer: Vec<String>,
    /// Containers may join by hand; they always may
    #[arg(long)]
    attachable: bool,
    /// local is the one there is
    #[arg(long, value_parser = ["local"], default_value = "local", hide = true)]
    scope: String,
    /// Only a model that other networks are made from
    #[arg(long)]
    config_only: bool,
    /// Take driver, subnets and options from this model
    #[arg(long, default_value = "", value_name = "NETWORK", hide_default_value = true)]
    config_from: String,
    /// Option of the driver, KEY=VALUE
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    opts: Vec<String>,
    /// Label, KEY=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// Containers do not look up each other's names
    #[arg(long)]
    disable_dns: bool,
    /// Upstream name server
    #[arg(long, value_name = "IP")]
    dns: Vec<String>,
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
            disable_ipv4: !self.ipv4,
            ipam: Some(Ipam {
                driver: self.ipam_driver,
                options: environment::pairs("--ipam-opt", &self.ipam_opt)?,
                auxiliary_addresses: environment::pairs("--aux-address", &self.aux_address)?,
            }),
            routes: self.route.iter().map(|text| route(text)).collect::<anyhow::Result<_>>()?,
            peers: self.peer,
            config_only: self.config_only,
            config_from: self.config_from,
            dns_servers: self.dns,
            ..Default::default()
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

/// DESTINATION[,GATEWAY|TYPE[,METRIC]].
fn route(text: &str) -> anyhow::Result<Route> {
    let mut parts = text.splitn(3, ',');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (destination, second, metric) = (next(), next(), next());
    let metric = match metric.as_str() {
        "" => None,
        number => Some(number.parse().with_context(|| format!("invalid route {text:?}: {number:?} is no metric"))?),
    };
    let (gateway, r#type) = match second.as_str() {
        "blackhole" | "unreachable" | "prohibit" => (String::new(), second),
        _ => (second, String::new()),
    };
    Ok(Route { destination, gateway, metric, r#type })
}
