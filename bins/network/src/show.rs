//! How networks and endpoints are printed.

use console::{Table, print_json};
use network::{Endpoint, Network};

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
