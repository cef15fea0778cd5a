//! `pier commit`

use api::engine::v1::CommitContainerRequest;

use crate::client::{Answer, Client};
use crate::commands::say;

#[derive(Debug, clap::Args)]
pub struct Args {
    container: String,
    /// Name of the image
    #[arg(default_value = "", value_name = "REPOSITORY[:TAG]")]
    reference: String,
    #[arg(short, long, default_value = "")]
    author: String,
    #[arg(short, long, default_value = "")]
    message: String,
    /// Dockerfile instruction for the image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Freeze the container meanwhile
    #[arg(short, long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    pause: bool,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let request = CommitContainerRequest {
            id: self.container,
            reference: self.reference,
            author: self.author,
            message: self.message,
            changes: self.change,
            pause: self.pause,
        };
        say(client.engine().await?.commit_container(request).await.answer()?.image_id)?;
        Ok(0)
    }
}
