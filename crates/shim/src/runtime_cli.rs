//! The OCI runtime's command line, from the caller's side.

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use oci::shim::Launch;

use crate::error::Error;

/// Numbers calls: several execs may run at once, each with a log of its own.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// One call that is running.
pub(crate) struct Call {
    pub(crate) verb: &'static str,
    pub(crate) pid: i32,
    log: PathBuf,
    stderr: Option<OwnedFd>,
    program: String,
}

/// Where the container's (or exec's) stdio goes.
pub(crate) struct Stdio3 {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    /// `None`: a pipe that is only read for the runtime's own complaint.
    pub(crate) stderr: Option<Stdio>,
}

impl Stdio3 {
    pub(crate) fn null() -> Self {
        Self { stdin: Stdio::null(), stdout: Stdio::null(), stderr: None }
    }
}

/// Starts `verb args ID`.
pub(crate) fn call(launch: &Launch, verb: &'static str, args: &[&str], stdio: Stdio3) -> Result<Call, Error> {
    let program = base_name(&launch.runtime);
    let number = CALLS.fetch_add(1, Ordering::Relaxed);
    let log = Path::new(&launch.run_dir).join(format!("{verb}-{number}.log"));
    let _ = fs::remove_file(&log);
    let mut command = Command::new(&launch.runtime);
    command.arg("--root").arg(&launch.runtime_root).arg("--log").arg(&log).args(["--log-format", "json"]);
    command.args(&launch.runtime_args).arg(verb).args(args).arg(&launch.id);
    command.env_remove("NOTIFY_SOCKET").stdin(stdio.stdin).stdout(stdio.stdout);
    let mut stderr = None;
    match stdio.stderr {
        Some(given) => {
            command.stderr(given);
        }
        None => {
            let (reader, writer) = pipe()?;
            stderr = Some(reader);
            command.stderr(Stdio::from(writer));
        }
    }
    sys::process::die_with_parent(&mut command);
    let child = command.spawn().map_err(|source| Error::Runtime {
        program: program.clone(),
        verb,
        message: format!("cannot run {}: {source}", launch.runtime),
    })?;
    Ok(Call { verb, pid: child.id().cast_signed(), log, stderr, program })
}

impl Call {
    /// Waits for it; for the time before the loop runs.
    pub(crate) fn wait(self) -> Result<(), Error> {
        let ended = sys::process::wait_child(self.pid).map_err(Error::system("wait for the runtime"))?;
        self.result(ended)
    }

    /// What its end means.
    pub(crate) fn result(self, ended: sys::process::Ended) -> Result<(), Error> {
        if ended.success() {
            let _ = fs::remove_file(&self.log);
            return Ok(());
        }
        let message = logged_error(&self.log)
            .or_else(|| self.stderr.and_then(last_words))
            .unwrap_or_else(|| format!("ended with {ended:?} and said nothing"));
        Err(Error::Runtime { program: self.program, verb: self.verb, message })
    }
}

/// A close-on-exec pipe whose reading end does not block: (reader, writer).
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::System { step: "pipe", source: errno.into() })?;
    sys::fd::set_nonblocking(&reader).map_err(Error::system("pipe"))?;
    Ok((reader, writer))
}

pub(crate) fn base_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The last line of level "error" in a runtime's JSON log.
fn logged_error(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    text.lines().rev().find_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let level = value.get("level")?.as_str()?;
        if level != "error" && level != "fatal" {
            return None;
        }
        Some(value.get("msg")?.as_str()?.trim().to_owned())
    })
}

fn last_words(stderr: OwnedFd) -> Option<String> {
    let mut text = Vec::new();
    let _ = fs::File::from(stderr).take(4096).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
