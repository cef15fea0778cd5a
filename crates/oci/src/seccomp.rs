//! The default system call filter of a container: an allow-list, refused calls see `EPERM`.
//!
//! What is allowed follows the practice of the field: everything that an unprivileged program needs, nothing that
//! reaches outside the container's namespaces, and some groups only together with the capability that guards them.
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

const EPERM: u32 = 1;
/// What `clone3` answers, so that libc falls back to `clone`, whose flags a filter can read.
const ENOSYS: u32 = 38;
/// All `CLONE_NEW*` flags that `clone(2)` takes in its flags argument.
const CLONE_NEW_MASK: u64 = 0x7E02_0000;
/// `personality(2)`: `PER_LINUX`, `PER_LINUX32`, `UNAME26`, both, and "only ask".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Kernel crypto and the hypervisor's socket are not namespaced: `AF_ALG` and `AF_VSOCK` stay out.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// The default filter for a container with these capabilities ("CAP_SYS_ADMIN", ...) on this architecture (Go's
/// name: "amd64", "arm64", ...; another one gets the native architecture only).
///
/// ```
/// let filter = oci::seccomp::default_profile("amd64", &["CAP_CHOWN".to_string()]);
/// assert!(filter.syscalls().as_ref().is_some_and(|s| s.len() > 5));
/// ```
pub fn default_profile(architecture: &str, capabilities: &[String]) -> LinuxSeccomp {
    let has = |name: &str| capabilities.iter().any(|c| c == name);
    let mut rules = vec![allow(ALWAYS.iter().copied(), vec![])];
    rules.push(allow(arch_calls(architecture).iter().copied(), vec![]));
    for value in PERSONALITIES {
        rules.push(allow(["personality"], vec![arg(0, value, LinuxSeccompOperator::ScmpCmpEq)]));
    }
    rules.extend(socket_rules());
    for (capability, calls) in WITH_CAPABILITY {
        if has(capability) {
            rules.push(allow(calls.iter().copied(), vec![]));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        rules.extend(clone_rules(architecture));
    }
    rules.retain(|r| !r.names().is_empty());
    built(
        LinuxSeccompBuilder::default()
            .default_action(LinuxSeccompAction::ScmpActErrno)
            .default_errno_ret(EPERM)
            .architectures(architectures(architecture))
            .syscalls(rules)
            .build(),
    )
}

// Every family but the two: three ranges, of which one is enough.
fn socket_rules() -> [LinuxSyscall; 3] {
    [
        allow(["socket"], vec![arg(0, AF_ALG, LinuxSeccompOperator::ScmpCmpLt)]),
        allow(["socket"], vec![arg(0, AF_ALG + 1, LinuxSeccompOperator::ScmpCmpEq)]),
        allow(["socket"], vec![arg(0, AF_VSOCK, LinuxSeccompOperator::ScmpCmpGt)]),
    ]
}

// New namespaces only with CAP_SYS_ADMIN; `clone3` hides its flags behind a pointer, so it is as if not there.
fn clone_rules(architecture: &str) -> [LinuxSyscall; 2] {
    let index = usize::from(architecture == "s390x");
    let no_namespace = built(
        LinuxSeccompArgBuilder::default()
            .index(index)
            .value(CLONE_NEW_MASK)
            .value_two(0u64)
            .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
            .build(),
    );
    let clone3 = built(
        LinuxSyscallBuilder::default()
            .names(vec!["clone3".to_string()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(ENOSYS)
            .build(),
    );
    [allow(["clone"], vec![no_namespace]), clone3]
}

fn architectures(architecture: &str) -> Vec<Arch> {
    match architecture {
        "amd64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "arm64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        "s390x" => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
        "ppc64le" => vec![Arch::ScmpArchPpc64le],
        "loong64" => vec![Arch::ScmpArchLoongarch64],
        _ => vec![Arch::ScmpArchNative],
    }
}

fn arch_calls(architecture: &str) -> &'static [&'static str] {
    match architecture {
        "amd64" => &["arch_prctl", "modify_ldt"],
        "arm64" => {
            &["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"]
        }
        "riscv64" => &["riscv_flush_icache", "riscv_hwprobe"],
        "s390x" => &["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"],
        "ppc64le" => &["swapcontext", "sync_file_range2"],
        _ => &[],
    }
}

fn allow<'a>(names: impl IntoIterator<Item = &'a str>, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut syscall = LinuxSyscallBuilder::default()
        .names(names.into_iter().map(String::from).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow);
    if !args.is_empty() {
        syscall = syscall.args(args);
    }
    built(syscall.build())
}

fn arg(index: usize, value: u64, op: LinuxSeccompOperator) -> LinuxSeccompArg {
    built(LinuxSeccompArgBuilder::default().index(index).value(value).op(op).build())
}

// These builders have a default for every field: they cannot fail.
fn built<T: Default, E>(result: Result<T, E>) -> T {
    result.unwrap_or_default()
}

const WITH_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

// By alphabet. `socketcall` is missing on purpose: its arguments cannot be read, and it would bring AF_ALG back.
// io_uring is missing too: its operations pass every filter.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat", "capget",
    "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres",
    "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "close",
    "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1",
    "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2",
    "execve", "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate",
    "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64",
    "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64",
    "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64",
    "futex_wait", "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
    "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom",
    "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getsid", "getsockname",
    "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr", "getxattrat", "inotify_add_watch",
    "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents",
    "io_pgetevents_time64", "io_setup", "io_submit", "ioctl", "ioprio_get", "ioprio_set", "ipc", "kill",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link",
    "linkat", "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
    "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir",
    "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mq_getsetattr",
    "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64",
    "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap",
    "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open",
    "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64",
    "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease", "process_vm_readv", "process_vm_writev",
    "pselect6", "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink",
    "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages",
    "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "rmdir", "rseq",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto", "set_robust_list",
    "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32",
    "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid",
    "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid",
    "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd",
    "signalfd4", "sigprocmask", "sigreturn", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64",
    "statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill",
    "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink",
    "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4", "waitid",
    "waitpid", "write", "writev",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rules(filter: &LinuxSeccomp, name: &str) -> Vec<LinuxSyscall> {
        let all = filter.syscalls().clone().unwrap();
        all.into_iter().filter(|r| r.names().iter().any(|n| n == name)).collect()
    }

    #[test]
    fn refuses_what_reaches_outside() {
        let filter = default_profile("amd64", &[]);
        assert_eq!(filter.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert_eq!(filter.default_errno_ret(), Some(EPERM));
        for name in
            ["mount", "unshare", "setns", "bpf", "reboot", "io_uring_setup", "keyctl", "socketcall", "kexec_load"]
        {
            assert!(rules(&filter, name).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_new_namespace_needs_sys_admin() {
        let without = default_profile("amd64", &[]);
        let clone = rules(&without, "clone");
        assert_eq!(clone.len(), 1);
        let argument = clone[0].args().as_ref().unwrap()[0];
        assert_eq!((argument.value(), argument.value_two()), (CLONE_NEW_MASK, Some(0)));
        assert_eq!(rules(&without, "clone3")[0].errno_ret(), Some(ENOSYS));
        let with = default_profile("amd64", &["CAP_SYS_ADMIN".to_string()]);
        assert!(rules(&with, "clone")[0].args().is_none());
        assert_eq!(rules(&with, "clone3")[0].action(), LinuxSeccompAction::ScmpActAllow);
        assert_eq!(rules(&with, "mount").len(), 1);
    }

    #[test]
    fn sockets_of_unnamespaced_families_are_refused() {
        let filter = default_profile("amd64", &[]);
        let allowed = |family: u64| {
            rules(&filter, "socket").iter().any(|r| {
                let a = r.args().as_ref().unwrap()[0];
                match a.op() {
                    LinuxSeccompOperator::ScmpCmpLt => family < a.value(),
                    LinuxSeccompOperator::ScmpCmpEq => family == a.value(),
                    LinuxSeccompOperator::ScmpCmpGt => family > a.value(),
                    _ => false,
                }
            })
        };
        assert!(allowed(1) && allowed(2) && allowed(10) && allowed(39) && allowed(44));
        assert!(!allowed(AF_ALG) && !allowed(AF_VSOCK));
    }

    #[test]
    fn the_list_is_in_order_and_without_doubles() {
        assert!(ALWAYS.windows(2).all(|w| w[0] < w[1]), "sort it");
    }
}
