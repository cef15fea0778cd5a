//! `exec`: one more process in a running container, with the container's namespaces (the user namespace too), cgroups
//! and seccomp filter.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use oci_spec::runtime::{ExecCPUAffinity, LinuxNamespaceType, Process, Spec};
use sys::clone::{Side, fork_into_cgroup, pidfd_send_signal};

use crate::bundle;
use crate::capability::{self, Sets};
use crate::cgroup::Placement;
use crate::create::{check_preserved, console, prepare_process, send_pidfd, write_pid_file};
use crate::error::Context;
use crate::foreground::Foreground;
use crate::harden::namespace;
use crate::init::{self, Finish};
use crate::link::{Link, Tag};
use crate::mounting::Step;
use crate::namespace::join_process;
use crate::seccomp::{self, Filter};
use crate::state::{Status, Store};
use crate::terminal::{self, Proxy};
use crate::{Error, Result, credentials};

/// What to run: a whole process object, or changes to the container's own.
#[derive(Debug, Clone)]
pub enum What {
    /// `--process FILE`.
    File(PathBuf),
    /// Arguments and changes.
    Changes(Box<Changes>),
}

/// Changes to the container's own process; `None` and empty keep what it has.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Program and arguments. Required.
    pub args: Vec<String>,
    /// `--tty`.
    pub tty: bool,
    /// `uid[:gid]`.
    pub user: Option<(u32, Option<u32>)>,
    /// More groups.
    pub additional_gids: Vec<u32>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// `NAME=value`, added.
    pub env: Vec<String>,
    /// Capability names, added to all sets but ambient.
    pub capabilities: Vec<String>,
    /// `--no-new-privs`.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub label: Option<String>,
}

/// How to run it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Return once it runs.
    pub detach: bool,
    /// Gets its pid.
    pub pid_file: Option<PathBuf>,
    /// Gets the pty's master.
    pub console_socket: Option<PathBuf>,
    /// Gets a pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// Descriptors kept open.
    pub preserve_fds: u32,
    /// Allow a paused container; the process starts when it is resumed.
    pub ignore_paused: bool,
    /// Sub-cgroups: `path`, or `controller[,controller]:path`.
    pub cgroup: Vec<String>,
}

/// What a message of [`exec`] is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// For `--debug`.
    Debug,
    /// Something left out.
    Warning,
}

/// Runs a process. Returns its exit code, or 0 when detached.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Init`] with the reason from inside, others.
pub fn exec(store: &Store, id: &str, what: &What, options: &Options, say: &mut dyn FnMut(Note, &str)) -> Result<u8> {
    let container = store.load(id)?;
    match container.status {
        Status::Stopped => {
            return Err(Error::Argument(format!("cannot exec in a stopped container: container not running: {id}")));
        }
        Status::Paused if !options.ignore_paused => {
            return Err(Error::Argument(format!(
                "cannot exec in a paused container {id} (use --ignore-paused to override)"
            )));
        }
        _ => {}
    }
    let target = container.init()?;
    let spec = container.config()?;
    let own = spec.process().clone().ok_or_else(|| Error::Refused("the container has no process".into()))?;
    let process = match what {
        What::File(path) => {
            let (process, warnings) = bundle::read_process(path)?;
            warnings.iter().for_each(|w| say(Note::Warning, w));
            process
        }
        What::Changes(changes) => changed(own, changes)?,
    };
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::Argument("process.args is required".into()));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::Argument("process.cwd must be an absolute path".into()));
    }
    let user_namespace = namespace(&spec, LinuxNamespaceType::User).is_some();
    let grantable = if user_namespace { u64::MAX } else { capability::bounding() };
    let (capabilities, lost) = capability::plan(process.capabilities().as_ref(), grantable);
    lost.iter().for_each(|w| say(Note::Warning, w));

    check_preserved(options.preserve_fds)?;
    let foreground = if options.detach { None } else { Some(Foreground::new()?) };
    let (socket, ours) = console(&process, options.console_socket.as_deref(), options.detach)?;
    let cgroup = sub_cgroup(&container.record.cgroup, &options.cgroup)?;
    // From here on the pidfd stands for the container: its pid cannot be another's.
    let pidfd = target.open().map_err(|_| Error::NotRunning { id: id.to_owned(), status: "stopped" })?;
    let section = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let filter = section.map(|s| Filter::of_container(&container.dir, s)).transpose()?;
    let tenant = Tenant {
        spec: &spec,
        process: &process,
        capabilities,
        filter,
        socket,
        preserve_fds: options.preserve_fds,
        pidfd: &pidfd,
    };
    let (pid, child_fd, link) = tenant.spawn(&cgroup, &spec, target.pid, say)?;
    let mut guard = Guard { pid, pidfd: child_fd, armed: true };
    let mut proxy = None;
    loop {
        let Some(message) = link.receive().step(|| "the process has gone".into())? else { break };
        match message.tag {
            Tag::Notify => {
                seccomp::answer(&link, &message, (guard.pid, &guard.pidfd), &spec, &container.record, "running")?;
            }
            Tag::Ready => {
                if let Some(path) = &options.pidfd_socket {
                    send_pidfd(path, &guard.pidfd)?;
                }
                proxy = ours.as_ref().map(Proxy::new).transpose()?;
                link.send(Tag::Recorded, "").step(|| "the process has gone".into())?;
            }
            Tag::Pid => guard = guard.replaced(&message.text)?,
            _ => return Err(Error::from_inside(message.text)),
        }
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, guard.pid)?;
    }
    let (pid, pidfd) = guard.disarm()?;
    let Some(foreground) = foreground else { return Ok(0) };
    foreground.wait(pid, &pidfd, proxy, false)
}

/// Kills a process that could not be handed over.
struct Guard {
    pid: i32,
    pidfd: OwnedFd,
    armed: bool,
}

impl Guard {
    fn disarm(mut self) -> Result<(i32, OwnedFd)> {
        self.armed = false;
        Ok((self.pid, self.pidfd.try_clone().step(|| "pidfd".into())?))
    }

    /// The child has forked into the pid namespace and ended: its own child, now ours, is the process.
    fn replaced(self, pid: &str) -> Result<Self> {
        let (first, _) = self.disarm()?;
        let _ = waitpid(Pid::from_raw(first), None);
        let pid = pid.parse().map_err(|_| Error::Init("no pid from the intermediate process".into()))?;
        Ok(Self { pid, pidfd: sys::pidfd::open(pid).step(|| "pidfd_open".into())?, armed: true })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            let _ = pidfd_send_signal(&self.pidfd, libc::SIGKILL);
            let _ = waitpid(Pid::from_raw(self.pid), None);
        }
    }
}

struct Tenant<'a> {
    spec: &'a Spec,
    process: &'a Process,
    capabilities: Sets,
    filter: Option<Filter>,
    socket: Option<OwnedFd>,
    preserve_fds: u32,
    pidfd: &'a OwnedFd,
}

impl Tenant<'_> {
    fn spawn(
        self,
        cgroup: &Placement,
        spec: &Spec,
        init: i32,
        say: &mut dyn FnMut(Note, &str),
    ) -> Result<(i32, OwnedFd, Link)> {
        // Processes of the container must not look into this one while it is half inside.
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        let (link, child_link) = Link::pair().step(|| "socketpair".into())?;
        let flags = joined(spec);
        let pid_namespace = flags & libc::CLONE_NEWPID != 0;
        let own: OwnedFd =
            std::fs::File::open("/proc/self/ns/pid").step(|| "cannot open /proc/self/ns/pid".into())?.into();
        // Without privilege the container's user namespace has to be joined before; then the child forks once more.
        let late = match pid_namespace.then(|| join_process(self.pidfd, libc::CLONE_NEWPID)) {
            Some(Err(nix::Error::EPERM)) if flags & libc::CLONE_NEWUSER != 0 => true,
            Some(joined) => joined.step(|| "cannot join the pid namespace".into()).map(|()| false)?,
            None => false,
        };
        let flags = if late { flags } else { flags & !libc::CLONE_NEWPID };
        // The initial affinity is for the way into the cgroup: there has to be one.
        let direct = self.process.exec_cpu_affinity().is_none() && self.own_affinity().is_none();
        let forked = fork_into_cgroup(0, cgroup.entry().filter(|_| direct));
        if let Ok(Side::Child) = forked {
            drop(link);
            init::run(&child_link, || self.body(&child_link, flags))
        }
        let _ = setns(&own, CloneFlags::CLONE_NEWPID);
        let Side::Parent(pid, child) = forked.step(|| "cannot clone".into())? else {
            unreachable!("the child has its own branch")
        };
        drop(child_link);
        let guard = Guard { pid, pidfd: child, armed: true };
        self.affinity(pid, true)?;
        say(Note::Debug, &format!("process {pid}: initial affinity: {:#x}", mask(pid)));
        cgroup.join_beside(pid, init)?;
        prepare_process(pid, self.process)?;
        self.affinity(pid, false)?;
        link.send(Tag::Go, "").step(|| "the process has gone".into())?;
        let (pid, child) = guard.disarm()?;
        Ok((pid, child, link))
    }

    fn body(mut self, link: &Link, flags: i32) -> Step<Infallible> {
        init::begin(link, self.preserve_fds)?;
        nix::unistd::setsid().map_err(|e| format!("setsid: {e}"))?;
        let joined =
            |flags| join_process(self.pidfd, flags).map_err(|e| format!("cannot join the container's namespaces: {e}"));
        let mut rest = flags;
        if flags & libc::CLONE_NEWPID != 0 {
            // Forks while /proc is still the one that has an entry for this process.
            let first = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
            joined(first)?;
            init::fork_again(link, 0)?;
            rest &= !first;
        }
        joined(rest)?;
        if flags & libc::CLONE_NEWUSER != 0 {
            init::become_namespace_root()?;
        }
        credentials::scheduling(self.process)?;
        if let Some(socket) = self.socket.take() {
            terminal::set_up(&socket, self.process, false)?;
        }
        let ready = Finish {
            spec: self.spec,
            process: self.process,
            capabilities: self.capabilities,
            filter: self.filter.as_ref(),
            preserve_fds: self.preserve_fds,
        }
        .prepare(link)?;
        link.report_ready().map_err(|e| e.to_string())?;
        ready.exec()
    }

    /// `execCPUAffinity`: the initial one is for the way into the cgroup, the final one for the time there.
    fn affinity(&self, pid: i32, initial: bool) -> Result<()> {
        let Some(wanted) = self.process.exec_cpu_affinity().as_ref().or(self.own_affinity()) else { return Ok(()) };
        let set = if initial { wanted.initial() } else { wanted.cpu_affinity_final() };
        let Some(set) = set.as_deref().filter(|s| !s.is_empty()) else { return Ok(()) };
        libcontainer::process::cpu_affinity::set_cpuset_affinity_from_string(Pid::from_raw(pid), set)
            .map_err(|e| Error::Init(format!("execCPUAffinity: {e}")))
    }

    fn own_affinity(&self) -> Option<&ExecCPUAffinity> {
        self.spec.process().as_ref().and_then(|p| p.exec_cpu_affinity().as_ref())
    }
}

/// The first 64 CPUs that a process may run on, bit N for CPU N.
fn mask(pid: i32) -> u64 {
    let set = rustix::thread::sched_getaffinity(rustix::process::Pid::from_raw(pid)).unwrap_or_default();
    (0..64).filter(|cpu| set.is_set(*cpu)).fold(0, |all, cpu| all | 1 << cpu)
}

/// `CLONE_NEW*` of the namespaces that the container does not share with the runtime.
fn joined(spec: &Spec) -> i32 {
    let list = spec.linux().as_ref().and_then(|l| l.namespaces().clone()).unwrap_or_default();
    list.iter().map(|ns| crate::namespace::flag(ns.typ())).fold(0, |all, flag| all | flag)
}

/// The container's process with changes. Pure.
fn changed(mut process: Process, changes: &Changes) -> Result<Process> {
    process.set_args(Some(changes.args.clone()));
    process.set_terminal(Some(changes.tty));
    if let Some(cwd) = &changes.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(changes.env.iter().cloned());
    process.set_env(Some(env));
    let mut user = process.user().clone();
    if let Some((uid, gid)) = changes.user {
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
    }
    if !changes.additional_gids.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&changes.additional_gids);
        user.set_additional_gids(Some(gids));
    }
    process.set_user(user);
    if changes.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &changes.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &changes.label {
        process.set_selinux_label(Some(label.clone()));
    }
    add_capabilities(&mut process, &changes.capabilities)?;
    Ok(process)
}

fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    // Not `default()`: that one has some.
    let none = || serde_json::from_str("{}").map_err(|e| Error::Argument(e.to_string()));
    let mut sets = process.capabilities().clone().map_or_else(none, Ok)?;
    for name in names {
        let capability: oci_spec::runtime::Capability =
            serde_json::from_value(serde_json::Value::String(name.to_uppercase()))
                .map_err(|_| Error::Argument(format!("unknown capability {name:?}")))?;
        let with = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        // Ambient needs inheritable, which is never widened here.
        let ambient = if sets.inheritable().is_some() { with(sets.ambient()) } else { sets.ambient().clone() };
        sets.set_ambient(ambient);
        sets.set_bounding(bounding);
        sets.set_effective(effective);
        sets.set_permitted(permitted);
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

/// Applies `--cgroup`; the sub-cgroup has to exist and to be below the container's own.
fn sub_cgroup(own: &Placement, wanted: &[String]) -> Result<Placement> {
    let mut placement = own.clone();
    for entry in wanted {
        let (controllers, path) = match entry.split_once(':') {
            Some((controllers, path)) => (Some(controllers.split(',').collect::<Vec<_>>()), path),
            None => (None, entry.as_str()),
        };
        if let Some(unknown) = controllers.iter().flatten().find(|c| own.with(c).is_none()) {
            return Err(Error::Argument(format!("unknown controller {unknown} in {entry:?}")));
        }
        let path: PathBuf = path.trim_start_matches('/').into();
        if path.components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
            return Err(Error::Argument(format!("bad --cgroup: {entry} is not a sub cgroup path")));
        }
        if !path.as_os_str().is_empty() {
            placement = placement.below(controllers.as_deref(), &path);
        }
    }
    Ok(placement)
}

/// Parses `--user uid[:gid]` strictly.
///
/// # Errors
/// [`Error::Argument`].
pub fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let bad = || Error::Argument(format!("user {text:?} is not uid[:gid] in numbers"));
    let number = |part: &str| {
        if part.bytes().all(|b| b.is_ascii_digit()) { part.parse::<u32>().map_err(|_| bad()) } else { Err(bad()) }
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn process() -> Process {
        serde_json::from_value(serde_json::json!({
            "cwd": "/w", "args": ["a"], "env": ["A=1"], "user": {"uid": 5, "gid": 6},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]
        }))
        .unwrap()
    }

    #[test]
    fn changes_inherit() {
        let changes = Changes {
            args: vec!["b".into()],
            env: vec!["B=2".into()],
            capabilities: vec!["cap_kill".into()],
            ..Default::default()
        };
        let p = changed(process(), &changes).unwrap();
        assert_eq!(p.user().uid(), 5);
        assert_eq!(p.cwd().to_str().unwrap(), "/w");
        assert_eq!(p.rlimits().as_ref().unwrap().len(), 1);
        assert_eq!(p.env().as_ref().unwrap(), &["A=1", "B=2"]);
        assert_eq!(p.capabilities().as_ref().unwrap().permitted().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn sub_cgroups_stay_below() {
        let own = Placement::default();
        assert!(sub_cgroup(&own, &["../x".into()]).is_err());
        assert!(sub_cgroup(&own, &["cpu:a/../../x".into()]).is_err());
        assert!(sub_cgroup(&own, &["a/b".into()]).is_ok());
    }
}
