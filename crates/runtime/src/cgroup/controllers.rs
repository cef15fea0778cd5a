//! Enabling the controllers of cgroup v2, level by level, down to a container's cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::{Dir, Placement};
use crate::error::Context;
use crate::{Error, Result};

impl Placement {
    /// Makes every controller that the root has available in the container's cgroup, as far as its parents allow.
    ///
    /// What cannot be enabled (in a container, without privilege) is found out when a limit needs it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the cgroup is in a threaded or invalid subtree and `resources` needs what that cannot have.
    pub fn enable_controllers(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let Some(dir) = self.dirs.first().filter(|_| self.unified) else { return Ok(()) };
        self.enable_controllers_of(dir);
        settle_type(&dir.path, resources)
    }

    pub(super) fn enable_controllers_of(&self, dir: &Dir) {
        parents(&dir.path).iter().for_each(|level| enable(level));
    }
}

/// From the mount point down to the parent.
fn parents(path: &Path) -> Vec<PathBuf> {
    let mut levels: Vec<PathBuf> =
        path.ancestors().skip(1).take_while(|p| p.join("cgroup.controllers").exists()).map(Path::to_path_buf).collect();
    levels.reverse();
    levels
}

fn enable(level: &Path) {
    let read = |file: &str| fs::read_to_string(level.join(file)).unwrap_or_default();
    let (available, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    let missing = missing(&available, &enabled);
    let file = level.join("cgroup.subtree_control");
    if missing.is_empty() || super::write(&file, &missing.join(" ")).is_ok() {
        return;
    }
    // One that cannot be (cpu beside real-time processes) fails the whole write.
    for one in missing {
        let _ = super::write(&file, &one);
    }
}

/// `+name` of each that is available and not enabled. Pure.
fn missing(available: &str, enabled: &str) -> Vec<String> {
    let enabled: Vec<&str> = enabled.split_ascii_whitespace().collect();
    available.split_ascii_whitespace().filter(|c| !enabled.contains(c)).map(|c| format!("+{c}")).collect()
}

/// Below a threaded cgroup, or one with processes, a new one is not an ordinary one (cgroup-v2.rst, "Threads").
fn settle_type(path: &Path, resources: Option<&LinuxResources>) -> Result<()> {
    let kind = fs::read_to_string(path.join("cgroup.type")).unwrap_or_default();
    let state = match kind.trim() {
        "domain invalid" => "an invalid state",
        "domain threaded" | "threaded" => "threaded mode",
        _ => return Ok(()),
    };
    if resources.is_some_and(needs_domain) {
        return Err(Error::Refused(format!(
            "cannot enter cgroupv2 {:?} with domain controllers -- it is in {state}",
            path.display().to_string()
        )));
    }
    if kind.trim() == "domain invalid" {
        return super::write(&path.join("cgroup.type"), "threaded")
            .step(|| format!("cannot make cgroup {} threaded", path.display()));
    }
    Ok(())
}

/// Memory, io, hugetlb, and cpu with its bandwidth are not for threads alone.
fn needs_domain(r: &LinuxResources) -> bool {
    let memory = r.memory().is_some_and(|m| m.limit().or(m.swap()).or(m.reservation()).is_some_and(|n| n != 0));
    let cpu = r.cpu().as_ref().is_some_and(|c| c.shares().is_some() || c.quota().is_some() || c.period().is_some());
    memory || cpu || r.block_io().is_some() || r.hugepage_limits().as_ref().is_some_and(|h| !h.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing() {
        assert_eq!(missing("cpu io memory pids\n", "cpu memory\n"), ["+io", "+pids"]);
        assert!(missing("", "").is_empty());
    }
}
