//! A registry as its users name it: configuration says which hosts that means, mirrors first for reading.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::{Descriptor, Digest};
use tokio::sync::Mutex;

use super::configuration::{Configuration, Place};
use super::endpoint::Endpoint;
use super::error::{Error, Result, chain};
use super::{Options, RawManifest};

/// A registry, with its connections and tokens. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    options: Options,
    configuration: Configuration,
    endpoints: Mutex<HashMap<(String, String, bool), Endpoint>>,
    /// Hosts that were asked in vain: they are asked last from then on.
    failed: std::sync::Mutex<HashSet<String>>,
    served: std::sync::Mutex<Served>,
}

/// Which hosts blobs came from.
#[derive(Default)]
struct Served {
    last: HashMap<Digest, String>,
    /// What came was not what the digest says.
    wrong: HashSet<(String, Digest)>,
}

impl Registry {
    /// Reads the configuration; asks nobody yet.
    ///
    /// # Errors
    /// [`Error::NameInvalid`], [`Error::Configuration`], [`Error::Blocked`].
    pub async fn open(name: &str, options: &Options) -> Result<Self> {
        super::Host::resolve(name, options.plain_http)?;
        let configuration = Configuration::load(options.registries_conf.as_deref())?;
        configuration.plan(name, "", "")?;
        let inner = Inner {
            name: name.to_owned(),
            options: options.clone(),
            configuration,
            endpoints: Mutex::default(),
            failed: std::sync::Mutex::default(),
            served: std::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// As written in references: "docker.io", "localhost:5000".
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How it is reached.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Whether the registry lets us in.
    ///
    /// # Errors
    /// [`Error::Unauthorized`], [`Error::Unreachable`].
    pub async fn ping(&self) -> Result<()> {
        self.primary("").await?.0.ping().await
    }

    /// Reads a manifest or index by tag or digest, and checks its digest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::DigestMismatch`], [`Error::TooLarge`].
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<RawManifest> {
        let ask = |endpoint: Endpoint, repository: String| {
            async move { endpoint.manifest(&repository, reference).await }.boxed()
        };
        self.read(repository, reference, ask).await
    }

    /// The digest that a tag has at the registry now; `None` when it is not there.
    ///
    /// # Errors
    /// As for any request.
    pub async fn manifest_digest(&self, repository: &str, reference: &str) -> Result<Option<String>> {
        let (endpoint, repository) = self.primary(repository).await?;
        endpoint.manifest_digest(&repository, reference).await
    }

    /// Writes a manifest or index, byte for byte. When it has a `subject` and the registry keeps no list of referrers, it is
    /// entered into the list under the subject's fallback tag (distribution-spec, "Pushing Manifests with Subject").
    ///
    /// # Errors
    /// [`Error::Refused`] and those of any request; [`Error::DigestMismatch`] when the registry stored something else.
    pub async fn put_manifest(&self, repository: &str, reference: &str, manifest: &RawManifest) -> Result<()> {
        let (endpoint, repository) = self.primary(repository).await?;
        endpoint.put_manifest(&repository, reference, manifest).await
    }

    /// Deletes a manifest and all tags of it; takes it out of its subject's fallback list of referrers.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] when the registry deletes nothing.
    pub async fn delete_manifest(&self, repository: &str, digest: &Digest) -> Result<()> {
        let (endpoint, repository) = self.primary(repository).await?;
        endpoint.delete_manifest(&repository, digest).await
    }

    /// Deletes a tag and nothing else. Registries that delete by digest only get another, throw-away manifest under the tag,
    /// which is deleted by its digest.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] when the registry deletes nothing.
    pub async fn delete_tag(&self, repository: &str, tag: &str) -> Result<()> {
        let (endpoint, repository) = self.primary(repository).await?;
        endpoint.delete_tag(&repository, tag).await
    }

    /// The manifests that refer to `digest`, of one artifact type or all: from the registry's own list, or the fallback tag's.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the list is none; those of any request. Nobody refers to it: an empty list.
    pub async fn referrers(
        &self,
        repository: &str,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let ask = |endpoint: Endpoint, repository: String| {
            async move { endpoint.referrers(&repository, digest, artifact_type).await }.boxed()
        };
        self.read(repository, digest.as_str(), ask).await
    }

    /// The size of a blob; `None` when the repository does not have it.
    ///
    /// # Errors
    /// As for any request.
    pub async fn blob_size(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        let (endpoint, repository) = self.primary(repository).await?;
        endpoint.blob_size(&repository, digest).await
    }

    /// All tags of a repository, in the registry's order. Mirrors are not asked: they need not know all.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the repository does not exist; [`Error::Protocol`] when the list does not end.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let (endpoint, repository) = self.primary(repository).await?;
        endpoint.tags(&repository).await
    }

    /// All repositories that the registry tells of, in its order. Not part of the specification; many public registries refuse.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has no catalog; [`Error::Protocol`] when the list does not end.
    pub async fn catalog(&self) -> Result<Vec<String>> {
        self.primary("").await?.0.catalog().await
    }

    /// What the registry last said of its limits: "12 of 100 requests left in 6 h".
    pub async fn limit(&self) -> Option<String> {
        self.inner.endpoints.lock().await.values().find_map(Endpoint::limit)
    }

    /// Where a repository is written to.
    pub(super) async fn primary(&self, repository: &str) -> Result<(Endpoint, String)> {
        let place = self.inner.configuration.plan(&self.inner.name, repository, "")?.primary;
        Ok((self.endpoint(&place).await?, place.repository))
    }

    /// Where a repository is read from, in order. `reference`: tag or digest.
    pub(super) fn places(&self, repository: &str, reference: &str) -> Result<Vec<Place>> {
        let plan = self.inner.configuration.plan(&self.inner.name, repository, reference)?;
        let mut places: Vec<Place> = plan.mirrors.into_iter().chain([plan.primary]).collect();
        let failed = self.inner.failed.lock().unwrap_or_else(PoisonError::into_inner);
        places.sort_by_key(|place| failed.contains(&place.host));
        Ok(places)
    }

    /// Those of the repositories that are on the host where `repository` is written to, as they are called there.
    pub(super) fn sisters(&self, repository: &str, others: &[String]) -> Result<Vec<String>> {
        let plan = |name: &str| self.inner.configuration.plan(&self.inner.name, name, "").map(|plan| plan.primary);
        let own = plan(repository)?;
        let others = others.iter().filter_map(|name| plan(name).ok());
        let sisters = others.filter(|place| place.host == own.host && place.repository != own.repository);
        Ok(sisters.map(|place| place.repository).collect())
    }

    /// Where a blob is read from, in order: not where it came damaged from.
    pub(super) fn blob_places(&self, repository: &str, digest: &Digest) -> Result<Vec<Place>> {
        let mut places = self.places(repository, digest.as_str())?;
        let served = self.inner.served.lock().unwrap_or_else(PoisonError::into_inner);
        places.sort_by_key(|place| served.wrong.contains(&(place.host.clone(), digest.clone())));
        Ok(places)
    }

    /// Remembers where a blob comes from.
    pub(super) fn note_served(&self, place: &Place, digest: &Digest) {
        let mut served = self.inner.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.last.insert(digest.clone(), place.host.clone());
    }

    /// What was read last of a blob was damaged. True when there is another place to read it from.
    #[must_use]
    pub fn distrust(&self, repository: &str, digest: &Digest) -> bool {
        let places = self.places(repository, digest.as_str()).unwrap_or_default();
        let mut served = self.inner.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = served.last.remove(digest) {
            served.wrong.insert((host, digest.clone()));
        }
        places.iter().any(|place| !served.wrong.contains(&(place.host.clone(), digest.clone())))
    }

    pub(super) async fn endpoint(&self, place: &Place) -> Result<Endpoint> {
        // Credentials may differ from repository to repository.
        let key = (place.host.clone(), place.repository.clone(), place.insecure);
        let mut endpoints = self.inner.endpoints.lock().await;
        if let Some(known) = endpoints.get(&key) {
            return Ok(known.clone());
        }
        let endpoint = Endpoint::open(place, &self.inner.options).await?;
        endpoints.insert(key, endpoint.clone());
        Ok(endpoint)
    }

    /// Remembers that a host was asked in vain.
    pub(super) fn note_failure(&self, place: &Place, error: &Error) {
        if place.mirror {
            tracing::warn!(mirror = place.host, error = chain(error), "this mirror cannot serve it");
        }
        if matches!(error, Error::Unreachable { .. } | Error::Protocol { .. } | Error::Credentials { .. }) {
            self.inner.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(place.host.clone());
        }
    }

    /// Asks the places of a repository one after the other until one of them serves.
    async fn read<'a, T>(
        &self,
        repository: &str,
        reference: &str,
        ask: impl Fn(Endpoint, String) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let mut tried = Tried::default();
        for place in self.places(repository, reference)? {
            let result = match self.endpoint(&place).await {
                Ok(endpoint) => ask(endpoint, place.repository.clone()).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(value) => return Ok(value),
                Err(error) => {
                    self.note_failure(&place, &error);
                    tried.add(&place, error);
                }
            }
        }
        Err(tried.into_error(&format!("{}/{repository}", self.inner.name)))
    }
}

/// What went wrong at the places that were asked.
#[derive(Default)]
pub(super) struct Tried(Vec<(String, Error)>);

impl Tried {
    pub(super) fn add(&mut self, place: &Place, error: Error) {
        self.0.push((place.host.clone(), error));
    }

    /// The last error, with the others in its text.
    pub(super) fn into_error(mut self, what: &str) -> Error {
        match self.0.pop() {
            None => Error::Protocol { url: what.into(), problem: "there is no place to ask".into() },
            Some((_, error)) if self.0.is_empty() => error,
            Some((last, error)) => Error::AllFailed {
                what: what.into(),
                tried: self.0.iter().map(|(host, e)| format!("{host}: {}", chain(e))).collect::<Vec<_>>().join("; "),
                last,
                source: Box::new(error),
            },
        }
    }
}
