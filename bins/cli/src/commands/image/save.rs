//! `pier save`

use std::io::IsTerminal;

use anyhow::bail;
use api::distribution::v1::{SaveRequest, save_response};

use crate::client::{Answer, Client, next};
use crate::commands::server_path;
use crate::flags::config::platform;
use crate::show::progress::Shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true)]
    images: Vec<String>,
    /// File to write instead of stdout
    #[arg(short, long, default_value = "-")]
    output: String,
    /// docker-archive, oci-archive or oci-dir
    #[arg(long, default_value = "docker-archive")]
    format: String,
    /// Also what belongs to the images and came with them: signatures, attestations
    #[arg(long)]
    referrers: bool,
    /// Only the image for os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if !matches!(self.format.as_str(), "docker-archive" | "oci-archive" | "oci-dir") {
            bail!("unknown format {:?}: known are docker-archive, oci-archive and oci-dir", self.format);
        }
        if self.output == "-" && (std::io::stdout().is_terminal() || self.format == "oci-dir") {
            bail!("an archive does not belong on a terminal: use -o FILE or redirect stdout");
        }
        let path = server_path(&self.output, 1)?;
        let request = SaveRequest {
            references: self.images,
            path,
            format: self.format,
            referrers: self.referrers,
            platform: self.platform.as_deref().map(platform).transpose()?,
        };
        let mut shown = Shown::new(false);
        let mut stream = client.distribution().await?.save(request).await.answer()?;
        while let Some(message) = next(&mut stream).await? {
            if let Some(save_response::Payload::Progress(progress)) = message.payload {
                shown.update(&progress);
            }
        }
        Ok(0)
    }
}
