//! The end of a container's cgroups: every process in them killed, every directory removed.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Placement, children, collect};
use crate::error::Context;
use crate::{Error, Result};

/// How long killed processes may take to go.
const LIMIT: Duration = Duration::from_secs(10);

impl Placement {
    /// Sends a signal to every process in the container's cgroups, in sub-cgroups too.
    ///
    /// For `SIGKILL` the cgroup is frozen meanwhile, so that forks cannot escape (v1), or `cgroup.kill` is used (v2).
    pub fn signal_all(&self, signal: i32) {
        let me = std::process::id().cast_signed();
        if signal == libc::SIGKILL
            && self.unified
            && let Some(dir) = self.dirs.first()
            && super::write(&dir.path.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        let was_frozen = self.is_frozen();
        let freeze = signal == libc::SIGKILL && !was_frozen && self.freeze().is_ok();
        for pid in self.pids().into_iter().filter(|pid| *pid != me) {
            if let Ok(fd) = sys::pidfd::open(pid) {
                let _ = sys::clone::pidfd_send_signal(&fd, signal);
            }
        }
        // A frozen v1 task dies only once thawed.
        if freeze || (was_frozen && signal == libc::SIGKILL) {
            let _ = self.thaw();
        }
    }

    /// Kills what is left and removes all directories. Goes on past errors and reports the first. Idempotent.
    ///
    /// # Errors
    /// [`Error::Step`] naming the directory that stayed.
    pub fn remove(&self) -> Result<()> {
        let mut first: Option<Error> = None;
        if let Some(unit) = &self.unit {
            // A scope is given time to end by itself when it is stopped: there is nobody left to wait for.
            self.signal_all(libc::SIGKILL);
            unit.stop();
        }
        for dir in &self.dirs {
            if let Err(e) = self.remove_one(&dir.path) {
                first.get_or_insert(e);
            }
            remove_empty_parents(&dir.path);
        }
        first.map_or(Ok(()), Err)
    }

    /// Removes the directories that nobody is in and leaves the others alone: they may not be this container's.
    pub fn remove_empty(&self) {
        for dir in &self.dirs {
            let _ = fs::remove_dir(&dir.path);
            remove_empty_parents(&dir.path);
        }
    }

    fn remove_one(&self, path: &Path) -> Result<()> {
        let begin = std::time::Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            match remove_tree(path) {
                Ok(()) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && begin.elapsed() < LIMIT => {
                    let mut pids = vec![];
                    collect(path, &mut pids);
                    if pids.is_empty() {
                        // Only the kernel's own bookkeeping of a dead process is left.
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(20));
                    } else {
                        self.kill_and_wait(&pids);
                    }
                }
                Err(e) => return Err(e).step(|| format!("cannot remove cgroup {}", path.display())),
            }
        }
    }

    fn kill_and_wait(&self, pids: &[i32]) {
        self.signal_all(libc::SIGKILL);
        for pid in pids {
            if let Ok(fd) = sys::pidfd::open(*pid) {
                let _ = sys::clone::pidfd_send_signal(&fd, libc::SIGKILL);
                let _ = crate::process::wait_end(&fd, Duration::from_secs(2));
            }
        }
    }
}

/// Pier's own parent cgroups (`/pier/...`) go with the last container in them; other people's are theirs.
fn remove_empty_parents(path: &Path) {
    for parent in path.ancestors().skip(1).take_while(|p| p.iter().any(|part| part == "pier")) {
        if fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            for child in children(path) {
                remove_tree(&child)?;
            }
            match fs::remove_dir(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        }
        other => other,
    }
}
