//! What can go wrong with a volume.

use std::path::PathBuf;

use rpc::{Code, Coded};

use crate::handle;

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
    /// Neither built in nor found among the plugins.
    #[error("unknown volume driver {0:?}")]
    UnknownDriver(String),
    /// A driver outside answered with an error, or not in time.
    #[error("volume driver {driver}: {call}: {why}")]
    Driver {
        /// The driver.
        driver: String,
        /// What was asked of it.
        call: String,
        /// What it said.
        why: String,
        /// It did not answer.
        silent: bool,
    },
    /// A program that does a part of the work failed.
    #[error("{program} failed: {why}")]
    Program {
        /// The program.
        program: String,
        /// What it said.
        why: String,
    },
    /// Another tool failed.
    #[error("cannot {step}")]
    Tool {
        /// What was being done.
        step: &'static str,
        /// What it said.
        source: rpc::Failure,
    },
    /// Not with this volume.
    #[error("volume {name}: {what} cannot be done: {why}")]
    Unsupported {
        /// The volume.
        name: String,
        /// What was asked for.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// The new name is another volume's.
    #[error("the name {0} is taken by another volume")]
    NameTaken(String),
    /// No snapshot of that name, or there is one already.
    #[error("volume {volume}: snapshot {snapshot} {why}")]
    Snapshot {
        /// The volume.
        volume: String,
        /// The snapshot.
        snapshot: String,
        /// "does not exist", "exists".
        why: &'static str,
    },
    /// The archive to import is not one, or holds what cannot be.
    #[error("cannot import {entry:?}: {why}")]
    Archive {
        /// Path of the entry.
        entry: String,
        /// What is wrong.
        why: String,
    },
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
    /// The subpath is neither a directory nor a file in the volume, or not what is needed.
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
        move |source| Self::Io { step, path: handle::shown(path), source: source.into() }
    }
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::InvalidName(_) | Self::Invalid { .. } | Self::UnknownDriver(_) | Self::Subpath { .. } => {
                Code::InvalidArgument
            }
            Self::Archive { .. } => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::Snapshot { why, .. } if why.starts_with("does") => Code::NotFound,
            Self::Conflict { .. } | Self::NameTaken(_) | Self::Snapshot { .. } => Code::AlreadyExists,
            Self::InUse { .. } | Self::Unsupported { .. } => Code::FailedPrecondition,
            Self::Driver { silent: true, .. } => Code::DeadlineExceeded,
            Self::Driver { .. } | Self::Program { .. } => Code::Internal,
            // "Not found" is said of volumes only.
            Self::Tool { source, .. } if source.code == Code::NotFound => Code::FailedPrecondition,
            Self::Tool { source, .. } => source.code,
            Self::Damaged { .. } => Code::DataLoss,
            Self::Io { source, .. } if is_full(source) => Code::ResourceExhausted,
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
            Self::Driver { silent: true, .. } => "VOLUME_DRIVER_TIMEOUT",
            Self::Driver { .. } => "VOLUME_DRIVER",
            Self::Program { .. } => "VOLUME_PROGRAM",
            Self::Tool { .. } => "VOLUME_TOOL",
            Self::Unsupported { .. } => "VOLUME_UNSUPPORTED",
            Self::NameTaken(_) => "VOLUME_NAME_TAKEN",
            Self::Snapshot { .. } => "VOLUME_SNAPSHOT",
            Self::Archive { .. } => "VOLUME_ARCHIVE_INVALID",
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
            Self::Driver { driver, .. } => driver.clone(),
            Self::Program { program, .. } => program.clone(),
            Self::Tool { step, .. } => (*step).into(),
            Self::Unsupported { name, .. } | Self::NameTaken(name) => name.clone(),
            Self::Snapshot { snapshot, .. } => snapshot.clone(),
            Self::Archive { entry, .. } => entry.clone(),
            Self::Io { path, .. } | Self::Database { path, .. } => path.display().to_string(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::InUse { .. } => Some("remove the containers that use it first".into()),
            Self::UnknownDriver(name) => Some(format!(
                "built in are \"local\" and \"image\"; a plugin is found by {name}.sock, {name}.spec or {name}.json in /run/docker/plugins, /etc/docker/plugins or /usr/lib/docker/plugins"
            )),
            Self::Driver { silent: true, .. } => Some("the driver hangs: look at its process".into()),
            Self::Unsupported { what, .. } if *what == OTHER_OWNERS => Some(
                "the kernel does it from Linux 5.19 on, fuse-overlayfs(1) on any; both need root. Without it, leave out the user namespace and mount the overlay inside".into(),
            ),
            Self::Snapshot { why: "exists", .. } => Some("remove it first, or choose another name".into()),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::QuotaExceeded => {
                Some("the volume's limit is reached: `update --size` changes it".into())
            }
            _ => None,
        }
    }
}

/// What [`Error::Unsupported`] says of an overlay that has to be mapped.
pub(crate) const OTHER_OWNERS: &str = "an overlay with other owners";

/// The file system is full, or a limit on it is reached.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
