//! The last steps before the program: user, groups, capabilities, working directory. Runs inside the container.

use std::os::fd::BorrowedFd;

use libcontainer::syscall::syscall::create_syscall;
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process};

use crate::capability::{self, Sets};
use crate::error::words;

/// Scheduling, I/O priority, umask: needs privilege, so it comes before the change of user.
pub(crate) fn scheduling(process: &Process) -> Result<(), String> {
    if let Some(io) = process.io_priority() {
        let class = match io.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        create_syscall().set_io_priority(class, io.priority()).map_err(|e| format!("ioPriority: {e}"))?;
    }
    if let Some(s) = process.scheduler() {
        let policy = match s.policy() {
            LinuxSchedulerPolicy::SchedOther => 0,
            LinuxSchedulerPolicy::SchedFifo => 1,
            LinuxSchedulerPolicy::SchedRr => 2,
            LinuxSchedulerPolicy::SchedBatch => 3,
            LinuxSchedulerPolicy::SchedIso => 4,
            LinuxSchedulerPolicy::SchedIdle => 5,
            LinuxSchedulerPolicy::SchedDeadline => 6,
        };
        let attr = sys::clone::SchedAttr {
            policy,
            flags: s.flags().iter().flatten().fold(0, |all, flag| all | scheduler_flag(flag)),
            nice: s.nice().unwrap_or(0),
            priority: s.priority().unwrap_or(0).unsigned_abs(),
            runtime: s.runtime().unwrap_or(0),
            deadline: s.deadline().unwrap_or(0),
            period: s.period().unwrap_or(0),
            ..Default::default()
        };
        sys::clone::sched_setattr(attr).map_err(|e| match e.raw_os_error() {
            // sched_setattr(2): a deadline needs the whole machine, the cpuset cgroup has less of it.
            Some(libc::EPERM) => {
                format!("scheduler: {} (process scheduler can't be used together with AllowedCPUs)", words(e))
            }
            _ => format!("scheduler: {}", words(e)),
        })?;
    }
    Ok(())
}

/// `SCHED_FLAG_*` of sched_setattr(2).
fn scheduler_flag(flag: &LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x1,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x2,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x4,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x8,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// Lets the user of the program reopen its standard streams, as a shell's `2>/dev/stderr` does.
pub(crate) fn own_stdio(process: &Process) {
    let uid = process.user().uid();
    for raw in 0..3 {
        // SAFETY: descriptors 0 to 2 stay open for the whole life of this process; a closed one only fails the calls.
        let fd = unsafe { BorrowedFd::borrow_raw(raw) };
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3);
        if stat.st_uid != uid && !null {
            // Unmapped owners, read-only files and sockets refuse; the program can live with that.
            let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

/// Becomes the configured user with the planned capabilities.
///
/// `allow_setgroups` is false in an unprivileged user namespace, where the kernel denies it.
pub(crate) fn become_user(process: &Process, sets: &Sets, allow_setgroups: bool) -> Result<(), String> {
    let user = process.user();
    capability::drop_bounding(sets).map_err(|e| format!("cannot drop bounding capabilities: {e}"))?;
    rustix::thread::set_keep_capabilities(true).map_err(|e| format!("cannot keep capabilities: {e}"))?;
    let groups: Vec<Gid> = user.additional_gids().iter().flatten().map(|g| Gid::from_raw(*g)).collect();
    if allow_setgroups {
        nix::unistd::setgroups(&groups).map_err(|e| format!("cannot set groups: {e}"))?;
    } else if !groups.is_empty() {
        return Err("additional groups are not possible in an unprivileged user namespace".into());
    }
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    nix::unistd::setresgid(gid, gid, gid).map_err(|e| format!("cannot become group {gid}: {e}"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(|e| format!("cannot become user {uid}: {e}"))?;
    capability::set(sets).map_err(|e| format!("cannot set capabilities: {e}"))?;
    let _ = rustix::thread::set_keep_capabilities(false);
    Ok(())
}

/// Whether the kernel lets this process change its groups.
pub(crate) fn may_setgroups() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").map_or(true, |t| t.trim() != "deny")
}

/// A working directory outside the root would be a way out of the container.
pub(crate) fn verify_cwd() -> Result<(), String> {
    match std::env::current_dir() {
        Ok(dir) if dir.is_absolute() && !dir.starts_with("/(unreachable)") => Ok(()),
        Ok(_) | Err(_) => Err("current working directory is outside of container mount namespace root".into()),
    }
}
