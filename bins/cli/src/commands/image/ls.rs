//! `pier images`

use std::collections::HashSet;

use api::distribution::v1::ListImagesRequest;

use crate::client::{Answer, Client};
use crate::commands::{say, warn};
use crate::flags::filter::filters;
use crate::show::image::{COLUMNS, COLUMNS_WITH_DIGEST, rows};
use crate::show::listing;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this name, a glob
    name: Option<String>,
    /// Accepted; nothing is hidden
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Also the digests
    #[arg(long)]
    digests: bool,
    /// reference=, label=, label!=, dangling=, before=, since=, until=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// "json", a template such as {{.Repository}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let mut filters = filters(&self.filter)?;
        if let Some(name) = self.name {
            filters.entry("reference".into()).or_default().values.push(name);
        }
        let request = ListImagesRequest { filters };
        let mut answer = client.distribution().await?.list_images(request).await.answer()?;
        warn(&answer.warnings);
        answer.images.sort_by(|one, other| other.created_at.cmp(&one.created_at));
        let rows: Vec<_> = answer.images.iter().flat_map(|image| rows(image, self.no_trunc)).collect();
        if self.quiet {
            let mut seen = HashSet::new();
            let ids = rows.iter().filter_map(|row| row["ID"].as_str()).filter(|id| seen.insert(*id));
            for id in ids {
                say(id)?;
            }
            return Ok(0);
        }
        let columns: &[_] = if self.digests { &COLUMNS_WITH_DIGEST } else { &COLUMNS };
        listing::print(&rows, columns, self.format.as_deref())?;
        Ok(0)
    }
}
