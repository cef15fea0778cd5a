//! pidfd_open(2): a process by file descriptor, so that a reused pid is never mistaken for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Opens the process `pid`. `ESRCH` when there is none.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
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
