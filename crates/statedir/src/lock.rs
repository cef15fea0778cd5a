//! flock(2): one writer at a time, released by the kernel when its holder dies.
use crate::Error;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Held until dropped.
#[derive(Debug)]
pub struct Lock(File);

/// The lock is held until the descriptor, and every copy of it, is closed.
impl From<Lock> for OwnedFd {
    fn from(lock: Lock) -> Self {
        lock.0.into()
    }
}

impl Lock {
    /// Waits for the exclusive lock on `path`, which is made when missing. Blocks: not for an async thread.
    pub fn acquire(path: &Path) -> Result<Self, Error> {
        Self::take(path, FlockOperation::LockExclusive).map(Self)
    }

    /// Waits for a lock that others may share.
    pub fn acquire_shared(path: &Path) -> Result<Self, Error> {
        Self::take(path, FlockOperation::LockShared).map(Self)
    }

    /// `None` when another process (or another handle of this one) holds it.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>, Error> {
        match Self::take(path, FlockOperation::NonBlockingLockExclusive) {
            Ok(file) => Ok(Some(Self(file))),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn take(path: &Path, how: FlockOperation) -> Result<File, Error> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("open lock", path))?;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("lock", path)(e.into())),
            }
        }
    }
}
