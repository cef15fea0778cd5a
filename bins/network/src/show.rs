//! How networks and endpoints are printed.

use console::{Table, print_json};
use network::{Endpoint, Finding, Network, Statistics};

/// The first digits of an id, as people read it.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

pub fn networks(networks: &[Network]) -> anyhow::Result<()> {
    let mut table = Table::new(["NETWORK ID", "NAME", "DRIVER", "SUBNETS", "CREATED"]);
    for network in networks {
        let subnets: Vec<String> = network.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
        table.row([
            short(&network.id),
            &network.name,
            &network.driver.to_string(),
            &subnets.join(", "),
            &console::human_ago(&network.created_at),
        ]);
    }
    table.print()
}

pub fn endpoints(endpoints: &[Endpoint]) -> anyhow::Result<()> {
    let mut table = Table::new(["ENDPOINT ID", "NETWORK", "OWNER", "ADDRESSES", "INTERFACE", "PORTS"]);
    for endpoint in endpoints {
        let join = |items: Vec<String>| items.join(", ");
        table.row([
            short(&endpoint.id),
            &endpoint.network_name,
            &endpoint.owner,
            &join(endpoint.addresses.iter().map(ToString::to_string).collect()),
            &endpoint.interface,
            &join(endpoint.ports.iter().map(ToString::to_string).collect()),
        ]);
    }
    table.print()
}

pub fn statistics(statistics: &[Statistics]) -> anyhow::Result<()> {
    let mut table = Table::new([
        "ENDPOINT ID",
        "NETWORK",
        "OWNER",
        "INTERFACE",
        "RX BYTES",
        "RX PACKETS",
        "RX DROPS",
        "TX BYTES",
        "TX PACKETS",
        "TX DROPS",
    ]);
    for of in statistics {
        let c = &of.counters;
        let numbers =
            [c.rx_bytes, c.rx_packets, c.rx_dropped, c.tx_bytes, c.tx_packets, c.tx_dropped].map(|n| n.to_string());
        let [rx_bytes, rx_packets, rx_drops, tx_bytes, tx_packets, tx_drops] = &numbers;
        table.row([
            short(&of.endpoint_id),
            &of.network_name,
            &of.owner,
            &of.interface,
            rx_bytes,
            rx_packets,
            rx_drops,
            tx_bytes,
            tx_packets,
            tx_drops,
        ]);
    }
    table.print()
}

pub fn findings(findings: &[Finding]) -> anyhow::Result<()> {
    let mut table = Table::new(["ENDPOINT ID", "CHECK", "VERDICT", "DETAIL", "HINT"]);
    for finding in findings {
        table.row([
            short(&finding.endpoint),
            &finding.check,
            &finding.verdict.to_string(),
            &finding.detail,
            &finding.hint,
        ]);
    }
    table.print()
}

/// A network with its endpoints, as one JSON object.
#[derive(serde::Serialize)]
pub struct Inspected {
    #[serde(flatten)]
    pub network: Network,
    pub endpoints: Vec<Endpoint>,
}

pub fn endpoint(endpoint: &Endpoint) -> anyhow::Result<()> {
    print_json(endpoint)
}
