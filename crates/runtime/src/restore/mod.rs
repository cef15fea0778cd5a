//! `restore`: a container from what `checkpoint` wrote. The counterpart of [`crate::create`]: the same bundle, cgroups,
//! hooks and record, but CRIU makes the processes.

mod mountpoint;
mod plan;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, Spec};
use sys::clone::pidfd_send_signal;

use crate::bundle::{self, Bundle};
use crate::cgroup::Placement;
use crate::create::{check_preserved, console, write_pid_file};
use crate::criu::message::{Kind, Request};
use crate::criu::session::{Notice, Session};
use crate::criu::{self, DESCRIPTORS, Directories, Policy};
use crate::error::Context;
use crate::foreground::Foreground;
use crate::harden::{harden, namespace, settle_paths};
use crate::link::{Link, send_fd};
use crate::process::Identity;
use crate::state::{Record, Store};
use crate::terminal::Proxy;
use crate::{Error, Result, hook, lsm, rdt};

/// CRIU's log in the work directory.
const LOG: &str = "restore.log";
/// The directory below the container's state that is the root's mount point in CRIU's mount namespace.
const ROOT: &str = "criu-root";

/// What `restore` takes.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The bundle, the options of `create` that apply, and where cgroups are.
    pub setup: crate::create::Options,
    /// Return once it runs.
    pub detach: bool,
    /// Do not adopt the container's orphans.
    pub no_subreaper: bool,
    /// The directory of the image.
    pub image_path: PathBuf,
    /// The directory for the log; the image's if absent.
    pub work_path: Option<PathBuf>,
    /// As it was told to `checkpoint`.
    pub policy: Policy,
    /// Descriptors 3 to 3+N-1 take the place of the pipes that had these numbers.
    pub preserve_fds: u32,
    /// `TYPE:NAME` of an LSM profile instead of the dumped one.
    pub lsm_profile: Option<String>,
    /// An SELinux mount context instead of the dumped one.
    pub lsm_mount_context: Option<String>,
    /// The CRIU to run; the one in PATH if absent.
    pub criu: Option<PathBuf>,
}

/// Restores a container. In the foreground, returns its exit code when it ends.
///
/// # Errors
/// [`Error::Criu`] with what CRIU said, others; nothing is left behind then.
pub fn restore(store: &Store, id: &str, options: &Options, warn: &mut dyn FnMut(&str)) -> Result<u8> {
    let foreground = if options.detach { None } else { Some(Foreground::new()?) };
    if foreground.is_some() && !options.no_subreaper {
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }
    let (init, terminal, warnings) = set_up(store, id, options)?;
    warnings.iter().for_each(|w| warn(w));
    let Some(foreground) = foreground else { return Ok(0) };
    let gone = || Error::NotRunning { id: id.to_owned(), status: "stopped" };
    let pidfd = init.open().map_err(|_| gone())?;
    let terminal = terminal.as_ref().map(Proxy::new).transpose()?;
    let code = foreground.wait(init.pid, &pidfd, terminal, !options.no_subreaper);
    crate::delete::delete(store, id, true)?.iter().for_each(|w| warn(w));
    code
}

/// Takes everything back unless told that it is complete.
struct Undo<'a> {
    store: &'a Store,
    id: &'a str,
    cgroup: Placement,
    intel_rdt: Vec<PathBuf>,
    armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.cgroup.remove();
            let _ = rdt::leave(&self.intel_rdt);
            let _ = self.store.remove(self.id);
        }
    }
}

fn set_up(store: &Store, id: &str, options: &Options) -> Result<(Identity, Option<Link>, Vec<String>)> {
    crate::id::check(id)?;
    let Bundle { path, rootfs, mut spec, mut warnings } = bundle::read(&options.setup.bundle)?;
    settle_paths(&mut spec, &path, &rootfs);
    harden(&mut spec)?;
    let process = spec.process().clone().ok_or_else(|| Error::Refused("process is required".into()))?;
    lsm::check(&spec, &process)?;
    rdt::check(&spec)?;
    let (socket, terminal) = console(&process, options.setup.console_socket.as_deref(), options.detach)?;
    check_preserved(options.preserve_fds)?;
    if !options.image_path.is_dir() {
        return Err(Error::Argument(format!("{} is not a directory with a checkpoint", options.image_path.display())));
    }
    let program = criu::program(options.criu.as_deref())?;
    criu::check_version(&program)?;
    let directories = Directories::make(&options.image_path, options.work_path.as_deref(), LOG)?;

    let cgroup = Placement::plan(&spec, id, options.setup.cgroup_manager)?;
    let mut record = Record::of(&spec, id, path, rootfs, cgroup)?;
    let dir = store.reserve(id)?;
    let mut undo = Undo { store, id, cgroup: Placement::default(), intel_rdt: vec![], armed: true };
    add_time_namespace(&mut spec);
    warnings.extend(store.begin(&mut record, &spec)?);
    undo.cgroup = record.cgroup.clone();
    let root = dir.join(ROOT);
    fs::create_dir(&root).step(|| format!("cannot make {}", root.display()))?;

    let namespaces = external_namespaces(&spec)?;
    let facts = plan::Facts {
        root: &root,
        outside: criu::mounts::outside(&spec, &record, &|p| criu::mounts::locate(&record.rootfs, p)),
        namespaces: namespaces.iter().map(|(kind, fd)| (*kind, fd.as_raw_fd())).collect(),
        descriptors: descriptors(&options.image_path)?,
    };
    let mut opts = plan::opts(options, &spec, &facts)?;
    opts.log_file = directories.log_file();
    let preserved =
        (3..3 + options.preserve_fds).map(|n| sys::clone::adopt_fd(n as i32)).collect::<Result<Vec<_>, _>>();
    let preserved = preserved.step(|| "preserve-fds".into())?;
    let pass: Vec<BorrowedFd<'_>> =
        namespaces.iter().map(|(_, fd)| fd.as_fd()).chain(preserved.iter().map(AsFd::as_fd)).collect();
    let session = Session::spawn(&program, &pass, Some(&directories), || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("mount namespace: {e}"))?;
        mountpoint::prepare(&spec, &record, &root)
    })?;
    // CRIU makes the processes where it is itself, and may need more of them than the container.
    if pids(&spec).is_some() {
        record.cgroup.limit(&pids_limit(-1))?;
    }
    warnings.extend(record.cgroup.admit(session.pid(), id, &spec)?);
    record.intel_rdt = rdt::join(&spec, id, session.pid())?;
    undo.intel_rdt.clone_from(&record.intel_rdt);
    let own = format!("/proc/{}/cgroup", session.pid());
    opts.cgroup_roots = plan::cgroup_roots(&fs::read_to_string(&own).step(|| format!("cannot read {own}"))?);
    session.fill(&mut opts);
    let mut run = Run { store, spec: &spec, record: &mut record, console: socket, init: None };
    let request = Request { kind: Kind::Restore as i32, opts: Some(opts), ..Request::default() };
    let answered = session.ask(&request, &mut |notice| run.follow(notice));
    let init = run.finish(answered).map_err(|e| directories.explain(e))?;
    let _ = fs::remove_dir(&root);
    if let Some(path) = &options.setup.pid_file
        && let Err(e) = write_pid_file(path, init.pid)
    {
        end(&init);
        return Err(e);
    }
    undo.armed = false;
    Ok((init, terminal, warnings))
}

/// How many processes the container may have, if the configuration says.
fn pids(spec: &Spec) -> Option<i64> {
    Some(spec.linux().as_ref()?.resources().as_ref()?.pids().as_ref()?.limit())
}

/// Nothing but a limit of processes; -1 is none.
fn pids_limit(limit: i64) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_devices(None).set_pids(LinuxPidsBuilder::default().limit(limit).build().ok());
    resources
}

/// CRIU restores into a time namespace (so that the clocks go on), which `exec` has to join.
fn add_time_namespace(spec: &mut Spec) {
    if namespace(spec, LinuxNamespaceType::Time).is_some() || !Path::new("/proc/self/ns/time").exists() {
        return;
    }
    let Some(mut linux) = spec.linux().clone() else { return };
    let mut list = linux.namespaces().clone().unwrap_or_default();
    if let Ok(time) = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Time).build() {
        list.push(time);
    }
    linux.set_namespaces(Some(list));
    spec.set_linux(Some(linux));
}

/// The network and pid namespaces that the container shares with others; they must be there.
fn external_namespaces(spec: &Spec) -> Result<Vec<(LinuxNamespaceType, OwnedFd)>> {
    let mut found = vec![];
    for kind in [LinuxNamespaceType::Network, LinuxNamespaceType::Pid] {
        if let Some(Some(path)) = namespace(spec, kind) {
            let file = File::open(&path).step(|| format!("cannot open namespace {}", path.display()))?;
            found.push((kind, file.into()));
        }
    }
    Ok(found)
}

fn descriptors(images: &Path) -> Result<Vec<String>> {
    let path = images.join(DESCRIPTORS);
    let damaged = |reason: String| Error::Config { path: path.clone(), reason };
    let bytes = fs::read(&path).map_err(|e| damaged(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))
}

/// What happens while CRIU is at work.
struct Run<'a> {
    store: &'a Store,
    spec: &'a Spec,
    record: &'a mut Record,
    console: Option<OwnedFd>,
    init: Option<Identity>,
}

impl Run<'_> {
    fn follow(&mut self, notice: Notice) -> Result<()> {
        match notice.script.as_str() {
            "setup-namespaces" => {
                if namespace(self.spec, LinuxNamespaceType::Network) == Some(None) {
                    loopback_up(notice.pid);
                }
                hook::run_before_pivot(self.spec, self.record, notice.pid)
            }
            "post-restore" => self.restored(notice.pid),
            "orphan-pts-master" => self.terminal(notice.fd),
            _ => Ok(()),
        }
    }

    /// The processes are there, and stopped.
    fn restored(&mut self, pid: i32) -> Result<()> {
        let init = Identity::of(pid).step(|| "the restored process has gone".into())?;
        self.init = Some(init);
        if let Some(limit) = pids(self.spec) {
            self.record.cgroup.limit(&pids_limit(limit))?;
        }
        self.record.init = Some(init);
        self.store.save(self.record)
    }

    fn terminal(&mut self, master: Option<OwnedFd>) -> Result<()> {
        let lost = || Error::Argument("criu sent a terminal, but there is nobody to take it".into());
        let (socket, master) = self.console.as_ref().zip(master).ok_or_else(lost)?;
        send_fd(socket, b"/dev/console", master.as_fd()).step(|| "cannot send the terminal".into())
    }

    /// The restored init, if all went well; else it is ended.
    fn finish<T>(self, answered: Result<T>) -> Result<Identity> {
        let failed = match (answered, self.init) {
            (Ok(_), Some(init)) => return Ok(init),
            (Ok(_), None) => Error::Argument("criu did not say what it restored".into()),
            (Err(e), _) => e,
        };
        if let Some(init) = self.init {
            end(&init);
        }
        Err(failed)
    }
}

/// Kills a process that could not be handed over, and reaps it: it is our child.
fn end(init: &Identity) {
    if let Ok(pidfd) = init.open() {
        let _ = pidfd_send_signal(&pidfd, libc::SIGKILL);
    }
    let _ = waitpid(Pid::from_raw(init.pid), None);
}

/// As at `create`: a new network namespace has its loopback up.
fn loopback_up(pid: i32) {
    if let (Ok(back), Ok(there)) = (File::open("/proc/self/ns/net"), File::open(format!("/proc/{pid}/ns/net")))
        && setns(there, CloneFlags::CLONE_NEWNET).is_ok()
    {
        let _ = sys::clone::interface_up("lo");
        let _ = setns(back, CloneFlags::CLONE_NEWNET);
    }
}
