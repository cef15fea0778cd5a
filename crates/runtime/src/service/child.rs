//! Running the program as a child of the service, and the errors it means.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tonic::Status;

use super::{Service, failed};
use crate::{Error, convert, id};

impl Service {
    pub(super) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.store.root()).arg(verb).env_remove("LISTEN_FDS").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a child that reads `input` and leaves no process behind.
    pub(super) async fn feed(&self, mut command: Command, input: &[u8], subject: &str) -> Result<Output, Status> {
        let failed = |e| failed(Error::step("cannot run the runtime", e));
        let mut child = command.stdin(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that reads none of it says why.
            let _ = stdin.write_all(input).await;
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        check(output.status.success(), &String::from_utf8_lossy(&output.stderr), subject)?;
        Ok(output)
    }

    /// Runs a child that leaves no process behind.
    pub(super) async fn run(&self, mut command: Command, subject: &str) -> Result<Output, Status> {
        let output = command.output().await.map_err(|e| failed(Error::step("cannot run the runtime", e)))?;
        check(output.status.success(), &String::from_utf8_lossy(&output.stderr), subject)?;
        Ok(output)
    }

    /// Runs a child whose descendants keep its streams: errors come through a log file instead.
    pub(super) async fn run_with_stdio(
        &self,
        mut command: Command,
        stdio: [&str; 3],
        subject: &str,
    ) -> Result<(), Status> {
        let open = |path: &str, write: bool| -> Result<Stdio, Status> {
            if path.is_empty() {
                return Ok(Stdio::null());
            }
            let file = std::fs::File::options().read(!write).write(write).append(write).open(path);
            Ok(file.map_err(|e| failed(Error::step(format!("cannot open {path}"), e)))?.into())
        };
        let streams = {
            let (stdin, stdout, stderr) = (stdio[0].to_owned(), stdio[1].to_owned(), stdio[2].to_owned());
            // A fifo blocks in open until its other side is there.
            let opened = tokio::task::spawn_blocking(move || {
                Ok::<_, Status>([open(&stdin, false)?, open(&stdout, true)?, open(&stderr, true)?])
            });
            opened.await.map_err(|e| Status::internal(e.to_string()))??
        };
        let [stdin, stdout, stderr] = streams;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let status = command.status().await.map_err(|e| failed(Error::step("cannot run the runtime", e)))?;
        let log = self.log_path(subject);
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(&log);
        let message = text.lines().last().and_then(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let message = message.and_then(|v| v["msg"].as_str().map(str::to_owned)).unwrap_or_default();
        check(status.success(), &message, subject)
    }

    /// The directory that a new container's log will be in; its id is fit to name that log.
    pub(super) fn make_root(&self, id: &str) -> Result<(), Status> {
        id::check(id).map_err(failed)?;
        std::fs::create_dir_all(self.store.root())
            .map_err(|e| failed(Error::step("cannot make the state directory", e)))
    }

    fn log_path(&self, id: &str) -> PathBuf {
        self.store.root().join(format!(".{id}.{}.log", std::process::id()))
    }

    pub(super) fn logged(&self, verb: &str, id: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.store.root())
            .arg("--log")
            .arg(self.log_path(id))
            .args(["--log-format", "json"])
            .arg(verb);
        command.env_remove("LISTEN_FDS").env_remove("NOTIFY_SOCKET");
        command
    }
}

/// Turns a child's failure into the error it printed.
pub(super) fn check(success: bool, stderr: &str, subject: &str) -> Result<(), Status> {
    if success { Ok(()) } else { Err(failed(convert::error_of(stderr, subject))) }
}
