//! `pier exec`

use anyhow::{Context, bail};
use api::supervisor::v1::{ExecOpen, exec_response};
use tokio_stream::wrappers::ReceiverStream;

use super::foreground::start_failure_code;
use crate::client::{Answer, Client, failure, filled, next};
use crate::flags::environment;
use crate::stream::keys::{self, DetachKeys};
use crate::stream::pump::{End, Session, Wish, exec_open};
use crate::stream::{signals, terminal};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Environment variable, NAME=VALUE or NAME
    #[arg(short, long, value_name = "VAR")]
    env: Vec<String>,
    /// File of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// Working directory
    #[arg(short, long, default_value = "", value_name = "DIR")]
    workdir: String,
    /// User: NAME|UID[:GROUP|GID]
    #[arg(short, long, default_value = "")]
    user: String,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// Keys that leave the process running
    #[arg(long, default_value = keys::DEFAULT, value_name = "KEYS")]
    detach_keys: String,
    /// The container, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARG]")]
    args: Vec<String>,
}

impl Args {
    pub async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if self.tty && self.interactive && !self.detach && !terminal::is_stdin() {
            bail!("-t with -i needs a terminal, and stdin is none");
        }
        let keys = DetachKeys::parse(&self.detach_keys)?;
        let (container, command) = self.args.split_first().context("a container is required")?;
        let stdin = self.interactive && !self.detach;
        let open = ExecOpen {
            id: container.clone(),
            args: command.to_vec(),
            env: environment::variables(&self.env_file, &self.env, |name| std::env::var(name).ok())?,
            cwd: self.workdir,
            user: self.user,
            terminal: self.tty,
            stdin,
            detach: self.detach,
            privileged: self.privileged,
            size: if self.tty { terminal::size() } else { None },
        };
        let (requests, receiver) = tokio::sync::mpsc::channel(16);
        requests.send(exec_open(open)).await.context("the stream ended early")?;
        let coded = |error: anyhow::Error| {
            let code = start_failure_code(&error);
            // A command that cannot run is the command's failure; everything else ends with 1, as docker exec does.
            error.context(console::Exit(if code == console::exit::ENGINE { 1 } else { code }))
        };
        let mut responses =
            client.supervisor().await?.exec(ReceiverStream::new(receiver)).await.answer().map_err(coded)?;
        let first = next(&mut responses).await.map_err(coded)?;
        let Some(exec_response::Payload::Started(_)) = filled(first, "exec")?.payload else {
            bail!("the supervisor did not confirm the start");
        };
        if self.detach {
            return Ok(0);
        }
        let mut session = Session::begin(Wish { stdin, tty: self.tty, sig_proxy: false, keys })?;
        match session.carry(&requests, &mut responses, async |_| {}).await? {
            End::Exit(code) => Ok(code as u8),
            End::Detached => Ok(0),
            End::Signal(name) => Ok(signals::exit_code(name)),
            End::Lost(status) => Err(failure(status).context("lost the process in the container")),
        }
    }
}
