//! `pier start`

use anyhow::bail;

use super::foreground::{self, Target};
use super::run::start;
use crate::client::{Answer, Client, filled};
use crate::commands::each;
use crate::stream::keys::{self, DetachKeys};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    containers: Vec<String>,
    /// Stay with its output and exit code
    #[arg(short, long)]
    attach: bool,
    /// Also pass stdin
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container running
    #[arg(long, default_value = keys::DEFAULT, value_name = "KEYS")]
    detach_keys: String,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if !self.attach && !self.interactive {
            return each(&self.containers, async |name| start(client, name).await.map(|()| name.to_owned())).await;
        }
        let [name] = &self.containers[..] else { bail!("only one container can be attached to") };
        let request = api::engine::v1::InspectContainerRequest { id: name.clone(), with_size: false };
        let view = filled(client.engine().await?.inspect_container(request).await.answer()?.container, "container")?;
        let config = view.config.unwrap_or_default();
        let target = Target {
            id: name.clone(),
            tty: config.tty,
            stdin: self.interactive && config.open_stdin,
            sig_proxy: true,
            keys: DetachKeys::parse(&self.detach_keys)?,
        };
        foreground::join(client, target, async || start(client, name).await).await
    }
}
