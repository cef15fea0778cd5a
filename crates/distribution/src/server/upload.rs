//! Uploads: the endpoints of a session, from its beginning to its last byte.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, HeaderName, StatusCode};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use oci::Digest;

use super::catalog::Catalog;
use super::reply::{self, CONTENT_DIGEST, Refusal, Reply, With as _};
use super::route::{self, Name};
use super::sessions::Session;
use super::{At, Incomer};
use crate::Error;
use crate::transport::ByteStream;
use crate::transport::pump::{blocking, pump};

/// A client that sends nothing for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(120);
/// How long a request waits for another that writes to the same session: a connection that broke ends soon.
const PATIENCE: Duration = Duration::from_secs(10);

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

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
}
