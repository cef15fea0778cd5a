//! `NOTIFY_SOCKET`: a container's program tells systemd that it is ready (sd_notify(3)), through us.
//!
//! The program gets a socket of its own, bound into the container at `/run/notify`: the host's would let it speak to systemd in
//! its service's name. Only `READY=1` is passed on, with the container's init as the main process.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Context;
use crate::process::wait_end;
use crate::state::{Status, Store};
use crate::{Error, Result, link};

/// Where the container finds it.
const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";
/// How long systemd may take to see what was sent (sd_notify_barrier(3)).
const BARRIER: Duration = Duration::from_secs(30);

/// The host's socket, if the caller has one.
fn host() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|s| !s.is_empty()).map(PathBuf::from)
}

fn dir(state: &Path) -> PathBuf {
    state.join("notify")
}

/// For `create`: a directory that the socket will be in, bound into the container. Nothing without `NOTIFY_SOCKET`.
pub(crate) fn offer(spec: &mut Spec, state: &Path) -> Result<()> {
    if host().is_none() {
        return Ok(());
    }
    let source = dir(state);
    fs::create_dir(&source)
        .and_then(|()| fs::set_permissions(&source, fs::Permissions::from_mode(0o755)))
        .step(|| format!("cannot make {}", source.display()))?;
    let mount = crate::key_case::from_value(&serde_json::json!({
        "destination": INSIDE, "type": "bind", "source": source, "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    }));
    let mount = mount.map_err(|e| Error::Argument(e.to_string()))?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let mut environment = process.env().clone().unwrap_or_default();
        environment.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
        process.set_env(Some(environment));
    }
    Ok(())
}

/// [`crate::start::start`], and then readiness is waited for if there is somebody to tell.
///
/// # Errors
/// Those of `start`; [`Error::Step`] when systemd cannot be told.
pub fn start(store: &Store, id: &str) -> Result<()> {
    let container = store.load(id)?;
    let relay = if container.status == Status::Created { Relay::bind(&container.dir)? } else { None };
    crate::start::start(store, id)?;
    if let (Some(relay), Some(init)) = (relay, container.record.init)
        && let Ok(pidfd) = init.open()
    {
        relay.wait(init.pid, &pidfd).step(|| "NOTIFY_SOCKET".into())?;
    }
    Ok(())
}

/// The container's socket, bound before its program runs.
pub(crate) struct Relay {
    socket: UnixDatagram,
    host: PathBuf,
}

impl Relay {
    /// `None` without `NOTIFY_SOCKET`, or when the container was created without it.
    pub(crate) fn bind(state: &Path) -> Result<Option<Self>> {
        let Some(host) = host().filter(|_| dir(state).is_dir()) else { return Ok(None) };
        let path = dir(state).join(NAME);
        let bound = short(&path, |path| UnixDatagram::bind(path)).and_then(|socket| {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Ok(Some(Self { socket: bound.step(|| format!("cannot bind {}", path.display()))?, host }))
    }

    /// Reads what has come; whether it was readiness, which is passed on then.
    pub(crate) fn turn(&self, pid: i32) -> std::io::Result<bool> {
        let mut buffer = [0; 4096];
        while let Ok(got) = self.socket.recv(&mut buffer) {
            let ready = buffer[..got].split(|b| *b == b'\n').find(|line| line.starts_with(b"READY="));
            if let Some(line) = ready {
                let client = self.client()?;
                client.send(&[line, b"\n"].concat())?;
                client.send(format!("MAINPID={pid}\n").as_bytes())?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// For callers that are about to exit: waits for readiness (or the end of the process), and until systemd knows.
    pub(crate) fn wait(&self, pid: i32, pidfd: &OwnedFd) -> std::io::Result<()> {
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            if self.turn(pid)? {
                return self.barrier();
            }
            if wait_end(pidfd, Duration::ZERO)? {
                return Ok(());
            }
        }
    }

    fn client(&self) -> std::io::Result<UnixDatagram> {
        let client = UnixDatagram::unbound()?;
        match self.host.to_str().and_then(|name| name.strip_prefix('@')) {
            Some(name) => client.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            None => short(&self.host, |path| client.connect(path))?,
        }
        Ok(client)
    }

    /// systemd closes the descriptor when it has read everything before.
    fn barrier(&self) -> std::io::Result<()> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        link::send_fd(&self.client()?, b"BARRIER=1", write.as_fd())?;
        drop(write);
        let limit = Timespec { tv_sec: BARRIER.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&limit))?;
        Ok(())
    }
}

/// A socket's address holds 108 bytes: longer paths go by their directory's descriptor.
fn short<T>(path: &Path, act: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return act(path) };
    if path.as_os_str().len() < 100 {
        return act(path);
    }
    let parent = fs::File::open(parent)?;
    act(&Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name))
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
