//! Control groups, read-mostly, in both versions: where a process is, its members, what it uses, freezing, killing.
//!
//! On a hybrid machine the v1 hierarchies hold the controllers and the unified one holds (almost) none: every reader
//! here asks the v1 file first and takes the v2 file where v1 has no such hierarchy.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Which hierarchies are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Only v1 hierarchies.
    V1,
    /// Only the unified hierarchy.
    V2,
    /// Both.
    Hybrid,
}

/// The directories of one process's cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// By v1 controller ("memory", "pids", ...; "name=systemd" too).
    pub v1: BTreeMap<String, PathBuf>,
    /// In the unified hierarchy.
    pub unified: Option<PathBuf>,
}

/// One reading of a cgroup's files. What a kernel does not tell is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time used, nanoseconds.
    pub cpu_ns: u64,
    /// Memory without the inactive page cache, bytes.
    pub memory: u64,
    /// Limit in bytes, 0: none.
    pub memory_limit: u64,
    /// Processes and threads.
    pub pids: u64,
    /// 0: none.
    pub pids_limit: u64,
    /// Bytes read from block devices.
    pub block_read: u64,
    /// Bytes written to block devices.
    pub block_write: u64,
}

/// A v1 limit at or above this means "none" (the kernel rounds its maximum to pages).
const V1_NO_LIMIT: u64 = 1 << 62;

/// Which versions this mount namespace has mounted.
pub fn version() -> io::Result<Version> {
    let mounts = Mounts::read()?;
    Ok(match (mounts.v1.is_empty(), mounts.unified.is_some()) {
        (true, _) => Version::V2,
        (false, true) => Version::Hybrid,
        (false, false) => Version::V1,
    })
}

impl Paths {
    /// Of a live process. `ENOENT` or `ESRCH` when it is gone.
    pub fn of(pid: i32) -> io::Result<Self> {
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        Ok(Self::plan(&membership, &Mounts::read()?))
    }

    fn plan(membership: &str, mounts: &Mounts) -> Self {
        let mut paths = Self::default();
        for line in membership.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            if controllers.is_empty() {
                paths.unified = mounts.unified.as_ref().map(|m| m.locate(path));
                continue;
            }
            for controller in controllers.split(',') {
                if let Some(mount) = mounts.v1.get(controller) {
                    paths.v1.insert(controller.to_owned(), mount.locate(path));
                }
            }
        }
        paths
    }

    fn file(&self, controller: &str, name: &str) -> Option<PathBuf> {
        self.v1.get(controller).map(|dir| dir.join(name))
    }

    fn unified_file(&self, name: &str) -> Option<PathBuf> {
        self.unified.as_ref().map(|dir| dir.join(name))
    }

    /// A directory that lists the members: v1's pids, memory or freezer hierarchy, else the unified one.
    fn member_dir(&self) -> Option<&Path> {
        ["pids", "memory", "freezer", "cpu"]
            .iter()
            .find_map(|name| self.v1.get(*name))
            .or(self.unified.as_ref())
            .map(PathBuf::as_path)
    }

    /// Pids in the cgroup and below it.
    pub fn members(&self) -> io::Result<Vec<i32>> {
        let Some(dir) = self.member_dir() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        collect_members(dir, &mut pids, 0)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Whether the kernel says that all members are frozen.
    pub fn frozen(&self) -> bool {
        if let Some(path) = self.file("freezer", "freezer.state") {
            return read_text(&path).is_some_and(|text| text.trim() == "FROZEN" || text.trim() == "FREEZING");
        }
        let Some(path) = self.unified_file("cgroup.events") else { return false };
        read_text(&path).is_some_and(|text| key_value(&text, "frozen") == Some(1))
    }

    /// How many members the kernel's OOM killer has ended.
    pub fn oom_kills(&self) -> u64 {
        let v1 = self.file("memory", "memory.oom_control").and_then(|path| read_text(&path));
        let text = v1.or_else(|| self.unified_file("memory.events").and_then(|path| read_text(&path)));
        text.and_then(|text| key_value(&text, "oom_kill")).unwrap_or(0)
    }

    /// Kills every member: `cgroup.kill` where the kernel has it, else signal by signal until none is left.
    pub fn kill_all(&self) -> io::Result<()> {
        if self.v1.is_empty()
            && let Some(path) = self.unified_file("cgroup.kill")
            && fs::write(path, "1").is_ok()
        {
            return Ok(());
        }
        for _ in 0..16 {
            let members = self.members()?;
            if members.is_empty() {
                break;
            }
            for pid in members {
                let _ = super::process::kill(pid, libc::SIGKILL);
            }
        }
        Ok(())
    }

    /// Reads what the cgroup uses.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.read_cpu(&mut usage);
        self.read_memory(&mut usage);
        self.read_pids(&mut usage);
        self.read_block(&mut usage);
        usage
    }

    fn read_cpu(&self, usage: &mut Usage) {
        if let Some(ns) = self.file("cpuacct", "cpuacct.usage").and_then(|p| read_number(&p)) {
            usage.cpu_ns = ns;
        } else if let Some(text) = self.unified_file("cpu.stat").and_then(|p| read_text(&p)) {
            usage.cpu_ns = key_value(&text, "usage_usec").unwrap_or(0) * 1000;
        }
    }

    fn read_memory(&self, usage: &mut Usage) {
        if let Some(total) = self.file("memory", "memory.usage_in_bytes").and_then(|p| read_number(&p)) {
            let stat = self.file("memory", "memory.stat").and_then(|p| read_text(&p)).unwrap_or_default();
            usage.memory = total.saturating_sub(key_value(&stat, "total_inactive_file").unwrap_or(0));
            let limit = self.file("memory", "memory.limit_in_bytes").and_then(|p| read_number(&p)).unwrap_or(0);
            usage.memory_limit = if limit >= V1_NO_LIMIT { 0 } else { limit };
        } else if let Some(total) = self.unified_file("memory.current").and_then(|p| read_number(&p)) {
            let stat = self.unified_file("memory.stat").and_then(|p| read_text(&p)).unwrap_or_default();
            usage.memory = total.saturating_sub(key_value(&stat, "inactive_file").unwrap_or(0));
            usage.memory_limit = self.unified_file("memory.max").and_then(|p| read_number(&p)).unwrap_or(0);
        }
    }

    fn read_pids(&self, usage: &mut Usage) {
        let read = |name: &str| {
            self.file("pids", name)
                .and_then(|p| read_number(&p))
                .or_else(|| self.unified_file(name).and_then(|p| read_number(&p)))
        };
        usage.pids = read("pids.current").unwrap_or(0);
        usage.pids_limit = read("pids.max").unwrap_or(0);
    }

    fn read_block(&self, usage: &mut Usage) {
        let v1 = self.file("blkio", "blkio.throttle.io_service_bytes_recursive").and_then(|p| read_text(&p));
        if let Some(text) = v1 {
            for line in text.lines() {
                let fields: Vec<&str> = line.split_whitespace().collect();
                if let [_, kind, bytes] = fields[..] {
                    let bytes: u64 = bytes.parse().unwrap_or(0);
                    match kind {
                        "Read" => usage.block_read += bytes,
                        "Write" => usage.block_write += bytes,
                        _ => {}
                    }
                }
            }
        } else if let Some(text) = self.unified_file("io.stat").and_then(|p| read_text(&p)) {
            for field in text.split_whitespace() {
                if let Some(bytes) = field.strip_prefix("rbytes=") {
                    usage.block_read += bytes.parse::<u64>().unwrap_or(0);
                } else if let Some(bytes) = field.strip_prefix("wbytes=") {
                    usage.block_write += bytes.parse::<u64>().unwrap_or(0);
                }
            }
        }
    }
}

fn collect_members(dir: &Path, pids: &mut Vec<i32>, depth: u32) -> io::Result<()> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // ENODEV: removed while open; EOPNOTSUPP: a threaded cgroup.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => return Ok(()),
        Err(error) => return Err(error),
    };
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    if depth >= 16 {
        return Ok(());
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_members(&entry.path(), pids, depth + 1)?;
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// `None` for "max" too.
fn read_number(path: &Path) -> Option<u64> {
    read_text(path)?.trim().parse().ok()
}

fn key_value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// Where the hierarchies are mounted: mount point and the part of the hierarchy that is visible there.
#[derive(Debug, Default)]
struct Mounts {
    v1: BTreeMap<String, MountPoint>,
    unified: Option<MountPoint>,
}

#[derive(Debug)]
struct MountPoint {
    root: String,
    target: PathBuf,
}

impl MountPoint {
    fn locate(&self, path: &str) -> PathBuf {
        let inside = if self.root == "/" { path } else { path.strip_prefix(&self.root).unwrap_or(path) };
        self.target.join(inside.trim_start_matches('/'))
    }
}

impl Mounts {
    fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let ([_, _, _, root, target, ..], [kind, _, options, ..]) = (&left[..], &right[..]) else { continue };
            let point = || MountPoint { root: (*root).to_owned(), target: PathBuf::from(*target) };
            match *kind {
                "cgroup2" if mounts.unified.is_none() => mounts.unified = Some(point()),
                "cgroup" => {
                    for option in options.split(',').filter(|o| !matches!(*o, "rw" | "ro")) {
                        mounts.v1.entry(option.to_owned()).or_insert_with(point);
                    }
                }
                _ => {}
            }
        }
        mounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:1 - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn a_process_is_found_in_every_hierarchy() {
        let paths = Paths::plan("4:memory:/pier/x\n3:cpu,cpuacct:/pier/x\n0::/y\n", &Mounts::parse(MOUNTINFO));
        assert_eq!(paths.v1["memory"], Path::new("/sys/fs/cgroup/memory/pier/x"));
        assert_eq!(paths.v1["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct/pier/x"));
        assert_eq!(paths.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified/y")));
    }

    #[test]
    fn a_mount_of_a_part_shows_only_that_part() {
        let text = "31 30 0:27 /docker/a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let paths = Paths::plan("4:memory:/docker/a/b\n", &Mounts::parse(text));
        assert_eq!(paths.v1["memory"], Path::new("/sys/fs/cgroup/memory/b"));
    }

    #[test]
    fn flat_files_are_read_by_key() {
        assert_eq!(key_value("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(key_value("low 0\n", "oom_kill"), None);
    }
}
