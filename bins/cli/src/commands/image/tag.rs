//! `pier tag`

use api::distribution::v1::TagImageRequest;

use crate::client::{Answer, Client};

#[derive(Debug, clap::Args)]
pub struct Args {
    source: String,
    target: String,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = TagImageRequest { source: self.source, target: self.target };
        client.distribution().await?.tag_image(request).await.answer()?;
        Ok(0)
    }
}
