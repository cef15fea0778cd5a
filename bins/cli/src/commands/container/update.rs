//! `pier update`

use api::supervisor::v1::UpdateContainerRequest;

use crate::client::{Answer, Client};
use crate::commands::each;
use crate::flags::policy;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    containers: Vec<String>,
    /// no, always, unless-stopped, on-failure[:MAX]
    #[arg(long, required = true, value_name = "POLICY")]
    restart: String,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let policy = policy::restart(&self.restart)?;
        each(&self.containers, async |name| {
            let request = UpdateContainerRequest { id: name.into(), restart: Some(policy), ..Default::default() };
            client.supervisor().await?.update_container(request).await.answer()?;
            Ok(name.to_owned())
        })
        .await
    }
}
