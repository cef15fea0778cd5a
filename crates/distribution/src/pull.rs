//! From a registry into the store: all layers at once, each one fetched, verified, stored and unpacked as one stream.

use oci::{Digest, Platform, Reference};

use crate::error::{Error, Result};
use crate::image::{canonical, find};
use crate::lease::Alive;
use crate::progress::Reporter;
use crate::registry;
use crate::transport::Location;
use crate::transport::copy::{Copied, Select};
use crate::transport::guarded::guard;
use crate::transport::pump::blocking;
use crate::transport::referrers::transfer;
use crate::transport::remote::Remote;
use crate::transport::stored::{self, StoreSink};
use crate::{ImageRecord, Store, events};

/// How long a pull's own lease lives without being renewed, in seconds.
const LEASE_TTL: u64 = 3600;
/// How often it is renewed.
const LEASE_RENEW: std::time::Duration = std::time::Duration::from_secs(900);

/// When the registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Every time.
    #[default]
    Always,
    /// Only when the store does not have the name.
    Missing,
    /// Not at all.
    Never,
}

impl std::str::FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "always" => Ok(Self::Always),
            "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            other => {
                let problem = "there are: always, missing, never".into();
                Err(Error::NameInvalid { what: "pull policy", name: other.into(), problem })
            }
        }
    }
}

/// What to pull, and how.
#[derive(Debug, Clone)]
pub struct Pull {
    /// The name.
    pub reference: Reference,
    /// None: this host's.
    pub platform: Option<Platform>,
    /// How the registry is reached.
    pub registry: registry::Options,
    /// Everything that the name stands for, not only one platform's image.
    pub all_platforms: bool,
    /// Blobs only.
    pub no_unpack: bool,
    /// When the registry is asked.
    pub policy: Policy,
    /// Holds what comes; none: the pull's own, until the name holds it.
    pub lease: Option<String>,
    /// Also what belongs to the image: signatures, attestations. Not looked for when the registry is not asked.
    pub referrers: bool,
}

/// What came.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// As recorded.
    pub image: ImageRecord,
    /// The registry's digest of what the name stands for.
    pub digest: Digest,
    /// False when everything was there already.
    pub changed: bool,
}

/// Pulls an image.
///
/// # Errors
/// Those of the registry and the store; [`Error::ImageNotFound`] with [`Policy::Never`].
pub async fn pull(store: &Store, wanted: &Pull, reporter: &Reporter) -> Result<Pulled> {
    if wanted.policy != Policy::Always {
        match local(store, wanted).await {
            Ok(found) => return Ok(found),
            Err(Error::ImageNotFound { .. }) if wanted.policy == Policy::Missing => {}
            Err(error) => return Err(error),
        }
    }
    let lease = Lease::of(store, wanted.lease.as_deref()).await?;
    let location = Location::Registry(wanted.reference.clone());
    let source = Remote::open(&wanted.reference, &wanted.registry).await?;
    let source = guard(Box::new(source), &location, &wanted.registry.trust)?;
    let sink = StoreSink::new(store, Some(lease.id()), !wanted.no_unpack);
    let select = match wanted.all_platforms {
        true => Select::All,
        false => Select::Platform(wanted.platform.clone().unwrap_or_else(Platform::host)),
    };
    let copied = tokio::select! {
        copied = transfer(source.as_ref(), &sink, &select, wanted.referrers, reporter) => copied?,
        error = lease.keep() => return Err(error),
    };
    let name = canonical(&wanted.reference);
    let repository = wanted.reference.name();
    let (image, renamed) = keep(store, &copied, &name, Some(&repository)).await?;
    events::record(store, "pull", image.config.as_str(), &name);
    Ok(Pulled { image, digest: copied.root.digest, changed: sink.changed() || renamed })
}

/// The image of the name, if it is in the store and fits the platform.
async fn local(store: &Store, wanted: &Pull) -> Result<Pulled> {
    let (store, name, platform) = (store.clone(), wanted.reference.to_string(), wanted.platform.clone());
    blocking(move || {
        let (image, _) = find(&store, &name)?;
        if platform.is_some_and(|wanted| wanted.match_rank(&image.platform).is_none()) {
            return Err(Error::ImageNotFound { name });
        }
        let digest = image.target.digest.clone();
        Ok(Pulled { image, digest, changed: false })
    })
    .await
}

/// Records what was copied under a name. The flag says whether the name meant something else before.
///
/// # Errors
/// [`Error::ManifestInvalid`] when it is no container image; those of the store.
pub async fn keep(store: &Store, copied: &Copied, name: &str, repository: Option<&str>) -> Result<(ImageRecord, bool)> {
    let mut record = stored::record(copied, name)?;
    record.repo_digests.extend(repository.map(|repository| format!("{repository}@{}", copied.root.digest)));
    let (store, name) = (store.clone(), name.to_owned());
    blocking(move || {
        let before = store.images().get(&name)?;
        let same = |other: &ImageRecord| {
            other.target.digest == record.target.digest && other.manifest.digest == record.manifest.digest
        };
        for known in store.images().by_digest(&record.manifest.digest)?.into_iter().filter(same) {
            record.repo_digests.extend(known.repo_digests);
        }
        record.repo_digests.sort();
        record.repo_digests.dedup();
        store.images().put(&record, Some(&name), None)?;
        let image = store.images().get(&name)?.unwrap_or(record.clone());
        Ok((image, before.is_none_or(|before| !same(&before))))
    })
    .await
}

/// A lease for the time of an operation: the caller's, or one of our own that is deleted at the end. After a crash it expires.
pub struct Lease {
    store: Store,
    id: String,
    own: Option<Alive>,
}

impl Lease {
    /// Takes the caller's lease or makes one.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn of(store: &Store, given: Option<&str>) -> Result<Self> {
        let (store, given) = (store.clone(), given.map(str::to_owned));
        blocking(move || Self::take(&store, given.as_deref())).await
    }

    /// [`Self::of`] for blocking code.
    ///
    /// # Errors
    /// Those of the store.
    pub fn take(store: &Store, given: Option<&str>) -> Result<Self> {
        if let Some(id) = given.filter(|id| !id.is_empty()) {
            return Ok(Self { store: store.clone(), id: id.into(), own: None });
        }
        let id = store.leases().begin(LEASE_TTL)?.id;
        let own = Some(store.leases().mark_alive(&id)?);
        Ok(Self { store: store.clone(), id, own })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Renews the lease for as long as this is polled; ends only when that fails.
    pub async fn keep(&self) -> Error {
        loop {
            tokio::time::sleep(LEASE_RENEW).await;
            if self.own.is_some()
                && let Err(error) = self.store.leases().renew(&self.id, LEASE_TTL)
            {
                return error;
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.own.is_some()
            && let Err(error) = self.store.leases().end(&self.id)
        {
            tracing::debug!(lease = self.id, %error, "the lease stays until it expires");
        }
    }
}
