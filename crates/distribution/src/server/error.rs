//! What keeps a registry from being served.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rpc::{Code, Coded};

/// Why a registry cannot be offered. `Display` never repeats the source; print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// Others than this host would be served without protection.
    #[error("{address} is not a loopback address, and there is no {lacks}")]
    Open {
        /// The address.
        address: SocketAddr,
        /// "TLS certificate", "file of users".
        lacks: &'static str,
    },
    /// A certificate or key that cannot be used.
    #[error("the TLS file {path} cannot be used: {problem}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A file of users that cannot be used.
    #[error("the file of users {path} cannot be used: {problem}", path = path.display())]
    Users {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        problem: String,
    },
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Code::AlreadyExists,
            Self::Bind { .. } => Code::Internal,
            Self::Open { .. } => Code::FailedPrecondition,
            Self::Tls { .. } | Self::Users { .. } => Code::InvalidArgument,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => "ADDRESS_IN_USE",
            Self::Bind { .. } => "BIND_FAILED",
            Self::Open { .. } => "REGISTRY_UNPROTECTED",
            Self::Tls { .. } => "TLS_FILE",
            Self::Users { .. } => "USERS_INVALID",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Bind { address, .. } | Self::Open { address, .. } => address.to_string(),
            Self::Tls { path, .. } | Self::Users { path, .. } => path.display().to_string(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Bind { .. } => "another program may use the port; port 0 takes a free one".into(),
            Self::Open { .. } => "add --registry-tls-cert, --registry-tls-key and --registry-htpasswd; or, where \
                                  everybody may read and write, --registry-open"
                .into(),
            Self::Tls { .. } => "both files are PEM: the chain with the server's certificate first, and its key".into(),
            Self::Users { .. } => "make lines with `htpasswd -Bn NAME`".into(),
        })
    }
}
