//! Blobs: whole, in ranges, removed.

use std::fs::File;

use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderMap, Method, StatusCode};
use oci::Digest;

use super::catalog::Catalog;
use super::proxy::Flight;
use super::reply::{self, CONTENT_DIGEST, Refusal, Reply, With as _};
use super::route::Name;
use super::{At, Incomer};
use crate::transport::ByteStream;
use crate::transport::pump::file_stream;

/// Where a blob's bytes come from.
enum Found {
    /// The store.
    Here(File, u64),
    /// An upstream, at this moment.
    OnItsWay(Flight),
}

impl At {
    /// GET and HEAD.
    pub(super) async fn blob(&self, name: Name, digest: Digest, request: &Incomer) -> Result<Reply, Refusal> {
        let found = self.find_blob(&name, &digest).await?;
        let size = match &found {
            Found::Here(_, size) => *size,
            Found::OnItsWay(flight) => flight.size(),
        };
        let span = span(request.headers(), size).map_err(|Unsatisfiable| {
            let message = format!("the blob has {size} bytes");
            Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message)
                .with(CONTENT_RANGE, format!("bytes */{size}"))
        })?;
        let (begin, length) = span.unwrap_or((0, size));
        let mut reply = match *request.method() == Method::HEAD {
            true => reply::empty(StatusCode::OK).with(CONTENT_LENGTH, &length.to_string()),
            false => reply::stream(self.stream(found, &digest, begin, length), length),
        };
        if span.is_some() {
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
            let last = begin + length - 1;
            reply = reply.with(CONTENT_RANGE, &format!("bytes {begin}-{last}/{size}"));
        }
        Ok(reply
            .with(ACCEPT_RANGES, "bytes")
            .with(CONTENT_TYPE, "application/octet-stream")
            .with(ETAG, &format!("\"{digest}\""))
            .with(CONTENT_DIGEST, digest.as_str()))
    }

    async fn find_blob(&self, name: &Name, digest: &Digest) -> Result<Found, Refusal> {
        let (key, wanted) = (name.key.clone(), digest.clone());
        let here = self.call(move |store| {
            // Garbage collection may come between the look and the opening: then it was not there.
            match Catalog(store).blob(&key, &wanted)? {
                Some(size) => Ok(store.content().open(&wanted).ok().map(|file| Found::Here(file, size))),
                None => Ok(None),
            }
        });
        if let Some(found) = here.await? {
            self.note_use(digest).await?;
            return Ok(found);
        }
        match &self.shared.proxy {
            Some(proxy) => Ok(Found::OnItsWay(proxy.blob(&self.shared.store, name, digest).await?)),
            None => Err(Refusal::not_found("BLOB_UNKNOWN", format_args!("the blob {digest}"))),
        }
    }

    fn stream(&self, found: Found, digest: &Digest, begin: u64, length: u64) -> ByteStream {
        match found {
            Found::Here(file, _) => file_stream(file, &self.shared.store.content().path(digest), begin, length),
            Found::OnItsWay(flight) => flight.stream(begin, length),
        }
    }

    /// DELETE.
    pub(super) async fn delete_blob(&self, name: Name, digest: Digest) -> Result<Reply, Refusal> {
        let (key, wanted) = (name.key, digest.clone());
        let (removed, left) = self
            .call(move |store| {
                let catalog = Catalog(store);
                Ok((catalog.remove_blob(&key, &wanted)?, catalog.blob(&key, &wanted)?.is_some()))
            })
            .await?;
        match (removed, left) {
            (true, false) => Ok(reply::empty(StatusCode::ACCEPTED)),
            (_, true) => Err(Refusal::unsupported("an image of the store has this blob: remove the image")),
            (false, false) => Err(Refusal::not_found("BLOB_UNKNOWN", format_args!("the blob {digest}"))),
        }
    }
}

/// A range that has no byte of the content.
#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// Begin and length of the one range that is asked for (RFC 9110, 14.1.2); none: all. Several ranges are answered with all, as
/// 14.2 allows; so is a header that is none.
fn span(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, Unsatisfiable> {
    let Some(text) = headers.get(RANGE).and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Ok(None);
    };
    let (begin, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(begin), Ok(end)) => (begin, end.min(size.saturating_sub(1))),
        (Ok(begin), Err(_)) if last.is_empty() => (begin, size.saturating_sub(1)),
        (Err(_), Ok(0)) if first.is_empty() => return Err(Unsatisfiable),
        (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size.saturating_sub(1)),
        _ => return Ok(None),
    };
    if begin > end || begin >= size {
        return Err(Unsatisfiable);
    }
    Ok(Some((begin, end - begin + 1)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges() {
        let read = |text: &str, size| span(&HeaderMap::from_iter([(RANGE, text.parse().unwrap())]), size);
        assert_eq!(span(&HeaderMap::new(), 10), Ok(None));
        for (text, expected) in [
            ("bytes=0-9", Ok(Some((0, 10)))),
            ("bytes=2-3", Ok(Some((2, 2)))),
            ("bytes=8-", Ok(Some((8, 2)))),
            ("bytes=8-99", Ok(Some((8, 2)))),
            ("bytes=-3", Ok(Some((7, 3)))),
            ("bytes=-99", Ok(Some((0, 10)))),
            ("bytes=0-1,3-4", Ok(None)),
            ("lines=0-1", Ok(None)),
            ("bytes=x-y", Ok(None)),
            ("bytes=10-", Err(Unsatisfiable)),
            ("bytes=5-4", Err(Unsatisfiable)),
            ("bytes=-0", Err(Unsatisfiable)),
        ] {
            assert_eq!(read(text, 10), expected, "{text}");
        }
        assert_eq!(read("bytes=0-", 0), Err(Unsatisfiable));
    }
}
