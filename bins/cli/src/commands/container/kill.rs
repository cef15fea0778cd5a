//! `pier kill`

use api::supervisor::v1::KillContainerRequest;

use crate::client::{Answer, Client};
use crate::commands::each;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    containers: Vec<String>,
    /// Name or number
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.containers, async |name| {
            let request = KillContainerRequest { id: name.into(), signal: self.signal.clone() };
            client.supervisor().await?.kill_container(request).await.answer()?;
            Ok(name.to_owned())
        })
        .await
    }
}
