//! Creating records and starting containers.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci::shim::{CONTROL_FD, FileMount, Launch, LogFile, Reply, Request, Size};

use crate::Supervisor;
use crate::definition::{Definition, InjectedFile};
use crate::error::{Error, StartFailure};
use crate::observe::{Container, chain};
use crate::shim_client::Connection;
use crate::status::{FailedStart, State, Status};
use crate::store::Writer;

/// Default size of a log file, bytes, and number of files.
const LOG_LIMITS: (u64, u32) = (10 << 20, 5);
/// How long an ended container's shim may take to delete it.
const SHIM_END_SECONDS: u64 = 30;

/// What may differ from start to start.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Replace those of the same target.
    pub files: Vec<InjectedFile>,
    /// Initial size of the terminal.
    pub size: Option<Size>,
}

/// Who starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    User,
    Policy,
}

impl Supervisor {
    /// Records a container. Empty id and name are made here.
    pub fn create(&self, mut definition: Definition, oci: &[u8], files: &[InjectedFile]) -> Result<Container, Error> {
        check(&definition, oci, files)?;
        log_limits(&definition)?;
        crate::signal::parse(&definition.stop_signal, crate::signal::TERM)?;
        let made_name = definition.name.is_empty();
        if definition.id.is_empty() {
            definition.id = oci::name::id_from_random(rand::random());
        }
        // Whoever starts or restarts it later, with whatever default of its own, uses this one.
        if definition.runtime.is_empty() {
            definition.runtime.clone_from(&self.config().runtime);
        }
        definition.created_at = now();
        definition.files = files.iter().map(|file| (file.target.clone(), file.mode)).collect();
        loop {
            if made_name {
                definition.name = oci::name::from_random(rand::random());
            }
            match self.store().create(&definition, oci, files) {
                Err(Error::NameTaken { .. }) if made_name => {}
                result => break result?,
            }
        }
        self.journal(&definition, "create", &[]);
        self.get(&definition.id)
    }

    /// Starts a container; the pid of its first process. One that runs already is left alone.
    pub fn start(&self, reference: &str, options: &StartOptions) -> Result<i32, Error> {
        let id = self.store().resolve(reference)?;
        let writer = self.store().lock(&id)?;
        self.start_locked(&id, &writer, options, Cause::User)
    }

    pub(crate) fn start_locked(
        &self,
        id: &str,
        writer: &Writer,
        options: &StartOptions,
        cause: Cause,
    ) -> Result<i32, Error> {
        let seen = self.observe(id)?;
        match seen.status {
            Status::Running => return Ok(seen.pid),
            Status::Paused | Status::Removing | Status::Dead => {
                return Err(Error::State { id: id.to_owned(), status: seen.status, action: "start" });
            }
            _ => {}
        }
        if !self.wait_shim_gone(id, SHIM_END_SECONDS)? {
            return Err(Error::Shim { id: id.to_owned(), message: "it does not end".into() });
        }
        self.settle_locked(id, writer)?;
        let mut definition = self.store().definition(id)?;
        if self.store().inject(&mut definition, &options.files)? {
            self.store().write_definition(&definition)?;
        }
        let mut state = self.store().state(id)?;
        state.run += 1;
        state.failed = None;
        state.stopped_by_user = false;
        state.next_restart_ms = None;
        state.settled = state.run - 1;
        state.restart_count = if cause == Cause::Policy { state.restart_count + 1 } else { 0 };
        if cause == Cause::User {
            state.backoff_ms = 0;
        }
        let result = self.launch(&definition, &state, options);
        if let Err(error) = &result {
            self.start_failed(id, state, error);
        }
        result
    }

    fn start_failed(&self, id: &str, mut state: State, error: &Error) {
        let (code, message) = match error {
            Error::Start { failure, message, .. } => (failure.exit_code(), message.clone()),
            other => (StartFailure::Other.exit_code(), chain(other)),
        };
        let _ = self.wait_shim_gone(id, SHIM_END_SECONDS);
        let _ = fs::remove_dir_all(self.store().run_dir(id));
        state.failed = Some(FailedStart { run: state.run, code, message });
        state.settled = state.run;
        if let Err(error) = self.store().write_state(id, &state) {
            tracing::warn!(id, error = %chain(&error), "a failed start could not be recorded");
        }
    }

    /// Spawns a shim and walks it through: launched, created (early clients attach), recorded, started.
    fn launch(&self, definition: &Definition, state: &State, options: &StartOptions) -> Result<i32, Error> {
        let id = &definition.id;
        let order = self.order(definition, state.run, options)?;
        make_run_dir(Path::new(&order.run_dir))?;
        let stream = self.spawn_shim(id)?;
        let mut control = Connection::new(id, stream);
        let request = Request::Launch(Box::new(order));
        let created = control.request(&request).map_err(|error| self.shim_died(id, error))?;
        let Reply::Created { .. } = accept(id, created)? else {
            return Err(control.broken("it answered the launch order with something else".into()));
        };
        self.attach_early(id);
        self.store().write_state(id, state)?;
        let started = control.request(&Request::Start).map_err(|error| self.shim_died(id, error))?;
        match accept(id, started)? {
            Reply::Started { pid } => Ok(pid),
            _ => Err(control.broken("it answered the start with something else".into())),
        }
    }

    fn order(&self, definition: &Definition, run: u64, options: &StartOptions) -> Result<Launch, Error> {
        let id = &definition.id;
        let store = self.store();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let files = definition.files.iter().enumerate().map(|(number, (target, _))| FileMount {
            source: text(store.container(id).join("files").join(number.to_string())),
            target: target.clone(),
        });
        let (max_size, max_files) = log_limits(definition)?;
        let log = LogFile { path: text(store.log_path(id)), max_size, max_files };
        Ok(Launch {
            id: id.clone(),
            run,
            container_dir: text(store.container(id)),
            run_dir: text(store.run_dir(id)),
            presence: text(store.presence(id)),
            journal: text(store.journal()),
            attributes: definition.attributes(),
            runtime: text(self.runtime(&definition.runtime)?),
            runtime_args: definition.runtime_args.clone(),
            runtime_root: text(store.runtime_root()),
            rootfs: definition.rootfs.clone(),
            files: files.collect(),
            user: definition.user.clone(),
            additional_groups: definition.additional_groups.clone(),
            log: (definition.log.driver != "none").then_some(log),
            size: options.size,
            open_stdin: definition.open_stdin,
            stdin_once: definition.stdin_once,
        })
    }

    /// The runtime's program: a path as it is, a name looked for beside this program and on PATH.
    pub(crate) fn runtime(&self, wanted: &str) -> Result<PathBuf, Error> {
        let wanted = if wanted.is_empty() { &self.config().runtime } else { wanted };
        let candidates: Vec<PathBuf> = if wanted.contains('/') {
            vec![PathBuf::from(wanted)]
        } else {
            self.config().search.iter().map(|dir| dir.join(wanted)).collect()
        };
        candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| Error::Program(wanted.to_owned()))
    }

    fn spawn_shim(&self, id: &str) -> Result<UnixStream, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::system("socket pair"))?;
        let log = self.store().container(id).join("shim.log");
        let stderr = File::create(&log).map_err(Error::file("create", &log))?;
        let mut command = Command::new(&self.config().shim);
        command.arg(id).env_clear().current_dir("/");
        for name in ["PATH", "XDG_RUNTIME_DIR", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        sys::process::pass_fd(&mut command, OwnedFd::from(theirs), CONTROL_FD);
        // It forks at once, so that the shim is nobody's child: what is waited for here ends immediately.
        let mut child = command.spawn().map_err(Error::file("run", &self.config().shim))?;
        child.wait().map_err(Error::file("run", &self.config().shim))?;
        Ok(ours)
    }

    /// A shim that went away said why in its log.
    fn shim_died(&self, id: &str, error: Error) -> Error {
        let log = fs::read_to_string(self.store().container(id).join("shim.log")).unwrap_or_default();
        match (error, log.lines().next_back()) {
            (Error::Shim { id, message }, Some(line)) => Error::Shim { id, message: format!("{message}: {line}") },
            (error, _) => error,
        }
    }
}

fn accept(id: &str, reply: Reply) -> Result<Reply, Error> {
    let Reply::Error { message, .. } = reply else { return Ok(reply) };
    Err(Error::Start { id: id.to_owned(), failure: StartFailure::classify(&message), message })
}

fn make_run_dir(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("remove", path)(error)),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(path).map_err(Error::file("create", path))
}

fn check(definition: &Definition, oci: &[u8], files: &[InjectedFile]) -> Result<(), Error> {
    if !definition.id.is_empty() && !oci::name::is_id(&definition.id) {
        return Err(Error::invalid("id", "it must be 64 lower-case hex digits"));
    }
    if !definition.name.is_empty() && !oci::name::is_valid(&definition.name) {
        return Err(Error::invalid(format!("name {:?}", definition.name), "allowed is [a-zA-Z0-9][a-zA-Z0-9_.-]*"));
    }
    let spec: serde_json::Value =
        serde_json::from_slice(oci).map_err(|error| Error::invalid("oci_spec", error.to_string()))?;
    let args = spec.pointer("/process/args").and_then(serde_json::Value::as_array);
    if args.is_none_or(Vec::is_empty) {
        return Err(Error::invalid("oci_spec", "process.args is empty"));
    }
    let root = spec.pointer("/root/path").and_then(serde_json::Value::as_str).unwrap_or_default();
    if definition.rootfs.is_empty() && !root.starts_with('/') {
        return Err(Error::invalid("oci_spec", "root.path must be absolute when no rootfs mounts are given"));
    }
    if let Some(file) = files.iter().find(|file| !file.target.starts_with('/')) {
        return Err(Error::invalid(format!("file {:?}", file.target), "the target must be absolute"));
    }
    match definition.log.driver.as_str() {
        "" | "json-file" | "none" => Ok(()),
        other => Err(Error::invalid(format!("log driver {other:?}"), "known are json-file and none")),
    }
}

fn log_limits(definition: &Definition) -> Result<(u64, u32), Error> {
    let (mut size, mut files) = LOG_LIMITS;
    for (key, value) in &definition.log.options {
        let bad = || Error::invalid(format!("log option {key}={value}"), "it is not a size or number");
        match key.as_str() {
            "max-size" => size = parse_size(value).ok_or_else(bad)?,
            "max-file" => files = value.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?,
            _ => return Err(Error::invalid(format!("log option {key}"), "known are max-size and max-file")),
        }
    }
    Ok((size, files))
}

/// "10m", "512k", "1g", bytes; "-1" for no limit.
fn parse_size(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(0);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b');
    let (number, shift) = match digits.as_bytes().last()? {
        b'k' => (&digits[..digits.len() - 1], 10),
        b'm' => (&digits[..digits.len() - 1], 20),
        b'g' => (&digits[..digits.len() - 1], 30),
        _ => (digits, 0),
    };
    number.parse::<u64>().ok().filter(|n| *n > 0)?.checked_mul(1 << shift)
}

/// RFC 3339.
pub(crate) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sizes() {
        assert_eq!(parse_size("10m"), Some(10 << 20));
        assert_eq!(parse_size("64kb"), Some(64 << 10));
        assert_eq!(parse_size("-1"), Some(0));
        for bad in ["", "m", "0", "1x", "99999999999999999999g", "9999999999999g"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
