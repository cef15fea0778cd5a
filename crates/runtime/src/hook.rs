//! Hooks, through libcontainer's runner (which hands them the OCI state on stdin and enforces timeouts).

use libcontainer::container::{ContainerStatus, State};
use oci_spec::runtime::Hook;

use crate::state::{Record, Status};
use crate::{Error, Result};

/// The state that hooks read.
fn state_of(record: &Record, status: Status, pid: Option<i32>) -> State {
    let status = match status {
        Status::Creating => ContainerStatus::Creating,
        Status::Created => ContainerStatus::Created,
        // The specification's state has no paused.
        Status::Running | Status::Paused => ContainerStatus::Running,
        Status::Stopped => ContainerStatus::Stopped,
    };
    let mut state = State::new(&record.id, status, pid, record.bundle.clone());
    state.annotations = Some(record.annotations.clone().into_iter().collect());
    state
}

/// Runs a list of hooks in order; the first failure ends it.
pub(crate) fn run(
    name: &'static str,
    hooks: Option<&Vec<Hook>>,
    record: &Record,
    status: Status,
    pid: Option<i32>,
) -> Result<()> {
    if hooks.is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let state = state_of(record, status, pid);
    libcontainer::hooks::run_hooks(
        hooks,
        Some(&state),
        Some(&record.bundle).filter(|b| b.exists()).map(|b| b.as_path()),
        None,
        None,
    )
    .map_err(|e| Error::Hook { name, reason: chain(&e) })
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
