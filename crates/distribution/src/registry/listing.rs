//! Lists that come in pages: tags, repositories, referrers. A list that does not end is an error, not a wait.

use http::Method;
use http::header::{HeaderMap, LINK};
use reqwest::Url;
use serde::de::DeserializeOwned;

use super::endpoint::Endpoint;
use super::error::{Error, Result};
use super::{MANIFEST_MAX, Scope};

/// Most pages of a list.
const PAGES_MAX: usize = 1_000;
/// Most bytes of a list, all pages together.
const LIST_MAX: u64 = 16 << 20;
/// Entries of a page that we ask for; registries may give fewer.
const PAGE: &str = "1000";

impl Endpoint {
    /// All tags of a repository, in the registry's order.
    pub(super) async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut url = self.host().url(&format!("{repository}/tags/list"));
        url.query_pairs_mut().append_pair("n", PAGE);
        let mut pages = Pages::new(self, url, Scope::pull(repository), "list tags", repository);
        let mut tags = Vec::new();
        while let Some((page, _)) = pages.next::<Page>().await? {
            tags.extend(page.tags.unwrap_or_default());
        }
        Ok(tags)
    }

    /// All repositories that the registry tells of, in its order. Not part of the specification; many public registries refuse.
    pub(super) async fn catalog(&self) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Page {
            repositories: Option<Vec<String>>,
        }
        let mut url = self.host().url("_catalog");
        url.query_pairs_mut().append_pair("n", PAGE);
        let mut pages = Pages::new(self, url, Scope::catalog(), "list repositories", "_catalog");
        let mut repositories = Vec::new();
        while let Some((page, _)) = pages.next::<Page>().await? {
            repositories.extend(page.repositories.unwrap_or_default());
        }
        Ok(repositories)
    }
}

/// The pages of one list.
pub(super) struct Pages<'a> {
    endpoint: &'a Endpoint,
    next: Option<Url>,
    scope: Scope,
    action: &'a str,
    what: &'a str,
    pages: usize,
    bytes: u64,
}

impl<'a> Pages<'a> {
    /// `action` and `what` are for messages.
    pub(super) fn new(endpoint: &'a Endpoint, url: Url, scope: Scope, action: &'a str, what: &'a str) -> Self {
        Self { endpoint, next: Some(url), scope, action, what, pages: 0, bytes: 0 }
    }

    /// The next page and its headers; `None` after the last.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(T, HeaderMap)>> {
        let Some(url) = self.next.take() else { return Ok(None) };
        let protocol = |problem: String| Error::Protocol { url: url.to_string(), problem };
        let answer = self.endpoint.call(&Method::GET, &url, &self.scope, |request| request).await?;
        let answer = self.endpoint.expect(answer, self.action, Some(self.what)).await?;
        let headers = answer.headers().clone();
        let bytes = self.endpoint.body(answer).read(MANIFEST_MAX).await?;
        self.pages += 1;
        self.bytes += bytes.len() as u64;
        self.next = next_page(&headers, &url);
        if self.next.as_ref() == Some(&url) || self.pages >= PAGES_MAX || self.bytes > LIST_MAX {
            let problem = format!("the list does not end: {} pages with {} bytes so far", self.pages, self.bytes);
            return Err(protocol(problem));
        }
        let page = serde_json::from_slice(&bytes).map_err(|e| protocol(e.to_string()))?;
        Ok(Some((page, headers)))
    }
}

/// `Link: </v2/x/tags/list?n=2&last=b>; rel="next"`. Only path and query are taken: a proxy in front of a registry often has
/// another name than the registry writes, and nobody else is to be asked anyway.
fn next_page(headers: &HeaderMap, base: &Url) -> Option<Url> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let entry = link.split(',').find(|entry| entry.contains("rel=\"next\"") || entry.contains("rel=next"))?;
    let target = base.join(entry.split('<').nth(1)?.split('>').next()?).ok()?;
    let mut next = base.clone();
    next.set_path(target.path());
    next.set_query(target.query());
    Some(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_next_page_is_relative_to_this_one_and_on_the_same_host() {
        let base = Url::parse("http://localhost:5000/v2/x/tags/list").unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(next_page(&headers, &base), None);
        for target in ["/v2/x/tags/list?n=2&last=b", "https://inside.example/v2/x/tags/list?n=2&last=b"] {
            headers.insert(LINK, format!("<{target}>; rel=\"next\"").parse().unwrap());
            assert_eq!(next_page(&headers, &base).unwrap().as_str(), "http://localhost:5000/v2/x/tags/list?n=2&last=b");
        }
    }
}
