//! Referrers: the manifests that have another one as their `subject` (distribution-spec, "Listing Referrers"). Registries
//! without that list get an index under the tag `<algorithm>-<hex>` of the subject, which clients keep up to date.

use http::HeaderMap;
use oci::manifest::Index;
use oci::{Descriptor, Digest, media_type};
use serde_json::Value;

use super::endpoint::Endpoint;
use super::error::{Error, Result};
use super::listing::Pages;
use super::retry::backoff;
use super::{RawManifest, Scope};

/// How often an entry is written again that another client's write has pushed out.
const ATTEMPTS: u32 = 5;

impl Endpoint {
    /// The manifests that refer to `digest`, of one artifact type or all: from the registry's own list, or the fallback tag's.
    pub(super) async fn referrers(
        &self,
        repository: &str,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let listed = match self.listed_referrers(repository, digest, artifact_type).await? {
            Some(listed) => listed,
            None => self.fallback(repository, digest).await?.map_or_else(Vec::new, |index| index.entries()),
        };
        let fits =
            |entry: &Descriptor| artifact_type.is_none_or(|wanted| entry.artifact_type.as_deref() == Some(wanted));
        Ok(listed.into_iter().filter(fits).collect())
    }

    /// The registry's own list; `None` when it keeps none.
    async fn listed_referrers(
        &self,
        repository: &str,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>> {
        let mut url = self.host().url(&format!("{repository}/referrers/{digest}"));
        if let Some(wanted) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", wanted);
        }
        let mut pages = Pages::new(self, url, Scope::pull(repository), "list referrers", repository);
        let mut found = Vec::new();
        loop {
            match pages.next::<Index>().await {
                Ok(Some((page, headers))) if found.is_empty() && !is_index(&headers) => {
                    tracing::debug!(entries = page.manifests.len(), "an answer that is no list of referrers");
                    return Ok(None);
                }
                Ok(Some((page, _))) => found.extend(page.manifests),
                Ok(None) => return Ok(Some(found)),
                Err(Error::NotFound { .. } | Error::Refused { status: 400 | 405 | 406 | 410 | 501, .. })
                    if found.is_empty() =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn fallback(&self, repository: &str, subject: &Digest) -> Result<Option<Fallback>> {
        let tag = fallback_tag(subject);
        match self.manifest(repository, &tag).await {
            Ok(raw) => Fallback::read(&raw).map(Some).map_err(|problem| Error::Protocol {
                url: self.host().url(&format!("{repository}/manifests/{tag}")).to_string(),
                problem,
            }),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Enters a manifest that was pushed into its subject's fallback list. Nothing happens without a subject.
    pub(super) async fn list_referrer(&self, repository: &str, manifest: &RawManifest) -> Result<()> {
        let Some((subject, entry)) = referrer(manifest) else { return Ok(()) };
        // Two clients may write at once, and there is no lock: look whether the entry stayed.
        for attempt in 1..=ATTEMPTS {
            let mut index = self.fallback(repository, &subject).await?.unwrap_or_default();
            if !index.add(&entry) {
                return Ok(());
            }
            self.store_manifest(repository, &fallback_tag(&subject), &index.raw()).await?;
            if attempt > 1 {
                tokio::time::sleep(backoff(attempt)).await;
            }
        }
        let url = self.host().url(&format!("{repository}/manifests/{}", fallback_tag(&subject)));
        Err(Error::Protocol { url: url.to_string(), problem: "the list of referrers does not stay as written".into() })
    }

    /// Takes a manifest out of its subject's fallback list, if there is one.
    pub(super) async fn unlist_referrer(&self, repository: &str, manifest: &RawManifest) -> Result<()> {
        let Some((subject, entry)) = referrer(manifest) else { return Ok(()) };
        let Some(mut index) = self.fallback(repository, &subject).await? else { return Ok(()) };
        if !index.take_out(&entry.digest) {
            return Ok(());
        }
        self.store_manifest(repository, &fallback_tag(&subject), &index.raw()).await.map(drop)
    }
}

fn is_index(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim() == media_type::INDEX)
}

/// The tag under which clients keep the list: the algorithm, a dash, and at most 64 digits.
fn fallback_tag(subject: &Digest) -> String {
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm(), &hex[..hex.len().min(64)])
}

/// What a manifest refers to, and its entry in the list; `None` without a subject.
fn referrer(manifest: &RawManifest) -> Option<(Digest, Descriptor)> {
    let value: Value = serde_json::from_slice(&manifest.bytes).ok()?;
    let subject: Descriptor = serde_json::from_value(value.get("subject")?.clone()).ok()?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let mut entry = Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.bytes.len() as u64);
    let config = value.get("config").and_then(|config| config.get("mediaType"));
    entry.artifact_type = text(value.get("artifactType")).or_else(|| text(config));
    entry.annotations = value
        .get("annotations")
        .and_then(|annotations| serde_json::from_value(annotations.clone()).ok())
        .unwrap_or_default();
    Some((subject.digest, entry))
}

/// The list under a fallback tag. What other clients wrote into it stays as it is.
struct Fallback(serde_json::Map<String, Value>);

impl Default for Fallback {
    fn default() -> Self {
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": []});
        Self(index.as_object().cloned().unwrap_or_default())
    }
}

impl Fallback {
    fn read(raw: &RawManifest) -> Result<Self, String> {
        let index: serde_json::Map<String, Value> = serde_json::from_slice(&raw.bytes).map_err(|e| e.to_string())?;
        match index.get("manifests").is_some_and(Value::is_array) {
            true => Ok(Self(index)),
            false => Err("what is tagged there is no list of referrers".into()),
        }
    }

    fn list(&self) -> &[Value] {
        self.0.get("manifests").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn list_mut(&mut self) -> Option<&mut Vec<Value>> {
        self.0.get_mut("manifests")?.as_array_mut()
    }

    fn entries(&self) -> Vec<Descriptor> {
        self.list().iter().filter_map(|entry| serde_json::from_value(entry.clone()).ok()).collect()
    }

    /// False when it was there.
    fn add(&mut self, entry: &Descriptor) -> bool {
        if self.list().iter().any(|known| is(known, &entry.digest)) {
            return false;
        }
        let value = serde_json::to_value(entry).unwrap_or_default();
        self.list_mut().map(|list| list.push(value)).is_some()
    }

    /// False when it was not there.
    fn take_out(&mut self, digest: &Digest) -> bool {
        let before = self.list().len();
        if let Some(list) = self.list_mut() {
            list.retain(|known| !is(known, digest));
        }
        self.list().len() < before
    }

    fn raw(&self) -> RawManifest {
        RawManifest::of(media_type::INDEX, serde_json::to_vec(&self.0).unwrap_or_default())
    }
}

fn is(entry: &Value, digest: &Digest) -> bool {
    entry.get("digest").and_then(Value::as_str) == Some(digest.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_fallback_tag_fits_into_a_tag() {
        let long = format!("sha512:{}", "a".repeat(128)).parse().unwrap();
        assert_eq!(fallback_tag(&long), format!("sha512-{}", "a".repeat(64)));
    }

    #[test]
    fn an_entry_has_the_type_and_annotations_of_its_manifest() {
        let subject = Descriptor::of(media_type::MANIFEST, b"{}");
        let bytes = serde_json::json!({
            "config": {"mediaType": "application/x", "digest": subject.digest, "size": 2},
            "subject": subject, "annotations": {"a": "b"},
        });
        let raw = RawManifest::of(media_type::MANIFEST, bytes.to_string().into_bytes());
        let (found, entry) = referrer(&raw).unwrap();
        assert_eq!(found, subject.digest);
        assert_eq!((entry.artifact_type.as_deref(), entry.annotations["a"].as_str()), (Some("application/x"), "b"));
        assert!(referrer(&RawManifest::of(media_type::MANIFEST, b"{}".to_vec())).is_none());
    }

    #[test]
    fn what_others_wrote_into_the_list_is_kept() {
        let bytes = br#"{"schemaVersion":2,"x":1,"manifests":[{"digest":"sha256:1","data":"e30="}]}"#;
        let mut list = Fallback::read(&RawManifest::of(media_type::INDEX, bytes.to_vec())).unwrap();
        let entry = Descriptor::of(media_type::MANIFEST, b"{}");
        assert!(list.add(&entry) && !list.add(&entry));
        let text = String::from_utf8(list.raw().bytes).unwrap();
        assert!(text.contains(r#""x":1"#) && text.contains(r#""data":"e30=""#), "{text}");
        assert!(list.take_out(&entry.digest) && !list.take_out(&entry.digest));
    }
}
