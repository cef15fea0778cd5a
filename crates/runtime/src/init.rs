//! The container's own process, from the fork to the user's program.
//!
//! Runs in the child. Nothing here returns: it ends in execve, or reports why not and exits.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use libcontainer::syscall::syscall::create_syscall;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use oci_spec::runtime::{Process, Spec};
use sys::clone::{Side, exit_now, fork_into};

use crate::capability::Sets;
use crate::cgroup::Placement;
use crate::error::words;
use crate::link::{Link, Tag};
use crate::mounting::Step;
use crate::namespace::Namespaces;
use crate::seccomp::Filter;
use crate::source::Sources;
use crate::state::{Record, Status};
use crate::{credentials, environment, hook, lsm, mask, memory_policy, net_device, process, rootfs, sysctl, terminal};

/// Exit code of a process that never became the user's program.
const NOT_STARTED: i32 = 255;

/// Everything the child needs, gathered by the parent before the fork.
pub(crate) struct Init<'a> {
    pub spec: &'a Spec,
    pub process: &'a Process,
    pub record: &'a Record,
    pub rootfs: &'a Path,
    pub cgroup: &'a Placement,
    pub namespaces: &'a Namespaces,
    pub capabilities: Sets,
    pub filter: Option<Filter>,
    pub console: Option<OwnedFd>,
    /// Blocks until `start`; absent for `run`.
    pub fifo: Option<File>,
    pub no_pivot: bool,
    pub keyring: bool,
    pub preserve_fds: u32,
}

/// Runs `body`, which ends in execve; reports its failure over the line and exits.
pub(crate) fn run(link: &Link, body: impl FnOnce() -> Step<Infallible>) -> ! {
    let Err(why) = body();
    if link.send(Tag::Failed, &why).is_err() {
        // The parent has gone: this was after `create`, and the container's stderr is the only place left.
        eprintln!("{why}");
    }
    exit_now(NOT_STARTED)
}

/// What every new process does first.
pub(crate) fn begin(link: &Link, preserve_fds: u32) -> Step {
    close_inherited(3 + preserve_fds.cast_signed());
    sys::clone::default_signal(libc::SIGPIPE);
    // The first process of a pid namespace is not ended by a signal without a handler, also not while it is only created.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGABRT, libc::SIGTERM] {
        sys::clone::exit_on_signal(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(|e| e.to_string())?;
    // The parent has failed, and says why.
    if link.expect(Tag::Go).is_err() {
        exit_now(NOT_STARTED);
    }
    Ok(())
}

/// Closes what the runtime's caller had left open: it must not stay open while a created container waits. All descriptors
/// of ours are close-on-exec, those that came through an exec are not.
fn close_inherited(first: i32) {
    let Ok(list) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = list.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|n| *n >= first) {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        let flags = fcntl(number, FcntlArg::F_GETFD).map(FdFlag::from_bits_retain);
        if flags.is_ok_and(|f| !f.contains(FdFlag::FD_CLOEXEC)) {
            let _ = nix::unistd::close(number);
        }
    }
}

impl Init<'_> {
    /// The body of the container's first process.
    pub(crate) fn body(mut self, link: &Link) -> Step<Infallible> {
        begin(link, self.preserve_fds)?;
        nix::unistd::setsid().map_err(|e| format!("setsid: {e}"))?;
        if self.keyring {
            lsm::label_keys(self.process)?;
            // Kernels without keys have nothing to isolate.
            let _ = sys::clone::join_session_keyring(&format!("_ses.{}", self.record.id));
        }
        rootfs::go_to(self.rootfs)?;
        self.enter_namespaces(link)?;
        credentials::scheduling(self.process)?;
        let linux = self.spec.linux().as_ref().ok_or("linux is required")?;
        let user_namespace =
            self.namespaces.new_user() || self.namespaces.join_user.is_some() || !process::in_initial_user_namespace();
        let root = rootfs::prepare(self.spec, self.rootfs, self.cgroup, user_namespace, Sources(link))?;
        self.hooks_before_pivot(link)?;
        rootfs::pivot(&root, self.no_pivot)?;
        drop(root);
        rootfs::final_propagation(self.spec)?;
        reopen_null();
        if let Some(settings) = linux.sysctl() {
            sysctl::apply(settings)?;
        }
        if let Some(socket) = self.console.take() {
            terminal::set_up(&socket, self.process, true)?;
        }
        rootfs::late_readonly_dev(self.spec)?;
        if self.spec.root().as_ref().and_then(|r| r.readonly()) == Some(true) {
            mask::readonly_root()?;
        }
        mask::readonly(linux.readonly_paths().as_deref().unwrap_or(&[]))?;
        mask::masked(linux.masked_paths().as_deref().unwrap_or(&[]))?;
        show_root(link)?;
        let ready = Finish {
            spec: self.spec,
            process: self.process,
            capabilities: self.capabilities,
            filter: self.filter.as_ref(),
            preserve_fds: self.preserve_fds,
        }
        .prepare(link)?;
        link.report_ready().map_err(|e| e.to_string())?;
        self.wait_for_start()?;
        self.start_hooks(&ready)?;
        ready.exec()
    }

    fn enter_namespaces(&self, link: &Link) -> Step {
        let plan = self.namespaces;
        if plan.join_user.is_some() || plan.join_pid.is_some() {
            // Others in there must not look into this process while it is half inside.
            dumpable(false)?;
        }
        plan.enter()?;
        if plan.copy_mount {
            rootfs::go_to(self.rootfs)?;
        }
        let mut unshared = if plan.copy_mount { libc::CLONE_NEWNS } else { 0 };
        if plan.join_user.is_some() {
            become_namespace_root()?;
            // New namespaces must belong to the joined user namespace, so they could not be made by the fork.
            unshared |= plan.new & !libc::CLONE_NEWPID;
        } else if plan.new_user() {
            become_namespace_root()?;
            // Nobody else is in this namespace yet; without this its own /proc/self would be closed to it.
            dumpable(true)?;
        }
        unshare(CloneFlags::from_bits_retain(unshared)).map_err(|e| format!("unshare: {}", words(e)))?;
        if plan.join_user.is_some() && plan.has_new(libc::CLONE_NEWPID) {
            fork_again(link, libc::CLONE_NEWPID)?;
        }
        if plan.new_cgroup {
            unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| format!("cgroup namespace: {}", words(e)))?;
        }
        if plan.has_new(libc::CLONE_NEWNET) {
            loopback_up();
        }
        if net_device::of(self.spec).is_some() {
            link.send(Tag::Devices, "").and_then(|()| link.expect(Tag::Devices)).map_err(words)?;
        }
        self.name()
    }

    /// Host and domain name; the check of the configuration has seen to it that they are not the host's.
    fn name(&self) -> Step {
        if let Some(name) = self.spec.hostname().as_ref().filter(|n| !n.is_empty()) {
            nix::unistd::sethostname(name).map_err(|e| format!("hostname: {}", words(e)))?;
        }
        if let Some(name) = self.spec.domainname().as_ref().filter(|n| !n.is_empty()) {
            create_syscall().set_domainname(name).map_err(|e| format!("domainname: {}", hook::chain(&e)))?;
        }
        Ok(())
    }

    fn hooks_before_pivot(&self, link: &Link) -> Step {
        let Some(hooks) = self.spec.hooks() else { return Ok(()) };
        link.send(Tag::Hooks, "").and_then(|()| link.expect(Tag::Hooks)).map_err(|e| e.to_string())?;
        // In the rootfs, which is the working directory.
        let place = hook::Place { dir: None, env: None };
        hook::run_inside(place, "createContainer", hooks.create_container().as_ref(), self.record, Status::Creating)
            .map_err(|e| e.line())
    }

    fn start_hooks(&self, ready: &Ready) -> Step {
        let Some(hooks) = self.spec.hooks() else { return Ok(()) };
        let place = hook::Place { dir: None, env: Some(&ready.environment) };
        hook::run_inside(place, "startContainer", hooks.start_container().as_ref(), self.record, Status::Created)
            .map_err(|e| e.line())
    }

    fn wait_for_start(&mut self) -> Step {
        let Some(mut fifo) = self.fifo.take() else { return Ok(()) };
        let mut byte = [0];
        fifo.read_exact(&mut byte).map_err(|e| format!("waiting for start: {e}"))
    }
}

/// The steps between "in the container" and "is the program", the same for `create` and `exec`.
pub(crate) struct Finish<'a> {
    pub spec: &'a Spec,
    pub process: &'a Process,
    pub capabilities: Sets,
    pub filter: Option<&'a Filter>,
    pub preserve_fds: u32,
}

/// All that execve needs.
pub(crate) struct Ready {
    path: CString,
    args: Vec<CString>,
    environment: Vec<CString>,
}

impl Ready {
    pub(crate) fn exec(&self) -> Step<Infallible> {
        nix::unistd::execve(&self.path, &self.args, &self.environment).map_err(|e| {
            let reason =
                if e == nix::Error::ENOEXEC { "exec format error".to_owned() } else { e.desc().to_lowercase() };
            format!("exec {}: {reason}", self.path.to_string_lossy())
        })
    }
}

impl Finish<'_> {
    /// Personality, LSM, working directory, seccomp, user and capabilities; finds the program.
    pub(crate) fn prepare(&self, link: &Link) -> Step<Ready> {
        let (process, linux) = (self.process, self.spec.linux().as_ref().ok_or("linux is required")?);
        if let Some(personality) = linux.personality() {
            use libcontainer::config::PersonalityDomain;
            use oci_spec::runtime::LinuxPersonalityDomain;
            if personality.flags().as_ref().is_some_and(|f| !f.is_empty()) {
                return Err("personality.flags is not supported".into());
            }
            let domain = match personality.domain() {
                LinuxPersonalityDomain::PerLinux => PersonalityDomain::Linux,
                LinuxPersonalityDomain::PerLinux32 => PersonalityDomain::Linux32,
            };
            create_syscall().personality(domain).map_err(|e| format!("personality: {e}"))?;
        }
        if let Some(policy) = linux.memory_policy() {
            memory_policy::apply(policy)?;
        }
        lsm::confine(process)?;
        let mask = nix::sys::stat::Mode::from_bits_truncate(process.user().umask().unwrap_or(0o022));
        nix::sys::stat::umask(mask);
        credentials::own_stdio(process);
        let setgroups = credentials::may_setgroups();
        let environment = environment::build(process, &listen_environment())?;
        sys::clone::cloexec_from(3 + self.preserve_fds).map_err(|e| format!("cannot close descriptors: {e}"))?;
        // Before the change of user if root may go there, after it if only the user may.
        let arrived = nix::unistd::chdir(process.cwd());
        let no_new_privileges = process.no_new_privileges() == Some(true);
        credentials::drop_bounding(&self.capabilities)?;
        // Loading a filter takes privilege unless there can be no new ones: then it comes last.
        if let Some(filter) = self.filter.filter(|_| !no_new_privileges) {
            filter.load(link)?;
        }
        credentials::become_user(process, &self.capabilities, setgroups)?;
        if arrived.is_err() {
            nix::unistd::chdir(process.cwd()).map_err(|e| {
                format!("chdir to cwd ({:?}) set in config.json failed: {}", process.cwd(), e.desc().to_lowercase())
            })?;
        }
        credentials::verify_cwd()?;
        let names = process.args().as_ref().filter(|a| !a.is_empty()).ok_or("process.args is required")?;
        let path = environment::executable(&names[0], &environment)?;
        let args = environment::c_strings(names)?;
        if no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(|e| format!("noNewPrivileges: {e}"))?;
            if let Some(filter) = self.filter {
                filter.load(link)?;
            }
        }
        Ok(Ready { path, args, environment })
    }
}

/// Socket activation: what systemd passed to us is passed on, with the pid the program will see.
fn listen_environment() -> Vec<String> {
    match listen_fds() {
        0 => vec![],
        n => vec![format!("LISTEN_FDS={n}"), "LISTEN_PID=1".into()],
    }
}

/// How many activated sockets this process was given.
pub(crate) fn listen_fds() -> u32 {
    // Asked first before the fork: the child has another pid.
    static COUNT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *COUNT.get_or_init(|| {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let ours = number("LISTEN_PID") == Some(std::process::id());
        number("LISTEN_FDS").filter(|n| ours && *n < 4096).unwrap_or(0)
    })
}

/// Root of the user namespace that was just entered.
pub(crate) fn become_namespace_root() -> Step {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let failed = |e| format!("cannot become root of the user namespace: {e}");
    if credentials::may_setgroups() {
        setgroups(&[]).map_err(failed)?;
    }
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).map_err(failed)?;
    setresuid(uid, uid, uid).map_err(failed)
}

/// Forks once more, into a pid namespace (a new one with `CLONE_NEWPID`, or the one that was joined for children), as a
/// sibling: the parent gets the pid and adopts the child.
pub(crate) fn fork_again(link: &Link, flags: i32) -> Step {
    match fork_into(flags, true).map_err(|e| format!("pid namespace: {e}"))? {
        // A terminal can only be had by the leader of a session.
        Side::Child => nix::unistd::setsid().map(drop).map_err(|e| format!("setsid: {e}")),
        Side::Parent(pid, _) => {
            let sent = link.send(Tag::Pid, &pid.to_string());
            exit_now(i32::from(sent.is_err()))
        }
    }
}

/// Lets the runtime see what has become of the container before it may start. Ahead of any seccomp filter, which may
/// forbid sendmsg(2).
fn show_root(link: &Link) -> Step {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let root =
        openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| format!("/: {}", words(e)))?;
    link.send_with(Tag::Root, "", Some(root.as_fd())).map_err(words)
}

fn dumpable(yes: bool) -> Step {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    let behavior = if yes { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    set_dumpable_behavior(behavior).map_err(|e| format!("dumpable: {}", words(e)))
}

/// Standard streams on the host's `/dev/null` become the container's, so that no host inode stays open.
fn reopen_null() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let null = libc::makedev(1, 3);
    let Ok(own) = File::options().read(true).write(true).open("/dev/null") else { return };
    if !own.metadata().is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == null) {
        return;
    }
    for fd in 0..3 {
        if nix::sys::stat::fstat(fd).is_ok_and(|s| s.st_rdev == null && s.st_mode & libc::S_IFMT == libc::S_IFCHR) {
            let _ = nix::unistd::dup2(own.as_raw_fd(), fd);
        }
    }
}

/// Brings up `lo` in a new network namespace; a kernel that refuses leaves it down.
fn loopback_up() {
    let _ = sys::clone::interface_up("lo");
}
