//! Lists: repositories, tags, referrers; in pages.

use http::HeaderName;
use http::header::{CONTENT_TYPE, LINK};
use oci::{Digest, Reference, media_type};
use serde_json::json;

use super::At;
use super::catalog::Catalog;
use super::reply::{self, Refusal, Reply, With as _};
use super::route::Name;

/// Most entries of one page.
const PAGE_MAX: usize = 10_000;
/// Bytes of one page of referrers, as JSON: well below the 4 MiB that clients read.
const REFERRERS_BYTES: usize = 3 << 20;

const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

impl At {
    /// `/v2/_catalog`.
    pub(super) async fn repositories(&self) -> Result<Reply, Refusal> {
        let keys = self.call(|store| Catalog(store).repositories()).await?;
        let familiar = |key: &String| key.parse::<Reference>().map_or(key.clone(), |name| name.familiar_name());
        let mut names: Vec<String> = keys.iter().map(familiar).collect();
        names.sort();
        let (page, link) = self.page(names, "/v2/_catalog")?;
        Ok(linked(reply::json(&json!({"repositories": page})), link))
    }

    /// `/v2/<name>/tags/list`.
    pub(super) async fn tags(&self, name: Name) -> Result<Reply, Refusal> {
        let key = name.key.clone();
        let here = self.call(move |store| Catalog(store).tags(&key)).await?;
        let upstream = match &self.shared.proxy {
            Some(proxy) => proxy.tags(&name).await,
            None => None,
        };
        let tags = match (upstream, here) {
            (Some(mut all), here) => {
                all.extend(here.unwrap_or_default());
                all.sort();
                all.dedup();
                all
            }
            (None, Some(here)) => here,
            (None, None) => {
                return Err(Refusal::not_found("NAME_UNKNOWN", format_args!("the repository {}", name.wire)));
            }
        };
        let (page, link) = self.page(tags, &format!("/v2/{}/tags/list", name.wire))?;
        Ok(linked(reply::json(&json!({"name": name.wire, "tags": page})), link))
    }

    /// `/v2/<name>/referrers/<digest>`.
    pub(super) async fn referrers(&self, name: Name, digest: Digest) -> Result<Reply, Refusal> {
        let (key, subject) = (name.key.clone(), digest.clone());
        let all = self.call(move |store| Catalog(store).referrers(&key, &subject)).await?;
        let wanted = self.query.get("artifactType");
        let fits = |own: &Option<String>| wanted.is_none_or(|wanted| own.as_deref() == Some(wanted));
        let last = self.query.get("last").unwrap_or_default();
        let mut rest =
            all.into_iter().filter(|entry| fits(&entry.artifact_type) && entry.digest.as_str() > last).peekable();
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = rest.next_if(|_| bytes < REFERRERS_BYTES) {
            bytes += serde_json::to_string(&entry).map_or(0, |text| text.len());
            page.push(entry);
        }
        let more = rest.peek().is_some().then(|| page.last().map(|entry| entry.digest.to_string())).flatten();
        let link = more.map(|last| {
            let filter = wanted.map(|wanted| format!("&artifactType={}", escape(wanted))).unwrap_or_default();
            format!("</v2/{}/referrers/{digest}?last={last}{filter}>; rel=\"next\"", name.wire)
        });
        let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": page});
        let mut reply =
            reply::sized(http::StatusCode::OK, index.to_string().into()).with(CONTENT_TYPE, media_type::INDEX);
        if wanted.is_some() {
            reply = reply.with(FILTERS, "artifactType");
        }
        Ok(linked(reply, link))
    }

    /// The part of a sorted list that `n` and `last` ask for, and the link to the next one.
    fn page(&self, all: Vec<String>, path: &str) -> Result<(Vec<String>, Option<String>), Refusal> {
        let n = match self.query.get("n") {
            None => PAGE_MAX,
            Some(text) => {
                let n: usize =
                    text.parse().map_err(|_| Refusal::bad("UNSUPPORTED", format!("n={text} is no count")))?;
                n.min(PAGE_MAX)
            }
        };
        let last = self.query.get("last").unwrap_or_default();
        let mut rest = all.into_iter().filter(|entry| entry.as_str() > last);
        let page: Vec<String> = rest.by_ref().take(n).collect();
        let next = page.last().filter(|_| rest.next().is_some());
        let link = next.map(|last| format!("<{path}?n={n}&last={}>; rel=\"next\"", escape(last)));
        Ok((page, link))
    }
}

fn linked(reply: Reply, link: Option<String>) -> Reply {
    match link {
        Some(link) => reply.with(LINK, &link),
        None => reply,
    }
}

/// Percent-encodes a value of a query.
fn escape(text: &str) -> String {
    let mut url = reqwest::Url::parse("http://host/").ok();
    if let Some(url) = &mut url {
        url.query_pairs_mut().append_pair("v", text);
    }
    url.and_then(|url| url.query()?.strip_prefix("v=").map(str::to_owned)).unwrap_or_default()
}
