//! `pier network ls`

use api::network::v1::ListNetworksRequest;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::commands::{say, warn};
use crate::flags::filter::filters;
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 4] = [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// name=, id=, driver=, label=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// "json", a template such as {{.Name}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = ListNetworksRequest { filters: filters(&self.filter)? };
        let answer = client.network().await?.list_networks(request).await.answer()?;
        warn(&answer.warnings);
        let row = |network: &api::network::v1::Network| {
            let mut labels: Vec<String> = network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            labels.sort();
            json!({
                "ID": listing::id(&network.id, self.no_trunc), "Name": network.name, "Driver": network.driver,
                "Scope": "local", "Internal": network.internal.to_string(), "IPv6": network.ipv6.to_string(),
                "CreatedAt": network.created_at, "Labels": labels.join(","),
            })
        };
        let rows: Vec<_> = answer.networks.iter().map(row).collect();
        if self.quiet {
            rows.iter().try_for_each(|row| say(row["ID"].as_str().unwrap_or_default()))?;
            return Ok(0);
        }
        listing::print(&rows, &COLUMNS, self.format.as_deref())?;
        Ok(0)
    }
}
