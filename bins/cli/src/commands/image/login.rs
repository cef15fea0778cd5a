//! `pier login`

use std::io::Read;

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
    /// Asked for at a terminal when it is left out
    #[arg(short, long)]
    username: Option<String>,
    /// Visible to others on this host: prefer --password-stdin, or to be asked
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
        let username = match self.username {
            Some(username) => username,
            None if !self.password_stdin && console::can_ask() => {
                console::ask("Username").context("read the user name")?
            }
            None => bail!("a user name is required: -u NAME"),
        };
        let password = match self.password {
            Some(password) => password,
            None if !self.password_stdin && console::can_ask() => {
                console::ask_secret("Password").context("read the password")?
            }
            None => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("cannot read the password from stdin")?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        let mut options = self.registry.options()?;
        options.credentials = Some(Credentials { username, password, ..Default::default() });
        let request = LoginRequest { registry: self.server, options: Some(options) };
        client.distribution().await?.login(request).await.answer()?;
        say("Login Succeeded")?;
        Ok(0)
    }
}
