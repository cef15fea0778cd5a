//! Processes: sessions, reaping, signals by descriptor, and what a child inherits.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, WaitOptions};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// exit(2) with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// Whether it exited with status 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The shell's number: the code, or 128 + the signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

fn ended(status: rustix::process::WaitStatus) -> Option<Ended> {
    status.exit_status().map(Ended::Code).or_else(|| status.terminating_signal().map(Ended::Signal))
}

/// Reaps any one dead child without waiting: its pid and end. `None` when no child is dead (or there is none).
pub fn reap_any() -> io::Result<Option<(i32, Ended)>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if let Some(end) = ended(status) {
                    return Ok(Some((pid.as_raw_nonzero().get(), end)));
                }
            }
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for the child `pid` and reaps it.
pub fn wait_child(pid: i32) -> io::Result<Ended> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))?;
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(end) = ended(status) {
                    return Ok(end);
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a signal (1 to 64; 0 only probes) to a process of which the caller is the parent.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    let Some(target) = Pid::from_raw(pid) else { return Err(io::Error::from_raw_os_error(libc::ESRCH)) };
    if signal == 0 {
        return Ok(rustix::process::test_kill_process(target)?);
    }
    Ok(rustix::process::kill_process(target, super::pidfd::signal_from(signal)?)?)
}

/// Makes this process the parent of orphans among its descendants (PR_SET_CHILD_SUBREAPER).
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Goes on as a grandchild of whoever started this process: the parent ends at once, so that this one is adopted by init
/// and nobody above has to wait for it. Only for a process with one thread, first thing in `main`.
pub fn detach() -> io::Result<()> {
    // SAFETY: the process has one thread (the caller's promise), so the child's memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        // SAFETY: _exit(2) runs no handlers; the child owns everything from here on.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Sends `message` on `socket` from a process of its own, which nobody has to wait for: a call that blocks in the kernel
/// then blocks only that process. It holds no other descriptor of the caller's.
///
/// # Errors
/// There can be no process. What the call itself says is not known.
pub fn send_from_a_child(socket: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    in_an_orphan([socket.as_raw_fd()], || {
        // SAFETY: the message is memory of this process.
        unsafe { libc::send(0, message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
    })
}

/// Closes `descriptor`, whose last close waits in the kernel: a process of its own does that one.
pub fn close_in_a_child(descriptor: OwnedFd) {
    let Ok((read, write)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else { return };
    // It ends when the caller has closed its own descriptor. Where it cannot be made, the caller's close is the last.
    let _ = in_an_orphan([descriptor.as_raw_fd(), read.as_raw_fd()], || {
        // SAFETY: the buffer has the one byte that is asked for.
        unsafe { libc::read(1, [0_u8; 1].as_mut_ptr().cast(), 1) };
    });
    drop(descriptor);
    drop(write);
}

/// Makes `call` in a process that has no parent here; `held` are its descriptors, from 0 on. `call` makes system calls
/// only, on memory that is there already.
fn in_an_orphan<const N: usize>(held: [RawFd; N], call: impl FnOnce()) -> io::Result<()> {
    // SAFETY: between fork and _exit the children make system calls only, on memory that the fork copied, so that locks
    // of other threads do not matter.
    let child = unsafe {
        match libc::fork() {
            0 => {
                if libc::fork() == 0 {
                    let first_free = N as libc::c_int;
                    let above = held.map(|descriptor| libc::fcntl(descriptor, libc::F_DUPFD, first_free));
                    for (number, descriptor) in (0..).zip(above) {
                        libc::dup2(descriptor, number);
                    }
                    libc::syscall(libc::SYS_close_range, N, u32::MAX, 0);
                    call();
                }
                libc::_exit(0);
            }
            child => child,
        }
    };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    wait_child(child).map(drop)
}

/// Starts a session; fails harmlessly for a process group leader.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// The first 15 bytes of `name` become what ps(1) shows.
pub fn set_name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: u32) {
    // SAFETY: the caller owns no object of a descriptor in this range yet (it runs at the start of main); an error
    // leaves them open, which is harmless.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, 0);
    }
}

/// Takes an inherited descriptor over and makes it close-on-exec. `EBADF` when it is not open.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD on a number touches no memory; a closed one gives EBADF.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open (just checked), and the caller says once that it was passed to this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The child is killed when the thread that starts it ends; its signal mask and dispositions are the default ones.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: prctl(2) is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        })
    }
}

/// The child runs in a session of its own and gets `fd` as descriptor `number` (3 or more), nothing else but stdio.
pub fn pass_fd(command: &mut Command, fd: OwnedFd, number: RawFd) -> &mut Command {
    // SAFETY: setsid, dup2 and fcntl are async-signal-safe; the closure owns `fd`, which therefore is open.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            let source = fd.as_raw_fd();
            let result =
                if source == number { libc::fcntl(source, libc::F_SETFD, 0) } else { libc::dup2(source, number) };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        })
    }
}

/// signalfd(2): signals as a readable descriptor. They are blocked for this thread; std's `Command` unblocks them
/// in children.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

impl SignalFd {
    /// Blocks `signals` and reads them from now on.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: sigset_t is plain data that sigemptyset initialises; the mask call reads it only.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Takes one queued signal's number, or `None`.
    pub fn next_signal(&self) -> io::Result<Option<i32>> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(read) if read == info.len() => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kernel's clock ticks per second (`_SC_CLK_TCK`), the unit of times in /proc/pid/stat.
pub fn clock_ticks() -> u64 {
    rustix::param::clock_ticks_per_second()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Write as _};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_that_is_given_away_is_closed() {
        let (mut near, far) = UnixStream::pair().unwrap();
        (&far).write_all(b"end").unwrap();
        close_in_a_child(far.into());
        near.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "end");
    }

    #[test]
    fn a_message_is_sent_from_elsewhere() {
        let (mut near, far) = UnixStream::pair().unwrap();
        send_from_a_child(far.as_fd(), b"word").unwrap();
        drop(far);
        near.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "word");
    }
}
