//! Being told of the kernel's out-of-memory killer at work in a container.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::Placement;
use crate::Result;
use crate::error::Context;

/// A descriptor that becomes readable when something may have happened, and the count that tells whether it has.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    /// The file with a line `oom_kill N`.
    counter: PathBuf,
    seen: u64,
    /// What the kernel wants kept open meanwhile (v1).
    _control: Option<File>,
}

impl OomWatch {
    /// Readable on news.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// How many processes were killed since the last call; 0 when the cgroup is gone.
    pub fn news(&mut self) -> u64 {
        let mut drain = [0; 4096];
        if let Ok(fd) = self.fd.try_clone() {
            let _ = File::from(fd).read(&mut drain);
        }
        let now = kills(&self.counter).unwrap_or(self.seen);
        let new = now.saturating_sub(self.seen);
        self.seen = now;
        new
    }
}

fn kills(counter: &PathBuf) -> Option<u64> {
    fs::read_to_string(counter).ok()?.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok())
}

impl Placement {
    /// Begins to watch: inotify on `memory.events` (v2), an eventfd of `memory.oom_control` (v1). `None` without a memory
    /// cgroup.
    ///
    /// # Errors
    /// [`crate::Error::Step`].
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        let Some(dir) = self.with("memory") else { return Ok(None) };
        if self.unified {
            let counter = dir.path.join("memory.events");
            let failed = || format!("cannot watch {}", counter.display());
            let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).step(failed)?;
            if !counter.exists() {
                return Ok(None);
            }
            inotify::add_watch(&fd, &counter, WatchFlags::MODIFY).step(failed)?;
            let seen = kills(&counter).unwrap_or(0);
            return Ok(Some(OomWatch { fd, counter, seen, _control: None }));
        }
        let counter = dir.path.join("memory.oom_control");
        let failed = || format!("cannot watch {}", counter.display());
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).step(failed)?;
        let control = File::open(&counter).step(failed)?;
        let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        super::write(&dir.path.join("cgroup.event_control"), &line).step(failed)?;
        let seen = kills(&counter).unwrap_or(0);
        Ok(Some(OomWatch { fd, counter, seen, _control: Some(control) }))
    }
}
