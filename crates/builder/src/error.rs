//! Everything that can go wrong in a build.

use rpc::{Code, Coded};
use std::io;
use std::path::{Path, PathBuf};

use crate::frontend::dockerfile::Diagnostic;
use crate::graph::Location;

/// An error of the builder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile is wrong; file, line and the line's text are in the message.
    #[error("{0}")]
    Dockerfile(Box<Diagnostic>),
    /// A step of the build failed.
    #[error("{}{name}", place(location.as_deref()))]
    Step {
        /// As the progress calls it.
        name: String,
        /// Where in the Dockerfile.
        location: Option<Box<Location>>,
        /// Why.
        #[source]
        cause: Box<Error>,
    },
    /// A command of RUN ended with another exit code than 0.
    #[error("the command {command:?} returned exit code {code}")]
    Exit {
        /// The command.
        command: String,
        /// Its exit code.
        code: i32,
    },
    /// A LLB definition that does not hold together.
    #[error("invalid build definition: {0}")]
    Definition(String),
    /// The request does not make sense.
    #[error("{0}")]
    Request(String),
    /// Something this version does not do.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A path in the context, a stage or an image does not exist.
    #[error("{path}: not found in {place}")]
    Missing {
        /// As the instruction names it.
        path: String,
        /// "the build context", or a stage.
        place: String,
    },
    /// The build was given up.
    #[error("the build was canceled")]
    Canceled,
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// "read", "create", …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// A user or group of USER or --chown.
    #[error(transparent)]
    User(#[from] oci::user::UnknownUser),
    /// A rootfs could not be mounted.
    #[error("cannot mount the root filesystem of the step")]
    Mount(#[from] sys::mount::MountError),
    /// The image store refused.
    #[error("{action}")]
    Store {
        /// What was asked of it.
        action: String,
        /// Its answer.
        #[source]
        cause: Box<rpc::Failure>,
    },
    /// The cache database.
    #[error("build cache {}", path.display())]
    Cache {
        /// The database.
        path: PathBuf,
        /// Its answer.
        #[source]
        cause: rusqlite::Error,
    },
    /// A state directory.
    #[error(transparent)]
    State(#[from] statedir::Error),
    /// The OCI runtime could not be started or failed before the command ran.
    #[error("OCI runtime {runtime}: {message}")]
    Runtime {
        /// The program.
        runtime: String,
        /// What it said.
        message: String,
    },
    /// A bug: a task of ours panicked.
    #[error("internal error: {0}")]
    Panic(String),
}

fn place(location: Option<&Location>) -> String {
    location.map(|at| format!("{}:{}: ", at.file, at.line)).unwrap_or_default()
}

impl Error {
    /// For `map_err` of file operations.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |cause| Self::Io { action, path, cause }
    }

    /// For `map_err` of system calls through rustix.
    pub fn sys(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.as_ref().to_owned();
        move |cause| Self::Io { action, path, cause: cause.into() }
    }

    /// For `map_err` of calls of the store.
    pub fn store(action: impl Into<String>) -> impl FnOnce(tonic::Status) -> Self {
        let action = action.into();
        move |status| Self::Store { action, cause: Box::new(status.into()) }
    }

    /// Whether it only says that the build ended early.
    pub fn is_canceled(&self) -> bool {
        matches!(self, Self::Canceled)
    }

    /// Whether the store says that something is not there, or damaged.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Store { cause, .. } if matches!(cause.code, Code::NotFound | Code::DataLoss))
    }
}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Dockerfile(Box::new(diagnostic))
    }
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::Dockerfile(_) | Self::Definition(_) | Self::Request(_) | Self::User(_) => Code::InvalidArgument,
            Self::Step { cause, .. } => cause.code(),
            Self::Exit { .. } | Self::Runtime { .. } => Code::FailedPrecondition,
            Self::Unsupported(_) => Code::Unimplemented,
            Self::Missing { .. } => Code::NotFound,
            Self::Canceled => Code::Canceled,
            Self::Store { cause, .. } => cause.code,
            Self::Io { cause, .. } => match cause.kind() {
                io::ErrorKind::NotFound => Code::NotFound,
                io::ErrorKind::PermissionDenied => Code::PermissionDenied,
                io::ErrorKind::StorageFull => Code::ResourceExhausted,
                _ => Code::Internal,
            },
            Self::Mount(_) | Self::Cache { .. } | Self::State(_) | Self::Panic(_) => Code::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Dockerfile(_) => "DOCKERFILE_INVALID",
            Self::Definition(_) => "DEFINITION_INVALID",
            Self::Request(_) => "REQUEST_INVALID",
            Self::User(_) => "USER_UNKNOWN",
            Self::Step { .. } => "STEP_FAILED",
            Self::Exit { .. } => "COMMAND_FAILED",
            Self::Runtime { .. } => "RUNTIME_FAILED",
            Self::Unsupported(_) => "NOT_SUPPORTED",
            Self::Missing { .. } => "PATH_NOT_FOUND",
            Self::Canceled => "CANCELED",
            Self::Store { .. } => "STORE_FAILED",
            Self::Io { .. } => "IO_FAILED",
            Self::Mount(_) => "MOUNT_FAILED",
            Self::Cache { .. } => "CACHE_FAILED",
            Self::State(_) => "STATE_FAILED",
            Self::Panic(_) => "INTERNAL",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Dockerfile(diagnostic) => format!("{}:{}", diagnostic.file, diagnostic.line),
            Self::Step { name, .. } => name.clone(),
            Self::Exit { command, .. } => command.clone(),
            Self::Missing { path, .. } => path.clone(),
            Self::Io { path, .. } | Self::Cache { path, .. } => path.display().to_string(),
            Self::Runtime { runtime, .. } => runtime.clone(),
            Self::Store { cause, .. } => cause.subject.clone(),
            _ => String::new(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Dockerfile(diagnostic) => diagnostic.problem.hint.clone(),
            Self::Step { cause, .. } => cause.hint(),
            Self::Store { cause, .. } => Some(cause.hint.clone()).filter(|hint| !hint.is_empty()),
            _ => None,
        }
    }
}
