//! File descriptors that come from outside: those a service manager passes.
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// First descriptor of sd_listen_fds(3).
const FIRST: i32 = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The sockets that systemd's socket activation passed to this process (LISTEN_PID, LISTEN_FDS), close-on-exec; none
/// when there are none or when they were taken before.
pub fn listen_fds() -> io::Result<Vec<OwnedFd>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let count = i32::try_from(number("LISTEN_FDS").unwrap_or(0)).unwrap_or(0).min(64);
    // SAFETY: sd_listen_fds(3): the descriptors 3..3+n were passed to this very process (LISTEN_PID) for it to own,
    // and TAKEN lets them be taken once.
    let fds: Vec<OwnedFd> = (FIRST..FIRST + count).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
    for fd in &fds {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(fds)
}
