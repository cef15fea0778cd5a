//! `pier load`

use api::distribution::v1::{LoadRequest, load_response};

use crate::client::{Answer, Client, filled, next};
use crate::commands::{say, server_path};
use crate::flags::config::platform;
use crate::show::image::familiar_reference;
use crate::show::progress::Shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or directory to read instead of stdin
    #[arg(short, long, default_value = "-")]
    input: String,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    /// Also what belongs to the images: signatures, attestations
    #[arg(long)]
    referrers: bool,
    /// Only the images for os/architecture[/variant]; default: this host's, else what is there
    #[arg(long)]
    platform: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = LoadRequest {
            path: server_path(&self.input, 0)?,
            referrers: self.referrers,
            platform: self.platform.as_deref().map(platform).transpose()?,
        };
        let mut shown = Shown::new(self.quiet);
        let mut stream = client.distribution().await?.load(request).await.answer()?;
        let mut result = None;
        while let Some(message) = next(&mut stream).await? {
            match message.payload {
                Some(load_response::Payload::Progress(progress)) => shown.update(&progress),
                Some(load_response::Payload::Result(done)) => result = Some(done),
                None => {}
            }
        }
        drop(shown);
        for image in filled(result, "images")?.images {
            if image.names.is_empty() {
                say(format_args!("Loaded image ID: {}", image.id))?;
            }
            for name in &image.names {
                say(format_args!("Loaded image: {}", familiar_reference(name)))?;
            }
        }
        Ok(0)
    }
}
