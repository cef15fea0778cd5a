//! `pier network check`

use api::network::v1::ReconcileRequest;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::show::listing::{self, Column};

const DIFFERS: [Column; 1] = [("DIFFERENCE", "Difference")];
const MENDED: [Column; 1] = [("MENDED", "Difference")];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Make the host agree with the records
    #[arg(long)]
    repair: bool,
    /// "json", or a template such as {{.Difference}}
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    /// 1 when the host differs from the records and stays so.
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = ReconcileRequest { dry_run: !self.repair };
        let found = client.network().await?.reconcile(request).await.answer()?.mended;
        let rows: Vec<_> = found.iter().map(|line| json!({ "Difference": line })).collect();
        let columns = if self.repair { MENDED } else { DIFFERS };
        if !rows.is_empty() || self.format.is_some() {
            listing::print(&rows, &columns, self.format.as_deref())?;
        }
        Ok(u8::from(!self.repair && !found.is_empty()))
    }
}
