//! `pier diff`

use api::distribution::v1::{ChangeKind, DiffSnapshotRequest};
use api::supervisor::v1::GetContainerRequest;

use crate::client::{Answer, Client, filled};
use crate::commands::say;

#[derive(Debug, clap::Args)]
pub struct Args {
    container: String,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let id = full_id(client, &self.container).await?;
        let answer = client.distribution().await?.diff_snapshot(DiffSnapshotRequest { key: id }).await.answer()?;
        for change in &answer.changes {
            let letter = match change.kind() {
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
                ChangeKind::Modified | ChangeKind::Unspecified => 'C',
            };
            say(format_args!("{letter} {}", change.path))?;
        }
        Ok(0)
    }
}

/// A container's snapshot has its full id as key.
pub async fn full_id(client: &Client, name: &str) -> anyhow::Result<String> {
    let answer = client.supervisor().await?.get_container(GetContainerRequest { id: name.into() }).await.answer()?;
    Ok(filled(filled(answer.container, "container")?.spec, "specification")?.id)
}
