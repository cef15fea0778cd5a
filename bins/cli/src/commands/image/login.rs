//! `pier login`

use std::io::{IsTerminal, Read};

use anyhow::{Context, bail};
use api::distribution::v1::{Credentials, LoginRequest};

use super::pull::Registry;
use crate::client::{Answer, Client};
use crate::commands::say;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The registry
    #[arg(default_value = "docker.io")]
    server: String,
    #[arg(short, long, required = true)]
    username: String,
    /// Visible to others on this host: prefer --password-stdin
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    registry: Registry,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let password = match self.password {
            Some(password) => password,
            None if !self.password_stdin && std::io::stdin().is_terminal() => {
                bail!("a password is required: use --password-stdin");
            }
            None => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("cannot read the password from stdin")?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        let mut options = self.registry.options()?;
        options.credentials = Some(Credentials { username: self.username, password, ..Default::default() });
        let request = LoginRequest { registry: self.server, options: Some(options) };
        client.distribution().await?.login(request).await.answer()?;
        say("Login Succeeded")?;
        Ok(0)
    }
}
