//! `pier rmi`

use api::distribution::v1::RemoveImageRequest;

use crate::client::{Answer, Client, is_not_found};
use crate::commands::each;
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
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        each(&self.images, async |name| {
            let request = RemoveImageRequest { reference: name.into(), force: self.force };
            let answer = match client.distribution().await?.remove_image(request).await.answer() {
                Ok(answer) => answer,
                Err(error) if self.force && is_not_found(&error) => return Ok(format!("No such image: {name}")),
                Err(error) => return Err(error),
            };
            let untagged = answer.untagged.iter().map(|name| format!("Untagged: {}", familiar_reference(name)));
            let deleted = answer.deleted.iter().map(|id| format!("Deleted: {id}"));
            Ok(untagged.chain(deleted).collect::<Vec<_>>().join("\n"))
        })
        .await
    }
}
