//! `pier stats`

use std::io::{IsTerminal, Write};

use api::engine::v1::InfoRequest;
use api::supervisor::v1::StreamStatsRequest;

use crate::client::{Answer, Client, next};
use crate::show::listing;
use crate::show::stats::{COLUMNS, row};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// All running ones, when none is named
    containers: Vec<String>,
    /// One look, then the end
    #[arg(long)]
    no_stream: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// "json", a template such as {{.Name}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let host_memory = client.engine().await?.info(InfoRequest {}).await.answer()?.memory_bytes;
        let request = StreamStatsRequest { ids: self.containers, once: self.no_stream, interval_ms: 0 };
        let mut stream = client.supervisor().await?.stream_stats(request).await.answer()?;
        let live = !self.no_stream && std::io::stdout().is_terminal() && self.format.as_deref() != Some("json");
        while let Some(message) = next(&mut stream).await? {
            let rows: Vec<_> = message.stats.iter().map(|one| row(one, self.no_trunc, host_memory)).collect();
            if live {
                // Home, and clear what was there: the table stands still while its numbers change.
                std::io::stdout().write_all(b"\x1b[H\x1b[2J")?;
            }
            listing::print(&rows, &COLUMNS, self.format.as_deref())?;
            std::io::stdout().flush()?;
        }
        Ok(0)
    }
}
