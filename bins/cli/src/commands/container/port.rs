//! `pier port`

use anyhow::bail;
use api::engine::v1::InspectContainerRequest;

use crate::client::{Answer, Client, filled};
use crate::commands::say;
use crate::show::port::lines;

#[derive(Debug, clap::Args)]
pub struct Args {
    container: String,
    /// Only this port of the container: 80 or 80/udp
    port: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = InspectContainerRequest { id: self.container.clone(), with_size: false };
        let view = filled(client.engine().await?.inspect_container(request).await.answer()?.container, "container")?;
        let lines = lines(&view.endpoints);
        let Some(port) = self.port else {
            lines.iter().try_for_each(|(container, host)| say(format_args!("{container} -> {host}")))?;
            return Ok(0);
        };
        let wanted = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        let found: Vec<_> = lines.iter().filter(|(container, _)| *container == wanted).collect();
        if found.is_empty() {
            bail!("port {wanted} of container {} is not published", self.container);
        }
        found.iter().try_for_each(|(_, host)| say(host))?;
        Ok(0)
    }
}
