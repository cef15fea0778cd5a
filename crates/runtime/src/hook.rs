//! Hooks: programs of the configuration, run at the points of a container's life that runtime-spec's `config.md` (POSIX-platform
//! hooks) names. Each reads the OCI state from its standard input.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Spec};
use serde_json::{Value, json};

use crate::state::{Record, Status};
use crate::{Error, Result};

/// Most of what a failed hook printed that is repeated in the error, in bytes.
const SHOWN: u64 = 2048;

/// Where and in which environment the hooks of one point run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Working directory; `None` keeps the current one.
    pub dir: Option<&'a Path>,
    /// The environment of hooks that have none of their own; `None` is the runtime's.
    pub env: Option<&'a [CString]>,
}

/// The state that hooks read (runtime-spec `runtime.md`, State).
fn state_of(record: &Record, status: Status, pid: Option<i32>) -> Value {
    // The specification's state has no paused.
    let status = if status == Status::Paused { Status::Running } else { status };
    let mut state = json!({
        "ociVersion": crate::spec::VERSION, "id": record.id, "status": status.as_str(), "bundle": record.bundle,
    });
    if let Some(pid) = pid {
        state["pid"] = json!(pid);
    }
    if !record.annotations.is_empty() {
        state["annotations"] = json!(record.annotations);
    }
    state
}

/// Runs a list of hooks in order, in the bundle; the first failure ends it.
pub(crate) fn run(
    name: &'static str,
    hooks: Option<&Vec<Hook>>,
    record: &Record,
    status: Status,
    pid: Option<i32>,
) -> Result<()> {
    let place = Place { dir: Some(record.bundle.as_path()).filter(|b| b.exists()), env: None };
    run_at(place, name, hooks, &state_of(record, status, pid))
}

/// The runtime's own hooks at `create` and `restore`, once the namespaces of `pid` are there.
pub(crate) fn run_before_pivot(spec: &Spec, record: &Record, pid: i32) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    run("prestart", prestart.as_ref(), record, Status::Creating, Some(pid))?;
    run("createRuntime", hooks.create_runtime().as_ref(), record, Status::Creating, Some(pid))
}

/// As [`run`], from inside the container.
pub(crate) fn run_inside(
    place: Place<'_>,
    name: &'static str,
    hooks: Option<&Vec<Hook>>,
    record: &Record,
    status: Status,
) -> Result<()> {
    run_at(place, name, hooks, &state_of(record, status, Some(std::process::id().cast_signed())))
}

fn run_at(place: Place<'_>, name: &'static str, hooks: Option<&Vec<Hook>>, state: &Value) -> Result<()> {
    for (index, hook) in hooks.into_iter().flatten().enumerate() {
        run_one(place, hook, state).map_err(|reason| Error::Hook { name, index, reason })?;
    }
    Ok(())
}

fn run_one(place: Place<'_>, hook: &Hook, state: &Value) -> Result<(), String> {
    let path = hook.path();
    if !path.is_absolute() {
        return Err(format!("{}: the path of a hook must be absolute", path.display()));
    }
    // Files in memory, not pipes: a hook that reads or prints nothing, or too much, cannot block us.
    let file = |what| memory_file(what).map_err(|e| format!("cannot make a file for {what}: {e}"));
    let (mut input, output, errors) = (file("stdin")?, file("stdout")?, file("stderr")?);
    let started = (|| {
        input.write_all(state.to_string().as_bytes())?;
        input.seek(SeekFrom::Start(0))?;
        command(place, hook).stdin(input).stdout(stdio(&output)?).stderr(stdio(&errors)?).spawn()
    })();
    let mut child = started.map_err(|e| format!("{}: {e}", path.display()))?;
    let limit = hook.timeout().map(|s| Duration::from_secs(u64::try_from(s).unwrap_or(0)));
    let end = wait(&mut child, limit).map_err(|e| format!("{}: {e}", path.display()))?;
    if end.is_some_and(|end| end.success()) {
        return Ok(());
    }
    let reason = end.map_or_else(|| format!("context deadline exceeded: no end within {limit:?}"), describe);
    Err(format!("{reason}, stdout: {}, stderr: {}", shown(output), shown(errors)))
}

/// The hook's command line. `args[0]` is what the program sees as its name (execv's argv, as the specification says).
fn command(place: Place<'_>, hook: &Hook) -> Command {
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_ref().and_then(|a| a.split_first()) {
        command.arg0(name).args(rest);
    }
    let own = hook.env().as_deref().filter(|e| !e.is_empty());
    match (own, place.env) {
        (Some(own), _) => set_environment(&mut command, own.iter().map(String::as_bytes)),
        (None, Some(inherited)) => set_environment(&mut command, inherited.iter().map(|e| e.as_bytes())),
        (None, None) => {}
    }
    if let Some(dir) = place.dir {
        command.current_dir(dir);
    }
    command
}

fn set_environment<'a>(command: &mut Command, words: impl Iterator<Item = &'a [u8]>) {
    command.env_clear();
    for word in words {
        if let Some(at) = word.iter().position(|b| *b == b'=') {
            command.env(OsStr::from_bytes(&word[..at]), OsStr::from_bytes(&word[at + 1..]));
        }
    }
}

/// Waits for the end; `None` when the time was over and the hook has been killed.
fn wait(child: &mut Child, limit: Option<Duration>) -> std::io::Result<Option<ExitStatus>> {
    let Some(limit) = limit else { return child.wait().map(Some) };
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(end) = child.try_wait()? {
            return Ok(Some(end));
        }
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        // Not a pidfd: hooks run on kernels without it, too.
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn describe(end: ExitStatus) -> String {
    match (end.code(), end.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("signal: {}", crate::signal::describe(signal)),
        _ => end.to_string(),
    }
}

fn memory_file(name: &str) -> std::io::Result<File> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

fn stdio(file: &File) -> std::io::Result<Stdio> {
    file.try_clone().map(Stdio::from)
}

fn shown(mut file: File) -> String {
    let mut bytes = Vec::new();
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(SHOWN).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// The error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hook(json: Value) -> Hook {
        serde_json::from_value(json).unwrap()
    }

    fn run(json: Value) -> Result<(), String> {
        run_one(Place { dir: None, env: Some(&[c"A=inherited".into()]) }, &hook(json), &json!({"id": "box"}))
    }

    fn sh(script: &str) -> Value {
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
    }

    #[test]
    fn state_comes_on_stdin() {
        run(sh("test \"$(cat)\" = '{\"id\":\"box\"}'")).unwrap();
    }

    #[test]
    fn a_failure_says_what_the_hook_said() {
        let why = run(sh("echo out; echo err >&2; exit 3")).unwrap_err();
        assert_eq!(why, "exit status 3, stdout: out, stderr: err");
        assert!(run(sh("kill -9 $$")).unwrap_err().starts_with("signal: killed"));
    }

    #[test]
    fn the_environment_is_inherited_or_its_own() {
        run(sh("test $A = inherited")).unwrap();
        let mut own = sh("test -z \"$A\" && test $B = 1");
        own["env"] = json!(["B=1"]);
        run(own).unwrap();
    }

    #[test]
    fn more_output_than_a_pipe_holds_blocks_nobody() {
        run(sh("head -c 300000 /dev/zero")).unwrap();
    }

    #[test]
    fn a_timeout_kills() {
        let mut slow = sh("exec sleep 30");
        slow["timeout"] = json!(1);
        let begin = Instant::now();
        assert!(run(slow).unwrap_err().contains("deadline exceeded"));
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert!(run(json!({"path": "bin/true"})).unwrap_err().contains("absolute"));
    }
}
