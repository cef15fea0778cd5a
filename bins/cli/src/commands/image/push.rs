//! `pier push`

use api::distribution::v1::{PushRequest, push_response};

use super::pull::Registry;
use crate::client::{Answer, Client, filled, next};
use crate::commands::say;
use crate::show::progress::Shown;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME[:TAG]
    reference: String,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: Registry,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let reference: oci::Reference = self.reference.parse()?;
        let request =
            PushRequest { reference: self.reference, registry: Some(self.registry.options()?), ..Default::default() };
        let mut shown = Shown::new(self.quiet);
        let mut stream = client.distribution().await?.push(request).await.answer()?;
        let mut result = None;
        while let Some(message) = next(&mut stream).await? {
            match message.payload {
                Some(push_response::Payload::Progress(progress)) => shown.update(&progress),
                Some(push_response::Payload::Result(done)) => result = Some(done),
                None => {}
            }
        }
        drop(shown);
        let result = filled(result, "digest")?;
        if self.quiet {
            say(reference)?;
        } else {
            say(format_args!(
                "{}: digest: {} size: {}",
                reference.tag().unwrap_or_default(),
                result.digest,
                result.size_bytes
            ))?;
        }
        Ok(0)
    }
}
