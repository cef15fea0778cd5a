//! Search. The distribution specification has none: Docker Hub and many others still answer the first protocol's `/v1/search`;
//! elsewhere the catalog is read and looked through.

use http::Method;
use reqwest::Url;
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::error::{Error, Result};
use super::{MANIFEST_MAX, Registry, Scope};

/// Where Docker Hub, whose registry does not know it, is searched.
const HUB: &str = "https://index.docker.io/v1/search";

/// A repository, as a registry tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Hit {
    /// Without the registry.
    pub name: String,
    /// For people; anything may be in it.
    pub description: String,
    /// How many like it.
    #[serde(rename = "star_count")]
    pub stars: u64,
    /// Made by those who keep the registry.
    #[serde(rename = "is_official")]
    pub official: bool,
    /// Built by the registry itself.
    #[serde(rename = "is_automated")]
    pub automated: bool,
}

impl Registry {
    /// Repositories that have a word in their name or description, as the registry ranks them; at most about `limit`. A registry
    /// that cannot search is asked for its catalog: then only names count.
    ///
    /// # Errors
    /// Those of any request; of the search when the catalog is refused, too.
    pub async fn search(&self, word: &str, limit: usize) -> Result<Vec<Hit>> {
        let (endpoint, _) = self.primary("").await?;
        let hub = endpoint.host().base.host_str() == Some("registry-1.docker.io");
        let refused = match endpoint.search(word, limit, hub).await {
            Err(error @ (Error::NotFound { .. } | Error::Refused { .. } | Error::Protocol { .. })) if !hub => error,
            other => return other,
        };
        match endpoint.catalog().await {
            Ok(names) => {
                let named = names.into_iter().filter(|name| name.contains(word));
                Ok(named.take(limit).map(|name| Hit { name, ..Hit::default() }).collect())
            }
            // Neither: what was said of the search is nearer to what was asked.
            Err(Error::NotFound { .. } | Error::Protocol { .. }) => Err(refused),
            Err(error) => Err(error),
        }
    }
}

impl Endpoint {
    async fn search(&self, word: &str, limit: usize, hub: bool) -> Result<Vec<Hit>> {
        #[derive(Deserialize)]
        struct Answer {
            results: Option<Vec<Hit>>,
        }
        let mut url = self.host().base.clone();
        match Url::parse(HUB) {
            Ok(search) if hub => url = search,
            _ => url.set_path("/v1/search"),
        }
        url.query_pairs_mut().append_pair("q", word).append_pair("n", &limit.to_string());
        let answer = self.call(&Method::GET, &url, &Scope::none(), |request| request).await?;
        let answer = self.expect(answer, "a search", Some(word)).await?;
        let bytes = self.body(answer).read(MANIFEST_MAX).await?;
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Protocol { url: url.to_string(), problem: e.to_string() })?;
        Ok(answer.results.unwrap_or_default())
    }
}
