//! Facts of this host, read from the kernel when they are needed: nothing is cached that can change.
use crate::error::Error;
use crate::files::HostFiles;
use crate::spec::Machine;
use crate::spec::devices::{DeviceArgument, DeviceNode};
use crate::spec::security::KNOWN;
use rustix::fs::{FileType, Stat};
use std::path::Path;

/// What a container's specification depends on.
pub fn machine() -> Machine {
    Machine {
        architecture: oci::Platform::host().architecture,
        capabilities: bounding_set(),
        cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        swap_limit: Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
            || Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
    }
}

// Whatever is not in our own bounding set cannot be given to a child (capabilities(7)).
fn bounding_set() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).unwrap_or("0");
    let mask = u64::from_str_radix(field.trim(), 16).unwrap_or(0);
    KNOWN.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, name)| name.to_string()).collect()
}

/// Whether a mount can be made read-only with all that is mounted below it (mount_setattr(2), Linux 5.12).
pub fn mounts_read_only_below() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(5), Some(12))
}

/// Whether all ids are mapped here: not in a user namespace (user_namespaces(7)).
pub fn has_all_ids() -> bool {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// /etc/hosts and /etc/resolv.conf; a missing one is empty.
pub fn files() -> HostFiles {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    HostFiles { hosts: read("/etc/hosts"), resolv_conf: read("/etc/resolv.conf") }
}

/// The device at a host path, or all below it when it is a directory.
pub fn devices(wanted: &DeviceArgument) -> Result<Vec<DeviceNode>, Error> {
    let found = walk(Path::new(&wanted.host), &wanted.container, &wanted.access)?;
    if found.is_empty() {
        return Err(Error::invalid("device", &wanted.host, "it is no device"));
    }
    Ok(found)
}

/// All of the host's devices, for a privileged container. Terminals and what the runtime makes itself stay out.
pub fn all_devices() -> Result<Vec<DeviceNode>, Error> {
    const OWN: [&str; 11] = [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
        "/dev/tty",
        "/dev/console",
        "/dev/ptmx",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
    ];
    let mut list = walk(Path::new("/dev"), "/dev", "rwm")?;
    list.retain(|d| !OWN.iter().any(|own| Path::new(&d.path).starts_with(own)));
    Ok(list)
}

fn walk(host: &Path, container: &str, access: &str) -> Result<Vec<DeviceNode>, Error> {
    let failed =
        |e: rustix::io::Errno| Error::Host { action: "look at", path: host.display().to_string(), source: e.into() };
    let stat = rustix::fs::stat(host).map_err(failed)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !kind.is_dir() {
        return Ok(node(&stat, kind, container, access).into_iter().collect());
    }
    let mut list = Vec::new();
    for entry in std::fs::read_dir(host).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let skip = ["pts", "shm", "fd", "mqueue"].iter().any(|s| name == *s)
            || entry.file_type().is_ok_and(|t| t.is_symlink());
        if !skip {
            let inside = format!("{container}/{}", name.to_string_lossy());
            list.extend(walk(&entry.path(), &inside, access).unwrap_or_default());
        }
    }
    Ok(list)
}

fn node(stat: &Stat, kind: FileType, container: &str, access: &str) -> Option<DeviceNode> {
    let kind = match kind {
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => return None,
    };
    Some(DeviceNode {
        path: container.to_string(),
        kind,
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        access: access.to_string(),
    })
}

/// Checks a bind's source; makes it when that was asked for.
pub fn bind_source(path: &str, create: bool) -> Result<(), Error> {
    let failed = |action, source| Error::Host { action, path: path.to_string(), source };
    if !path.starts_with('/') {
        return Err(Error::invalid("bind source", path, "it must be an absolute path"));
    }
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::create_dir_all(path).map_err(|e| failed("make the bind source", e))
        }
        Err(e) => Err(failed("find the bind source", e)),
    }
}

/// The names under which an init for containers is known.
const INITS: [&str; 5] = ["pier-init", "catatonit", "tini-static", "docker-init", "tini"];

/// An init program, static so that it runs in any image: beside the other programs or on PATH.
pub fn init_program() -> Result<String, Error> {
    // One that wants a dynamic linker would look for it in the image.
    let is_static =
        |path: &std::path::PathBuf| std::fs::read(path).is_ok_and(|program| !program.windows(4).any(|w| w == b"/ld-"));
    let found = INITS.iter().find_map(|name| rpc::spawn::find_program(name).ok().filter(is_static));
    found.map(|path| path.display().to_string()).ok_or(Error::Unsupported {
        what: "--init without a static init program on PATH".into(),
        hint: "install catatonit or tini",
    })
}

/// Kernel release, host name, bytes of memory.
pub fn identity() -> (String, String, u64) {
    let names = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0);
    (text(names.release()), text(names.nodename()), kib * 1024)
}
