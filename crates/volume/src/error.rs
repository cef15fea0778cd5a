//! What can go wrong with a volume.

use std::path::PathBuf;

use rpc::{Code, Coded};

/// An error of a volume operation. Display does not repeat the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name: see [`crate::NewVolume::name`].
    #[error(
        "invalid volume name {0:?}: it begins with a letter or digit and goes on with letters, digits, '_', '.' and '-', at most 255"
    )]
    InvalidName(String),
    /// Something required is missing or malformed.
    #[error("invalid {field} {value:?}: {why}")]
    Invalid {
        /// Which part of the request.
        field: &'static str,
        /// What it was.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Only `local` is known.
    #[error("unknown volume driver {0:?}")]
    UnknownDriver(String),
    /// No volume of that name.
    #[error("no such volume: {0}")]
    NotFound(String),
    /// The name is taken by a volume that was made otherwise.
    #[error("volume {name} exists with different {field}")]
    Conflict {
        /// The volume.
        name: String,
        /// "driver" or "options".
        field: &'static str,
    },
    /// Somebody holds it.
    #[error("volume {name} is in use by {}", consumers.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// Who holds it.
        consumers: Vec<String>,
    },
    /// The record cannot be read; the data is left alone.
    #[error("the record of volume {name} is damaged: {why}")]
    Damaged {
        /// The volume.
        name: String,
        /// What the parser said.
        why: String,
    },
    /// The subpath is not a directory in the volume.
    #[error("subpath {subpath:?} of volume {name} cannot be used: {why}")]
    Subpath {
        /// The volume.
        name: String,
        /// As asked for.
        subpath: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file operation.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was being done, a verb phrase.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// The database of references.
    #[error("cannot {step} in the volume database {}", path.display())]
    Database {
        /// What was being done.
        step: &'static str,
        /// The database file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io<E: Into<std::io::Error>>(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { step, path, source: source.into() }
    }
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::InvalidName(_) | Self::Invalid { .. } | Self::UnknownDriver(_) | Self::Subpath { .. } => {
                Code::InvalidArgument
            }
            Self::NotFound(_) => Code::NotFound,
            Self::Conflict { .. } => Code::AlreadyExists,
            Self::InUse { .. } => Code::FailedPrecondition,
            Self::Damaged { .. } => Code::DataLoss,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Code::ResourceExhausted,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            Self::Io { .. } | Self::Database { .. } => Code::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "VOLUME_NAME_INVALID",
            Self::Invalid { .. } => "VOLUME_REQUEST_INVALID",
            Self::UnknownDriver(_) => "VOLUME_DRIVER_UNKNOWN",
            Self::NotFound(_) => "VOLUME_NOT_FOUND",
            Self::Conflict { .. } => "VOLUME_CONFLICT",
            Self::InUse { .. } => "VOLUME_IN_USE",
            Self::Damaged { .. } => "VOLUME_DAMAGED",
            Self::Subpath { .. } => "VOLUME_SUBPATH_INVALID",
            Self::Io { .. } => "VOLUME_IO",
            Self::Database { .. } => "VOLUME_DATABASE",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::InvalidName(name) | Self::UnknownDriver(name) | Self::NotFound(name) => name.clone(),
            Self::Conflict { name, .. }
            | Self::InUse { name, .. }
            | Self::Damaged { name, .. }
            | Self::Subpath { name, .. } => name.clone(),
            Self::Invalid { field, .. } => (*field).into(),
            Self::Io { path, .. } | Self::Database { path, .. } => path.display().to_string(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::InUse { .. } => Some("remove the containers that use it first".into()),
            Self::UnknownDriver(_) => Some("the only driver is \"local\"".into()),
            _ => None,
        }
    }
}
