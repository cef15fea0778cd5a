//! What can go wrong in a shim.

use std::io;
use std::path::PathBuf;

use oci::shim::Failure;

/// A failure of the shim itself or of something it called.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file failed.
    #[error("{step} {}", path.display())]
    File {
        /// "write", "create", ...
        step: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another system call failed.
    #[error("{step}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A durable record could not be written.
    #[error("record")]
    Record(#[source] statedir::Error),
    /// The rootfs could not be mounted.
    #[error("mount the rootfs")]
    Mount(#[source] sys::mount::MountError),
    /// The user is not in the rootfs.
    #[error("user {user:?}")]
    User {
        /// As asked.
        user: String,
        /// Why not.
        source: oci::user::UnknownUser,
    },
    /// The OCI configuration is not usable.
    #[error("OCI configuration: {0}")]
    Config(String),
    /// The OCI runtime failed.
    #[error("{program} {verb}: {message}")]
    Runtime {
        /// Its base name.
        program: String,
        /// "create", "start", ...
        verb: &'static str,
        /// Its own words.
        message: String,
    },
    /// The supervisor said something unexpected or went away.
    #[error("control connection: {0}")]
    Control(String),
}

impl Error {
    pub(crate) fn file(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { step, path, source }
    }

    pub(crate) fn system(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { step, source }
    }

    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Mount(_) => Failure::Mount,
            Self::User { .. } => Failure::User,
            Self::Config(_) => Failure::Config,
            Self::Runtime { .. } => Failure::Runtime,
            _ => Failure::Internal,
        }
    }
}

/// The error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
