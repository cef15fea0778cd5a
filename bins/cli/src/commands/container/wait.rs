//! `pier wait`

use api::supervisor::v1::{ExitStatus, WaitCondition, WaitContainerRequest};

use crate::client::{Answer, Client};
use crate::commands::each;
use crate::stream::pump::exit_code;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.containers, async |name| {
            let request = WaitContainerRequest { id: name.into(), condition: WaitCondition::NotRunning.into() };
            let answer = client.supervisor().await?.wait_container(request).await.answer()?;
            let status = ExitStatus { exit_code: answer.exit_code, exit_signal: answer.exit_signal };
            Ok(exit_code(&status).to_string())
        })
        .await
    }
}
