//! Upload sessions: `<root>/uploads/<uuid>.<repository>` holds what has come. The file is all there is of a session, so that it
//! survives a restart; whoever writes to it holds a flock on it. Sessions that nobody went on with for a day are removed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use oci::Digest;
use oci::digest::Hasher;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::Shared;
use super::catalog::Catalog;
use super::route::Name;
use crate::content::rehash;
use crate::store::{lock_and_confirm, names};
use crate::transport::pump::{StreamReader, blocking};
use crate::{Error, Result, Store};

/// A session that nobody goes on with is given up after this.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Hashes of unfinished uploads that are remembered.
const REMEMBERED: usize = 1024;

/// The upload sessions of a store.
pub(super) struct Uploads {
    dir: PathBuf,
    /// The hash of what a file has, as long as it was written here; anything else is read again.
    hashes: Mutex<HashMap<PathBuf, (u64, Hasher)>>,
}

/// A session that is being written to.
pub(super) struct Session {
    pub path: PathBuf,
    file: File,
    /// Bytes that have come.
    pub length: u64,
}

impl Uploads {
    pub fn new(store: &Store) -> Self {
        Self { dir: store.dir("uploads"), hashes: Mutex::default() }
    }

    /// A session belongs to its repository: another one does not find it.
    pub fn path(&self, name: &Name, id: &str) -> Option<PathBuf> {
        let plain = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        plain.then(|| self.dir.join(format!("{id}.{}", &Digest::of(name.key.as_bytes()).hex()[..16])))
    }

    pub fn create(&self, name: &Name) -> Result<(String, Session)> {
        let id = uuid(rand::random());
        let path = self.path(name, &id).unwrap_or_default();
        let file = File::options().read(true).append(true).create_new(true).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(Error::io("lock", &path))?;
        Ok((id, Session { path, file, length: 0 }))
    }

    /// Opens and locks a session; `None` when there is none, or somebody else writes to it.
    pub fn open(&self, path: &Path) -> Result<Option<Session>> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        if !lock_and_confirm(&fd, path, FlockOperation::NonBlockingLockExclusive)? {
            return Ok(None);
        }
        let file = File::from(fd);
        let length = file.metadata().map_err(Error::io("inspect", path))?.len();
        Ok(Some(Session { path: path.to_owned(), file, length }))
    }

    fn recall(&self, session: &Session) -> Option<Hasher> {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.remove(&session.path).filter(|(length, _)| *length == session.length).map(|(_, hasher)| hasher)
    }

    fn remember(&self, session: &Session, hasher: Hasher) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() < REMEMBERED {
            hashes.insert(session.path.clone(), (session.length, hasher));
        }
    }

    /// Appends what comes. What came before a connection broke stays, so that the client can go on from there.
    /// False when it is not as much as was announced; then nothing of it stays.
    pub fn write(&self, session: &mut Session, reader: &mut StreamReader, announced: Option<u64>) -> Result<bool> {
        let mut hasher = match (self.recall(session), session.length) {
            (Some(hasher), _) => Some(hasher),
            (None, 0) => Some(Hasher::sha256()),
            (None, _) => None,
        };
        let begin = session.length;
        let mut buffer = vec![0; 256 << 10];
        let broken = loop {
            match reader.read(&mut buffer) {
                Ok(0) => break false,
                Ok(n) => {
                    session.file.write_all(&buffer[..n]).map_err(Error::io("write", &session.path))?;
                    session.length += n as u64;
                    if let Some(hasher) = &mut hasher {
                        hasher.update(&buffer[..n]);
                    }
                }
                Err(_) => break true,
            }
        };
        if !broken && announced.is_some_and(|announced| session.length - begin != announced) {
            session.file.set_len(begin).map_err(Error::io("shorten", &session.path))?;
            return Ok(false);
        }
        if let Some(hasher) = hasher {
            self.remember(session, hasher);
        }
        Ok(true)
    }

    /// Verifies what has come and makes it a blob of the repository. Whatever the outcome, the session ends.
    pub fn commit(&self, store: &Store, mut session: Session, name: &Name, digest: &Digest) -> Result<()> {
        let path = session.path.clone();
        let known = self.recall(&session).map(Hasher::finish).filter(|found| found.algorithm() == digest.algorithm());
        let actual = match known {
            Some(found) => found,
            None => {
                let mut hasher = Hasher::like(digest);
                rehash(&mut session.file, &mut hasher).map_err(Error::io("read", &path))?;
                hasher.finish()
            }
        };
        if actual != *digest {
            crate::store::empty(&path);
            return Err(Error::DigestMismatch { what: "blob", expected: digest.clone(), actual });
        }
        session.file.sync_all().map_err(Error::io("sync", &path))?;
        Catalog(store).add_blob(&name.key, digest, &path)
    }
}

/// Version 4 of RFC 9562, from random bytes.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Stages bytes at hand as a synced file that can be renamed to its place.
pub(super) fn stage(store: &Store, bytes: &[u8]) -> Result<PathBuf> {
    let path = store.dir("uploads").join(uuid(rand::random()));
    let written = File::create_new(&path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(Error::io("write", &path))?;
    Ok(path)
}

/// Removes sessions that are a day old, now and every hour.
pub(super) async fn expire(shared: Arc<Shared>) {
    loop {
        let store = shared.store.clone();
        if let Err(error) = blocking(move || sweep(&store.dir("uploads"), STALE)).await {
            tracing::warn!(%error, "old uploads stay");
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
}

fn sweep(dir: &Path, stale: Duration) -> Result<()> {
    for (_, path) in names(dir)? {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        let age = meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
        if age < stale {
            continue;
        }
        if let Some(_lock) = crate::content::lock_file_now(&path)? {
            crate::store::empty(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn old_sessions_go_unless_somebody_writes_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let (old, busy, new) = (dir.path().join("old"), dir.path().join("busy"), dir.path().join("new"));
        let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
        for path in [&old, &busy, &new] {
            std::fs::write(path, "x").unwrap();
        }
        for path in [&old, &busy] {
            File::options().write(true).open(path).unwrap().set_modified(yesterday).unwrap();
        }
        let lock = File::open(&busy).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        sweep(dir.path(), STALE).unwrap();
        assert!(!old.exists() && busy.exists() && new.exists());
    }
}
