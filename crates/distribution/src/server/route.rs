//! Which endpoint a path means: distribution-spec, "Endpoints".

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode, Uri};
use oci::{Digest, Reference};

use super::reply::Refusal;

/// A repository, as the client wrote it and as the store names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// "library/busybox".
    pub wire: String,
    /// "docker.io/library/busybox".
    pub key: String,
}

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pointer {
    Tag(String),
    Digest(Digest),
}

/// An endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Catalog,
    Tags(Name),
    Manifest(Name, Pointer),
    Blob(Name, Digest),
    Uploads(Name),
    Upload(Name, String),
    Referrers(Name, Digest),
}

impl Route {
    /// Reads a path. It is read from its end: repositories may have components that look like endpoints.
    pub fn parse(path: &str) -> Result<Self, Refusal> {
        let path = path.replace("%3A", ":").replace("%3a", ":");
        let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
        let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            [""] => Ok(Self::Base),
            ["_catalog"] => Ok(Self::Catalog),
            [name @ .., "tags", "list"] => Ok(Self::Tags(repository(name)?)),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads(repository(name)?))
            }
            [name @ .., "blobs", "uploads", id] => Ok(Self::Upload(repository(name)?, (*id).to_owned())),
            [name @ .., "blobs", text] => Ok(Self::Blob(repository(name)?, digest(text)?)),
            [name @ .., "referrers", text] => Ok(Self::Referrers(repository(name)?, digest(text)?)),
            [name @ .., "manifests", text] => Ok(Self::Manifest(repository(name)?, Pointer::parse(text)?)),
            _ => Err(unknown()),
        }
    }
}

impl Pointer {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains(':') {
            return digest(text).map(Self::Digest);
        }
        tag(text).map(Self::Tag)
    }
}

impl Name {
    /// Reads a repository's name.
    pub fn parse(wire: &str) -> Result<Self, Refusal> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b);
        let reference = match wire.bytes().all(plain) {
            true => wire.parse::<Reference>().ok(),
            false => None,
        };
        let reference = reference.ok_or_else(|| {
            Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", format!("{wire:?} is no repository name"))
        })?;
        Ok(Self { wire: wire.to_owned(), key: reference.name() })
    }
}

fn repository(parts: &[&str]) -> Result<Name, Refusal> {
    Name::parse(&parts.join("/"))
}

/// Reads a digest.
pub(super) fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse()
        .map_err(|e: oci::digest::InvalidDigest| Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", e.to_string()))
}

/// Reads a tag.
pub(super) fn tag(text: &str) -> Result<String, Refusal> {
    match format!("x:{text}").parse::<Reference>().ok().and_then(|r| r.tag().map(str::to_owned)) {
        Some(tag) if tag == text => Ok(tag),
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", format!("{text:?} is no tag"))),
    }
}

fn unknown() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such endpoint".into())
}

/// The length that a request announces.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A query's pairs, in their order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// All values of a key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// Reads the query of a URI.
pub(super) fn query(uri: &Uri) -> Query {
    let text = format!("http://host/?{}", uri.query().unwrap_or_default());
    let url = reqwest::Url::parse(&text).ok();
    Query(url.iter().flat_map(|url| url.query_pairs().into_owned()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(wire: &str) -> Name {
        Name::parse(wire).unwrap()
    }

    #[test]
    fn endpoints_are_read_from_the_end() {
        let d = format!("sha256:{}", "a".repeat(64));
        let digest: Digest = d.parse().unwrap();
        for (path, route) in [
            ("/v2/".to_owned(), Route::Base),
            ("/v2".into(), Route::Base),
            ("/v2/_catalog".into(), Route::Catalog),
            ("/v2/a/b/tags/list".into(), Route::Tags(name("a/b"))),
            (format!("/v2/a/blobs/{d}"), Route::Blob(name("a"), digest.clone())),
            (format!("/v2/a/blobs/{}", d.replace(':', "%3A")), Route::Blob(name("a"), digest.clone())),
            (format!("/v2/a/manifests/manifests/{d}"), Route::Manifest(name("a/manifests"), Pointer::Digest(digest))),
            ("/v2/a/manifests/v1".into(), Route::Manifest(name("a"), Pointer::Tag("v1".into()))),
            ("/v2/a/blobs/uploads/".into(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads/x".into(), Route::Upload(name("a"), "x".into())),
        ] {
            assert_eq!(Route::parse(&path).unwrap(), route, "{path}");
        }
        for (path, code) in [
            ("/v1/", "NAME_UNKNOWN"),
            ("/v2/a", "NAME_UNKNOWN"),
            ("/v2/A/tags/list", "NAME_INVALID"),
            ("/v2/a/../b/tags/list", "NAME_INVALID"),
            ("/v2/a/blobs/sha256:1", "DIGEST_INVALID"),
            ("/v2/a/manifests/.x", "MANIFEST_INVALID"),
        ] {
            assert_eq!(Route::parse(path).unwrap_err().code, code, "{path}");
        }
    }

    #[test]
    fn one_repository_has_dockers_names() {
        assert_eq!(name("busybox").key, "docker.io/library/busybox");
        assert_eq!(name("docker.io/library/busybox").key, name("library/busybox").key);
        assert_eq!(name("quay.io/a/b").key, "quay.io/a/b");
    }

    #[test]
    fn queries_are_decoded() {
        let query = query(&"/v2/?artifactType=a%2Fb&tag=1&tag=2".parse().unwrap());
        assert_eq!(query.get("artifactType"), Some("a/b"));
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["1", "2"]);
    }
}
