//! `pier stop`

use api::engine::v1::StopContainerRequest;

use crate::client::{Answer, Client};
use crate::commands::each;

/// Which containers to end, and how: `stop` and `restart`.
#[derive(Debug, clap::Args)]
pub struct Ending {
    #[arg(required = true)]
    pub containers: Vec<String>,
    /// Seconds to wait before SIGKILL; -1: for ever
    #[arg(short = 't', long = "timeout", visible_alias = "time", allow_hyphen_values = true, value_name = "SECONDS")]
    pub timeout: Option<i32>,
    /// Signal instead of the container's own
    #[arg(short, long, default_value = "")]
    pub signal: String,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    ending: Ending,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.ending.containers, async |name| {
            let (id, signal) = (name.to_owned(), self.ending.signal.clone());
            let request = StopContainerRequest { id, signal, timeout_seconds: self.ending.timeout };
            client.engine().await?.stop_container(request).await.answer()?;
            Ok(name.to_owned())
        })
        .await
    }
}
