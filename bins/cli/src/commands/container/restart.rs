//! `pier restart`

use api::engine::v1::RestartContainerRequest;

use crate::client::{Answer, Client};
use crate::commands::each;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    containers: Vec<String>,
    /// Seconds to wait before SIGKILL; -1: for ever
    #[arg(short = 't', long = "timeout", visible_alias = "time", allow_hyphen_values = true, value_name = "SECONDS")]
    timeout: Option<i32>,
    /// Signal instead of the container's own
    #[arg(short, long, default_value = "")]
    signal: String,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.containers, async |name| {
            let (id, signal) = (name.to_owned(), self.signal.clone());
            let request = RestartContainerRequest { id, signal, timeout_seconds: self.timeout };
            client.engine().await?.restart_container(request).await.answer()?;
            Ok(name.to_owned())
        })
        .await
    }
}
