//! `pier volume check` and `drivers`

use api::volume::v1::{CheckRequest, Driver, ListDriversRequest};
use serde_json::json;

use crate::client::{Answer, Client};
use crate::commands::say;
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 4] = [("DRIVER", "Name"), ("PROTOCOL", "Protocol"), ("SCOPE", "Scope"), ("ADDRESS", "Address")];

#[derive(Debug, clap::Args)]
pub struct Check {
    /// Mend what can be mended
    #[arg(long)]
    repair: bool,
}

impl Check {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let found = client.volume().await?.check(CheckRequest { repair: self.repair }).await.answer()?.findings;
        for it in &found {
            let end = if it.repaired { " (repaired)" } else { "" };
            say(format_args!("{} {}: {}{end}", it.kind, it.subject, it.detail))?;
        }
        Ok(u8::from(found.iter().any(|it| !it.repaired)))
    }
}

#[derive(Debug, clap::Args)]
pub struct Drivers {
    /// "json", a template such as {{.Name}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Drivers {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let found = client.volume().await?.list_drivers(ListDriversRequest {}).await.answer()?.drivers;
        let row =
            |it: &Driver| json!({"Name": it.name, "Protocol": it.protocol, "Scope": it.scope, "Address": it.address});
        let rows: Vec<_> = found.iter().map(row).collect();
        listing::print(&rows, &COLUMNS, self.format.as_deref())?;
        Ok(0)
    }
}
