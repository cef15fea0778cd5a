//! `create` and `run`: from a bundle to a parked or running process. The parent's side.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use oci_spec::runtime::{Process, Spec};
use sys::clone::{Side, fork_into_cgroup, pidfd_send_signal};

use crate::bundle::{self, Bundle};
use crate::capability;
use crate::cgroup::{self, Placement};
use crate::error::Context;
use crate::foreground::Foreground;
use crate::harden::{harden, settle_paths};
use crate::hook;
use crate::init::{self, Init};
use crate::link::{self, Link, Tag};
use crate::namespace::{ForChildren, Namespaces, write_id_maps};
use crate::notify_socket::Relay;
use crate::process::Identity;
use crate::seccomp::{self, Filter};
use crate::source::Opener;
use crate::state::{Record, Status, Store};
use crate::terminal::Proxy;
use crate::{Error, Result, lsm, net_device, notify_socket, rdt, verify};

/// What `create` and `run` take.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The bundle directory.
    pub bundle: PathBuf,
    /// Gets the pty's master when `process.terminal` is set.
    pub console_socket: Option<PathBuf>,
    /// Gets a pidfd of the init process.
    pub pidfd_socket: Option<PathBuf>,
    /// Gets the init's pid, as the last step.
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivot_root (for a ramfs root).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Descriptors 3 to 3+N-1 stay open in the program.
    pub preserve_fds: u32,
    /// Who makes the cgroups.
    pub cgroup_manager: cgroup::Manager,
}

/// What `run` takes besides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Run {
    /// Return as soon as the program runs.
    pub detach: bool,
    /// Keep the record after the end.
    pub keep: bool,
    /// Do not adopt the container's orphans.
    pub no_subreaper: bool,
}

/// A process that has been set up.
struct Live {
    identity: Identity,
    pidfd: OwnedFd,
    link: Link,
    record: Record,
    spec: Spec,
    terminal: Option<Proxy>,
    relay: Option<Relay>,
}

/// Sets a container up and parks its process.
///
/// # Errors
/// Any; nothing is left behind then.
pub fn create(store: &Store, id: &str, options: &Options, warn: &mut dyn FnMut(&str)) -> Result<()> {
    set_up(store, id, options, Mode::Create, warn).map(drop)
}

/// Sets a container up and lets it run. In the foreground, returns the program's exit code when it ends.
///
/// # Errors
/// Any; nothing is left behind then.
pub fn run(store: &Store, id: &str, options: &Options, how: Run, warn: &mut dyn FnMut(&str)) -> Result<u8> {
    let foreground = if how.detach { None } else { Some(Foreground::new()?) };
    if foreground.is_some() && !how.no_subreaper {
        let me = rustix::process::getpid();
        let _ = rustix::process::set_child_subreaper(Some(me));
    }
    let live = set_up(store, id, options, if how.detach { Mode::RunDetached } else { Mode::Run }, warn)?;
    let end = |store: &Store| crate::delete::delete(store, id, true);
    if let Some(message) = live.link.receive().step(|| "waiting for the program".into())? {
        let _ = end(store);
        return Err(Error::from_init(message.text));
    }
    let hooks = live.spec.hooks().as_ref().and_then(|h| h.poststart().as_ref());
    if let Err(e) = hook::run("poststart", hooks, &live.record, Status::Running, Some(live.identity.pid)) {
        let _ = end(store);
        return Err(e);
    }
    let Some(mut foreground) = foreground else {
        if let Some(relay) = live.relay {
            relay.wait(live.identity.pid, &live.pidfd).step(|| "NOTIFY_SOCKET".into())?;
        }
        return Ok(0);
    };
    foreground.relay(live.relay)?;
    let code = foreground.wait(live.identity.pid, &live.pidfd, live.terminal, !how.no_subreaper);
    if !how.keep
        && let Err(e) = end(store)
    {
        warn(&e.line());
    }
    code
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    Run,
    RunDetached,
}

/// Takes everything back unless told that it is complete.
struct Undo<'a> {
    store: &'a Store,
    id: &'a str,
    cgroup: Placement,
    intel_rdt: Vec<PathBuf>,
    child: Option<(i32, OwnedFd)>,
    armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Some((pid, fd)) = &self.child {
            let _ = pidfd_send_signal(fd, libc::SIGKILL);
            let _ = waitpid(Pid::from_raw(*pid), None);
        }
        let _ = self.cgroup.remove();
        let _ = rdt::leave(&self.intel_rdt);
        let _ = self.store.remove(self.id);
    }
}

/// What a container is to be, settled before anything is made.
struct Plan {
    spec: Spec,
    process: Process,
    namespaces: Namespaces,
    capabilities: capability::Sets,
    /// Our end, and the foreground's.
    console: (Option<OwnedFd>, Option<Link>),
    record: Record,
}

impl Plan {
    fn of(id: &str, options: &Options, mode: Mode, warn: &mut dyn FnMut(&str)) -> Result<Self> {
        crate::id::check(id)?;
        let Bundle { path, rootfs, mut spec, warnings } = bundle::read(&options.bundle)?;
        // At once: what was left out may be why the rest fails.
        warnings.iter().for_each(|w| warn(w));
        settle_paths(&mut spec, &path, &rootfs);
        harden(&mut spec)?;
        let process = spec.process().clone().ok_or_else(|| Error::Refused("process is required".into()))?;
        lsm::check(&spec, &process)?;
        rdt::check(&spec)?;
        let console = console(&process, options.console_socket.as_deref(), mode != Mode::Run)?;
        check_preserved(options.preserve_fds)?;
        let namespaces = Namespaces::of(&spec)?;
        let user_namespace = namespaces.new_user() || namespaces.join_user.is_some();
        // A new user namespace grants everything within itself.
        let grantable = if user_namespace { u64::MAX } else { capability::bounding() };
        let (capabilities, lost) = capability::plan(process.capabilities().as_ref(), grantable);
        lost.iter().for_each(|w| warn(w));
        let cgroup = Placement::plan(&spec, id, options.cgroup_manager)?;
        let record = Record::of(&spec, id, path, rootfs, cgroup)?;
        Ok(Self { spec, process, namespaces, capabilities, console, record })
    }
}

fn set_up(store: &Store, id: &str, options: &Options, mode: Mode, warn: &mut dyn FnMut(&str)) -> Result<Live> {
    let plan = Plan::of(id, options, mode, warn)?;
    let Plan { mut spec, process, namespaces, capabilities, console: (console, terminal), mut record } = plan;
    let dir = store.reserve(id)?;
    let mut undo = Undo { store, id, cgroup: Placement::default(), intel_rdt: vec![], child: None, armed: true };
    let section = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let filter = section.map(|s| Filter::for_new(store.root(), &dir, s)).transpose()?;
    notify_socket::offer(&mut spec, &dir)?;
    let process = spec.process().clone().unwrap_or(process);
    let relay = if mode == Mode::Create { None } else { Relay::bind(&dir)? };
    store.begin(&mut record, &spec)?.iter().for_each(|w| warn(w));
    undo.cgroup = record.cgroup.clone();
    let fifo = if mode == Mode::Create { Some(store.make_fifo(id)?) } else { None };

    let (link, child_link) = Link::pair().step(|| "socketpair".into())?;
    let init = Init {
        spec: &spec,
        process: &process,
        record: &record,
        rootfs: &record.rootfs,
        cgroup: &record.cgroup,
        namespaces: &namespaces,
        capabilities,
        filter,
        console,
        fifo,
        no_pivot: options.no_pivot,
        keyring: !options.no_new_keyring,
        preserve_fds: options.preserve_fds + init::listen_fds(),
    };
    let (pid, pidfd) = {
        let _for_children = ForChildren::enter(&namespaces, &spec)?;
        // Namespaces of a joined user namespace have to be made inside it.
        let flags = if namespaces.join_user.is_some() { 0 } else { namespaces.new };
        match fork_into_cgroup(flags, record.cgroup.entry()).step(|| "cannot clone the container's process".into())? {
            Side::Child => {
                drop(link);
                undo.armed = false;
                init::run(&child_link, || init.body(&child_link))
            }
            Side::Parent(pid, pidfd) => (pid, pidfd),
        }
    };
    drop(child_link);
    undo.child = Some((pid, pidfd.try_clone().step(|| "pidfd".into())?));
    record.cgroup.admit(pid, id, &spec)?.iter().for_each(|w| warn(w));
    record.intel_rdt = rdt::join(&spec, id, pid)?;
    undo.intel_rdt.clone_from(&record.intel_rdt);
    if namespaces.new_user() {
        write_id_maps(pid, &spec)?;
    }
    prepare_process(pid, &process)?;
    link.send(Tag::Go, "").step(|| "the container's process has gone".into())?;
    let (pid, pidfd) = accompany(&link, &spec, &record, (pid, pidfd), &mut undo)?;

    let identity = publish(store, &mut record, options, (pid, &pidfd))?;
    // Set up before the program can write the first byte.
    let terminal = terminal.as_ref().map(Proxy::new).transpose()?;
    link.send(Tag::Recorded, "").step(|| "the container's process has gone".into())?;
    undo.armed = false;
    drop(undo);
    Ok(Live { identity, pidfd, link, record, spec, terminal, relay })
}

/// Lets the record and the caller know the process that is ready.
fn publish(store: &Store, record: &mut Record, options: &Options, child: (i32, &OwnedFd)) -> Result<Identity> {
    let (pid, pidfd) = child;
    let identity = Identity::of(pid).step(|| "the container's process has gone".into())?;
    record.init = Some(identity);
    store.save(record)?;
    if let Some(path) = &options.pidfd_socket {
        send_pidfd(path, pidfd)?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, pid)?;
    }
    Ok(identity)
}

/// Answers the child until it is ready.
fn accompany(
    link: &Link,
    spec: &Spec,
    record: &Record,
    child: (i32, OwnedFd),
    undo: &mut Undo<'_>,
) -> Result<(i32, OwnedFd)> {
    let (mut pid, mut pidfd) = child;
    let mut sources = Opener::new(spec.mounts().as_deref().unwrap_or(&[]));
    // Shown early, because a seccomp filter may forbid sendmsg(2); looked at last.
    let mut root = None;
    loop {
        let message = link.receive().step(|| "the container's process has gone".into())?;
        let Some(message) = message else {
            return Err(Error::Init("it ended during setup (killed, or out of memory)".into()));
        };
        match message.tag {
            Tag::Root => root = message.fd,
            Tag::Ready => {
                let root = root.ok_or_else(|| Error::Init("it did not show its root".into()))?;
                verify::paths(root, spec)?;
                return Ok((pid, pidfd));
            }
            Tag::Failed => return Err(Error::from_init(message.text)),
            Tag::Hooks => {
                hook::run_before_pivot(spec, record, pid)?;
                link.send(Tag::Hooks, "").step(|| "the container's process has gone".into())?;
            }
            Tag::Notify => {
                seccomp::answer(link, &message, (pid, &pidfd), spec, record, "creating")?;
            }
            Tag::Pid => {
                let _ = waitpid(Pid::from_raw(pid), None);
                pid = message.text.parse().map_err(|_| Error::Init("no pid from the intermediate process".into()))?;
                pidfd = sys::pidfd::open(pid).step(|| "pidfd_open".into())?;
                undo.child = Some((pid, pidfd.try_clone().step(|| "pidfd".into())?));
            }
            Tag::Devices => {
                if let Some(devices) = net_device::of(spec) {
                    net_device::move_all(devices, pid, &pidfd)?;
                }
                link.send(Tag::Devices, "").step(|| "the container's process has gone".into())?;
            }
            Tag::Source => sources.answer(link, &message.text, pid, &pidfd)?,
            Tag::Go | Tag::Recorded => return Err(Error::Init("out of turn".into())),
        }
    }
}

/// What the parent sets on a waiting child, with rights the child may not have any more.
pub(crate) fn prepare_process(pid: i32, process: &Process) -> Result<()> {
    for limit in process.rlimits().iter().flatten() {
        sys::clone::prlimit(pid, limit.typ() as u32, limit.soft(), limit.hard())
            .step(|| format!("cannot set {} to {}:{}", limit.typ(), limit.soft(), limit.hard()))?;
    }
    reset_affinity(pid);
    if let Some(score) = process.oom_score_adj() {
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
            .step(|| format!("cannot set oomScoreAdj to {score}"))?;
    }
    Ok(())
}

/// The CPUs that its cgroup allows, whatever this process was confined to. Newer kernels remember what was asked for, and
/// follow later changes of the cpuset only within that: so all.
fn reset_affinity(pid: i32) {
    let mut all = rustix::thread::CpuSet::new();
    (0..rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    // As runc: a caller without the right to widen keeps what it has.
    let _ = rustix::thread::sched_setaffinity(rustix::process::Pid::from_raw(pid), &all);
}

/// The socket that the child will send its terminal over; for the foreground, our own end of it as well.
pub(crate) fn console(
    process: &Process,
    socket: Option<&Path>,
    detached: bool,
) -> Result<(Option<OwnedFd>, Option<Link>)> {
    match (process.terminal() == Some(true), socket) {
        (false, None) => Ok((None, None)),
        (false, Some(_)) => Err(Error::Argument("cannot use console socket if the process has no terminal".into())),
        (true, None) if detached => {
            Err(Error::Argument("cannot allocate tty if detaching without a console socket".into()))
        }
        (true, None) => {
            let (ours, theirs) = Link::pair().step(|| "socketpair".into())?;
            Ok((Some(theirs.into_fd()), Some(ours)))
        }
        (true, Some(path)) => {
            let socket =
                link::connect(path).step(|| format!("cannot connect to the console socket {}", path.display()))?;
            Ok((Some(socket), None))
        }
    }
}

/// Descriptors to be preserved must be there, and must not be a way out: no directories (CVE-2024-21626).
pub(crate) fn check_preserved(count: u32) -> Result<()> {
    if count > 1024 {
        return Err(Error::Argument(format!("preserve-fds {count} is too many")));
    }
    for n in 3..3 + count {
        match std::fs::metadata(format!("/proc/self/fd/{n}")) {
            Ok(meta) if meta.is_dir() => {
                return Err(Error::Argument(format!("preserve-fds {count}: descriptor {n} is a directory")));
            }
            Ok(_) => {}
            Err(_) => return Err(Error::Argument(format!("preserve-fds {count}: descriptor {n} is not open"))),
        }
    }
    Ok(())
}

pub(crate) fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<()> {
    let failed = || format!("cannot send the pidfd to {}", path.display());
    let socket = link::connect(path).step(failed)?;
    link::send_fd(&socket, b"pidfd", pidfd.as_fd()).step(failed)
}

/// Writes a pid file in one step: a reader sees all of it or nothing.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let failed = || format!("cannot write the pid file {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::Argument(format!("pid file {path:?} is no file name")))?;
    let staged = path.with_file_name(format!(".{}", name.to_string_lossy()));
    std::fs::write(&staged, pid.to_string()).and_then(|()| std::fs::rename(&staged, path)).step(failed)
}
