//! `pier import`

use api::distribution::v1::{ImportRequest, import_response};

use crate::client::{Answer, Client, filled, next};
use crate::commands::{say, server_path};
use crate::flags::config::platform;
use crate::show::progress::Shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tar of a root file system, "-" for stdin
    file: String,
    /// Name of the image
    #[arg(default_value = "", value_name = "REPOSITORY[:TAG]")]
    reference: String,
    /// Dockerfile instruction for the image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    #[arg(short, long, default_value = "")]
    message: String,
    /// os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = ImportRequest {
            path: server_path(&self.file, 0)?,
            reference: self.reference,
            changes: self.change,
            message: self.message,
            platform: self.platform.as_deref().map(platform).transpose()?,
        };
        let mut shown = Shown::new(false);
        let mut stream = client.distribution().await?.import(request).await.answer()?;
        let mut result = None;
        while let Some(message) = next(&mut stream).await? {
            match message.payload {
                Some(import_response::Payload::Progress(progress)) => shown.update(&progress),
                Some(import_response::Payload::Result(done)) => result = Some(done),
                None => {}
            }
        }
        drop(shown);
        say(filled(filled(result, "image")?.image, "image")?.id)?;
        Ok(0)
    }
}
