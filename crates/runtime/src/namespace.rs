//! Which namespaces a container gets: new ones by clone flags, existing ones by descriptors opened on the host.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use crate::error::{Context, words};
use crate::{Error, Result};

/// `CLONE_NEWTIME`, which nix does not name.
pub(crate) const NEWTIME: i32 = 0x80;

/// The plan for one process.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` of new ones, without time and cgroup.
    pub new: i32,
    /// A new time namespace.
    pub new_time: bool,
    /// A new cgroup namespace (made after the cgroup is joined).
    pub new_cgroup: bool,
    /// An existing mount namespace is joined and then copied: the container's mounts and change of root stay its own.
    pub copy_mount: bool,
    /// Existing ones to join, in order, without pid and user.
    pub join: Vec<(i32, OwnedFd)>,
    /// An existing user namespace.
    pub join_user: Option<OwnedFd>,
    /// An existing pid namespace.
    pub join_pid: Option<OwnedFd>,
}

/// The `CLONE_NEW*` of a namespace.
pub(crate) fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => NEWTIME,
    }
}

impl Namespaces {
    /// The plan of a configuration; opens the existing ones.
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        let mut plan = Self::default();
        let list = spec.linux().as_ref().and_then(|l| l.namespaces().clone()).unwrap_or_default();
        for ns in list {
            let flag = flag(ns.typ());
            let path = ns.path().as_ref().filter(|p| !p.as_os_str().is_empty());
            let Some(path) = path else {
                match ns.typ() {
                    LinuxNamespaceType::Time => plan.new_time = true,
                    LinuxNamespaceType::Cgroup => plan.new_cgroup = true,
                    _ => plan.new |= flag,
                }
                continue;
            };
            let fd: OwnedFd = File::open(path).step(|| format!("cannot open namespace {}", path.display()))?.into();
            match ns.typ() {
                LinuxNamespaceType::Mount => {
                    plan.copy_mount = true;
                    plan.join.push((flag, fd));
                }
                LinuxNamespaceType::User => plan.join_user = Some(fd),
                LinuxNamespaceType::Pid => plan.join_pid = Some(fd),
                _ => plan.join.push((flag, fd)),
            }
        }
        Ok(plan)
    }

    pub(crate) fn has_new(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    pub(crate) fn new_user(&self) -> bool {
        self.has_new(libc::CLONE_NEWUSER)
    }

    /// Joins the existing ones, from inside the child.
    ///
    /// Those that the runtime has the right to join come first; the user namespace then gives the right to the others.
    pub(crate) fn enter(&self) -> std::result::Result<(), String> {
        let failed = |e| format!("cannot join a namespace: {}", words(e));
        let join = |flag: &i32, fd: &OwnedFd| setns(fd, CloneFlags::from_bits_retain(*flag));
        let mut later = vec![];
        for (flag, fd) in &self.join {
            match join(flag, fd) {
                Err(nix::Error::EPERM) if self.join_user.is_some() => later.push((flag, fd)),
                // [`ForChildren`] was there before, when it had the right.
                Err(nix::Error::EPERM) if self.new_user() && is_own(*flag, fd) => {}
                other => other.map_err(failed)?,
            }
        }
        if let Some(user) = &self.join_user {
            setns(user, CloneFlags::CLONE_NEWUSER)
                .map_err(|e| format!("cannot join the user namespace: {}", words(e)))?;
        }
        later.into_iter().try_for_each(|(flag, fd)| join(flag, fd)).map_err(failed)
    }
}

/// Joins namespaces (`CLONE_NEW*`) of a process by its pidfd.
///
/// Kernels before 5.8 take no pidfd: there the namespaces are opened one by one, the user namespace first, since it gives
/// the right to the others.
pub(crate) fn join_process(process: &OwnedFd, flags: i32) -> nix::Result<()> {
    match setns(process, CloneFlags::from_bits_retain(flags)) {
        Err(nix::Error::EINVAL) => join_one_by_one(process, flags),
        other => other,
    }
}

fn join_one_by_one(process: &OwnedFd, flags: i32) -> nix::Result<()> {
    let kinds = [
        (libc::CLONE_NEWUSER, "user"),
        (libc::CLONE_NEWPID, "pid"),
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWUTS, "uts"),
        (libc::CLONE_NEWNET, "net"),
        (libc::CLONE_NEWCGROUP, "cgroup"),
        (NEWTIME, "time"),
        (libc::CLONE_NEWNS, "mnt"),
    ];
    let invalid = |_| nix::Error::EINVAL;
    let directory = process_directory(process).map_err(invalid)?;
    let open = |name: &str| {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::openat(&directory, format!("ns/{name}"), flags, rustix::fs::Mode::empty())
            .map_err(|_| nix::Error::EINVAL)
    };
    // All are opened before one is joined: a mount namespace of its own has another /proc.
    let wanted = kinds.iter().filter(|(flag, _)| flags & flag != 0);
    let opened = wanted.map(|(flag, name)| Ok((*flag, open(name)?))).collect::<nix::Result<Vec<_>>>()?;
    opened.iter().try_for_each(|(flag, fd)| setns(fd, CloneFlags::from_bits_retain(*flag)))
}

/// `/proc/PID` of a pidfd, which on the oldest kernels is that directory itself.
fn process_directory(process: &OwnedFd) -> std::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let own = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
    let pid = std::fs::read_to_string(own)?.lines().find_map(|l| Some(l.strip_prefix("Pid:")?.trim().to_owned()));
    match pid {
        Some(pid) => Ok(File::open(format!("/proc/{pid}"))?.into()),
        None => process.try_clone(),
    }
}

/// Kinds of namespaces that a process can enter and leave again, and their names in `/proc/self/ns`.
const RETURNABLE: [(i32, &str); 4] = [
    (libc::CLONE_NEWIPC, "ipc"),
    (libc::CLONE_NEWUTS, "uts"),
    (libc::CLONE_NEWNET, "net"),
    (libc::CLONE_NEWCGROUP, "cgroup"),
];

/// Whether this process is in that namespace.
fn is_own(flag: i32, fd: &OwnedFd) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Some((_, name)) = RETURNABLE.iter().find(|(kind, _)| *kind == flag) else { return false };
    let own = std::fs::metadata(format!("/proc/self/ns/{name}")).map(|m| m.ino());
    own.ok() == rustix::fs::fstat(fd).ok().map(|s| s.st_ino)
}

/// Sets this process's namespaces *for its children* for the time of a fork, and puts them back.
pub(crate) struct ForChildren {
    joined: Vec<(i32, OwnedFd)>,
    pid: Option<OwnedFd>,
    time: Option<OwnedFd>,
}

impl ForChildren {
    /// Enters the plan's existing pid namespace and a new time namespace with those offsets; before a new user namespace
    /// also the other existing ones: what belongs to root of the machine cannot be joined from inside.
    pub(crate) fn enter(plan: &Namespaces, spec: &Spec) -> Result<Self> {
        let mut back = Self { joined: vec![], pid: None, time: None };
        let own = |name: &str| -> Result<OwnedFd> {
            Ok(File::open(format!("/proc/self/ns/{name}")).step(|| format!("cannot open /proc/self/ns/{name}"))?.into())
        };
        for (flag, fd) in plan.join.iter().filter(|_| plan.new_user()) {
            let Some((_, name)) = RETURNABLE.iter().find(|(kind, _)| kind == flag) else { continue };
            let here = own(name)?;
            // Without the right, the child says so.
            if setns(fd, CloneFlags::from_bits_retain(*flag)).is_ok() {
                back.joined.push((*flag, here));
            }
        }
        if let Some(fd) = &plan.join_pid {
            back.pid = Some(own("pid")?);
            setns(fd, CloneFlags::CLONE_NEWPID).step(|| "cannot join the pid namespace".into())?;
        }
        if plan.new_time {
            back.time = Some(own("time")?);
            unshare(CloneFlags::from_bits_retain(NEWTIME)).step(|| "cannot make a time namespace".into())?;
            let offsets = time_offsets(spec);
            if !offsets.is_empty() {
                std::fs::write("/proc/self/timens_offsets", offsets).step(|| "cannot set time offsets".into())?;
            }
        }
        Ok(back)
    }
}

impl Drop for ForChildren {
    fn drop(&mut self) {
        // Hooks that this process starts later belong to its own namespaces again.
        if let Some(fd) = &self.pid {
            let _ = setns(fd, CloneFlags::CLONE_NEWPID);
        }
        for (flag, fd) in &self.joined {
            let _ = setns(fd, CloneFlags::from_bits_retain(*flag));
        }
        if let Some(fd) = &self.time {
            let _ = setns(fd, CloneFlags::from_bits_retain(NEWTIME));
        }
    }
}

fn time_offsets(spec: &Spec) -> String {
    let offsets = spec.linux().as_ref().and_then(|l| l.time_offsets().as_ref());
    offsets
        .iter()
        .flat_map(|map| map.iter())
        .map(|(clock, o)| format!("{clock} {} {}\n", o.secs().unwrap_or(0), o.nanosecs().unwrap_or(0)))
        .collect()
}

/// Writes the id maps of a child in a new user namespace.
///
/// Root writes them itself; otherwise newuidmap and newgidmap do, or the single self-mapping the kernel allows.
pub(crate) fn write_id_maps(pid: i32, spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::Refused("linux is required".into()))?;
    let (uids, gids) = (linux.uid_mappings().as_deref().unwrap_or(&[]), linux.gid_mappings().as_deref().unwrap_or(&[]));
    if uids.is_empty() || gids.is_empty() {
        return Err(Error::Refused("a new user namespace needs linux.uidMappings and linux.gidMappings".into()));
    }
    if rustix::process::geteuid().is_root() {
        return write_maps(pid, uids, gids);
    }
    use libcontainer::user_ns::UserNamespaceConfig;
    let failed = |e: &dyn std::fmt::Display| Error::Refused(format!("user namespace: {e}"));
    let config = UserNamespaceConfig::new(spec).map_err(|e| failed(&e))?.unwrap_or_default();
    if config.newgidmap.is_none() {
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny").step(|| "cannot deny setgroups".into())?;
    }
    let nix_pid = nix::unistd::Pid::from_raw(pid);
    config.write_uid_mapping(nix_pid).map_err(|e| failed(&e))?;
    config.write_gid_mapping(nix_pid).map_err(|e| failed(&e))
}

/// Writes the id maps of a process in a new user namespace, as root.
pub(crate) fn write_maps(pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<()> {
    for (file, maps) in [("uid_map", uids), ("gid_map", gids)] {
        std::fs::write(format!("/proc/{pid}/{file}"), map_text(maps)).step(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

fn map_text(maps: &[LinuxIdMapping]) -> String {
    maps.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect()
}
