//! Cgroups of containers: where they are, their limits, who is in them, and their end.
//!
//! The hierarchy is parsed once, at `create`; the resulting directories are part of the container's record, so that
//! `exec`, `kill`, `pause` and `delete` parse nothing and can only ever touch the container's own.

mod bpf;
mod controllers;
pub mod device;
mod end;
mod freezer;
mod layout;
mod limit;
mod oom;
mod owner;
mod path;
mod place;
mod prepare;
mod setting;
mod stats;
mod systemd;
pub mod v1;
pub mod v2;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use layout::Layout;
pub use oom::OomWatch;
pub use path::sanitise;
pub use place::Manager;
pub use setting::{Need, Setting};
pub use systemd::Unit;

use crate::Result;
use crate::error::Context;
use crate::kernel_file::write;

/// One directory of a container's in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dir {
    /// Controllers of the hierarchy (`cpu`, `name=systemd`); empty for cgroup v2.
    pub controllers: Vec<String>,
    /// Absolute path.
    pub path: PathBuf,
}

impl Dir {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    fn admit(&self, pid: i32) -> io::Result<()> {
        match write(&self.path.join("cgroup.procs"), &pid.to_string()) {
            // A threaded cgroup takes threads only.
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                write(&self.path.join("cgroup.threads"), &pid.to_string())
            }
            other => other,
        }
    }
}

/// All cgroup directories of a container. They are its own: made by `create`, or found without any process in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Whether the machine is on cgroup v2 alone.
    pub unified: bool,
    /// One per hierarchy.
    pub dirs: Vec<Dir>,
    /// Whether the runtime had no privilege over the machine: then some hierarchies may be missing.
    #[serde(default)]
    pub unprivileged: bool,
    /// The unit of systemd's that it is, if systemd made it.
    #[serde(default)]
    pub unit: Option<Unit>,
}

impl Placement {
    /// The directory that has a v1 controller, or the v2 one; on a hybrid machine the v2 one for the few controllers that
    /// v1 has left to it.
    pub(crate) fn with(&self, controller: &str) -> Option<&Dir> {
        let v1 = self.dirs.iter().find(|d| self.unified || d.has(controller));
        let left = matches!(controller, "hugetlb" | "rdma");
        v1.or_else(|| {
            self.dirs.iter().find(|d| left && d.controllers.is_empty() && limit::has_controller(&d.path, controller))
        })
    }

    /// Moves a process in.
    ///
    /// # Errors
    /// [`crate::Error::Step`] naming the directory.
    pub fn join(&self, pid: i32) -> Result<()> {
        if self.holds(pid) {
            return Ok(());
        }
        for dir in &self.dirs {
            dir.admit(pid).step(|| format!("error adding pid {pid} to {}", dir.path.join("cgroup.procs").display()))?;
        }
        Ok(())
    }

    /// Moves a process in, or, where the container has made a tree of its own below (cgroup v2 lets a cgroup have processes
    /// or controllers for its children, not both), to where its init is.
    ///
    /// # Errors
    /// [`crate::Error::Step`].
    pub fn join_beside(&self, pid: i32, init: i32) -> Result<()> {
        let Some(dir) = self.dirs.first().filter(|_| self.unified) else { return self.join(pid) };
        if self.holds(pid) {
            return Ok(());
        }
        match dir.admit(pid) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                let own = layout::unified_of(init).step(|| format!("cannot read the cgroup of process {init}"))?;
                let beside = Dir { path: own, ..dir.clone() };
                beside
                    .admit(pid)
                    .step(|| format!("error adding pid {pid} to {}", beside.path.join("cgroup.procs").display()))
            }
            other => other.step(|| format!("error adding pid {pid} to {}", dir.path.join("cgroup.procs").display())),
        }
    }

    /// Whether a process was started inside (cgroup v2): moving it again would wait for every CPU.
    fn holds(&self, pid: i32) -> bool {
        self.unified && self.dirs.first().is_some_and(|d| layout::unified_of(pid).is_ok_and(|own| own == d.path))
    }

    /// The placement of a sub-cgroup (`exec --cgroup`): `path` in all hierarchies, or in those named `a,b:path`.
    #[must_use]
    pub fn below(&self, controllers: Option<&[&str]>, path: &Path) -> Self {
        let mut copy = self.clone();
        for dir in &mut copy.dirs {
            if controllers.is_none_or(|wanted| wanted.iter().any(|w| dir.has(w))) {
                dir.path = dir.path.join(path);
            }
        }
        copy
    }

    /// All processes in it and below, as the host sees them.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = vec![];
        if let Some(dir) = self.with("pids").or_else(|| self.with("freezer")).or(self.dirs.first()) {
            collect(&dir.path, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

fn collect(dir: &Path, pids: &mut Vec<i32>) {
    let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) else { return };
    pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in children(dir) {
        collect(&child, pids);
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    // A cgroup directory's link count is 2 plus its children: most have none, and need no listing.
    if fs::metadata(dir).is_ok_and(|m| std::os::unix::fs::MetadataExt::nlink(&m) == 2) {
        return vec![];
    }
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Whether this process has power over the machine's cgroups and devices: root outside of any user namespace.
fn privileged() -> bool {
    rustix::process::geteuid().is_root() && crate::process::in_initial_user_namespace()
}
