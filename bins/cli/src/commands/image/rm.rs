//! `pier rmi`

use api::distribution::v1::RemoveImageRequest;
use api::types::v1::Platform;

use crate::client::{Answer, Client, is_not_found};
use crate::commands::each;
use crate::flags::config::platform;
use crate::show::image::familiar_reference;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    images: Vec<String>,
    /// Also when it has several names; a missing one is no error
    #[arg(short, long)]
    force: bool,
    /// Nothing but what is named goes: here always so, since an image has no parents of its own
    #[arg(long)]
    no_prune: bool,
    /// Only the image for os/architecture[/variant]; its names stay for the others
    #[arg(long, value_delimiter = ',')]
    platform: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let mut platforms =
            self.platform.iter().map(|text| platform(text).map(Some)).collect::<anyhow::Result<Vec<_>>>()?;
        if platforms.is_empty() {
            platforms.push(None);
        }
        each(&self.images, async |name| {
            let mut lines = Vec::new();
            for platform in &platforms {
                lines.extend(self.one(client, name, platform.clone()).await?);
            }
            Ok(lines.join("\n"))
        })
        .await
    }

    async fn one(&self, client: &Client, name: &str, platform: Option<Platform>) -> anyhow::Result<Vec<String>> {
        let request = RemoveImageRequest { reference: name.into(), force: self.force, platform };
        let answer = match client.distribution().await?.remove_image(request).await.answer() {
            Ok(answer) => answer,
            Err(error) if self.force && is_not_found(&error) => return Ok(vec![format!("No such image: {name}")]),
            Err(error) => return Err(error),
        };
        let untagged = answer.untagged.iter().map(|name| format!("Untagged: {}", familiar_reference(name)));
        let deleted = answer.deleted.iter().map(|id| format!("Deleted: {id}"));
        Ok(untagged.chain(deleted).collect())
    }
}
