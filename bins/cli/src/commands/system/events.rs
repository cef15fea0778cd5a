//! `pier events`

use api::engine::v1::StreamEventsRequest;
use api::types::v1::EventFilter;

use crate::client::{Answer, Client, next};
use crate::commands::say;
use crate::flags::filter::filters;
use crate::flags::time::{instant_ns, now_ns};
use crate::show::event::{document, line};
use console::Template;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// From this time on: RFC 3339, seconds since the epoch, or a duration back
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// type=, event=, container=, image=, network=, volume=, label=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// "json", or a template such as {{.Action}}
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let now = now_ns();
        let instant = |text: &Option<String>| text.as_deref().map_or(Ok(0), |text| instant_ns(text, now));
        let filter = EventFilter {
            since_unix_nano: instant(&self.since)?,
            until_unix_nano: instant(&self.until)?,
            filters: filters(&self.filter)?,
        };
        let template = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(text) => Some(Template::parse(text)?),
        };
        let mut stream =
            client.engine().await?.stream_events(StreamEventsRequest { filter: Some(filter) }).await.answer()?;
        while let Some(message) = next(&mut stream).await? {
            let Some(event) = message.event else { continue };
            match &template {
                Some(template) => say(template.render(&document(&event))?)?,
                None if self.format.as_deref() == Some("json") => console::print_json_line(&document(&event))?,
                None => say(line(&event))?,
            }
        }
        Ok(0)
    }
}
