//! `pier search`

use api::distribution::v1::{FoundRepository, SearchImagesRequest};
use serde_json::{Value, json};

use super::pull::Registry;
use crate::client::{Answer, Client};
use crate::flags::filter::filters;
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 4] =
    [("NAME", "Name"), ("DESCRIPTION", "Description"), ("STARS", "StarCount"), ("OFFICIAL", "IsOfficial")];
/// Most characters of a description, as docker cuts it.
const SHORT: usize = 45;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// WORD at Docker Hub, or REGISTRY/WORD
    term: String,
    /// is-official=true|false, is-automated=true|false, stars=NUMBER
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// "json", a template such as {{.Name}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
    /// Most results, 1 to 100; default: 25
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "NUMBER")]
    limit: i64,
    /// Whole descriptions
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    registry: Registry,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = SearchImagesRequest {
            term: self.term.clone(),
            limit: self.limit,
            filters: filters(&self.filter)?,
            registry: Some(self.registry.options()?),
        };
        let answer = client.distribution().await?.search_images(request).await.answer()?;
        let rows: Vec<Value> = answer.repositories.iter().map(|found| row(found, self.no_trunc)).collect();
        listing::print(&rows, &COLUMNS, self.format.as_deref())?;
        Ok(0)
    }
}

fn row(found: &FoundRepository, whole: bool) -> Value {
    // One line, without what a terminal would obey: anybody may have written it.
    let plain: String = found.description.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut description = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if !whole && description.chars().count() > SHORT {
        description = description.chars().take(SHORT - 1).chain(['…']).collect();
    }
    let mark = |yes: bool| if yes { "[OK]" } else { "" };
    json!({
        "Name": found.name, "Description": description, "StarCount": found.stars.to_string(),
        "IsOfficial": mark(found.official), "IsAutomated": mark(found.automated),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_one_short_line() {
        let description = format!("one\n\u{1b}[2J{}", "x".repeat(80));
        let found = FoundRepository { name: "a".into(), description, official: true, ..Default::default() };
        let short = row(&found, false)["Description"].as_str().unwrap_or_default().to_owned();
        assert_eq!((short.chars().count(), short.starts_with("one [2Jx"), short.ends_with('…')), (45, true, true));
        assert_eq!(row(&found, true)["IsOfficial"], "[OK]");
    }
}
