//! The cgroup hierarchies of this machine, parsed once from mountinfo and `/proc/self/cgroup`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Dir, Placement};
use crate::Result;
use crate::error::Context;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// As in [`Dir::controllers`].
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// This process's own cgroup, relative to the mount; empty at the root.
    pub own: PathBuf,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// cgroup v2 alone.
    pub unified: bool,
    /// In mount order.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Reads the layout of this machine.
    ///
    /// # Errors
    /// [`crate::Error::Step`] without `/proc`.
    pub fn detect() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").step(|| "cannot read /proc/self/mountinfo".into())?;
        let own = fs::read_to_string("/proc/self/cgroup").step(|| "cannot read /proc/self/cgroup".into())?;
        Ok(Self::parse(&mounts, &own))
    }

    /// The same from the two texts. Pure.
    #[must_use]
    pub fn parse(mountinfo: &str, own: &str) -> Self {
        let own: Vec<(Vec<&str>, &str)> = own
            .lines()
            .filter_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?.split(',').filter(|c| !c.is_empty()).collect();
                Some((controllers, parts.next()?))
            })
            .collect();
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            if let Some(found) = hierarchy(line, &own)
                && !layout.hierarchies.iter().any(|h| h.controllers == found.controllers)
            {
                layout.hierarchies.push(found);
            }
        }
        layout.unified = layout.hierarchies.len() == 1 && layout.hierarchies[0].controllers.is_empty();
        layout
    }

    /// The directories of a container at that relative path.
    #[must_use]
    pub fn place(&self, relative: &Path) -> Placement {
        let dirs = self
            .hierarchies
            .iter()
            .map(|h| Dir { controllers: h.controllers.clone(), path: h.mount.join(relative) })
            .collect();
        Placement { unified: self.unified, dirs, ..Placement::default() }
    }

    /// A path beside this process's own cgroup.
    #[must_use]
    pub(super) fn beside_own(&self, name: &Path) -> PathBuf {
        self.hierarchies.first().and_then(|h| h.own.parent()).unwrap_or(Path::new("")).join(name)
    }
}

/// The directory of a process in the unified hierarchy.
pub(super) fn unified_of(pid: i32) -> io::Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/");
    Ok(Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')))
}

/// One line of mountinfo: `id parent dev root mountpoint opts [tags] - type source superopts`.
fn hierarchy(line: &str, own: &[(Vec<&str>, &str)]) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let kind = right.next()?;
    if kind != "cgroup" && kind != "cgroup2" {
        return None;
    }
    let mut left = left.split(' ').skip(3);
    let (root, mount) = (left.next()?, left.next()?);
    if !mount.starts_with("/sys/fs/cgroup") {
        return None;
    }
    let options: Vec<&str> = right.nth(1)?.split(',').collect();
    let (controllers, path) = own.iter().find(|(c, _)| {
        if kind == "cgroup2" { c.is_empty() } else { !c.is_empty() && c.iter().all(|c| options.contains(c)) }
    })?;
    // Inside another container the mount shows only a part of the hierarchy.
    let path = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
    Some(Hierarchy {
        controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
        mount: PathBuf::from(mount),
        own: PathBuf::from(path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const OWN: &str = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/x\n";

    #[test]
    fn hybrid() {
        let layout = Layout::parse(HYBRID, OWN);
        assert!(!layout.unified);
        let names: Vec<_> = layout.hierarchies.iter().map(|h| h.controllers.join(",")).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "name=systemd", ""]);
        assert_eq!(layout.hierarchies[1].own, Path::new("a/b"));
        assert_eq!(layout.hierarchies[3].own, Path::new("x"));
        let placed = layout.place(Path::new("pier/c"));
        assert_eq!(placed.dirs[1].path, Path::new("/sys/fs/cgroup/memory/pier/c"));
    }

    #[test]
    fn pure_v2() {
        let layout = Layout::parse(
            "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/user.slice\n",
        );
        assert!(layout.unified);
        assert_eq!(layout.hierarchies[0].own, Path::new("user.slice"));
    }

    #[test]
    fn inside_a_container() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let layout = Layout::parse(mounts, "4:memory:/docker/abc/sub\n");
        assert_eq!(layout.hierarchies[0].own, Path::new("sub"));
    }
}
