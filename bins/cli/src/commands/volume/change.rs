//! `pier volume update`, `rename`, `clone`

use api::volume::v1::{CloneVolumeRequest, RenameVolumeRequest, UpdateVolumeRequest};

use crate::client::{Answer, Client, filled};
use crate::commands::say;
use crate::flags::{environment, quantity};

#[derive(Debug, clap::Args)]
pub struct Update {
    name: String,
    /// Set a label, KEY=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// Take a label away
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Most bytes that the data may take, such as 10g
    #[arg(long)]
    size: Option<String>,
}

impl Update {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = UpdateVolumeRequest {
            name: self.name,
            set_labels: environment::labels(&[], &self.label)?,
            remove_labels: self.label_rm,
            size_bytes: self.size.as_deref().map_or(Ok(0), quantity::bytes)?,
        };
        let answer = client.volume().await?.update_volume(request).await.answer()?;
        say(filled(answer.volume, "volume")?.name)?;
        Ok(0)
    }
}

#[derive(Debug, clap::Args)]
pub struct Rename {
    name: String,
    new_name: String,
}

impl Rename {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = RenameVolumeRequest { name: self.name, new_name: self.new_name };
        client.volume().await?.rename_volume(request).await.answer()?;
        Ok(0)
    }
}

#[derive(Debug, clap::Args)]
pub struct Clone {
    name: String,
    new_name: String,
    /// Instead of the volume's labels, KEY=VALUE
    #[arg(short, long)]
    label: Vec<String>,
}

impl Clone {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let labels = environment::labels(&[], &self.label)?;
        let request = CloneVolumeRequest { name: self.name, new_name: self.new_name, labels };
        let answer = client.volume().await?.clone_volume(request).await.answer()?;
        say(filled(answer.volume, "volume")?.name)?;
        Ok(0)
    }
}
