//! `pier history`

use api::distribution::v1::GetImageRequest;

use crate::client::{Answer, Client, filled};
use crate::commands::say;
use crate::flags::config::platform;
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
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Sizes and times for people; false: bytes and RFC 3339
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true")]
    #[arg(action = clap::ArgAction::Set, require_equals = true)]
    human: bool,
    /// Of the image for os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// "json", a template such as {{.CreatedBy}}, or "table TEMPLATE"
    #[arg(long)]
    format: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let platform = self.platform.as_deref().map(platform).transpose()?;
        let request = GetImageRequest { reference: self.image, platform, beside: true };
        let image = filled(client.distribution().await?.get_image(request).await.answer()?.image, "image")?;
        let rows = crate::show::image::history(&image, self.no_trunc, self.human);
        if self.quiet {
            rows.iter().filter_map(|row| row["ID"].as_str()).try_for_each(say)?;
            return Ok(0);
        }
        listing::print(&rows, &COLUMNS, self.format.as_deref())?;
        Ok(0)
    }
}
