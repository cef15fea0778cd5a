//! What keeps an image out, and what is wrong with policies, keys and signatures.

use std::path::PathBuf;

use oci::Digest;
use rpc::{Code, Coded};

/// Any failure of this module. `Display` never repeats the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A policy file that cannot be used; nothing is let in by it.
    #[error("the policy {path} cannot be used: {problem}", path = path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// A key that cannot be used.
    #[error("the key {name} cannot be used: {problem}")]
    Key {
        /// Its file, or where it stands.
        name: String,
        /// Why.
        problem: String,
    },
    /// The policy does not let the image in.
    #[error("{image} ({digest}) is not let in by {path}, {scope}: {problem}", path = path.display())]
    Rejected {
        /// The image's name.
        image: String,
        /// Of its manifest or index.
        digest: Digest,
        /// The policy.
        path: PathBuf,
        /// The part of the policy that applies.
        scope: String,
        /// What is missing.
        problem: String,
        /// Whether a manifest further down could still be let in: it lacks a signature, and is not barred.
        unsigned: bool,
    },
    /// Nothing is signed by the given keys.
    #[error("{image} ({digest}) has no signature that counts: {problem}")]
    Unverified {
        /// The image's name.
        image: String,
        /// Of its manifest or index.
        digest: Digest,
        /// What there is instead.
        problem: String,
    },
    /// A place that takes no signatures.
    #[error("{place} does not take signatures")]
    NoPlace {
        /// The transport.
        place: String,
    },
}

impl Error {
    /// A key that cannot be used.
    pub(super) fn key(name: impl Into<String>, problem: impl ToString) -> Self {
        Self::Key { name: name.into(), problem: problem.to_string() }
    }
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::Policy { .. } | Self::Key { .. } | Self::NoPlace { .. } => Code::InvalidArgument,
            Self::Rejected { .. } | Self::Unverified { .. } => Code::PermissionDenied,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Policy { .. } => "POLICY_INVALID",
            Self::Key { .. } => "KEY_INVALID",
            Self::Rejected { .. } => "IMAGE_REJECTED",
            Self::Unverified { .. } => "SIGNATURE_INVALID",
            Self::NoPlace { .. } => "NO_SIGNATURES_HERE",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Policy { path, .. } => path.display().to_string(),
            Self::Key { name, .. } => name.clone(),
            Self::Rejected { image, .. } | Self::Unverified { image, .. } => image.clone(),
            Self::NoPlace { place } => place.clone(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Policy { .. } => {
                "see containers-policy.json(5); nothing is pulled while the policy is damaged".into()
            }
            Self::Key { .. } => "public keys are PEM (PUBLIC KEY), private ones cosign's; COSIGN_PASSWORD or \
                                 --passphrase-file unlocks them"
                .into(),
            Self::Rejected { .. } => {
                "nothing of it was kept; have it signed with a key that the policy names, or change the \
                                      policy"
                    .into()
            }
            Self::Unverified { .. } => "is it the right key, and was this digest signed?".into(),
            Self::NoPlace { .. } => "sign it in a registry (docker://) or an OCI layout (oci:)".into(),
        })
    }
}
