//! Pausing: the v1 freezer, or `cgroup.freeze`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Placement;
use crate::error::Context;
use crate::{Error, Result};

/// How long freezing may take: a process in an uninterruptible call delays it.
const LIMIT: Duration = Duration::from_secs(10);

impl Placement {
    fn freezer(&self) -> Option<PathBuf> {
        let file = if self.unified { "cgroup.freeze" } else { "freezer.state" };
        Some(self.with("freezer")?.path.join(file))
    }

    /// Whether it is frozen, or on the way.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let Some(text) = self.freezer().and_then(|f| fs::read_to_string(f).ok()) else { return false };
        matches!(text.trim(), "FROZEN" | "FREEZING" | "1")
    }

    /// Stops all processes, and returns when they are.
    ///
    /// # Errors
    /// [`Error::Step`]; it is thawed again then.
    pub fn freeze(&self) -> Result<()> {
        let file = self.freezer().ok_or_else(|| Error::Refused("no freezer cgroup on this machine".into()))?;
        let failed = || format!("cannot freeze {}", file.display());
        if self.unified {
            super::write(&file, "1").step(failed)?;
        }
        let begin = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            if !self.unified {
                // Written again each time: a fork that raced with the freeze leaves the v1 freezer in FREEZING.
                super::write(&file, "FROZEN").step(failed)?;
            }
            if self.all_stopped(&file) {
                return Ok(());
            }
            if begin.elapsed() > LIMIT {
                let _ = self.thaw();
                return Err(Error::step(failed(), std::io::Error::from_raw_os_error(libc::ETIMEDOUT)));
            }
            // The v1 freezer tells nobody when it is done.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn all_stopped(&self, file: &std::path::Path) -> bool {
        if !self.unified {
            return fs::read_to_string(file).is_ok_and(|t| t.trim() == "FROZEN");
        }
        fs::read_to_string(file.with_file_name("cgroup.events")).is_ok_and(|t| t.lines().any(|l| l == "frozen 1"))
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`Error::Step`].
    pub fn thaw(&self) -> Result<()> {
        let file = self.freezer().ok_or_else(|| Error::Refused("no freezer cgroup on this machine".into()))?;
        let value = if self.unified { "0" } else { "THAWED" };
        super::write(&file, value).step(|| format!("cannot thaw {}", file.display()))
    }
}
