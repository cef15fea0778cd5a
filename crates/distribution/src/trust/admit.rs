//! The door: an image's manifest is let in, or nothing of the image is fetched.

use std::sync::atomic::{AtomicBool, Ordering};

use oci::manifest::{Document, Manifest};
use oci::{Descriptor, Digest, Reference, media_type};

use super::evidence::{self, Signature};
use super::identity::Identity;
use super::key::PublicKey;
use super::payload::Payload;
use super::policy::Requirement;
use super::{Error, Policy, Subject};
use crate::error::Result;
use crate::registry::RawManifest;
use crate::transport::Source;

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

/// A policy in front of a source. A manifest comes out only when it is let in, and so does all that a manifest names: whoever copies
/// reads the manifest first. An index that is signed vouches for its manifests by their digests; in one that is not signed, each
/// manifest needs a signature of its own, as podman and skopeo make them.
pub struct Door {
    policy: Policy,
    subject: Subject,
    whole: AtomicBool,
}

impl Door {
    /// For one image.
    #[must_use]
    pub fn new(policy: Policy, subject: Subject) -> Self {
        Self { policy, subject, whole: AtomicBool::new(false) }
    }

    /// Before what the image's name stands for is handed out. `source` is the one behind the door, for signatures.
    ///
    /// # Errors
    /// As [`Policy::admit`].
    pub async fn root(&self, source: &dyn Source, raw: &RawManifest) -> Result<()> {
        if self.subject.tag.as_deref().is_some_and(evidence::is_companion)
            && without_layers(raw, &raw.media_type).is_some()
        {
            return Ok(());
        }
        match self.policy.admit(source, &self.subject, raw).await {
            Ok(()) => self.whole.store(true, Ordering::Release),
            Err(crate::Error::Trust(Error::Rejected { unsigned: true, .. })) if is_index(raw, &raw.media_type) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Before what a tag beside the image stands for is handed out: an image does not pass by lying there.
    ///
    /// # Errors
    /// As [`Policy::admit`].
    pub async fn beside(&self, source: &dyn Source, raw: &RawManifest) -> Result<()> {
        match without_layers(raw, &raw.media_type) {
            Some(_) => Ok(()),
            None => self.policy.admit(source, &self.subject, raw).await,
        }
    }

    /// Before a manifest that an index names is handed out.
    ///
    /// # Errors
    /// As [`Policy::admit`].
    pub async fn manifest(&self, source: &dyn Source, descriptor: &Descriptor, raw: &RawManifest) -> Result<()> {
        if self.whole.load(Ordering::Acquire) || is_index(raw, &descriptor.media_type) {
            return Ok(());
        }
        if without_layers(raw, &descriptor.media_type).is_some_and(|manifest| manifest.subject.is_some()) {
            return Ok(());
        }
        self.policy.admit(source, &self.subject, raw).await
    }
}

/// A manifest that nothing can be run from. Signatures and attestations are such: they are not signed themselves, and go along with
/// their image.
fn without_layers(raw: &RawManifest, kind: &str) -> Option<Manifest> {
    match Document::parse(&raw.bytes, kind) {
        Ok(Document::Manifest(manifest)) => {
            let runs = manifest.layers.iter().any(|layer| media_type::is_layer(&layer.media_type));
            (!runs && !manifest.layers.is_empty()).then_some(manifest)
        }
        _ => None,
    }
}

fn is_index(manifest: &RawManifest, media_type: &str) -> bool {
    matches!(Document::parse(&manifest.bytes, media_type), Ok(Document::Index(_)))
}

/// The rule for names when a person verifies: the one that is given, else the repository's.
pub(super) fn wanted_name(identity: Option<&str>, reference: Option<&Reference>) -> impl Fn(&str) -> bool {
    let rule = match (identity, reference) {
        (Some(identity), _) => Some(Identity::OneReference { docker_reference: identity.to_owned() }),
        (None, Some(_)) => Some(Identity::SameRepository {}),
        (None, None) => None,
    };
    let reference = reference.cloned();
    move |name| rule.as_ref().is_none_or(|rule| rule.accepts(reference.as_ref(), name))
}
