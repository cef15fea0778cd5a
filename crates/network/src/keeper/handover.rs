//! A keeper goes on as a newer program: exec(2) in its place, with its sockets.
//!
//! Whenever the keeper wakes it looks at the file that it was started from. When another one lies there, and that one
//! can say its version, the keeper lets go of what is quickly had again, its clients and the guard, and becomes that
//! program: the same process, which inherits the lock, the listener and the sockets of the name servers. Queries that
//! come meanwhile wait in them.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::dns::Sockets;

/// The variable of the environment that says which descriptors are inherited.
const HANDOVER: &str = "PIER_KEEPER_HANDOVER";
/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells one file from another that has taken its place: device, inode, size, time of its last change.
type Identity = (u64, u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let file = fs::metadata(path)?;
    Ok((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

/// The file that this process runs, and where it lay when the process began.
pub(super) struct Program {
    path: PathBuf,
    own: Identity,
    /// Lies there, and does not run.
    refused: Option<Identity>,
}

impl Program {
    pub(super) fn own() -> io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, own: identity(Path::new("/proc/self/exe"))?, refused: None })
    }

    /// Whether another program lies in its place, one that runs.
    pub(super) async fn is_replaced(&mut self) -> bool {
        let Ok(there) = identity(&self.path) else { return false };
        if there == self.own || self.refused == Some(there) {
            return false;
        }
        let mut version = tokio::process::Command::new(&self.path);
        version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        if matches!(timeout(PATIENCE, version.status()).await, Ok(Ok(status)) if status.success()) {
            return true;
        }
        tracing::warn!(path = %self.path.display(), "what lies in this program's place does not run");
        self.refused = Some(there);
        false
    }

    /// Becomes it, with these descriptors. Returns only when that fails.
    pub(super) fn exec(&self, lock: BorrowedFd<'_>, listener: BorrowedFd<'_>, names: &Sockets) -> io::Error {
        let given = Given {
            pid: std::process::id(),
            lock: lock.as_raw_fd(),
            listener: listener.as_raw_fd(),
            names: names.iter().map(|(ip, [udp, tcp])| (*ip, [udp.as_raw_fd(), tcp.as_raw_fd()])).collect(),
        };
        let text = match serde_json::to_string(&given) {
            Ok(text) => text,
            Err(error) => return error.into(),
        };
        let sockets = names.values().flatten().map(std::os::fd::AsFd::as_fd);
        for descriptor in [lock, listener].into_iter().chain(sockets) {
            if let Err(error) = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()) {
                return error.into();
            }
        }
        Command::new(&self.path).args(std::env::args_os().skip(1)).env(HANDOVER, text).exec()
    }
}

/// Numbers of descriptors.
#[derive(Serialize, Deserialize)]
struct Given {
    /// Whose they are: the variable means nothing to other processes.
    pid: u32,
    lock: RawFd,
    listener: RawFd,
    names: Vec<(IpAddr, [RawFd; 2])>,
}

/// What the program that this process ran before has left.
#[derive(Default)]
pub(super) struct Inherited {
    pub(super) lock: Option<OwnedFd>,
    pub(super) listener: Option<OwnedFd>,
    pub(super) names: Sockets,
}

impl Inherited {
    /// Takes it over; once. Nothing when there was no such program.
    pub(super) fn take() -> Self {
        let text = std::env::var(HANDOVER).unwrap_or_default();
        match serde_json::from_str::<Given>(&text) {
            Ok(given) if given.pid == std::process::id() => Self::of(&given),
            _ => Self::default(),
        }
    }

    fn of(given: &Given) -> Self {
        let take = |number| sys::process::inherited_fd(number).ok();
        let names = given.names.iter().filter_map(|(ip, [udp, tcp])| Some((*ip, [take(*udp)?, take(*tcp)?]))).collect();
        Self { lock: take(given.lock), listener: take(given.listener), names }
    }
}
