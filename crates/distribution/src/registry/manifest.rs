//! Manifests and indexes: read, written and deleted byte for byte.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};
use oci::Digest;
use reqwest::{RequestBuilder, Response};

use super::endpoint::Endpoint;
use super::error::{Error, Result};
use super::{MANIFEST_MAX, Scope};

/// What we can read best; anything else is taken as it is, for artifacts and copies.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
    */*";

/// A manifest or index, as the registry has it: never re-serialised.
#[derive(Debug, Clone)]
pub struct RawManifest {
    /// The bytes that the digest is of.
    pub bytes: Vec<u8>,
    /// "application/vnd.oci.image.manifest.v1+json", …
    pub media_type: String,
    /// Of `bytes`.
    pub digest: Digest,
}

impl RawManifest {
    /// Of bytes at hand, by sha256.
    #[must_use]
    pub fn of(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), media_type: media_type.into(), bytes }
    }
}

impl Endpoint {
    /// Reads a manifest or index by tag or digest, and checks its digest.
    pub(super) async fn manifest(&self, repository: &str, reference: &str) -> Result<RawManifest> {
        let answer = self.ask_manifest(&Method::GET, repository, reference).await?;
        let answer = self.expect(answer, "pull", Some(&self.full_name(repository, reference))).await?;
        let url = self.manifest_url(repository, reference);
        let media_type = header(answer.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let claimed = header(answer.headers(), "docker-content-digest").and_then(|claimed| claimed.parse().ok());
        let bytes = self.body(answer).read(MANIFEST_MAX).await?;
        let expected: Option<Digest> = reference.parse().ok().or(claimed);
        let digest = expected.as_ref().map_or_else(|| Digest::of(&bytes), |expected| expected.like(&bytes));
        match expected {
            Some(expected) if expected != digest => Err(mismatch(&url, &expected, &digest)),
            _ => Ok(RawManifest { bytes, media_type, digest }),
        }
    }

    /// The digest that a tag has at the registry now; `None` when it is not there.
    pub(super) async fn manifest_digest(&self, repository: &str, reference: &str) -> Result<Option<String>> {
        let answer = self.ask_manifest(&Method::HEAD, repository, reference).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.expect(answer, "pull", Some(reference)).await?;
        Ok(header(answer.headers(), "docker-content-digest"))
    }

    /// Writes a manifest or index, byte for byte. When it has a `subject` and the registry keeps no list of referrers, it is
    /// entered into the list under the subject's fallback tag (distribution-spec, "Pushing Manifests with Subject").
    pub(super) async fn put_manifest(&self, repository: &str, reference: &str, manifest: &RawManifest) -> Result<()> {
        let listed = self.store_manifest(repository, reference, manifest).await?;
        if !listed {
            self.list_referrer(repository, manifest).await?;
        }
        Ok(())
    }

    /// Sends a manifest. The value says whether the registry itself took note of the subject.
    pub(super) async fn store_manifest(
        &self,
        repository: &str,
        reference: &str,
        manifest: &RawManifest,
    ) -> Result<bool> {
        let url = self.manifest_url(repository, reference);
        let attach =
            |request: RequestBuilder| request.header(CONTENT_TYPE, &manifest.media_type).body(manifest.bytes.clone());
        let answer = self.call(&Method::PUT, &url, &Scope::push(repository), attach).await?;
        let answer = self.expect(answer, "push", Some(reference)).await?;
        let stored: Option<Digest> = header(answer.headers(), "docker-content-digest").and_then(|d| d.parse().ok());
        match stored {
            // The registry may name it by another algorithm than we do.
            Some(stored) if stored != stored.like(&manifest.bytes) => Err(mismatch(&url, &manifest.digest, &stored)),
            _ => Ok(answer.headers().contains_key("oci-subject")),
        }
    }

    /// Deletes a manifest and all tags of it; takes it out of its subject's fallback list of referrers.
    pub(super) async fn delete_manifest(&self, repository: &str, digest: &Digest) -> Result<()> {
        let manifest = self.manifest(repository, digest.as_str()).await?;
        self.unlist_referrer(repository, &manifest).await?;
        self.remove(repository, digest.as_str()).await
    }

    /// Deletes a tag and nothing else. Registries that delete by digest only get another, throw-away manifest under the tag,
    /// which is deleted by its digest.
    pub(super) async fn delete_tag(&self, repository: &str, tag: &str) -> Result<()> {
        match self.remove(repository, tag).await {
            Err(Error::Refused { status: 400 | 405 | 501, .. }) => {}
            other => return other,
        }
        if self.manifest_digest(repository, tag).await?.is_none() {
            return Err(Error::NotFound {
                reference: self.full_name(repository, tag),
                url: self.manifest_url(repository, tag).to_string(),
            });
        }
        // Unique, so that nothing else can have its digest.
        let nonce = format!("{:032x}", rand::random::<u128>());
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": oci::media_type::INDEX, "manifests": [],
            "annotations": {"dev.pier.deleted": nonce},
        });
        let throw_away = RawManifest::of(oci::media_type::INDEX, index.to_string().into_bytes());
        self.store_manifest(repository, tag, &throw_away).await?;
        self.remove(repository, throw_away.digest.as_str()).await
    }

    pub(super) async fn remove(&self, repository: &str, reference: &str) -> Result<()> {
        let url = self.manifest_url(repository, reference);
        let answer = self.call(&Method::DELETE, &url, &Scope::delete(repository), |request| request).await?;
        self.expect(answer, "delete", Some(&self.full_name(repository, reference))).await.map(drop)
    }

    async fn ask_manifest(&self, method: &Method, repository: &str, reference: &str) -> Result<Response> {
        let url = self.manifest_url(repository, reference);
        self.call(method, &url, &Scope::pull(repository), |request| request.header(ACCEPT, ACCEPTED)).await
    }

    fn manifest_url(&self, repository: &str, reference: &str) -> reqwest::Url {
        self.host().url(&format!("{repository}/manifests/{reference}"))
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn mismatch(url: &reqwest::Url, expected: &Digest, actual: &Digest) -> Error {
    Error::DigestMismatch { url: url.to_string(), expected: expected.to_string(), actual: actual.to_string() }
}
