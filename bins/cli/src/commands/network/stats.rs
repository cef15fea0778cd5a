//! `pier network stats`

use std::collections::HashMap;

use api::network::v1::{Endpoint, EndpointStatistics, GetStatisticsRequest, ListEndpointsRequest};
use serde_json::json;

use crate::client::{Answer, Client};
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 9] = [
    ("CONTAINER", "Container"),
    ("NETWORK", "Network"),
    ("INTERFACE", "Interface"),
    ("RX", "Rx"),
    ("RX PACKETS", "RxPackets"),
    ("RX DROPS", "RxDropped"),
    ("TX", "Tx"),
    ("TX PACKETS", "TxPackets"),
    ("TX DROPS", "TxDropped"),
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of these containers; of all when none is named
    containers: Vec<String>,
    /// "json", a template such as {{.Container}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let mut network = client.network().await?;
        let endpoints = network.list_endpoints(ListEndpointsRequest::default()).await.answer()?.endpoints;
        let statistics = network.get_statistics(GetStatisticsRequest::default()).await.answer()?.statistics;
        let by_id: HashMap<&str, &Endpoint> = endpoints.iter().map(|one| (one.id.as_str(), one)).collect();
        if let Some(nobody) = self.containers.iter().find(|name| !endpoints.iter().any(|one| is(one, name))) {
            let known = "pier network stats without a name shows those that are on networks";
            let error = anyhow::anyhow!("no container {nobody:?} is on a network");
            return Err(error.context(console::hint(known)));
        }
        let wanted =
            |endpoint: &Endpoint| self.containers.is_empty() || self.containers.iter().any(|n| is(endpoint, n));
        let rows: Vec<_> = statistics
            .iter()
            .filter_map(|of| Some((of, *by_id.get(of.endpoint_id.as_str())?)))
            .filter(|(_, endpoint)| wanted(endpoint))
            .map(|(of, endpoint)| row(of, endpoint))
            .collect();
        listing::print(&rows, &COLUMNS, self.format.as_deref())?;
        Ok(0)
    }
}

/// A container by its name, its id or its id's beginning.
fn is(endpoint: &Endpoint, name: &str) -> bool {
    !name.is_empty() && (endpoint.owner.starts_with(name) || endpoint.names.first().is_some_and(|own| own == name))
}

fn row(of: &EndpointStatistics, endpoint: &Endpoint) -> serde_json::Value {
    json!({
        "Container": endpoint.names.first().unwrap_or(&of.owner), "ID": of.owner, "Endpoint": of.endpoint_id,
        "Network": of.network_name, "Interface": of.interface_name,
        "Rx": console::human_size(of.rx_bytes), "Tx": console::human_size(of.tx_bytes),
        "RxBytes": of.rx_bytes, "RxPackets": of.rx_packets, "RxErrors": of.rx_errors, "RxDropped": of.rx_dropped,
        "TxBytes": of.tx_bytes, "TxPackets": of.tx_packets, "TxErrors": of.tx_errors, "TxDropped": of.tx_dropped,
    })
}
