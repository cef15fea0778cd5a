//! `pier rename`

use anyhow::bail;
use api::supervisor::v1::UpdateContainerRequest;

use crate::client::{Answer, Client};

#[derive(Debug, clap::Args)]
pub struct Args {
    container: String,
    new_name: String,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if !oci::name::is_valid(&self.new_name) {
            bail!("invalid container name {:?}: expected [a-zA-Z0-9][a-zA-Z0-9_.-]*", self.new_name);
        }
        let request = UpdateContainerRequest { id: self.container, name: self.new_name, ..Default::default() };
        client.supervisor().await?.update_container(request).await.answer()?;
        Ok(0)
    }
}
