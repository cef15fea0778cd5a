//! From a fresh process to a created container: mounts, configuration, runtime `create`. Blocking; the loop follows.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci::shim::{Kind, Launch, Reply, Request, SOCKET};
use serde_json::Value;
use sys::process::SignalFd;

use crate::client::{Client, Role};
use crate::config;
use crate::console::ConsoleSocket;
use crate::error::{Error, chain};
use crate::event_loop::Shim;
use crate::json_log::JsonLog;
use crate::process::{INIT, Io, Process};
use crate::runtime_cli::{self, Stdio3};

/// Largest configuration, passwd or group file that is read.
const MAX_FILE: u64 = 16 << 20;

/// Takes the launch order from `control`, makes the container and answers.
pub(crate) fn prepare(control: UnixStream) -> Result<Shim, Error> {
    let mut control = Client::new(0, control, Role::Control).map_err(Error::system("control connection"))?;
    let launch = receive_order(&mut control)?;
    match create(launch) {
        Ok(mut shim) => {
            control.send_json(Kind::Reply, &Reply::Created { pid: shim.init_pid() });
            shim.adopt(control);
            Ok(shim)
        }
        Err(error) => {
            let reply = Reply::Error { failure: error.failure(), message: chain(&error) };
            control.send_json(Kind::Reply, &reply);
            Err(error)
        }
    }
}

fn receive_order(control: &mut Client) -> Result<Launch, Error> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        if let Some((kind, payload)) = control.next_frame() {
            return match (kind, serde_json::from_slice(&payload)) {
                (Kind::Request, Ok(Request::Launch(launch))) => Ok(*launch),
                (_, Err(error)) => Err(Error::Control(error.to_string())),
                _ => Err(Error::Control("the first message is no launch order".into())),
            };
        }
        if control.gone {
            return Err(Error::Control("closed before the launch order".into()));
        }
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(control.fd(), rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, None);
        control.receive(&mut buffer);
    }
}

fn create(launch: Launch) -> Result<Shim, Error> {
    let signals =
        SignalFd::new(&[libc_signals::SIGCHLD, libc_signals::SIGTERM, libc_signals::SIGINT, libc_signals::SIGHUP])
            .map_err(Error::system("signalfd"))?;
    sys::mount::private_namespace().map_err(Error::system("make a private mount namespace"))?;
    let run_dir = sys::fd::open_dir(Path::new(&launch.run_dir)).map_err(Error::file("open", &launch.run_dir))?;
    let presence = lock_presence(&launch)?;
    let spec = write_config(&launch)?;
    // Only now: a program that serves the rootfs is not ours, it ends with the last user of its mount.
    sys::process::become_subreaper().map_err(Error::system("become a subreaper"))?;
    let log = launch.log.as_ref().map(JsonLog::open).transpose().map_err(Error::system("open the log"))?;
    let listener = sys::fd::listen(&run_dir, SOCKET).map_err(Error::file("listen in", &launch.run_dir))?;
    listener.set_nonblocking(true).map_err(Error::system("listen"))?;
    forget_old(&launch);
    let made = call_create(&launch, &spec, &run_dir).and_then(|made| publish(&launch).map(|()| made));
    let (pid, io) = made.inspect_err(|_| forget_old(&launch))?;
    let cgroup = sys::cgroup::Paths::of(pid).unwrap_or_default();
    let init = Process { key: INIT, id: String::new(), pid, io, ended: None };
    let facts = config::Facts::of(&spec);
    Ok(Shim::new(launch, init, signals, listener, run_dir, presence, log, cgroup, facts))
}

/// Signal numbers of Linux on every architecture that Rust's standard library runs containers on.
mod libc_signals {
    pub(super) const SIGHUP: i32 = 1;
    pub(super) const SIGINT: i32 = 2;
    pub(super) const SIGTERM: i32 = 15;
    pub(super) const SIGCHLD: i32 = 17;
}

/// The presence file, locked but not yet under its name.
fn lock_presence(launch: &Launch) -> Result<File, Error> {
    let path = staged_presence(launch);
    let file = File::create(&path).map_err(Error::file("create", &path))?;
    if !sys::fd::lock_record(&file).map_err(Error::file("lock", &path))? {
        return Err(Error::Control(format!("another shim holds {}", path.display())));
    }
    Ok(file)
}

fn staged_presence(launch: &Launch) -> PathBuf {
    Path::new(&launch.run_dir).join("presence")
}

/// From here on everybody sees that the container is there.
fn publish(launch: &Launch) -> Result<(), Error> {
    let path = Path::new(&launch.presence);
    fs::rename(staged_presence(launch), path).map_err(Error::file("rename to", path))
}

fn write_config(launch: &Launch) -> Result<Value, Error> {
    let container = Path::new(&launch.container_dir);
    let given = container.join("oci.json");
    let text = fs::read(&given).map_err(Error::file("read", &given))?;
    let spec: Value = serde_json::from_slice(&text).map_err(|error| Error::Config(error.to_string()))?;
    drop(text);
    let bundle = container.join("bundle");
    let rootfs = bundle.join("rootfs");
    fs::create_dir_all(&rootfs).map_err(Error::file("create", &rootfs))?;
    mount_rootfs(launch, &rootfs)?;
    let root = match config::absolute_root(&spec) {
        Some(path) if launch.rootfs.is_empty() => PathBuf::from(path),
        _ => rootfs,
    };
    let user = resolve_user(launch, &root)?;
    let spec = config::complete(spec, launch, user.as_ref())?;
    let path = bundle.join("config.json");
    let bytes = serde_json::to_vec(&spec).map_err(|error| Error::Config(error.to_string()))?;
    fs::write(&path, bytes).map_err(Error::file("write", &path))?;
    Ok(spec)
}

fn mount_rootfs(launch: &Launch, rootfs: &Path) -> Result<(), Error> {
    let mounts: Vec<sys::mount::Mount> = launch
        .rootfs
        .iter()
        .map(|mount| sys::mount::Mount {
            fstype: mount.fstype.clone(),
            source: mount.source.clone().into(),
            target: mount.target.clone().into(),
            options: mount.options.clone(),
        })
        .collect();
    sys::mount::mount_all(rootfs, &mounts).map_err(Error::Mount)
}

fn resolve_user(launch: &Launch, root: &Path) -> Result<Option<oci::user::User>, Error> {
    if launch.user.is_empty() && launch.additional_groups.is_empty() {
        return Ok(None);
    }
    let passwd = sys::inside::text(root, "etc/passwd", MAX_FILE);
    let group = sys::inside::text(root, "etc/group", MAX_FILE);
    oci::user::resolve(&launch.user, &launch.additional_groups, &passwd, &group)
        .map(Some)
        .map_err(|source| Error::User { user: launch.user.clone(), source })
}

/// A runtime's leftover of a shim that was killed would make `create` refuse the id.
fn forget_old(launch: &Launch) {
    if Path::new(&launch.runtime_root).join(&launch.id).exists()
        && let Ok(call) = runtime_cli::call(launch, "delete", &["--force"], Stdio3::null())
    {
        let _ = call.wait();
    }
}

fn call_create(launch: &Launch, spec: &Value, run_dir: &OwnedFd) -> Result<(i32, Io), Error> {
    let directory = Path::new(&launch.run_dir);
    let pid_file = directory.join("init.pid");
    let bundle = Path::new(&launch.container_dir).join("bundle");
    let (pid_file_arg, bundle_arg) = (pid_file.to_string_lossy(), bundle.to_string_lossy());
    let mut args = vec!["--bundle", &*bundle_arg, "--pid-file", &*pid_file_arg];
    let io = if config::has_terminal(spec) {
        let console = ConsoleSocket::listen(run_dir, directory, "console.sock")?;
        let path = console.path.clone();
        args.extend(["--console-socket", &path]);
        runtime_cli::call(launch, "create", &args, Stdio3::null())?.wait()?;
        Io::terminal(console.receive()?, launch.size)?
    } else {
        let (io, stdio) = Io::pipes(launch.open_stdin, config::Facts::of(spec).root)?;
        let call = runtime_cli::call(launch, "create", &args, stdio)?;
        call.wait().map_err(|error| with_output(error, io.output[1].as_ref()))?;
        io
    };
    let pid = read_pid(&pid_file)?;
    Ok((pid, io))
}

/// A runtime that logged nothing may have complained on stderr, which was to be the container's.
fn with_output(error: Error, stderr: Option<&OwnedFd>) -> Error {
    let Error::Runtime { program, verb, message } = error else { return error };
    let mut buffer = [0_u8; 4096];
    let said = stderr.and_then(|fd| rustix::io::read(fd, &mut buffer).ok()).unwrap_or(0);
    let text = String::from_utf8_lossy(&buffer[..said]).trim().to_owned();
    let message = if message.contains("said nothing") && !text.is_empty() { text } else { message };
    Error::Runtime { program, verb, message }
}

pub(crate) fn read_pid(path: &Path) -> Result<i32, Error> {
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    text.trim().parse().map_err(|_| Error::Control(format!("{} holds no pid: {text:?}", path.display())))
}
