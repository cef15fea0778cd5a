//! pidfd_open(2): a process by file descriptor, so that a reused pid is never mistaken for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How often a process is looked at where the kernel cannot tell of its end.
const LOOK: Duration = Duration::from_millis(5);

/// Opens the process `pid`. `ESRCH` when there is none.
///
/// Kernels before 5.3 have no pidfd_open(2): there it is the directory `/proc/PID`, which stands for one process for ever,
/// too, and takes signals. Only waiting has to look again and again.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    let raw = Pid::from_raw(pid).ok_or_else(gone)?;
    match pidfd_open(raw, PidfdFlags::NONBLOCK) {
        Err(rustix::io::Errno::INVAL) => Ok(pidfd_open(raw, PidfdFlags::empty())?),
        Err(rustix::io::Errno::NOSYS) => match std::fs::File::open(format!("/proc/{pid}")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(gone()),
            other => Ok(other?.into()),
        },
        other => Ok(other?),
    }
}

/// Whether it is the directory of a process, and the process dead. `None` for a pidfd proper.
fn directory_dead(fd: BorrowedFd<'_>) -> Option<bool> {
    let stat = rustix::fs::fstat(fd).ok()?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return None;
    }
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(fd, "stat", flags, rustix::fs::Mode::empty()) else { return Some(true) };
    let Ok(text) = io::read_to_string(std::fs::File::from(file)) else { return Some(true) };
    // After the name, which may hold anything: the state.
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    Some(matches!(state, None | Some('Z' | 'X' | 'x')))
}

/// Sends signal number `signal`. `ESRCH` when the process has been reaped.
pub fn send_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let signal = signal_from(signal)?;
    Ok(pidfd_send_signal(fd, signal)?)
}

/// Waits until the process is dead (a zombie counts). `false` when `timeout` passed first; `None` waits for ever.
pub fn wait_dead(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|t| std::time::Instant::now() + t);
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(std::time::Instant::now()));
        match directory_dead(fd) {
            Some(true) => return Ok(true),
            Some(false) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            Some(false) => {
                std::thread::sleep(left.unwrap_or(LOOK).min(LOOK));
                continue;
            }
            None => {}
        }
        let spec = left.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: i64::from(d.subsec_nanos()) });
        let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, spec.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A signal number (1 to 64, real-time ones too) as rustix takes it.
pub fn signal_from(number: i32) -> io::Result<Signal> {
    if !(1..=64).contains(&number) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the number is in the kernel's range; it is only handed to kill(2) and its kin, never to libc's handlers.
    Ok(unsafe { Signal::from_raw_unchecked(number) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_stands_for_its_process() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let directory: OwnedFd = std::fs::File::open(format!("/proc/{}", child.id())).unwrap().into();
        assert_eq!(directory_dead(directory.as_fd()), Some(false));
        assert!(!wait_dead(directory.as_fd(), Some(Duration::from_millis(20))).unwrap());
        send_signal(directory.as_fd(), libc::SIGKILL).unwrap();
        assert!(wait_dead(directory.as_fd(), Some(Duration::from_secs(10))).unwrap());
        child.wait().unwrap();
        assert_eq!(directory_dead(directory.as_fd()), Some(true));
        let proper = open(std::process::id().cast_signed()).unwrap();
        assert_eq!(directory_dead(proper.as_fd()), None);
    }
}
