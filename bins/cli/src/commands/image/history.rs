//! `pier history`

use api::distribution::v1::GetImageRequest;

use crate::client::{Answer, Client, filled};
use crate::show::listing::{self, Column};

const COLUMNS: [Column; 5] = [
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

#[derive(Debug, clap::Args)]
pub struct Args {
    image: String,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// "json", a template such as {{.CreatedBy}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = GetImageRequest { reference: self.image, platform: None };
        let image = filled(client.distribution().await?.get_image(request).await.answer()?.image, "image")?;
        listing::print(&crate::show::image::history(&image, self.no_trunc), &COLUMNS, self.format.as_deref())?;
        Ok(0)
    }
}
