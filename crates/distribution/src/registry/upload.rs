//! Blobs to a registry: not at all when it has them, mounted when a sister repository has them, else streamed.
//!
//! First everything goes in one PATCH, as docker does. When the connection breaks, the registry is asked how much it has, and the
//! upload goes on there, also after a restart of this process. Some registries (docker's own) forget an upload whose PATCH broke:
//! then it begins anew in small PATCHes, each on a connection of its own, so that what cuts connections has little to cut.

mod record;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION};
use http::{Method, StatusCode};
use oci::Descriptor;
use reqwest::{Response, Url};

use super::endpoint::Endpoint;
use super::fetch::ByteStream;
use super::retry::{backoff, pause, worth_retrying};
use super::{Error, Registry, Scope};
use crate::error::Result;
use record::Record;

/// Opens the blob at an offset; called again when an upload has to go on or begin anew.
pub type Open<'a> = dyn Fn(u64) -> BoxFuture<'a, Result<ByteStream>> + Send + Sync + 'a;
/// Told of every byte sent.
pub type Sent = Arc<dyn Fn(u64) + Send + Sync>;

/// Breaks in a row, without progress between them, after which an upload is given up.
const BREAKS_MAX: u32 = 5;
/// Times that a registry may forget an upload.
const LOSSES_MAX: u32 = 4;
/// Sizes of a PATCH after a loss.
const CHUNK: std::ops::RangeInclusive<u64> = 256 << 10..=4 << 20;

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was there.
    Exists,
    /// The registry took it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// Makes sure that a repository has a blob.
///
/// `mount_from` names repositories of the same registry that may have it.
///
/// # Errors
/// Those of any request; [`Error::Unreachable`] when the connection breaks too often.
pub async fn blob<'a>(
    registry: &'a Registry,
    repository: &'a str,
    descriptor: &'a Descriptor,
    mount_from: &[String],
    open: &'a Open<'a>,
    sent: Sent,
) -> Result<Outcome> {
    let (endpoint, there) = registry.primary(repository).await?;
    if endpoint.blob_size(&there, &descriptor.digest).await?.is_some() {
        return Ok(Outcome::Exists);
    }
    let record = Record::of(registry.options().uploads.as_deref(), &endpoint.host().base, &there, &descriptor.digest);
    let remembered = record.read();
    let resumed = remembered.is_some();
    let session = match remembered {
        Some(session) => Session { url: session, chunk_min: 0 },
        None => {
            let sisters = registry.sisters(repository, mount_from)?;
            let Some(session) = begin(&endpoint, &there, descriptor, &sisters).await? else {
                return Ok(Outcome::Mounted);
            };
            session
        }
    };
    record.write(&session.url);
    let upload =
        Upload { endpoint, repository: there, descriptor, open, sent, record, session, offset: 0, chunk: None };
    upload.run(resumed).await?;
    Ok(Outcome::Uploaded)
}

/// An upload as the registry knows it.
struct Session {
    url: Url,
    /// `OCI-Chunk-Min-Length`.
    chunk_min: u64,
}

impl Session {
    fn of(headers: &HeaderMap, base: &Url) -> Result<Self> {
        let missing = || Error::Protocol { url: base.to_string(), problem: "no Location of the upload".into() };
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let url = base.join(text(LOCATION.as_str()).ok_or_else(missing)?).map_err(|_| missing())?;
        let chunk_min = text("oci-chunk-min-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Self { url, chunk_min })
    }
}

/// Starts an upload, or mounts: then there is no session.
async fn begin(
    endpoint: &Endpoint,
    repository: &str,
    descriptor: &Descriptor,
    sisters: &[String],
) -> Result<Option<Session>> {
    let base = endpoint.host().url(&format!("{repository}/blobs/uploads/"));
    for from in sisters {
        let mut url = base.clone();
        url.query_pairs_mut().append_pair("mount", descriptor.digest.as_str()).append_pair("from", from);
        let scope = Scope::mount(repository, from);
        match endpoint.call(&Method::POST, &url, &scope, |r| r.header(CONTENT_LENGTH, 0)).await {
            Ok(answer) if answer.status() == StatusCode::CREATED => return Ok(None),
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                return Session::of(answer.headers(), &url).map(Some);
            }
            // Registries without mounts say so in many ways, also by refusing a token for both: go on without.
            Ok(_) | Err(Error::Unauthorized { .. } | Error::Protocol { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let answer = endpoint.call(&Method::POST, &base, &Scope::push(repository), |r| r.header(CONTENT_LENGTH, 0)).await?;
    let answer = endpoint.expect(answer, "push", Some(repository)).await?;
    Session::of(answer.headers(), &base).map(Some)
}

struct Upload<'a> {
    endpoint: Endpoint,
    repository: String,
    descriptor: &'a Descriptor,
    open: &'a Open<'a>,
    sent: Sent,
    record: Record,
    session: Session,
    offset: u64,
    /// Bytes of a PATCH; `None`: all that is left.
    chunk: Option<u64>,
}

/// Why a PATCH did not go through.
enum Stop {
    /// It can be taken up again, after a while.
    Broke(crate::Error, Option<Duration>),
    Failed(crate::Error),
}

impl<E: Into<crate::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Upload<'_> {
    async fn run(mut self, resumed: bool) -> Result<()> {
        let (mut breaks, mut losses) = (0, 0);
        if resumed {
            self.take_up().await?;
        }
        while self.offset < self.descriptor.size {
            let (before, passed) = (self.offset, Arc::new(AtomicU64::new(0)));
            match self.send(&passed).await {
                Ok(()) => breaks = 0,
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Broke(error, wait)) => {
                    breaks += 1;
                    tracing::debug!(%error, offset = self.offset, breaks, "upload broke");
                    tokio::time::sleep(wait.unwrap_or_else(|| backoff(breaks))).await;
                    if !self.take_up().await? {
                        losses += 1;
                        self.chunk = Some((passed.load(Ordering::Relaxed) / 8).clamp(*CHUNK.start(), *CHUNK.end()));
                    } else if self.offset > before {
                        breaks = 0;
                    }
                    if breaks >= BREAKS_MAX || losses > LOSSES_MAX {
                        return Err(error);
                    }
                }
            }
        }
        self.finish().await
    }

    /// Sends the next part, or all, in one request. `passed` counts the bytes that left.
    async fn send(&mut self, passed: &Arc<AtomicU64>) -> std::result::Result<(), Stop> {
        let (offset, size) = (self.offset, self.descriptor.size);
        let length = self.chunk.map_or(size, |chunk| chunk.max(self.session.chunk_min)).min(size - offset);
        let stream = first((self.open)(offset).await?, length);
        let scope = Scope::push(&self.repository);
        // The body goes once, so the token has to be good before.
        let header = self.endpoint.authorization(&scope).await?;
        let connection = self.endpoint.connection();
        let mut request = connection
            .request(&Method::PATCH, &self.session.url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(counted(stream, self.sent.clone(), passed.clone())));
        if let Some(header) = header.as_deref().filter(|_| self.endpoint.host().owns(&self.session.url)) {
            request = request.header(AUTHORIZATION, header);
        }
        if length < size {
            request = request.header(CONTENT_RANGE, format!("{offset}-{}", offset + length - 1));
        }
        if self.chunk.is_some() {
            request = request.header(CONNECTION, "close");
        }
        let sending = async {
            let answer = request.send().await;
            answer.map_err(|error| super::connection::unreachable(&self.session.url, error))
        };
        let answer = tokio::select! {
            answer = sending => answer,
            () = stalled(passed, connection.patience) => Err(connection.silent(&self.session.url)),
        };
        let answer = answer.map_err(|error| Stop::Broke(error.into(), None))?;
        self.taken(answer, &scope, header.as_deref(), offset + length).await
    }

    /// Reads the answer to a PATCH that ended before `end`.
    async fn taken(
        &mut self,
        answer: Response,
        scope: &Scope,
        header: Option<&str>,
        end: u64,
    ) -> std::result::Result<(), Stop> {
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED && self.endpoint.answer_challenge(&answer, scope, header).await?.is_some()
        {
            let error = self.endpoint.expect(answer, "push", Some(&self.repository)).await.err();
            return Err(Stop::Broke(error.map_or_else(lost, crate::Error::from), Some(Duration::ZERO)));
        }
        // 404: the registry knows the upload no more; 416 and docker's 400: it has another part of it than we think.
        let confused =
            matches!(status.as_u16(), 404 | 413 | 416) || (status == StatusCode::BAD_REQUEST && self.offset > 0);
        if worth_retrying(status) || confused {
            let wait = pause(answer.headers(), 1).filter(|_| worth_retrying(status));
            let error = self.endpoint.expect(answer, "push", Some(&self.repository)).await.err();
            return Err(Stop::Broke(error.map_or_else(lost, crate::Error::from), wait));
        }
        let answer = self.endpoint.expect(answer, "push", Some(&self.repository)).await?;
        self.offset = held(answer.headers()).filter(|held| *held > self.offset).unwrap_or(end).min(end);
        self.follow(answer.headers())
    }

    /// Where the upload goes on, by the registry's last word.
    fn follow(&mut self, headers: &HeaderMap) -> std::result::Result<(), Stop> {
        let next = Session::of(headers, &self.session.url)?;
        self.session.chunk_min = self.session.chunk_min.max(next.chunk_min);
        if next.url != self.session.url {
            self.record.write(&next.url);
            self.session.url = next.url;
        }
        Ok(())
    }

    /// Asks the registry how much it has. False when it has forgotten the upload; a new one has been begun then.
    async fn take_up(&mut self) -> Result<bool> {
        let scope = Scope::push(&self.repository);
        let answer = self.endpoint.call(&Method::GET, &self.session.url, &scope, |r| r).await;
        if let Ok(answer) = &answer
            && answer.status().is_success()
        {
            let _ = self.follow(answer.headers());
            self.offset = held(answer.headers()).unwrap_or(0).min(self.descriptor.size);
            return Ok(true);
        }
        if let Some(session) = begin(&self.endpoint, &self.repository, self.descriptor, &[]).await? {
            self.session = session;
            self.record.write(&self.session.url);
        }
        self.offset = 0;
        Ok(false)
    }

    async fn finish(&self) -> Result<()> {
        let mut url = self.session.url.clone();
        url.query_pairs_mut().append_pair("digest", self.descriptor.digest.as_str());
        let scope = Scope::push(&self.repository);
        let answer = self.endpoint.call(&Method::PUT, &url, &scope, |r| r.header(CONTENT_LENGTH, 0)).await?;
        self.record.forget();
        match self.endpoint.expect(answer, "push", Some(&self.repository)).await {
            Ok(_) => Ok(()),
            // The answer to an earlier PUT may have been lost on its way.
            Err(Error::NotFound { .. })
                if self.endpoint.blob_size(&self.repository, &self.descriptor.digest).await?.is_some() =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn lost() -> crate::Error {
    crate::Error::Canceled { what: "the upload was not taken".into() }
}

/// Ends when no byte has left for so long.
async fn stalled(passed: &AtomicU64, patience: Duration) {
    let mut before = u64::MAX;
    loop {
        let now = passed.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
        tokio::time::sleep(patience).await;
    }
}

/// The first bytes of a stream.
fn first(stream: ByteStream, length: u64) -> ByteStream {
    stream
        .scan(length, |left, chunk| {
            let next = match chunk {
                Ok(_) if *left == 0 => None,
                Ok(mut chunk) => {
                    chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= chunk.len() as u64;
                    Some(Ok(chunk))
                }
                Err(error) => Some(Err(error)),
            };
            std::future::ready(next)
        })
        .boxed()
}

fn counted(
    stream: ByteStream,
    sent: Sent,
    passed: Arc<AtomicU64>,
) -> futures::stream::BoxStream<'static, Result<Bytes>> {
    stream
        .inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                passed.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                sent(chunk.len() as u64);
            }
        })
        .boxed()
}

/// How much the registry has: `Range: 0-9` → 10. Nothing stored is written as `0-0`, so that means none.
fn held(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("range")?.to_str().ok()?;
    let last: u64 = text.trim().trim_start_matches("bytes=").split('-').nth(1)?.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_how_much_an_upload_has() {
        let of = |text: &str| held(&HeaderMap::from_iter([(http::header::RANGE, text.parse().unwrap())]));
        assert_eq!(of("0-9"), Some(10));
        assert_eq!(of("bytes=0-9"), Some(10));
        assert_eq!(of("0-0"), Some(0));
        assert_eq!(of("x"), None);
    }

    #[tokio::test]
    async fn the_first_bytes_of_a_stream() {
        let chunks = vec![Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"def"))];
        let taken: Vec<_> = first(futures::stream::iter(chunks).boxed(), 4).map(|chunk| chunk.unwrap()).collect().await;
        assert_eq!(taken.concat(), b"abcd");
    }
}
