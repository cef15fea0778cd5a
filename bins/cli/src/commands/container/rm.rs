//! `pier rm`

use api::engine::v1::RemoveContainerRequest;

use crate::client::{Answer, Client, is_not_found};
use crate::commands::{each, warn};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    containers: Vec<String>,
    /// Kill it first if it runs; a missing one is no error
    #[arg(short, long)]
    force: bool,
    /// Also its anonymous volumes
    #[arg(short, long)]
    volumes: bool,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.containers, async |name| {
            let request = RemoveContainerRequest { id: name.into(), force: self.force, volumes: self.volumes };
            match client.engine().await?.remove_container(request).await.answer() {
                Ok(answer) => warn(&answer.warnings),
                Err(error) if self.force && is_not_found(&error) => eprintln!("Error: {error:#}"),
                Err(error) => return Err(error),
            }
            Ok(name.to_owned())
        })
        .await
    }
}
