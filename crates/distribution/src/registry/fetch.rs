//! A blob as a stream of bytes. A broken connection is opened again at the byte where it broke, so whoever reads the stream
//! sees one blob. The reader checks the digest.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, Method, StatusCode};
use oci::Descriptor;
use reqwest::Response;

use super::client::backoff;
use super::error::{Error, Result};
use super::{Registry, Scope};

/// Bytes of content as they come.
pub type ByteStream = BoxStream<'static, crate::error::Result<Bytes>>;

/// Breaks in a row, without a byte between them, after which a download is given up.
const BREAKS_MAX: u32 = 5;

/// Streams a blob from `offset` to its end. Exactly `descriptor.size - offset` bytes come, or an error.
#[must_use]
pub fn blob(registry: Registry, repository: String, descriptor: Descriptor, offset: u64) -> ByteStream {
    let download = Download { registry, repository, descriptor, position: offset, skip: 0, body: None, breaks: 0 };
    futures::stream::try_unfold(download, |mut download| async move {
        Ok::<_, crate::error::Error>(download.next().await?.map(|chunk| (chunk, download)))
    })
    .boxed()
}

struct Download {
    registry: Registry,
    repository: String,
    descriptor: Descriptor,
    position: u64,
    /// Bytes to throw away, when the registry began at zero though asked for a range.
    skip: u64,
    body: Option<Response>,
    breaks: u32,
}

impl Download {
    fn url(&self) -> reqwest::Url {
        self.registry.host().url(&format!("{}/blobs/{}", self.repository, self.descriptor.digest))
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let size = self.descriptor.size;
        while self.position < size {
            let broke = match self.body.as_mut() {
                None => {
                    self.body = Some(self.open().await?);
                    continue;
                }
                Some(body) => match body.chunk().await {
                    Ok(Some(chunk)) => {
                        if let Some(chunk) = self.accept(chunk)? {
                            return Ok(Some(chunk));
                        }
                        continue;
                    }
                    Ok(None) => None,
                    Err(error) => Some(error),
                },
            };
            self.body = None;
            self.after_break(broke).await?;
        }
        Ok(None)
    }

    /// Counts a chunk in; `None` when it was all before the position.
    fn accept(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>> {
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        let _ = chunk.split_to(usize::try_from(skipped).unwrap_or(chunk.len()));
        if chunk.is_empty() {
            return Ok(None);
        }
        self.position += chunk.len() as u64;
        self.breaks = 0;
        if self.position > self.descriptor.size {
            return Err(Error::SizeMismatch {
                url: self.url().to_string(),
                expected: self.descriptor.size,
                actual: self.position,
            });
        }
        Ok(Some(chunk))
    }

    async fn after_break(&mut self, broke: Option<reqwest::Error>) -> Result<()> {
        self.breaks += 1;
        tracing::debug!(digest = %self.descriptor.digest, position = self.position, breaks = self.breaks, "download broke");
        if self.breaks < BREAKS_MAX {
            tokio::time::sleep(backoff(self.breaks).min(Duration::from_secs(5))).await;
            return Ok(());
        }
        let url = self.url();
        Err(match broke {
            Some(error) => self.registry.unreachable(&url, error),
            None => Error::SizeMismatch { url: url.to_string(), expected: self.descriptor.size, actual: self.position },
        })
    }

    async fn open(&mut self) -> Result<Response> {
        let (url, position) = (self.url(), self.position);
        let attach = |request: reqwest::RequestBuilder| match position {
            0 => request,
            _ => request.header(RANGE, format!("bytes={position}-")),
        };
        let answer = self.registry.call(&Method::GET, &url, &Scope::pull(&self.repository), attach).await?;
        let digest = self.descriptor.digest.to_string();
        let answer = self.registry.expect(answer, "pull", Some(&digest)).await?;
        self.skip = if answer.status() == StatusCode::PARTIAL_CONTENT {
            begin_of_range(answer.headers())
                .filter(|begin| *begin <= position)
                .map(|begin| position - begin)
                .ok_or_else(|| Error::Protocol {
                    url: url.to_string(),
                    problem: "it sent another range than asked for".into(),
                })?
        } else {
            position
        };
        self.check_length(&answer, &url)?;
        Ok(answer)
    }

    /// A length that cannot be right is found before a byte is read.
    fn check_length(&self, answer: &Response, url: &reqwest::Url) -> Result<()> {
        let Some(length) = answer.content_length() else { return Ok(()) };
        let total = self.position - self.skip + length;
        if total == self.descriptor.size {
            return Ok(());
        }
        Err(Error::SizeMismatch { url: url.to_string(), expected: self.descriptor.size, actual: total })
    }
}

/// `Content-Range: bytes 5-9/10` → 5.
fn begin_of_range(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_where_a_range_begins() {
        let mut headers = HeaderMap::new();
        assert_eq!(begin_of_range(&headers), None);
        headers.insert(CONTENT_RANGE, "bytes 5-9/10".parse().unwrap());
        assert_eq!(begin_of_range(&headers), Some(5));
    }
}
