//! `pier attach`

use anyhow::bail;
use api::engine::v1::InspectContainerRequest;
use api::supervisor::v1::ContainerStatus;

use super::foreground::{self, Target};
use crate::client::{Answer, Client, filled};
use crate::stream::keys::{self, DetachKeys};

#[derive(Debug, clap::Args)]
pub struct Args {
    container: String,
    /// Do not pass stdin
    #[arg(long)]
    no_stdin: bool,
    /// Keys that leave the container running
    #[arg(long, default_value = keys::DEFAULT, value_name = "KEYS")]
    detach_keys: String,
    /// Pass signals on to the process
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = InspectContainerRequest { id: self.container.clone(), with_size: false };
        let view = filled(client.engine().await?.inspect_container(request).await.answer()?.container, "container")?;
        let state = view.container.and_then(|container| container.state).unwrap_or_default();
        match state.status() {
            ContainerStatus::Running => {}
            ContainerStatus::Paused => bail!("container {} is paused: unpause it first", self.container),
            _ => bail!("container {} does not run: start it first", self.container),
        }
        let config = view.config.unwrap_or_default();
        let target = Target {
            id: self.container,
            tty: config.tty,
            stdin: config.open_stdin && !self.no_stdin,
            sig_proxy: self.sig_proxy,
            keys: DetachKeys::parse(&self.detach_keys)?,
        };
        foreground::join(client, target, async || Ok(())).await
    }
}
