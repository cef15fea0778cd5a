//! Staying with a process: signals passed on, its terminal copied, its exit code returned.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::Context;
use crate::notify_socket::Relay;
use crate::terminal::Proxy;
use crate::{Error, Result};

/// Signals collected for a foreground process. Made before the fork, so that none is lost.
pub(crate) struct Foreground {
    signals: SignalFd,
    /// A socket to be watched as well, and what is readable when either is.
    relay: Option<(Relay, OwnedFd)>,
}

impl Foreground {
    /// Blocks all signals that are passed on or tell of the end.
    pub(crate) fn new() -> Result<Self> {
        let mut set = SigSet::all();
        for kept in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGABRT,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
        ] {
            set.remove(kept);
        }
        set.thread_block().step(|| "cannot block signals".into())?;
        let signals =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).step(|| "signalfd".into())?;
        Ok(Self { signals, relay: None })
    }

    /// Passes on the container's readiness while waiting.
    pub(crate) fn relay(&mut self, relay: Option<Relay>) -> Result<()> {
        use rustix::event::epoll;
        let Some(relay) = relay else { return Ok(()) };
        let watch = || {
            let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            epoll::add(&both, &self.signals, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
            epoll::add(&both, &relay, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
            rustix::io::Result::Ok(both)
        };
        let both = watch().step(|| "epoll".into())?;
        self.relay = Some((relay, both));
        Ok(())
    }

    /// Waits for the end of a child and returns its exit code, 128 + n for a signal.
    ///
    /// With `reap`, orphans of the container that fell to this process (a subreaper) are reaped too.
    pub(crate) fn wait(mut self, pid: i32, pidfd: &OwnedFd, mut terminal: Option<Proxy>, reap: bool) -> Result<u8> {
        loop {
            if let Some(code) = end_of(pid, reap)? {
                if let Some(proxy) = &mut terminal {
                    proxy.drain();
                }
                return Ok(code);
            }
            let wake = self.relay.as_ref().map_or(self.signals.as_fd(), |(_, both)| both.as_fd());
            match &mut terminal {
                Some(proxy) => {
                    proxy.turn(&wake).step(|| "terminal".into())?;
                }
                None => wait_readable(wake)?,
            }
            // Told once: from then on there is nothing to listen to.
            if self.relay.as_ref().is_some_and(|(relay, _)| relay.turn(pid).unwrap_or(true)) {
                self.relay = None;
            }
            self.pass_on(pidfd, terminal.as_ref());
        }
    }

    fn pass_on(&mut self, pidfd: &OwnedFd, terminal: Option<&Proxy>) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = info.ssi_signo.cast_signed();
            match (number, terminal) {
                (libc::SIGCHLD | libc::SIGURG, _) => {}
                (libc::SIGWINCH, Some(proxy)) => proxy.resize(),
                _ => {
                    let _ = sys::clone::pidfd_send_signal(pidfd, number);
                }
            }
        }
    }
}

fn wait_readable(wake: BorrowedFd<'_>) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    match poll(&mut [PollFd::new(&wake, PollFlags::IN)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(Error::step("poll", e)),
    }
}

fn end_of(pid: i32, reap: bool) -> Result<Option<u8>> {
    let target = Pid::from_raw(if reap { -1 } else { pid });
    loop {
        match waitpid(target, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(p, code)) if p.as_raw() == pid => return Ok(Some(code as u8)),
            Ok(WaitStatus::Signaled(p, signal, _)) if p.as_raw() == pid => {
                return Ok(Some(128_u8.wrapping_add(signal as i32 as u8)));
            }
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(Error::step("cannot wait for the process", e)),
        }
    }
}
