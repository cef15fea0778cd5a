//! `pier volume create`

use api::volume::v1::CreateVolumeRequest;

use crate::client::{Answer, Client, filled};
use crate::commands::say;
use crate::flags::environment;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Without a name: a random one
    #[arg(default_value = "")]
    name: String,
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// type=, device=, o= as mount(8) takes them
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    opts: Vec<String>,
    /// Label, KEY=VALUE
    #[arg(short, long)]
    label: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = CreateVolumeRequest {
            name: self.name,
            driver: self.driver,
            options: environment::pairs("--opt", &self.opts)?,
            labels: environment::labels(&[], &self.label)?,
        };
        let answer = client.volume().await?.create_volume(request).await.answer()?;
        say(filled(answer.volume, "volume")?.name)?;
        Ok(0)
    }
}
