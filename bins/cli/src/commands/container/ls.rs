//! `pier ps`

use api::engine::v1::ListContainersRequest;

use crate::client::{Answer, Client};
use crate::commands::{say, warn};
use crate::flags::filter::filters;
use crate::show::container::{COLUMNS, COLUMNS_WITH_SIZE, row};
use crate::show::listing;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// id=, name=, label=, status=, ancestor=, exited=, health=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// The last n made
    #[arg(short = 'n', long, default_value_t = 0, value_name = "NUMBER")]
    last: u32,
    /// The last one made
    #[arg(short, long)]
    latest: bool,
    /// Also the sizes
    #[arg(short, long)]
    size: bool,
    /// "json", a template such as {{.Names}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let filters = filters(&self.filter)?;
        let last = if self.latest { 1 } else { self.last };
        // A filter by state asks for containers that do not run.
        let all = self.all || last > 0 || filters.contains_key("status") || filters.contains_key("exited");
        let request = ListContainersRequest { all, filters, last, with_size: self.size };
        let answer = client.engine().await?.list_containers(request).await.answer()?;
        warn(&answer.warnings);
        let rows: Vec<_> = answer.containers.iter().map(|view| row(view, self.no_trunc, self.size)).collect();
        if self.quiet {
            rows.iter().try_for_each(|row| say(row["ID"].as_str().unwrap_or_default()))?;
            return Ok(0);
        }
        let columns: &[_] = if self.size { &COLUMNS_WITH_SIZE } else { &COLUMNS };
        listing::print(&rows, columns, self.format.as_deref())?;
        Ok(0)
    }
}
