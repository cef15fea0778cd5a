//! Blobs to a registry: not at all when it has them, mounted when a sister repository has them, else streamed; a broken upload
//! goes on where the registry says it stopped.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION};
use http::{Method, StatusCode};
use oci::Descriptor;
use reqwest::Url;

use super::Error;
use super::client::{backoff, worth_retrying};
use super::fetch::ByteStream;
use super::{Registry, Scope};
use crate::error::Result;

/// Opens the blob at an offset; called again when an upload has to go on or begin anew.
pub type Open<'a> = dyn Fn(u64) -> BoxFuture<'a, Result<ByteStream>> + Send + Sync + 'a;
/// Told of every byte sent.
pub type Sent = std::sync::Arc<dyn Fn(u64) + Send + Sync>;

const BREAKS_MAX: u32 = 5;

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
    if registry.blob_size(repository, &descriptor.digest).await?.is_some() {
        return Ok(Outcome::Exists);
    }
    let Some(session) = begin(registry, repository, descriptor, mount_from).await? else { return Ok(Outcome::Mounted) };
    let mut upload = Upload { registry, repository, descriptor, open, sent, session, offset: 0 };
    upload.run().await?;
    Ok(Outcome::Uploaded)
}

/// Starts an upload, or mounts: then there is no session.
async fn begin(
    registry: &Registry,
    repository: &str,
    descriptor: &Descriptor,
    mount_from: &[String],
) -> Result<Option<Url>> {
    let base = registry.host().url(&format!("{repository}/blobs/uploads/"));
    for from in mount_from.iter().filter(|from| *from != repository) {
        let mut url = base.clone();
        url.query_pairs_mut().append_pair("mount", &descriptor.digest.to_string()).append_pair("from", from);
        let scope = Scope::mount(repository, from);
        let answer = registry.call(&Method::POST, &url, &scope, |r| r.header(CONTENT_LENGTH, 0)).await?;
        match answer.status() {
            StatusCode::CREATED => return Ok(None),
            StatusCode::ACCEPTED => return location(answer.headers(), &url).map(Some),
            // Registries without mounts say so in many ways: go on without.
            _ => continue,
        }
    }
    let answer = registry.call(&Method::POST, &base, &Scope::push(repository), |r| r.header(CONTENT_LENGTH, 0)).await?;
    let answer = registry.expect(answer, "push", Some(repository)).await?;
    location(answer.headers(), &base).map(Some)
}

fn location(headers: &HeaderMap, base: &Url) -> Result<Url> {
    let missing = || Error::Protocol { url: base.to_string(), problem: "no Location of the upload".into() };
    let text = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    Ok(base.join(text).map_err(|_| missing())?)
}

struct Upload<'a> {
    registry: &'a Registry,
    repository: &'a str,
    descriptor: &'a Descriptor,
    open: &'a Open<'a>,
    sent: Sent,
    session: Url,
    offset: u64,
}

impl Upload<'_> {
    async fn run(&mut self) -> Result<()> {
        let mut breaks = 0;
        while self.offset < self.descriptor.size {
            let before = self.offset;
            match self.send_rest().await {
                Ok(()) => self.offset = self.descriptor.size,
                Err(error) if may_go_on(&error) => {
                    breaks += 1;
                    if breaks >= BREAKS_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff(breaks)).await;
                    self.ask_offset().await?;
                    if self.offset > before {
                        breaks = 0;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.finish().await
    }

    /// Sends everything from the offset on in one request.
    async fn send_rest(&mut self) -> Result<()> {
        let (offset, size) = (self.offset, self.descriptor.size);
        let stream = (self.open)(offset).await?;
        // The body goes into the request once; a 401 in between makes the whole step be repeated.
        let body = std::sync::Mutex::new(Some(counted(stream, self.sent.clone())));
        let attach = |request: reqwest::RequestBuilder| {
            let stream = body.lock().ok().and_then(|mut body| body.take());
            let request =
                request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, size - offset);
            let request = match offset {
                0 => request,
                _ => request.header(CONTENT_RANGE, format!("{offset}-{}", size - 1)),
            };
            match stream {
                Some(stream) => request.body(reqwest::Body::wrap_stream(stream)),
                None => request,
            }
        };
        let scope = Scope::push(self.repository);
        let answer = self.registry.once(&Method::PATCH, &self.session, &scope, attach).await?;
        if worth_retrying(answer.status()) || answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            let (url, status) = (self.session.to_string(), answer.status().as_u16());
            return Err(Error::Refused { url, status, detail: "upload not taken".into() }.into());
        }
        let answer = self.registry.expect(answer, "push", Some(self.repository)).await?;
        self.session = location(answer.headers(), &self.session)?;
        Ok(())
    }

    /// Asks the registry how much it has; a lost session begins anew.
    async fn ask_offset(&mut self) -> Result<()> {
        let scope = Scope::push(self.repository);
        let answer = self.registry.call(&Method::GET, &self.session, &scope, |r| r).await?;
        if !answer.status().is_success() {
            if let Some(session) = begin(self.registry, self.repository, self.descriptor, &[]).await? {
                self.session = session;
            }
            self.offset = 0;
            return Ok(());
        }
        if let Ok(session) = location(answer.headers(), &self.session) {
            self.session = session;
        }
        let range = answer.headers().get("range").and_then(|value| value.to_str().ok());
        self.offset = range.and_then(after_range).unwrap_or(0).min(self.descriptor.size);
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let mut url = self.session.clone();
        url.query_pairs_mut().append_pair("digest", &self.descriptor.digest.to_string());
        let scope = Scope::push(self.repository);
        let answer = self.registry.call(&Method::PUT, &url, &scope, |r| r.header(CONTENT_LENGTH, 0)).await?;
        self.registry.expect(answer, "push", Some(self.repository)).await?;
        Ok(())
    }
}

/// Broken connections and busy registries: the upload can be taken up again.
fn may_go_on(error: &crate::Error) -> bool {
    let crate::Error::Registry(error) = error else { return false };
    matches!(error, Error::Unreachable { .. } | Error::Refused { status: 416 | 429 | 500.., .. })
}

fn counted(stream: ByteStream, sent: Sent) -> futures::stream::BoxStream<'static, Result<Bytes>> {
    stream
        .inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                sent(chunk.len() as u64);
            }
        })
        .boxed()
}

/// `Range: 0-9` → 10; nothing stored is written as `0-0` by some, so that means none.
fn after_range(text: &str) -> Option<u64> {
    let last: u64 = text.trim().trim_start_matches("bytes=").split('-').nth(1)?.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_much_an_upload_has() {
        assert_eq!(after_range("0-9"), Some(10));
        assert_eq!(after_range("bytes=0-9"), Some(10));
        assert_eq!(after_range("0-0"), Some(0));
        assert_eq!(after_range("x"), None);
    }
}
