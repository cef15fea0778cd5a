//! `pier volume export` and `import`

use api::volume::v1::{ExportVolumeRequest, ImportVolumeRequest};

use crate::client::{Answer, Client, filled};
use crate::commands::{say, server_path};

#[derive(Debug, clap::Args)]
pub struct Export {
    name: String,
    /// File instead of stdout
    #[arg(short, long)]
    output: Option<String>,
    /// docker://REGISTRY/NAME:TAG, oci:/DIRECTORY:TAG
    #[arg(long, conflicts_with = "output")]
    artifact: Option<String>,
}

impl Export {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let path = match &self.artifact {
            Some(_) => String::new(),
            None => server_path(self.output.as_deref().unwrap_or("-"), 1)?,
        };
        let request = ExportVolumeRequest { name: self.name, path, artifact: self.artifact.unwrap_or_default() };
        client.volume().await?.export_volume(request).await.answer()?;
        Ok(0)
    }
}

#[derive(Debug, clap::Args)]
pub struct Import {
    /// Made when it is missing
    name: String,
    /// A tar instead of stdin
    file: Option<String>,
    /// docker://REGISTRY/NAME:TAG, oci:/DIRECTORY:TAG
    #[arg(long, conflicts_with = "file")]
    artifact: Option<String>,
    /// In place of what the volume has
    #[arg(long)]
    replace: bool,
}

impl Import {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let path = match &self.artifact {
            Some(_) => String::new(),
            None => server_path(self.file.as_deref().unwrap_or("-"), 0)?,
        };
        let artifact = self.artifact.unwrap_or_default();
        let request = ImportVolumeRequest { name: self.name, path, artifact, replace: self.replace };
        let answer = client.volume().await?.import_volume(request).await.answer()?;
        say(filled(answer.volume, "volume")?.name)?;
        Ok(0)
    }
}
