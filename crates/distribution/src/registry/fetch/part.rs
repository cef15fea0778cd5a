//! A part of a blob, over one connection at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, RANGE};
use http::{HeaderMap, Method, StatusCode};
use oci::Descriptor;
use reqwest::{Response, Url};

use super::super::client::Tried;
use super::super::configuration::Place;
use super::super::connection::Body;
use super::super::endpoint::Endpoint;
use super::super::error::{Error, Result};
use super::super::retry::backoff;
use super::super::{Registry, Scope};

/// Breaks in a row, without a byte between them, after which a place is given up.
const BREAKS_MAX: u32 = 5;

/// The blob that a part is of.
pub(super) struct Wanted {
    pub(super) registry: Registry,
    pub(super) repository: String,
    pub(super) descriptor: Descriptor,
}

/// Bytes from `position` to `end`.
pub(super) struct Part {
    wanted: Arc<Wanted>,
    pub(super) position: u64,
    pub(super) end: u64,
    /// Whether the registry said that it serves ranges.
    pub(super) ranges: bool,
    /// Places that have not failed yet; `None`: not looked up yet.
    places: Option<VecDeque<Place>>,
    tried: Tried,
    body: Option<Body>,
    /// Bytes to throw away, when the registry began at zero though asked for a range.
    skip: u64,
    breaks: u32,
}

impl Part {
    pub(super) fn new(wanted: Arc<Wanted>, position: u64, end: u64) -> Self {
        let tried = Tried::default();
        Self { wanted, position, end, ranges: false, places: None, tried, body: None, skip: 0, breaks: 0 }
    }

    /// All of it, in memory.
    pub(super) async fn collect(mut self) -> Result<VecDeque<Bytes>> {
        let mut chunks = VecDeque::new();
        while let Some(chunk) = self.next().await? {
            chunks.push_back(chunk);
        }
        Ok(chunks)
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.position < self.end {
            let step = match self.body.as_mut() {
                None => self.open().await.map(|body| {
                    self.body = Some(body);
                    None
                }),
                Some(body) => match body.chunk().await {
                    Ok(Some(chunk)) => self.accept(chunk),
                    broke => {
                        let broke = broke.err();
                        self.after_break(broke).await.map(|()| None)
                    }
                },
            };
            match step {
                Ok(Some(chunk)) => return Ok(Some(chunk)),
                Ok(None) => {}
                Err(error) => self.give_up(error)?,
            }
        }
        self.body = None;
        Ok(None)
    }

    fn size(&self) -> u64 {
        self.wanted.descriptor.size
    }

    /// Counts a chunk in; `None` when it was all before the position.
    fn accept(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>> {
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        let _ = chunk.split_to(usize::try_from(skipped).unwrap_or(chunk.len()));
        if chunk.is_empty() {
            return Ok(None);
        }
        self.breaks = 0;
        let after = self.position + chunk.len() as u64;
        if after > self.size() {
            let url = self.body.as_ref().map(|body| body.url().to_string()).unwrap_or_default();
            return Err(Error::SizeMismatch { url, expected: self.size(), actual: after });
        }
        // The end may have come nearer since the connection was opened.
        chunk.truncate(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
        self.position += chunk.len() as u64;
        Ok(Some(chunk))
    }

    async fn after_break(&mut self, broke: Option<Error>) -> Result<()> {
        let url = self.body.take().map(|body| body.url().to_string()).unwrap_or_default();
        self.breaks += 1;
        tracing::debug!(url, position = self.position, breaks = self.breaks, "download broke");
        if self.breaks < BREAKS_MAX {
            tokio::time::sleep(backoff(self.breaks).min(Duration::from_secs(5))).await;
            return Ok(());
        }
        Err(broke.unwrap_or(Error::SizeMismatch { url, expected: self.size(), actual: self.position }))
    }

    /// This place cannot serve it: go on with the next one, if there is any.
    fn give_up(&mut self, error: Error) -> Result<()> {
        (self.body, self.skip, self.breaks) = (None, 0, 0);
        let places = self.places.get_or_insert_default();
        let Some(place) = places.pop_front() else { return Err(error) };
        self.wanted.registry.note_failure(&place, &error);
        self.tried.add(&place, error);
        if places.is_empty() {
            let what = format!("{}/{}", self.wanted.registry.name(), self.wanted.repository);
            return Err(std::mem::take(&mut self.tried).into_error(&what));
        }
        Ok(())
    }

    async fn place(&mut self) -> Result<(Endpoint, String)> {
        let wanted = &self.wanted;
        if self.places.is_none() {
            self.places = Some(wanted.registry.blob_places(&wanted.repository, &wanted.descriptor.digest)?.into());
        }
        let place = self.places.as_ref().and_then(VecDeque::front);
        let place =
            place.ok_or_else(|| Error::Protocol { url: wanted.repository.clone(), problem: "no place".into() })?;
        wanted.registry.note_served(place, &wanted.descriptor.digest);
        Ok((wanted.registry.endpoint(place).await?, place.repository.clone()))
    }

    async fn open(&mut self) -> Result<Body> {
        let (endpoint, repository) = self.place().await?;
        let digest = self.wanted.descriptor.digest.as_str();
        let url = endpoint.host().url(&format!("{repository}/blobs/{digest}"));
        let (position, end, size) = (self.position, self.end, self.size());
        let attach = |request: reqwest::RequestBuilder| match (position, end) {
            (0, end) if end == size => request,
            (position, end) if end == size => request.header(RANGE, format!("bytes={position}-")),
            (position, end) => request.header(RANGE, format!("bytes={position}-{}", end - 1)),
        };
        let answer = endpoint.call(&Method::GET, &url, &Scope::pull(&repository), attach).await?;
        let answer = endpoint.expect(answer, "pull", Some(digest)).await?;
        let whole = check(&answer, &url, size)?;
        let begin = if whole { 0 } else { begin_of_range(answer.headers()).unwrap_or(u64::MAX) };
        self.skip = position.checked_sub(begin).ok_or_else(|| Error::Protocol {
            url: url.to_string(),
            problem: "it sent another range than asked for".into(),
        })?;
        let accepts = answer.headers().get(ACCEPT_RANGES).is_some_and(|value| value.as_bytes() == b"bytes");
        self.ranges = !whole || accepts;
        Ok(endpoint.body(answer))
    }
}

/// A length that cannot be right is found before a byte is read. True for the whole blob, false for a range of it.
fn check(answer: &Response, url: &Url, size: u64) -> Result<bool> {
    let whole = answer.status() != StatusCode::PARTIAL_CONTENT;
    let total = if whole { answer.content_length() } else { total_of_range(answer.headers()) };
    match total {
        Some(total) if total != size => {
            Err(Error::SizeMismatch { url: url.to_string(), expected: size, actual: total })
        }
        _ => Ok(whole),
    }
}

/// `Content-Range: bytes 5-9/10` → 5.
fn begin_of_range(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// `Content-Range: bytes 5-9/10` → 10.
fn total_of_range(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_where_a_range_begins_and_how_long_the_whole_is() {
        let mut headers = HeaderMap::new();
        assert_eq!((begin_of_range(&headers), total_of_range(&headers)), (None, None));
        headers.insert(CONTENT_RANGE, "bytes 5-9/10".parse().unwrap());
        assert_eq!((begin_of_range(&headers), total_of_range(&headers)), (Some(5), Some(10)));
        headers.insert(CONTENT_RANGE, "bytes 5-9/*".parse().unwrap());
        assert_eq!(total_of_range(&headers), None);
    }
}
