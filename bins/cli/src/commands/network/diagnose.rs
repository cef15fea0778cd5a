//! `pier network diagnose`

use api::network::v1::{DiagnoseRequest, Finding};
use serde_json::json;

use crate::client::{Answer, Client};
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 5] =
    [("ENDPOINT", "Endpoint"), ("CHECK", "Check"), ("VERDICT", "Verdict"), ("DETAIL", "Detail"), ("HINT", "Hint")];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or id
    container: String,
    /// A name that should be found from inside
    #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
    name: String,
    /// "json", a template such as {{.Check}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    /// 1 when something is wrong.
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = DiagnoseRequest { target: self.container, name: self.name };
        let findings = client.network().await?.diagnose(request).await.answer()?.findings;
        let row = |finding: &Finding| {
            json!({
                "Endpoint": listing::id(&finding.endpoint_id, false), "Check": finding.check, "Verdict": finding.verdict,
                "Detail": finding.detail, "Hint": finding.hint,
            })
        };
        let rows: Vec<_> = findings.iter().map(row).collect();
        listing::print(&rows, &COLUMNS, self.format.as_deref())?;
        Ok(u8::from(findings.iter().any(|finding| finding.verdict == "failed")))
    }
}
