//! `pier restart`

use api::engine::v1::RestartContainerRequest;

use crate::client::{Answer, Client};
use crate::commands::each;

use super::stop::Ending;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    ending: Ending,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.ending.containers, async |name| {
            let (id, signal) = (name.to_owned(), self.ending.signal.clone());
            let request = RestartContainerRequest { id, signal, timeout_seconds: self.ending.timeout };
            client.engine().await?.restart_container(request).await.answer()?;
            Ok(name.to_owned())
        })
        .await
    }
}
