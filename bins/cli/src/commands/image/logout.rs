//! `pier logout`

use api::distribution::v1::LogoutRequest;

use super::pull::Registry;
use crate::client::{Answer, Client};
use crate::commands::say;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The registry
    #[arg(default_value = "docker.io")]
    server: String,
    #[command(flatten)]
    registry: Registry,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let auth_file = self.registry.options()?.auth_file;
        let request = LogoutRequest { registry: self.server.clone(), auth_file };
        client.distribution().await?.logout(request).await.answer()?;
        say(format_args!("Removing login credentials for {}", self.server))?;
        Ok(0)
    }
}
