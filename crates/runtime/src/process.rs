//! Processes by pid, start time and pidfd, so that a reused pid is never mistaken for the container's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::kernel_file;

/// One process for ever: the pid and when it began, in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Pid in the runtime's pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
}

/// `(state, start time)` out of the text of `/proc/<pid>/stat`. The command name may hold anything, also `)`.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&kernel_file::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether ids here are the machine's own (user_namespaces(7), "User and group ID mappings").
pub(crate) fn in_initial_user_namespace() -> bool {
    let whole = |text: String| text.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}

impl Identity {
    /// The identity of a process that exists now.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        let (_, start_time) = stat(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        Ok(Self { pid, start_time })
    }

    /// Whether it runs: a zombie does not, nor another process with the same pid.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(stat(self.pid), Some((state, start)) if start == self.start_time && !matches!(state, 'Z' | 'X' | 'x'))
    }

    /// A pidfd of exactly this process.
    ///
    /// # Errors
    /// `ESRCH` when it is gone or a zombie.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let fd = sys::pidfd::open(self.pid)?;
        // Checked after opening: from here on the descriptor cannot change its process.
        if self.is_alive() { Ok(fd) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    }
}

/// Waits until the process of a pidfd has ended; `false` when it has not in that time.
///
/// # Errors
/// Those of poll(2).
pub fn wait_end(pidfd: &OwnedFd, timeout: std::time::Duration) -> io::Result<bool> {
    sys::pidfd::wait_dead(pidfd.as_fd(), Some(timeout))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stat_with_odd_names() {
        let line = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 0 0";
        assert_eq!(parse_stat(line), Some(('S', 98765)));
        assert_eq!(parse_stat("12 (x"), None);
    }

    #[test]
    fn identity_is_more_than_a_pid() {
        let me = Identity::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(me.open().is_ok());
        let other = Identity { start_time: me.start_time + 1, ..me };
        assert!(!other.is_alive());
        assert!(other.open().is_err());
    }
}
