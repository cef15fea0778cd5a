//! Starting a tool's `serve`: as a child for the length of one verb, or detached so that it outlives its starter.
use crate::{Code, Failure, socket_path, wait_serving};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tonic::transport::Channel;

/// How long a tool may take until it serves.
const START: Duration = Duration::from_secs(10);

/// What to start.
#[derive(Clone, Debug)]
pub struct Tool {
    /// "network": the program is `pier-network`, the socket `<run>/network.sock`.
    pub name: String,
    /// The program; see [`find_program`].
    pub program: PathBuf,
    /// `--root`.
    pub root: PathBuf,
    /// `--run`.
    pub run: PathBuf,
    /// More arguments after `serve`.
    pub args: Vec<String>,
}

/// A tool that runs for one verb. Dropped: killed; [`Running::stop`] ends it gently.
#[derive(Debug)]
pub struct Running {
    /// Connected to it.
    pub channel: Channel,
    child: Child,
    socket: PathBuf,
    own_run: Option<PathBuf>,
}

/// The program of that name beside the current executable, else on PATH.
///
/// # Errors
/// `TOOL_MISSING`.
pub fn find_program(name: &str) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)))
        .find(|p| is_executable(p))
        .ok_or_else(|| {
            Failure::new(Code::Unavailable, "TOOL_MISSING", format!("program {name} was not found"))
                .with_hint(format!("install {name} beside this program or on PATH"))
        })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

impl Tool {
    fn command(&self, run: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--run").arg(run).arg("serve").args(&self.args);
        // Sockets that were meant for us are not meant for it.
        command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn failed(&self, what: &str, cause: &std::io::Error) -> Failure {
        let message = format!("{what} {}", self.program.display());
        Failure::new(Code::Unavailable, "TOOL_FAILED", message)
            .with_cause(&std::io::Error::new(cause.kind(), cause.to_string()))
    }

    /// Connects to the tool when its socket answers, else starts it as a child on a socket in a directory of its own,
    /// which ends with this process (PR_SET_PDEATHSIG is the child's to ask for: it gets SIGKILL by `kill_on_drop`).
    pub async fn for_one_verb(&self) -> Result<(Channel, Option<Running>), Failure> {
        let socket = socket_path(&self.run, &self.name);
        if let Ok(channel) = crate::connect(&socket, Duration::from_secs(1)).await {
            return Ok((channel, None));
        }
        let own = self.run.join(format!("oneshot-{}", std::process::id()));
        std::fs::create_dir_all(&own).map_err(|e| self.failed("make a run directory for", &e))?;
        let child = self
            .command(&own)
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(|e| self.failed("start", &e))?;
        let socket = socket_path(&own, &self.name);
        let mut child = child;
        let channel = self.wait(&socket, &mut child).await?;
        Ok((channel.clone(), Some(Running { channel, child, socket, own_run: Some(own) })))
    }

    /// Starts the tool detached: its own session, stderr to `log`, and it survives this process.
    pub async fn detached(&self, log: &Path) -> Result<Channel, Failure> {
        if let Some(dir) = log.parent() {
            std::fs::create_dir_all(dir).map_err(|e| self.failed("make the log directory of", &e))?;
        }
        let log =
            File::options().create(true).append(true).open(log).map_err(|e| self.failed("open the log of", &e))?;
        let mut child =
            self.command(&self.run).stderr(log).process_group(0).spawn().map_err(|e| self.failed("start", &e))?;
        let socket = socket_path(&self.run, &self.name);
        let channel = self.wait(&socket, &mut child).await?;
        // Reaps it should it die while we live.
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
        Ok(channel)
    }

    async fn wait(&self, socket: &Path, child: &mut Child) -> Result<Channel, Failure> {
        tokio::select! {
            served = wait_serving(socket, START) => served,
            ended = child.wait() => {
                let how = ended.map_or_else(|e| e.to_string(), |s| s.to_string());
                // Lost the race against another starter: its socket answers.
                match wait_serving(socket, Duration::from_millis(500)).await {
                    Ok(channel) => Ok(channel),
                    Err(_) => Err(Failure::new(Code::Unavailable, "TOOL_FAILED",
                        format!("{} ended before it served: {how}", self.program.display()))
                        .with_hint(format!("run it by hand to see why: {} serve", self.program.display()))),
                }
            }
        }
    }
}

impl Running {
    /// SIGTERM, then waits for it (ten seconds at most, then SIGKILL).
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|p| rustix::process::Pid::from_raw(p as i32)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = std::fs::remove_file(&self.socket);
        if let Some(dir) = &self.own_run {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
