//! What can go wrong between us and a registry; every variant names the URL or the host.

use rpc::{Code, Coded};

/// A cause whose concrete type does not matter to callers.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Result of this module's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure of talking to a registry. `Display` never repeats the source; print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that is no registry.
    #[error("{name:?} is not a valid registry: {problem}")]
    NameInvalid {
        /// The text.
        name: String,
        /// Why not.
        problem: String,
    },
    /// The registry does not have it.
    #[error("{reference} was not found at {url}")]
    NotFound {
        /// Name or digest asked for.
        reference: String,
        /// Where it was looked for.
        url: String,
    },
    /// The registry cannot be reached, or the connection broke too often.
    #[error("cannot reach the registry at {url}")]
    Unreachable {
        /// The request's URL.
        url: String,
        /// Why.
        #[source]
        source: Cause,
        /// Whether plain HTTP may be the answer.
        maybe_plain_http: bool,
    },
    /// The registry answered with an error.
    #[error("the registry answered {status} at {url}: {detail}")]
    Refused {
        /// The request's URL.
        url: String,
        /// HTTP status.
        status: u16,
        /// The registry's own words.
        detail: String,
    },
    /// The registry answered something that the distribution specification does not allow.
    #[error("unexpected answer from {url}: {problem}")]
    Protocol {
        /// The request's URL.
        url: String,
        /// What was wrong.
        problem: String,
    },
    /// Credentials are missing, wrong, or do not suffice.
    #[error("{registry} does not allow {action}: {detail}")]
    Unauthorized {
        /// Registry host.
        registry: String,
        /// What was tried.
        action: String,
        /// The registry's own words.
        detail: String,
    },
    /// The docker credentials file or a credential helper failed.
    #[error("credentials for {registry} cannot be read from {place}: {problem}")]
    Credentials {
        /// Registry host.
        registry: String,
        /// File or helper.
        place: String,
        /// Why.
        problem: String,
    },
    /// The configuration of registries, or a certificate, cannot be used.
    #[error("{place} cannot be used: {problem}")]
    Configuration {
        /// File, with the line where there is one.
        place: String,
        /// Why.
        problem: String,
    },
    /// The configuration forbids it.
    #[error("{reference} is blocked by {place}")]
    Blocked {
        /// What was asked for.
        reference: String,
        /// File and line.
        place: String,
    },
    /// Neither the mirrors nor the registry itself could serve it.
    #[error("no mirror could serve {what} ({tried}), nor could {last}")]
    AllFailed {
        /// Repository.
        what: String,
        /// Each mirror with its failure.
        tried: String,
        /// The host asked last.
        last: String,
        /// The failure there.
        source: Box<Error>,
    },
    /// Content is not what its digest says.
    #[error("what {url} sent has digest {actual}, not {expected}")]
    DigestMismatch {
        /// Where it came from.
        url: String,
        /// The digest wanted.
        expected: String,
        /// The digest found.
        actual: String,
    },
    /// Content is shorter or longer than its descriptor says.
    #[error("{url} has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// Where it came from.
        url: String,
        /// Bytes wanted.
        expected: u64,
        /// Bytes found.
        actual: u64,
    },
    /// More bytes than are read into memory.
    #[error("{url} has {size} bytes or more, at most {max} are read")]
    TooLarge {
        /// Where it came from.
        url: String,
        /// Bytes seen or declared.
        size: u64,
        /// The limit.
        max: u64,
    },
}

impl Error {
    /// Whether the registry itself said that it does not have it, whatever its mirrors said.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::AllFailed { source, .. } => source.is_not_found(),
            _ => false,
        }
    }
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::Configuration { .. } => Code::InvalidArgument,
            Self::Blocked { .. } => Code::PermissionDenied,
            Self::AllFailed { source, .. } => source.code(),
            Self::Refused { status: 429, .. } => Code::ResourceExhausted,
            Self::NameInvalid { .. } | Self::TooLarge { .. } => Code::InvalidArgument,
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Protocol { .. } => Code::Unavailable,
            Self::Unauthorized { .. } | Self::Credentials { .. } => Code::Unauthenticated,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => Code::DataLoss,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "IMAGE_NOT_FOUND",
            Self::NameInvalid { .. } => "NAME_INVALID",
            Self::Configuration { .. } => "REGISTRY_CONFIGURATION",
            Self::Blocked { .. } => "REGISTRY_BLOCKED",
            Self::AllFailed { source, .. } => source.reason(),
            Self::Refused { status: 429, .. } => "RATE_LIMITED",
            Self::TooLarge { .. } => "MANIFEST_INVALID",
            Self::Unreachable { .. } => "REGISTRY_UNREACHABLE",
            Self::Refused { .. } => "REGISTRY_REFUSED",
            Self::Protocol { .. } => "REGISTRY_PROTOCOL",
            Self::Unauthorized { .. } => "UNAUTHORIZED",
            Self::Credentials { .. } => "CREDENTIALS_UNREADABLE",
            Self::DigestMismatch { .. } => "DIGEST_MISMATCH",
            Self::SizeMismatch { .. } => "SIZE_MISMATCH",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::NameInvalid { name, .. } => name.clone(),
            Self::NotFound { reference, .. } | Self::Blocked { reference, .. } => reference.clone(),
            Self::Configuration { place, .. } => place.clone(),
            Self::AllFailed { what, .. } => what.clone(),
            Self::Unauthorized { registry, .. } | Self::Credentials { registry, .. } => registry.clone(),
            Self::Unreachable { url, .. }
            | Self::Refused { url, .. }
            | Self::Protocol { url, .. }
            | Self::DigestMismatch { url, .. }
            | Self::SizeMismatch { url, .. }
            | Self::TooLarge { url, .. } => url.clone(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::AllFailed { source, .. } => return source.hint(),
            Self::Unreachable { source, .. } if is_certificate_problem(source.as_ref()) => {
                "put the registry's CA into certs.d/<host>/ca.crt (containers-certs.d(5)), or add --tls-skip-verify"
                    .into()
            }
            Self::Refused { status: 429, .. } => "wait, log in for higher limits, or use a mirror".into(),
            Self::Unreachable { maybe_plain_http: true, .. } => {
                "does this registry speak HTTP only? then add --plain-http".into()
            }
            // TLS 1.3 refuses a client after its side is done: often all that is seen is a connection that ends.
            Self::Unreachable { url, .. } if url.starts_with("https:") => {
                "is the registry running, and is its name right? One that hangs up may want a client certificate: \
                 certs.d/<host>/client.cert and client.key (containers-certs.d(5))"
                    .into()
            }
            Self::Unreachable { .. } => "is the registry running, and is its name right?".into(),
            Self::Unauthorized { registry, .. } => {
                format!("log in first: pier-distribution login {registry} (and is the repository's name right?)")
            }
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                "the content was damaged or replaced on its way; try again, or ask the registry's operator".into()
            }
            _ => return None,
        })
    }
}

fn is_certificate_problem(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(super::connection::tls_error(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
