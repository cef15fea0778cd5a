//! Uploads: `<root>/uploads/<uuid>.<repository>` holds what has come. The file is all there is of a session, so that it survives
//! a restart; whoever writes to it holds a flock on it. Sessions that nobody went on with for a day are removed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, HeaderName, StatusCode};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use oci::Digest;
use oci::digest::Hasher;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::catalog::Catalog;
use super::reply::{self, CONTENT_DIGEST, Refusal, Reply, With as _};
use super::route::{self, Name};
use super::{At, Incomer, Shared};
use crate::content::rehash;
use crate::store::{lock_and_confirm, names};
use crate::transport::ByteStream;
use crate::transport::pump::{StreamReader, blocking, pump};
use crate::{Error, Result, Store};

/// A session that nobody goes on with is given up after this.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// A client that sends nothing for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(120);
/// How long a request waits for another that writes to the same session: a connection that broke ends soon.
const PATIENCE: Duration = Duration::from_secs(10);
/// Hashes of unfinished uploads that are remembered.
const REMEMBERED: usize = 1024;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// The upload sessions of a store.
pub(super) struct Uploads {
    dir: PathBuf,
    /// The hash of what a file has, as long as it was written here; anything else is read again.
    hashes: Mutex<HashMap<PathBuf, (u64, Hasher)>>,
}

/// A session that is being written to.
struct Session {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Uploads {
    pub fn new(store: &Store) -> Self {
        Self { dir: store.dir("uploads"), hashes: Mutex::default() }
    }

    /// A session belongs to its repository: another one does not find it.
    fn path(&self, name: &Name, id: &str) -> Option<PathBuf> {
        let plain = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        plain.then(|| self.dir.join(format!("{id}.{}", &Digest::of(name.key.as_bytes()).hex()[..16])))
    }

    fn create(&self, name: &Name) -> Result<(String, Session)> {
        let id = uuid(rand::random());
        let path = self.path(name, &id).unwrap_or_default();
        let file = File::options().read(true).append(true).create_new(true).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(Error::io("lock", &path))?;
        Ok((id, Session { path, file, length: 0 }))
    }

    /// Opens and locks a session; `None` when there is none, or somebody else writes to it.
    fn open(&self, path: &Path) -> Result<Option<Session>> {
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
    fn write(&self, session: &mut Session, reader: &mut StreamReader, announced: Option<u64>) -> Result<bool> {
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
    fn commit(&self, store: &Store, mut session: Session, name: &Name, digest: &Digest) -> Result<()> {
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

/// The body of a request as the pump takes it.
pub(super) fn body(request: Incomer) -> ByteStream {
    let received = |e: std::io::Error| Error::io("receive", "the request's body")(e);
    let chunks = BodyDataStream::<Incoming>::new(request.into_body()).map_err(std::io::Error::other);
    let timed = tokio_stream::StreamExt::timeout(chunks, SILENCE);
    timed
        .map(move |chunk| match chunk {
            Ok(chunk) => chunk.map_err(received),
            Err(_) => Err(received(std::io::ErrorKind::TimedOut.into())),
        })
        .boxed()
}

/// Where a chunk begins and how long it is: `Content-Range: 0-9`; docker's clients send none and mean "at the end".
fn chunk(headers: &HeaderMap) -> Result<Option<(u64, u64)>, Refusal> {
    let Some(text) = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let text = text.trim().trim_start_matches("bytes").trim_start_matches(['=', ' ']);
    let range = text.split_once('-').and_then(|(begin, rest)| {
        let end: u64 = rest.split('/').next()?.parse().ok()?;
        let begin: u64 = begin.parse().ok()?;
        Some((begin, end.checked_sub(begin)?.checked_add(1)?))
    });
    let range = range.ok_or_else(|| Refusal::bad("BLOB_UPLOAD_INVALID", format!("bad Content-Range {text:?}")))?;
    let length = route::content_length(headers);
    match length {
        Some(length) if length != range.1 => {
            Err(Refusal::bad("SIZE_INVALID", "Content-Range and Content-Length differ"))
        }
        _ => Ok(Some(range)),
    }
}

fn location(name: &Name, id: &str) -> String {
    format!("/v2/{}/blobs/uploads/{id}", name.wire)
}

/// An answer about a session. An empty session has no last byte; docker's clients expect `0-0` then.
fn progress(reply: Reply, name: &Name, id: &str, length: u64) -> Reply {
    reply
        .with(LOCATION, &location(name, id))
        .with(RANGE, &format!("0-{}", length.saturating_sub(1)))
        .with(UPLOAD_UUID, id)
}

/// The answer to a blob that arrived.
fn created(name: &Name, digest: &Digest) -> Reply {
    reply::empty(StatusCode::CREATED)
        .with(LOCATION, &format!("/v2/{}/blobs/{digest}", name.wire))
        .with(CONTENT_DIGEST, digest.as_str())
}

impl At {
    /// POST: a mount, a whole blob, or a session to come.
    pub(super) async fn begin(&self, name: Name, request: Incomer) -> Result<Reply, Refusal> {
        if let Some(text) = self.query.get("mount") {
            let digest = route::digest(text)?;
            let from = self.query.get("from").map(Name::parse).transpose()?.map(|from| from.key);
            let (key, wanted) = (name.key.clone(), digest.clone());
            if self.call(move |store| Catalog(store).mount(&key, &wanted, from.as_deref())).await? {
                return Ok(created(&name, &digest));
            }
        }
        let digest = self.query.get("digest").map(route::digest).transpose()?;
        if let Some(other) = self.query.get("digest-algorithm").filter(|name| !["sha256", "sha512"].contains(name)) {
            return Err(Refusal::bad("DIGEST_INVALID", format!("the algorithm {other:?} is not supported")));
        }
        let (shared, wanted) = (self.shared.clone(), name.clone());
        let (id, session) = blocking(move || shared.uploads.create(&wanted)).await?;
        match digest {
            None => Ok(progress(reply::empty(StatusCode::ACCEPTED), &name, &id, 0)),
            Some(digest) => self.complete(session, name, digest, request).await,
        }
    }

    /// GET: how far a session has come.
    pub(super) async fn status(&self, name: Name, id: String) -> Result<Reply, Refusal> {
        let path = self.shared.uploads.path(&name, &id).ok_or_else(|| lost(&id))?;
        let meta = tokio::fs::metadata(&path).await.map_err(|_| lost(&id))?;
        Ok(progress(reply::empty(StatusCode::NO_CONTENT), &name, &id, meta.len()))
    }

    /// PATCH: a chunk, or all of it as a stream.
    pub(super) async fn append(&self, name: Name, id: String, request: Incomer) -> Result<Reply, Refusal> {
        let session = self.session(&name, &id).await?;
        let max = in_order(&session, &name, &id, request.headers())?;
        let session = self.receive(session, request, max).await?;
        Ok(progress(reply::empty(StatusCode::ACCEPTED), &name, &id, session.length))
    }

    /// PUT: the last chunk, if there is one, and the digest of all.
    pub(super) async fn finish(&self, name: Name, id: String, request: Incomer) -> Result<Reply, Refusal> {
        let digest = self.query.get("digest").ok_or_else(|| Refusal::bad("DIGEST_INVALID", "the digest is missing"));
        let digest = route::digest(digest?)?;
        let session = self.session(&name, &id).await?;
        in_order(&session, &name, &id, request.headers())?;
        self.complete(session, name, digest, request).await
    }

    /// DELETE: nothing of it stays.
    pub(super) async fn cancel(&self, name: Name, id: String) -> Result<Reply, Refusal> {
        let session = self.session(&name, &id).await?;
        self.call(move |_| {
            crate::store::empty(&session.path);
            Ok(())
        })
        .await?;
        Ok(reply::empty(StatusCode::NO_CONTENT))
    }

    async fn complete(&self, session: Session, name: Name, digest: Digest, request: Incomer) -> Result<Reply, Refusal> {
        let max = route::content_length(request.headers());
        let session = self.receive(session, request, max).await?;
        let (shared, wanted, expected) = (self.shared.clone(), name.clone(), digest.clone());
        blocking(move || shared.uploads.commit(&shared.store, session, &wanted, &expected)).await?;
        Ok(created(&name, &digest))
    }

    async fn receive(
        &self,
        mut session: Session,
        request: Incomer,
        announced: Option<u64>,
    ) -> Result<Session, Refusal> {
        let shared = self.shared.clone();
        let written = pump(body(request), move |reader| {
            let fits = shared.uploads.write(&mut session, reader, announced)?;
            Ok(fits.then_some(session))
        });
        match written.await {
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err(Refusal::bad("SIZE_INVALID", "more or fewer bytes came than were announced")),
            Err(Error::Io { step: "receive", .. }) => Err(Refusal::bad("BLOB_UPLOAD_INVALID", "the connection broke")),
            Err(other) => Err(other.into()),
        }
    }

    async fn session(&self, name: &Name, id: &str) -> Result<Session, Refusal> {
        let path = self.shared.uploads.path(name, id).ok_or_else(|| lost(id))?;
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (shared, wanted) = (self.shared.clone(), path.clone());
            let (session, exists) = blocking(move || Ok((shared.uploads.open(&wanted)?, wanted.exists()))).await?;
            match session {
                Some(session) => return Ok(session),
                None if !exists => return Err(lost(id)),
                None if tokio::time::Instant::now() > end => {
                    let message = "another request writes to this upload".into();
                    return Err(Refusal::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", message));
                }
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn lost(id: &str) -> Refusal {
    Refusal::not_found("BLOB_UPLOAD_UNKNOWN", format_args!("the upload {id}"))
}

/// Chunks come in order: one that begins elsewhere is answered with where to go on. Gives the announced length.
fn in_order(session: &Session, name: &Name, id: &str, headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let length = route::content_length(headers);
    match chunk(headers)? {
        Some((begin, _)) if begin != session.length => {
            let message = format!("the next byte is {}, not {begin}", session.length);
            Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
                .with(LOCATION, location(name, id))
                .with(RANGE, format!("0-{}", session.length.saturating_sub(1))))
        }
        Some((_, announced)) => Ok(Some(announced)),
        None => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn chunks_say_where_they_begin() {
        use http::header::CONTENT_LENGTH;
        let headers = |range: &str, length: &str| {
            HeaderMap::from_iter([(CONTENT_RANGE, range.parse().unwrap()), (CONTENT_LENGTH, length.parse().unwrap())])
        };
        assert_eq!(chunk(&headers("0-9", "10")).unwrap(), Some((0, 10)));
        assert_eq!(chunk(&headers("bytes 5-9/*", "5")).unwrap(), Some((5, 5)));
        assert_eq!(chunk(&headers("0-9", "9")).unwrap_err().code, "SIZE_INVALID");
        for bad in ["9-0", "x-y", "5", "0-18446744073709551615"] {
            assert_eq!(chunk(&headers(bad, "1")).unwrap_err().code, "BLOB_UPLOAD_INVALID", "{bad}");
        }
        assert_eq!(chunk(&HeaderMap::new()).unwrap(), None);
    }

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
