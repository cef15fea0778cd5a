//! Terminals: the pty inside the container, and the copying between it and ours for a foreground process.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use libcontainer::syscall::syscall::create_syscall;
use oci_spec::runtime::Process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::Context;
use crate::link::Link;
use crate::{Error, Result};

/// Makes the pty inside the container, sends its master over `socket`, and makes it this process's streams and terminal.
pub(crate) fn set_up(socket: &OwnedFd, process: &Process, first: bool) -> std::result::Result<(), String> {
    // libcontainer closes the descriptor it is given.
    let raw = socket.try_clone().map_err(|e| format!("console: {e}"))?.into_raw_fd();
    libcontainer::tty::setup_console(create_syscall().as_ref(), raw, first)
        .map_err(|e| format!("console: {}", crate::hook::chain(&e)))?;
    let stdin = std::io::stdin();
    if let Some(size) = process.console_size() {
        let clamp = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        let size = Winsize { ws_row: clamp(size.height()), ws_col: clamp(size.width()), ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&stdin, size).map_err(|e| format!("consoleSize: {e}"))?;
    }
    Ok(())
}

/// The container's newlines come out as they were written, not as CR LF.
fn plain_newlines(master: &File) -> rustix::io::Result<()> {
    let mut modes = tcgetattr(master)?;
    modes.output_modes.remove(rustix::termios::OutputModes::ONLCR);
    tcsetattr(master, OptionalActions::Now, &modes)
}

/// Our side of a foreground terminal.
pub(crate) struct Proxy {
    master: File,
    saved: Option<Termios>,
    stdin_open: bool,
    pending: Vec<u8>,
}

impl Proxy {
    /// Receives the master from the other end of the socket that [`set_up`] was given, and makes our terminal raw.
    pub(crate) fn new(socket: &Link) -> Result<Self> {
        let lost = || Error::Init("console: no terminal arrived".into());
        let message = socket.receive_fd().step(|| "console".into())?.ok_or_else(lost)?;
        let mut proxy = Self { master: File::from(message), saved: None, stdin_open: true, pending: vec![] };
        plain_newlines(&proxy.master).step(|| "terminal".into())?;
        let stdin = std::io::stdin();
        if isatty(&stdin) {
            let before = tcgetattr(&stdin).step(|| "terminal".into())?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw).step(|| "terminal".into())?;
            proxy.saved = Some(before);
            proxy.resize();
        }
        Ok(proxy)
    }

    /// Gives the container's terminal the size of ours.
    pub(crate) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(std::io::stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// Waits for input on either side or on `other`, and copies. Returns whether `other` has something to read.
    pub(crate) fn turn(&mut self, other: &impl AsFd) -> std::io::Result<bool> {
        let stdin = std::io::stdin();
        let mut fds = vec![PollFd::new(other, PollFlags::IN), PollFd::new(&self.master, PollFlags::IN)];
        if !self.pending.is_empty() {
            fds[1] = PollFd::new(&self.master, PollFlags::IN | PollFlags::OUT);
        } else if self.stdin_open {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(false),
            other => other?,
        };
        let ready = |i: usize| fds.get(i).map_or(PollFlags::empty(), PollFd::revents);
        let (signals, master, input) = (ready(0), ready(1), ready(2));
        drop(fds);
        if master.contains(PollFlags::IN) {
            self.output();
        }
        if master.contains(PollFlags::OUT) {
            let n = self.master.write(&self.pending)?;
            self.pending.drain(..n);
        }
        if !input.is_empty() {
            let mut buffer = [0; 8192];
            match rustix::io::read(&stdin, &mut buffer) {
                Ok(0) | Err(_) => self.stdin_open = false,
                Ok(n) => self.pending.extend_from_slice(&buffer[..n]),
            }
        }
        if master.contains(PollFlags::HUP) && !master.contains(PollFlags::IN) {
            // The last user of the terminal is gone: only the end of the process is left to wait for.
            let mut fds = [PollFd::new(other, PollFlags::IN)];
            let _ = poll(&mut fds, None);
            return Ok(true);
        }
        Ok(!signals.is_empty())
    }

    fn output(&mut self) -> bool {
        let mut buffer = [0; 8192];
        match self.master.read(&mut buffer) {
            Ok(n) if n > 0 => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&buffer[..n]).and_then(|()| stdout.flush()).is_ok()
            }
            _ => false,
        }
    }

    /// Copies what is left after the end of the process.
    pub(crate) fn drain(&mut self) {
        loop {
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            if !matches!(poll(&mut fds, Some(&none)), Ok(n) if n > 0)
                || !fds[0].revents().contains(PollFlags::IN)
                || !self.output()
            {
                return;
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, saved);
        }
        let _ = self.master.as_raw_fd();
    }
}
