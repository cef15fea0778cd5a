//! The door: an image's manifest is let in, or nothing of the image is fetched.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::manifest::Document;
use oci::{Descriptor, Digest, Reference};

use super::evidence::{self, Signature};
use super::identity::Identity;
use super::key::PublicKey;
use super::payload::Payload;
use super::policy::Requirement;
use super::{Error, Policy, Setting, Subject, in_force};
use crate::error::Result;
use crate::registry::RawManifest;
use crate::transport::{ByteStream, Source};

impl Policy {
    /// Whether a manifest or index is let in under the subject's name. All requirements of its scope must be met.
    ///
    /// # Errors
    /// [`Error::Rejected`] says what is missing; those of the source while it is asked for signatures.
    pub async fn admit(&self, source: &dyn Source, subject: &Subject, manifest: &RawManifest) -> Result<()> {
        let (scope, requirements) = self.of(subject);
        let rejected = |problem: String, unsigned: bool| Error::Rejected {
            image: subject.image.clone(),
            digest: manifest.digest.clone(),
            path: self.path.clone(),
            scope: scope.clone(),
            problem,
            unsigned,
        };
        if requirements.iter().any(|requirement| matches!(requirement, Requirement::Reject)) {
            return Err(rejected("it is rejected there".into(), false).into());
        }
        let needs = |requirement: &Requirement| matches!(requirement, Requirement::Signed { .. });
        if !requirements.iter().any(needs) {
            return Ok(());
        }
        let signatures = evidence::signatures(source, &manifest.digest).await?;
        for requirement in requirements {
            if let Requirement::Signed { keys, identity } = requirement {
                let fits = |name: &str| identity.accepts(subject.reference.as_ref(), name);
                check(&signatures, keys, &manifest.digest, fits).map_err(|problem| rejected(problem, true))?;
            }
        }
        Ok(())
    }
}

/// The first signature that one of the keys made for this digest under a name that fits; else what is wrong with all of them.
pub(super) fn check<'s>(
    signatures: &'s [Signature],
    keys: &[PublicKey],
    digest: &Digest,
    fits: impl Fn(&str) -> bool,
) -> Result<(&'s Signature, Payload, String), String> {
    let mut problems = Vec::new();
    for signature in signatures {
        match examine(signature, keys, digest, &fits) {
            Ok((payload, key)) => return Ok((signature, payload, key)),
            Err(problem) => problems.push(format!("{}: {problem}", signature.place)),
        }
    }
    match problems.is_empty() {
        true => Err("it is not signed".into()),
        false => Err(problems.join("; ")),
    }
}

/// The key first: nothing is read in a payload that nobody vouches for.
fn examine(
    signature: &Signature,
    keys: &[PublicKey],
    digest: &Digest,
    fits: impl Fn(&str) -> bool,
) -> Result<(Payload, String), String> {
    let key = keys.iter().find(|key| key.verifies(&signature.payload, &signature.signature));
    let key = key.ok_or("the signature is not by a key that counts")?;
    let payload = Payload::parse(&signature.payload)?;
    if payload.digest() != digest {
        return Err(format!("the signature is for {}", payload.digest()));
    }
    if !fits(payload.name()) {
        return Err(format!("the signature is for the name {}", payload.name()));
    }
    Ok((payload, key.name.clone()))
}

/// A source behind a policy. A manifest comes out of it only when it is let in, and so does all that a manifest names: copying reads
/// the manifest first. An index that is signed vouches for its manifests by their digests; in one that is not signed, each
/// manifest needs a signature of its own, as podman and skopeo make them.
pub struct Admitted {
    source: Box<dyn Source>,
    policy: Policy,
    subject: Subject,
    whole: AtomicBool,
}

impl Admitted {
    /// Puts the policy in force, if there is one, in front of a source.
    ///
    /// # Errors
    /// [`Error::Policy`], [`Error::Key`].
    pub fn guard(source: Box<dyn Source>, setting: &Setting, subject: Option<Subject>) -> Result<Box<dyn Source>> {
        match (in_force(setting.as_deref())?, subject) {
            (Some(policy), Some(subject)) => {
                Ok(Box::new(Self { source, policy, subject, whole: AtomicBool::new(false) }))
            }
            _ => Ok(source),
        }
    }

    async fn check(&self, manifest: &RawManifest) -> Result<()> {
        self.policy.admit(self.source.as_ref(), &self.subject, manifest).await
    }
}

fn is_index(manifest: &RawManifest) -> bool {
    matches!(Document::parse(&manifest.bytes, &manifest.media_type), Ok(Document::Index(_)))
}

impl Source for Admitted {
    fn describe(&self) -> String {
        self.source.describe()
    }

    fn root(&self) -> BoxFuture<'_, Result<RawManifest>> {
        async {
            let raw = self.source.root().await?;
            match self.check(&raw).await {
                Ok(()) => self.whole.store(true, Ordering::Release),
                Err(crate::Error::Trust(Error::Rejected { unsigned: true, .. })) if is_index(&raw) => {}
                Err(error) => return Err(error),
            }
            Ok(raw)
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<RawManifest>> {
        async {
            let mut raw = self.source.manifest(descriptor).await?;
            raw.media_type.clone_from(&descriptor.media_type);
            if !self.whole.load(Ordering::Acquire) && !is_index(&raw) {
                self.check(&raw).await?;
            }
            Ok(raw)
        }
        .boxed()
    }

    fn open<'a>(&'a self, descriptor: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<ByteStream>> {
        self.source.open(descriptor, offset)
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        self.source.has(descriptor)
    }

    fn known_at(&self, registry: &str, digest: &Digest) -> Vec<String> {
        self.source.known_at(registry, digest)
    }

    fn sibling<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, Result<Option<RawManifest>>> {
        self.source.sibling(tag)
    }

    fn referrers<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>>> {
        self.source.referrers(digest)
    }
}

/// The rule for names when a person verifies: the one that is given, else the repository's.
pub(super) fn wanted_name(identity: Option<&str>, reference: Option<&Reference>) -> impl Fn(&str) -> bool {
    let rule = match (identity, reference) {
        (Some(identity), _) => Some(Identity::ExactReference { docker_reference: identity.to_owned() }),
        (None, Some(_)) => Some(Identity::MatchRepository {}),
        (None, None) => None,
    };
    let reference = reference.cloned();
    move |name| rule.as_ref().is_none_or(|rule| rule.accepts(reference.as_ref(), name))
}
