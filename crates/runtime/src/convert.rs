//! Messages of `pier.runtime.v1` from and to the crate's own types.

use api::runtime::v1::{ContainerState, CriuPolicy, EventsResponse};
use serde_json::Value;
use tokio::process::Command;

use crate::Error;
use crate::state::{Container, Status};

/// A container.
pub(crate) fn state(container: &Container) -> ContainerState {
    let record = &container.record;
    let live = !matches!(container.status, Status::Stopped | Status::Creating);
    ContainerState {
        id: record.id.clone(),
        status: container.status.as_str().to_owned(),
        pid: record.init.filter(|_| live).map_or(0, |i| i.pid),
        bundle: record.bundle.display().to_string(),
        rootfs: record.rootfs.display().to_string(),
        created: record.created.clone(),
        annotations: record.annotations.clone().into_iter().collect(),
        owner: record.owner.to_string(),
    }
}

/// Adds a flag with a value, if there is one.
pub(crate) fn option(command: &mut Command, flag: &str, value: &str) {
    if !value.is_empty() {
        command.arg(flag).arg(value);
    }
}

/// Adds the flags that checkpoint and restore share.
pub(crate) fn policy(command: &mut Command, policy: &CriuPolicy) {
    switch(command, "--tcp-established", policy.tcp_established);
    switch(command, "--ext-unix-sk", policy.ext_unix_sk);
    switch(command, "--shell-job", policy.shell_job);
    switch(command, "--file-locks", policy.file_locks);
    switch(command, "--lazy-pages", policy.lazy_pages);
    switch(command, "--auto-dedup", policy.auto_dedup);
    option(command, "--manage-cgroups-mode", &policy.manage_cgroups_mode);
}

/// Adds a switch.
pub(crate) fn switch(command: &mut Command, flag: &str, on: bool) {
    if on {
        command.arg(flag);
    }
}

/// What an event tells.
pub(crate) fn data(event: &Value) -> Vec<u8> {
    event.get("data").map_or_else(Vec::new, |data| data.to_string().into_bytes())
}

/// A line of `events`.
pub(crate) fn event(line: &str) -> Option<EventsResponse> {
    let event: Value = serde_json::from_str(line).ok()?;
    Some(EventsResponse { r#type: event.get("type")?.as_str()?.to_owned(), data: data(&event) })
}

/// The warnings that a child printed.
pub(crate) fn warnings(text: &str) -> Vec<String> {
    text.lines().filter_map(|l| l.strip_prefix("Warning: ")).map(str::to_owned).collect()
}

/// The error that a child meant, by the words it used.
pub(crate) fn error_of(text: &str, subject: &str) -> Error {
    let line = text.lines().rev().find_map(|l| l.strip_prefix("Error: ")).unwrap_or_else(|| text.trim());
    let id = subject.to_owned();
    if line.contains("does not exist") {
        Error::NotFound { id }
    } else if line.contains("already exists") {
        Error::Exists { id }
    } else if line.contains("container not paused") {
        Error::WrongStatus { verb: "resume", id, status: "not paused" }
    } else if line.starts_with("cannot pause ") {
        Error::WrongStatus { verb: "pause", id, status: "paused" }
    } else if line.contains("not running") {
        Error::NotRunning { id, status: "stopped" }
    } else if let Some(rest) = line.strip_prefix("refused: ") {
        Error::Refused(rest.to_owned())
    } else if let Some(rest) = line.strip_prefix("unable to start container process: ") {
        Error::Init(rest.to_owned())
    } else if line.starts_with("cannot ") || line.starts_with("invalid ") {
        Error::Argument(line.to_owned())
    } else {
        Error::Init(line.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_of_events() {
        let stats = event("{\"type\":\"stats\",\"id\":\"x\",\"data\":{\"pids\":{}}}").unwrap();
        assert_eq!((stats.r#type.as_str(), stats.data.as_slice()), ("stats", &b"{\"pids\":{}}"[..]));
        assert_eq!(event("{\"type\":\"oom\",\"id\":\"x\"}").unwrap().data, b"");
        assert!(event("Warning: none").is_none());
        assert_eq!(warnings("Warning: a\nError: b\n"), ["a"]);
    }

    #[test]
    fn errors_keep_their_kind() {
        assert!(matches!(error_of("Error: container \"x\" does not exist\n", "x"), Error::NotFound { .. }));
        assert!(matches!(error_of("Error: refused: no\nHint: y\n", "x"), Error::Refused(why) if why == "no"));
        let again = "Error: cannot pause container \"x\": it is paused";
        assert!(matches!(error_of(again, "x"), Error::WrongStatus { verb: "pause", .. }));
        let runs = "Error: container not paused: x is running";
        assert!(matches!(error_of(runs, "x"), Error::WrongStatus { verb: "resume", .. }));
        assert!(matches!(error_of("unable to start container process: boom", "x"), Error::Init(why) if why == "boom"));
    }
}
