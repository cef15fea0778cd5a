//! `kill`: signals, by pidfd. The container's record is never touched.

use crate::error::Context;
use crate::state::{Status, Store};
use crate::{Error, Result};

/// Sends a signal to the init process, or with `all` to every process of the container.
///
/// # Errors
/// [`Error::NotRunning`] when there is no process any more (not with `all`).
pub fn kill(store: &Store, id: &str, signal: i32, all: bool) -> Result<()> {
    let container = store.load(id)?;
    let cgroup = &container.record.cgroup;
    if all {
        // What outlived init in a shared pid namespace is reached too.
        cgroup.signal_all(signal);
        return Ok(());
    }
    let gone = || Error::NotRunning { id: id.to_owned(), status: "stopped" };
    let mut reached = false;
    if signal == libc::SIGKILL && !container.record.own_pid_namespace {
        // Without a pid namespace of its own the others outlive init.
        reached = !cgroup.pids().is_empty();
        cgroup.signal_all(signal);
    }
    let pidfd = match container.init().and_then(|init| init.open().map_err(|_| gone())) {
        Err(_) if reached => return Ok(()),
        other => other?,
    };
    match sys::clone::pidfd_send_signal(&pidfd, signal) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {
            return if signal == libc::SIGKILL { Ok(()) } else { Err(gone()) };
        }
        other => other.step(|| format!("cannot send signal {signal}"))?,
    }
    // A frozen v1 task would die only when thawed.
    if signal == libc::SIGKILL && container.status == Status::Paused && !cgroup.unified {
        cgroup.thaw()?;
    }
    Ok(())
}
