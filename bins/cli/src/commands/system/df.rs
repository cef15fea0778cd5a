//! `pier system df`

use api::engine::v1::DiskUsageRequest;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 5] =
    [("TYPE", "Type"), ("TOTAL", "TotalCount"), ("ACTIVE", "Active"), ("SIZE", "Size"), ("RECLAIMABLE", "Reclaimable")];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Each image, container and volume
    #[arg(short, long)]
    verbose: bool,
    /// "json", a template such as {{.Type}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if self.verbose {
            return super::df_verbose::run(client, self.format.as_deref()).await;
        }
        let answer = client.engine().await?.disk_usage(DiskUsageRequest {}).await.answer()?;
        let row = |row: &api::engine::v1::UsageRow| {
            let (size, free) = (row.size_bytes.max(0).unsigned_abs(), row.reclaimable_bytes.max(0).unsigned_abs());
            let percent = free.saturating_mul(100).checked_div(size).map(|p| format!(" ({p}%)")).unwrap_or_default();
            json!({
                "Type": row.r#type, "TotalCount": row.total.to_string(), "Active": row.active.to_string(),
                "Size": console::human_size(size), "Reclaimable": format!("{}{percent}", console::human_size(free)),
            })
        };
        let rows: Vec<_> = answer.rows.iter().map(row).collect();
        listing::print(&rows, &COLUMNS, self.format.as_deref())?;
        Ok(0)
    }
}
