//! `pier run`

use anyhow::bail;
use api::engine::v1::{RemoveContainerRequest, StartContainerRequest};

use super::create;
use super::foreground::{self, Target};
use crate::client::{Answer, Client};
use crate::commands::say;
use crate::flags::container::ContainerFlags;
use crate::stream::keys::{self, DetachKeys};
use crate::stream::terminal;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Run in the background and print the id
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the container running
    #[arg(long, default_value = keys::DEFAULT, value_name = "KEYS")]
    detach_keys: String,
    /// Pass signals on to the process
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    /// The image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG]")]
    args: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let (tty, stdin) = (self.flags.tty, self.flags.interactive);
        if tty && stdin && !self.detach && !terminal::is_stdin() {
            bail!("-t with -i needs a terminal, and stdin is none");
        }
        let keys = DetachKeys::parse(&self.detach_keys)?;
        let made = create::create(client, &self.flags, &self.args, !self.detach).await?;
        if self.detach {
            if let Err(error) = start(client, &made.id).await {
                return Err(self.undo(client, &made.id, error).await);
            }
            say(&made.id)?;
            return Ok(0);
        }
        let mut started = false;
        let target = Target { id: made.id.clone(), tty, stdin, sig_proxy: self.sig_proxy, keys };
        let ended = foreground::join(client, target, async || {
            start(client, &made.id).await?;
            started = true;
            Ok(())
        })
        .await;
        match ended {
            Ok(code) => {
                if self.flags.rm {
                    foreground::wait_removed(client, &made.id).await;
                }
                Ok(code)
            }
            Err(error) if !started => Err(self.undo(client, &made.id, error).await),
            Err(error) => Err(error),
        }
    }

    /// A container of `--rm` that never ran goes as well; the exit code says why it did not run.
    async fn undo(&self, client: &Client, id: &str, error: anyhow::Error) -> anyhow::Error {
        if self.flags.rm {
            let request = RemoveContainerRequest { id: id.into(), force: true, volumes: true };
            if let Ok(mut engine) = client.engine().await {
                let _ = engine.remove_container(request).await;
            }
        }
        let code = foreground::start_failure_code(&error);
        error.context(console::Exit(code))
    }
}

/// Starts with the size of this terminal.
pub async fn start(client: &Client, id: &str) -> anyhow::Result<()> {
    let size = terminal::size().unwrap_or_default();
    let request = StartContainerRequest { id: id.into(), terminal_width: size.width, terminal_height: size.height };
    client.engine().await?.start_container(request).await.answer().map(|_| ())
}
