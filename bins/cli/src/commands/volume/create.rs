//! `pier volume create`

use api::volume::v1::CreateVolumeRequest;

use crate::client::{Answer, Client, filled};
use crate::commands::say;
use crate::flags::{environment, quantity};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Without a name: a random one
    #[arg(default_value = "")]
    name: String,
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// type=, device=, o= as mount(8) takes them; type=ext4|xfs alone is a file system of that size in a file
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    opts: Vec<String>,
    /// Label, KEY=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// Most bytes that the data may take, such as 10g
    #[arg(long)]
    size: Option<String>,
    /// Owner of the root directory
    #[arg(long)]
    uid: Option<u32>,
    /// Group of the root directory
    #[arg(long)]
    gid: Option<u32>,
    /// Mode of the root directory, octal
    #[arg(long, value_parser = |text: &str| u32::from_str_radix(text, 8))]
    mode: Option<u32>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = CreateVolumeRequest {
            name: self.name,
            driver: self.driver,
            options: environment::pairs("--opt", &self.opts)?,
            labels: environment::labels(&[], &self.label)?,
            size_bytes: self.size.as_deref().map_or(Ok(0), quantity::bytes)?,
            uid: self.uid,
            gid: self.gid,
            mode: self.mode,
        };
        let answer = client.volume().await?.create_volume(request).await.answer()?;
        say(filled(answer.volume, "volume")?.name)?;
        Ok(0)
    }
}
