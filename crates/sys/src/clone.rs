//! What an OCI runtime needs of the kernel that neither rustix nor nix offers as a safe call: clone3, prlimit of another
//! process, mount_setattr, close_range, session keyrings, signals by pidfd.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Which side of a [`fork_into`] this is.
#[derive(Debug)]
pub enum Side {
    /// The new process.
    Child,
    /// The caller: the child's pid (in the caller's pid namespace) and a pidfd for it.
    Parent(i32, OwnedFd),
}

/// How many threads this process has, from the link count of `/proc/self/task`.
///
/// # Errors
/// The error of stat(2): no `/proc`.
pub fn thread_count() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self/task")?.nlink().saturating_sub(2))
}

/// Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks with the given `CLONE_NEW*` flags, like fork(2) but straight into new namespaces.
///
/// With `sibling`, the child becomes the caller's sibling (`CLONE_PARENT`).
///
/// # Errors
/// `EDEADLK` when this process has more than one thread (the child would hold locks nobody releases); else clone3's.
pub fn fork_into(flags: i32, sibling: bool) -> io::Result<Side> {
    fork(flags, sibling, None)
}

/// [`fork_into`] straight into a cgroup v2 directory; where that cannot be (an old kernel, a threaded cgroup, not the
/// caller's to enter), into the caller's own, from which it can be moved.
///
/// # Errors
/// As [`fork_into`].
pub fn fork_into_cgroup(flags: i32, cgroup: Option<impl AsFd>) -> io::Result<Side> {
    if let Some(cgroup) = cgroup
        && let Ok(side) = fork(flags, false, Some(cgroup.as_fd()))
    {
        return Ok(side);
    }
    fork(flags, false, None)
}

fn fork(flags: i32, sibling: bool, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    if thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: u64::from(flags as u32) | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if sibling {
        args.flags |= libc::CLONE_PARENT as u64;
        args.exit_signal = 0;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: the process is single-threaded (checked), no CLONE_VM and no stack is passed: this is a fork, and the child
    // owns a copy of everything. `args` and `pidfd` outlive the call.
    let mut ret = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    if ret == -1 && cgroup.is_none() && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        let flags = (args.flags | args.exit_signal) as libc::c_ulong;
        // SAFETY: as above. Of clone(2) the first three arguments have one order on all architectures here, and for
        // `CLONE_PIDFD` the third is where the descriptor goes.
        ret = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    }
    match ret {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        // Kernels before 5.2 do not know the flag, and ignore it.
        pid if pidfd < 0 => Ok(Side::Parent(pid as i32, crate::pidfd::open(pid as i32)?)),
        // SAFETY: the kernel stored a new descriptor in `pidfd`, which nobody else owns.
        pid => Ok(Side::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Leaves the process at once, running no destructor and no exit handler: the way out of a forked child.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Sends any signal (named or real-time) to the process of a pidfd. Signal 0 only checks.
///
/// # Errors
/// `ESRCH` when it has been reaped, `EINVAL` for a number that is no signal.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: plain system call on a borrowed descriptor; a null siginfo is allowed.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<u8>(), 0) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets a resource limit of another process (`RLIMIT_*` number).
///
/// # Errors
/// `EPERM` when a hard limit is raised without `CAP_SYS_RESOURCE`.
pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `new` outlives the call, the old limit is not asked for.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const new, std::ptr::null::<u8>()) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// Those of close_range(2).
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: only sets a flag of our own descriptors.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match (ret, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        // Kernels before 5.9 lack the call, before 5.11 the flag.
        (_, e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => cloexec_one_by_one(first),
        (_, e) => Err(e),
    }
}

/// By the list of open descriptors; without `/proc`, every number that may be one.
fn cloexec_one_by_one(first: u32) -> io::Result<()> {
    let listed = std::fs::read_dir("/proc/self/fd")
        .map(|list| list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect::<Vec<u32>>());
    let numbers = listed.or_else(|_| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
        Ok::<_, io::Error>((first..u32::try_from(limit).unwrap_or(1 << 20)).collect())
    })?;
    for number in numbers.into_iter().filter(|n| *n >= first) {
        // SAFETY: only sets a flag of one of our own descriptors; a closed number gives EBADF.
        unsafe { libc::fcntl(number.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Takes ownership of a descriptor that this process inherited by number.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn adopt_fd(raw: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only reads the descriptor's flags.
    if unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and callers pass only descriptors they received and nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Joins a new, empty session keyring of that name.
///
/// # Errors
/// `ENOSYS` on kernels without keys.
pub fn join_session_keyring(name: &str) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    let name = CString::new(name)?;
    // SAFETY: the name is a C string that outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if ret >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    /// For `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// Changes the attributes of the mount that `fd` lies on, with `recursive` of all below too.
///
/// # Errors
/// `EINVAL` when `fd` is not the root of a mount, `EPERM` for locked flags.
pub fn mount_setattr(fd: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: empty path with AT_EMPTY_PATH; `attr` has the kernel's layout and its size is passed along.
    let ret = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd.as_raw_fd(), c"".as_ptr(), flags, attr, size_of::<MountAttr>())
    };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the signal its default action again (Rust programs start with `SIGPIPE` ignored).
pub fn default_signal(signal: i32) {
    // SAFETY: SIG_DFL installs no handler of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Ends the process with 128 + n on this signal, until the next exec, unless it is ignored or handled already.
pub fn exit_on_signal(signal: i32) {
    extern "C" fn end(signal: i32) {
        // SAFETY: async-signal-safe.
        unsafe { libc::_exit(128 + signal) }
    }
    // SAFETY: a zeroed sigaction is a valid one; the handler calls nothing but _exit.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_DFL {
            action.sa_sigaction = end as extern "C" fn(i32) as usize;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Makes `fd` the controlling terminal of this session.
///
/// # Errors
/// `EPERM` when the session has one already.
pub fn set_controlling_tty(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct sched_attr` of sched_setattr(2), without utilisation clamps.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct SchedAttr {
    /// Size of this structure; filled in by [`sched_setattr`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
}

/// Sets the scheduling of the calling thread.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`.
pub fn sched_setattr(mut attr: SchedAttr) -> io::Result<()> {
    attr.size = size_of::<SchedAttr>() as u32;
    // SAFETY: `attr` has the layout of the first published version of the structure and says its size.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut attr, 0) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets a network interface of this namespace up (`SIOCSIFFLAGS`).
///
/// # Errors
/// `ENODEV`, or `EINVAL` for a name that is too long.
pub fn interface_up(name: &str) -> io::Result<()> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: creates a descriptor that is owned below; the request structure is plain data, zero is a valid value of it.
    let (socket, mut request) = unsafe {
        let raw = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        (OwnedFd::from_raw_fd(raw), std::mem::zeroed::<libc::ifreq>())
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: `request` is a valid ifreq that outlives the call.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
