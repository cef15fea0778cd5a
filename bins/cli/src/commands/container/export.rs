//! `pier export`

use std::io::IsTerminal;

use anyhow::bail;
use api::distribution::v1::ExportRequest;

use super::diff::full_id;
use crate::client::{Answer, Client};
use crate::commands::server_path;

#[derive(Debug, clap::Args)]
pub struct Args {
    container: String,
    /// File to write instead of stdout
    #[arg(short, long, default_value = "-")]
    output: String,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if self.output == "-" && std::io::stdout().is_terminal() {
            bail!("a tar does not belong on a terminal: use -o FILE or redirect stdout");
        }
        let snapshot = full_id(client, &self.container).await?;
        let request = ExportRequest { snapshot, path: server_path(&self.output, 1)?, ..Default::default() };
        client.distribution().await?.export(request).await.answer()?;
        Ok(0)
    }
}
