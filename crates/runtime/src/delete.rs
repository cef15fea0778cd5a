//! `delete`: everything of a stopped container, in an order that a killed runtime can repeat.

use std::time::Duration;

use crate::hook;
use crate::state::{Container, Status, Store};
use crate::{Error, Result};

/// How long init may take to go after `SIGKILL`.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a program may take to end before `delete` without force calls it a running one. runc takes as long to begin.
const GRACE: Duration = Duration::from_millis(100);

/// Removes a container. With `force` a running one is killed first, and an unknown one is no error.
///
/// # Errors
/// [`Error::WrongStatus`] when it runs; the first thing that could not be removed.
pub fn delete(store: &Store, id: &str, force: bool) -> Result<Vec<String>> {
    let mut container = match store.load(id) {
        Ok(container) => container,
        // Unknown is fine; a directory without a good record is what a killed create has left.
        Err(Error::NotFound { .. } | Error::Damaged { .. }) if force => return store.remove(id).map(|()| vec![]),
        Err(e) => return Err(e),
    };
    if container.status == Status::Running && !force && soon(&container) {
        container.status = Status::Stopped;
    }
    match container.status {
        Status::Stopped => {}
        Status::Created => end(&container)?,
        Status::Running | Status::Paused | Status::Creating if force => end(&container)?,
        other => return Err(Error::WrongStatus { verb: "delete", id: id.to_owned(), status: other.as_str() }),
    }
    let mut warnings = vec![];
    if container.owns_cgroups() {
        container.record.cgroup.remove()?;
    } else {
        container.record.cgroup.remove_empty();
    }
    crate::rdt::leave(&container.record.intel_rdt)?;
    // Read before the record goes; a damaged configuration only costs its hooks.
    let hooks = container.hooks().ok().flatten();
    store.remove(id)?;
    let poststop = hooks.as_ref().and_then(|h| h.poststop().as_ref());
    // The next one runs all the same (runtime-spec "Lifecycle").
    for hook in poststop.into_iter().flatten() {
        let one = vec![hook.clone()];
        if let Err(e) = hook::run("poststop", Some(&one), &container.record, Status::Stopped, None) {
            warnings.push(e.line());
        }
    }
    Ok(warnings)
}

/// Whether init ends just now: callers delete right after the `start` of a program that has little to do.
fn soon(container: &Container) -> bool {
    let pidfd = container.record.init.and_then(|init| init.open().ok());
    pidfd.is_none_or(|pidfd| crate::process::wait_end(&pidfd, GRACE).unwrap_or(false))
}

/// Kills all processes and waits for init to be gone.
fn end(container: &Container) -> Result<()> {
    let record = &container.record;
    if let Some(pidfd) = record.init.and_then(|init| init.open().ok()) {
        let _ = sys::clone::pidfd_send_signal(&pidfd, libc::SIGKILL);
        if container.status == Status::Paused {
            let _ = record.cgroup.thaw();
        }
        if !record.own_pid_namespace {
            record.cgroup.signal_all(libc::SIGKILL);
        }
        if !crate::process::wait_end(&pidfd, LIMIT).unwrap_or(true) {
            return Err(Error::step(
                "the container's process does not die",
                std::io::Error::from_raw_os_error(libc::ETIMEDOUT),
            ));
        }
        return Ok(());
    }
    if container.owns_cgroups() {
        record.cgroup.signal_all(libc::SIGKILL);
    }
    Ok(())
}
