//! Signals, stop, pause.

use std::os::fd::AsFd as _;
use std::time::Duration;

use oci::shim::Request;

use crate::Supervisor;
use crate::error::Error;
use crate::signal;
use crate::status::{Observed, Status};

/// How long a container may take to die of SIGKILL.
const KILL_SECONDS: u64 = 30;
const DEFAULT_STOP_SECONDS: u32 = 10;

/// How to stop.
#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// Empty: the container's.
    pub signal: String,
    /// `None`: the container's; negative: for ever.
    pub timeout_seconds: Option<i32>,
}

impl Supervisor {
    /// Sends a signal to the first process; empty: SIGKILL.
    pub fn kill(&self, reference: &str, signal: &str) -> Result<(), Error> {
        let number = signal::parse(signal, signal::KILL)?;
        let id = self.store().resolve(reference)?;
        let seen = self.observe(&id)?;
        if !seen.status.is_live() {
            return Err(Error::State { id, status: seen.status, action: "kill" });
        }
        if number == signal::KILL || number == signal::TERM {
            self.mark_stopped(&id)?;
        }
        self.send(&id, number)?;
        if seen.status == Status::Paused && number == signal::KILL {
            // A frozen process dies only once it is thawed.
            let _ = self.ask(&id, "unpause", &Request::Resume);
        }
        self.journal_of(&id, "kill", &[("signal", number.to_string())]);
        Ok(())
    }

    /// Signal, wait, SIGKILL, wait; the state afterwards. A stopped container is fine.
    pub fn stop(&self, reference: &str, options: &StopOptions) -> Result<Observed, Error> {
        let id = self.store().resolve(reference)?;
        let definition = self.store().definition(&id)?;
        let wanted = if options.signal.is_empty() { &definition.stop_signal } else { &options.signal };
        let number = signal::parse(wanted, signal::TERM)?;
        let seconds = match options.timeout_seconds {
            Some(seconds) => u64::try_from(seconds).ok(),
            None if definition.stop_timeout_seconds == 0 => Some(u64::from(DEFAULT_STOP_SECONDS)),
            None => Some(u64::from(definition.stop_timeout_seconds)),
        };
        self.mark_stopped(&id)?;
        let seen = self.observe(&id)?;
        if !seen.status.is_live() {
            self.settle(&id)?;
            return self.observe(&id);
        }
        let timeout = seconds.map(Duration::from_secs);
        let Some(process) = self.init_fd(&id, seen.pid) else { return self.after_end(&id) };
        // A zero timeout means SIGKILL at once.
        if timeout != Some(Duration::ZERO) {
            self.send(&id, number)?;
            if seen.status == Status::Paused {
                let _ = self.ask(&id, "unpause", &Request::Resume);
            }
        }
        let dead = |timeout| sys::pidfd::wait_dead(process.as_fd(), timeout).map_err(Error::system("wait"));
        if timeout == Some(Duration::ZERO) || !dead(timeout)? {
            self.send(&id, signal::KILL)?;
            let _ = (seen.status == Status::Paused).then(|| self.ask(&id, "unpause", &Request::Resume));
            if !dead(Some(Duration::from_secs(KILL_SECONDS)))? {
                return Err(Error::Unkillable { id, pid: seen.pid, seconds: KILL_SECONDS });
            }
        }
        let seen = self.after_end(&id)?;
        self.journal_of(&id, "stop", &[]);
        Ok(seen)
    }

    /// The first process, if it still is the one that the shim speaks of.
    fn init_fd(&self, id: &str, pid: i32) -> Option<std::os::fd::OwnedFd> {
        let fd = sys::pidfd::open(pid).ok()?;
        self.live(id).is_some_and(|live| live.record.pid == pid).then_some(fd)
    }

    /// The first process is dead: waits until that is on disk.
    pub(crate) fn after_end(&self, id: &str) -> Result<Observed, Error> {
        if let Ok(mut connection) = self.connect(id)
            && connection.request(&Request::Wait).is_ok_and(|reply| reply == oci::shim::Reply::Ok)
        {
            let _ = connection.frame(Some(Duration::from_secs(KILL_SECONDS)));
        }
        if self.observe(id)?.status.is_live() && self.shim_pid(id).is_none() {
            self.settle(id)?;
        }
        self.observe(id)
    }

    /// The restart policy does not apply to what a user ends.
    fn mark_stopped(&self, id: &str) -> Result<(), Error> {
        let _writer = self.store().lock(id)?;
        let mut state = self.store().state(id)?;
        if !state.stopped_by_user || state.next_restart_ms.is_some() {
            state.stopped_by_user = true;
            state.next_restart_ms = None;
            self.store().write_state(id, &state)?;
        }
        Ok(())
    }

    /// Through the shim, which is the parent: the pid cannot be somebody else's.
    fn send(&self, id: &str, number: i32) -> Result<(), Error> {
        match self.ask(id, "kill", &Request::Signal { number }) {
            // It ended by itself meanwhile.
            Err(Error::Shim { .. }) if !self.observe(id)?.status.is_live() => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Freezes all processes.
    pub fn pause(&self, reference: &str) -> Result<(), Error> {
        let id = self.store().resolve(reference)?;
        self.expect(&id, Status::Running, "pause")?;
        self.ask(&id, "pause", &Request::Pause)?;
        self.journal_of(&id, "pause", &[]);
        Ok(())
    }

    /// Thaws them.
    pub fn unpause(&self, reference: &str) -> Result<(), Error> {
        let id = self.store().resolve(reference)?;
        self.expect(&id, Status::Paused, "unpause")?;
        self.ask(&id, "unpause", &Request::Resume)?;
        self.journal_of(&id, "unpause", &[]);
        Ok(())
    }

    /// Sets a terminal's size.
    pub fn resize(&self, reference: &str, exec: Option<String>, size: oci::shim::Size) -> Result<(), Error> {
        let id = self.store().resolve(reference)?;
        self.expect_live(&id, "resize")?;
        self.ask(&id, "resize", &Request::Resize { exec, size })?;
        Ok(())
    }

    pub(crate) fn expect(&self, id: &str, wanted: Status, action: &'static str) -> Result<Observed, Error> {
        let seen = self.observe(id)?;
        if seen.status == wanted { Ok(seen) } else { Err(Error::State { id: id.into(), status: seen.status, action }) }
    }

    pub(crate) fn expect_live(&self, id: &str, action: &'static str) -> Result<Observed, Error> {
        let seen = self.observe(id)?;
        if seen.status.is_live() { Ok(seen) } else { Err(Error::State { id: id.into(), status: seen.status, action }) }
    }
}
