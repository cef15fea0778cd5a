//! Where a service listens: a unix socket, a socket handed over by systemd, or TCP (with mutual TLS only).
use crate::peer::listener_lives;
use crate::{Code, Failure};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long a server that still answers may take to die before its address counts as taken.
const DYING: Duration = Duration::from_millis(500);

/// An address to listen on, as a flag says it: `unix:///run/x.sock`, `/run/x.sock`, `fd://`, `tcp://127.0.0.1:0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket at this path.
    Unix(PathBuf),
    /// The first socket that systemd passed (sd_listen_fds(3)).
    Inherited,
    /// TCP; port 0 takes a free one.
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = Failure;
    fn from_str(s: &str) -> Result<Self, Failure> {
        if let Some(path) = s.strip_prefix("unix://") {
            return Ok(Self::Unix(path.into()));
        }
        if s.starts_with("fd://") {
            return Ok(Self::Inherited);
        }
        if let Some(addr) = s.strip_prefix("tcp://") {
            let bad = |e| invalid(format!("invalid TCP address {addr:?}")).with_cause(&e);
            return addr.parse().map(Self::Tcp).map_err(bad);
        }
        if s.starts_with('/') {
            return Ok(Self::Unix(s.into()));
        }
        Err(invalid(format!("invalid address {s:?}: expected unix://PATH, fd:// or tcp://ADDRESS:PORT")))
    }
}

fn invalid(message: String) -> Failure {
    Failure::new(Code::InvalidArgument, "ADDRESS_INVALID", message)
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// Unix; the path is removed by the one who bound it, not when it was inherited.
    Unix(tokio::net::UnixListener, Option<PathBuf>),
    /// TCP.
    Tcp(tokio::net::TcpListener),
}

impl Listener {
    /// As a client would write it.
    pub fn address(&self) -> String {
        match self {
            Self::Unix(l, _) => {
                let path = l.local_addr().ok().and_then(|a| a.as_pathname().map(Path::to_path_buf));
                format!("unix://{}", path.unwrap_or_default().display())
            }
            Self::Tcp(l) => l.local_addr().map_or_else(|_| "tcp://".into(), |a| format!("tcp://{a}")),
        }
    }
}

/// Binds. A socket that systemd handed over wins over a unix path (socket activation). A left-over socket file that
/// nobody answers on is replaced; one that is answered is an error. `group` may open the socket too (mode 0660).
/// Needs a tokio runtime.
///
/// # Errors
/// `ADDRESS_IN_USE`, `ADDRESS_INVALID`, `BIND_FAILED`.
pub fn bind(listen: &Listen, group: Option<u32>) -> Result<Listener, Failure> {
    match listen {
        Listen::Tcp(addr) => {
            let failed = |e| failed(format!("bind {addr}"), &e);
            let std = std::net::TcpListener::bind(addr).map_err(failed)?;
            std.set_nonblocking(true).map_err(failed)?;
            tokio::net::TcpListener::from_std(std).map(Listener::Tcp).map_err(failed)
        }
        Listen::Inherited => inherited()?
            .ok_or_else(|| invalid("no socket was passed to this process (LISTEN_FDS); fd:// needs one".into())),
        Listen::Unix(path) => match inherited()? {
            Some(listener) => Ok(listener),
            None => bind_unix(path, group),
        },
    }
}

fn inherited() -> Result<Option<Listener>, Failure> {
    let passed = sys::fd::listen_fds().map_err(|e| failed("take the sockets of LISTEN_FDS".into(), &e))?;
    let Some(fd) = passed.into_iter().next() else { return Ok(None) };
    let std = std::os::unix::net::UnixListener::from(fd);
    std.set_nonblocking(true).map_err(|e| failed("use the inherited socket".into(), &e))?;
    let listener =
        tokio::net::UnixListener::from_std(std).map_err(|e| failed("use the inherited socket".into(), &e))?;
    Ok(Some(Listener::Unix(listener, None)))
}

fn bind_unix(path: &Path, group: Option<u32>) -> Result<Listener, Failure> {
    if path.as_os_str().len() > 107 {
        return Err(invalid(format!("socket path {} is longer than 107 bytes (unix(7))", path.display())));
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| failed(format!("create {}", dir.display()), &e))?;
    }
    // Two starters at once: the lock decides, the kernel drops it with its holder.
    let _lock = lock_beside(path)?;
    remove_stale(path)?;
    let name = |what: &str| format!("{what} {}", path.display());
    let listener = tokio::net::UnixListener::bind(path).map_err(|e| failed(name("bind"), &e))?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|e| failed(name("chmod"), &e))?;
    if let Some(gid) = group {
        std::os::unix::fs::chown(path, None, Some(gid)).map_err(|e| failed(name("chown"), &e))?;
    }
    Ok(Listener::Unix(listener, Some(path.into())))
}

fn lock_beside(path: &Path) -> Result<std::fs::File, Failure> {
    let lock = path.with_extension("lock");
    let file = std::fs::File::create(&lock).map_err(|e| failed(format!("create {}", lock.display()), &e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|e| failed(format!("lock {}", lock.display()), &std::io::Error::from(e)))?;
    Ok(file)
}

fn remove_stale(path: &Path) -> Result<(), Failure> {
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if !meta.file_type().is_socket() => {
            Err(invalid(format!("{} exists and is not a socket", path.display())))
        }
        Ok(_) if is_served(path) => Err(Failure::new(
            Code::AlreadyExists,
            "ADDRESS_IN_USE",
            format!("another process serves on {}", path.display()),
        )),
        Ok(_) => std::fs::remove_file(path).map_err(|e| failed(format!("remove {}", path.display()), &e)),
    }
}

/// A server that was killed a moment ago may still look alive: it is given [`DYING`] to be gone.
fn is_served(path: &Path) -> bool {
    let end = Instant::now() + DYING;
    while std::os::unix::net::UnixStream::connect(path).is_ok_and(|s| listener_lives(&s)) {
        if Instant::now() > end {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn failed(message: String, cause: &std::io::Error) -> Failure {
    let reason = if cause.kind() == std::io::ErrorKind::AddrInUse { "ADDRESS_IN_USE" } else { "BIND_FAILED" };
    let code = if reason == "ADDRESS_IN_USE" { Code::AlreadyExists } else { Code::Internal };
    Failure::new(code, reason, message).with_cause(&std::io::Error::new(cause.kind(), cause.to_string()))
}
