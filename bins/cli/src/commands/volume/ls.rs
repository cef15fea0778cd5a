//! `pier volume ls`

use api::volume::v1::ListVolumesRequest;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::commands::{say, warn};
use crate::flags::filter::filters;
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 2] = [("DRIVER", "Driver"), ("VOLUME NAME", "Name")];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// name=, driver=, label=, dangling=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// "json", a template such as {{.Name}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = ListVolumesRequest { filters: filters(&self.filter)?, with_size: false };
        let answer = client.volume().await?.list_volumes(request).await.answer()?;
        warn(&answer.warnings);
        if self.quiet {
            answer.volumes.iter().try_for_each(|volume| say(&volume.name))?;
            return Ok(0);
        }
        let row = |volume: &api::volume::v1::Volume| {
            let mut labels: Vec<String> = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            labels.sort();
            json!({
                "Driver": volume.driver, "Name": volume.name, "Scope": "local", "Mountpoint": volume.mountpoint,
                "Labels": labels.join(","), "Links": volume.consumers.len().to_string(),
            })
        };
        let rows: Vec<_> = answer.volumes.iter().map(row).collect();
        listing::print(&rows, &COLUMNS, self.format.as_deref())?;
        Ok(0)
    }
}
