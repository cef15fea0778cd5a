//! What can go wrong, in words that callers of runc already match on ("does not exist", "not running", ...).

use std::io;
use std::path::PathBuf;

use rpc::{Code, Coded};

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of the runtime's verbs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such container under this root.
    #[error("container {id:?} does not exist")]
    NotFound {
        /// Its id.
        id: String,
    },
    /// The id is taken.
    #[error("container with given ID already exists: {id}")]
    Exists {
        /// Its id.
        id: String,
    },
    /// Not a usable container id.
    #[error("invalid container ID format: {id:?}")]
    InvalidId {
        /// What was given.
        id: String,
    },
    /// The verb needs a live process.
    #[error("container not running: {id} is {status}")]
    NotRunning {
        /// Its id.
        id: String,
        /// Its status.
        status: &'static str,
    },
    /// The verb does not fit the container's status.
    #[error("cannot {verb} container {id:?}: it is {status}")]
    WrongStatus {
        /// What was asked.
        verb: &'static str,
        /// Its id.
        id: String,
        /// Its status.
        status: &'static str,
    },
    /// config.json or process.json cannot be read as such.
    #[error("invalid configuration {path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The configuration asks for something that is refused.
    #[error("refused: {0}")]
    Refused(String),
    /// An argument of the verb is not usable.
    #[error("{0}")]
    Argument(String),
    /// A step of the setup failed in the kernel.
    #[error("{step}")]
    Step {
        /// What was being done, with the path or name.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The container's own process could not be set up; the message comes from inside.
    #[error("unable to start container process: {0}")]
    Init(String),
    /// The kernel did not take the program, after everything was set up; what runc's init prints, word for word.
    #[error("{0}")]
    NotExecuted(String),
    /// A hook failed.
    #[error("error running {name} hook #{index}: {reason}")]
    Hook {
        /// prestart, createRuntime, ...
        name: &'static str,
        /// Which one of its list, from 0.
        index: usize,
        /// Why.
        reason: String,
    },
    /// CRIU could not do it.
    #[error("{reason}; log file: {log}")]
    Criu {
        /// Its answer, and the last errors of its log.
        reason: String,
        /// The whole log.
        log: PathBuf,
    },
    /// The container's record is damaged.
    #[error("damaged container state {path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// What a container's process reported.
    pub(crate) fn from_inside(text: String) -> Self {
        // `exec: "sh": not found` is another one: it comes before.
        if text.starts_with("exec ") { Self::NotExecuted(text) } else { Self::Init(text) }
    }

    /// The same of a container's first process.
    pub(crate) fn from_init(text: String) -> Self {
        match Self::from_inside(text) {
            Self::Init(text) => Self::Init(format!("error during container init: {text}")),
            other => other,
        }
    }

    /// A failed step.
    pub fn step(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Step { step: step.into(), source: source.into() }
    }

    /// The whole chain in one line, as the log wants it, with the kernel's errors in the words that callers match.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            line.push_str(": ");
            match next.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                Some(number) => line.push_str(&errno_text(number)),
                None => line.push_str(&next.to_string()),
            }
            cause = next.source();
        }
        line
    }
}

/// What strerror(3) says, in lower case as Go prints it: "no such file or directory".
pub(crate) fn errno_text(number: i32) -> String {
    nix::errno::Errno::from_raw(number).desc().to_lowercase()
}

/// What the kernel answered, in the lower-case words that callers of runc look for ("operation not permitted").
pub(crate) fn words(error: impl Into<io::Error>) -> String {
    let error = error.into();
    match error.raw_os_error() {
        Some(number) => errno_text(number),
        None => error.to_string(),
    }
}

/// Adds the step to a kernel error.
pub(crate) trait Context<T> {
    /// Names the step.
    fn step(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Step { step: step(), source: source.into() })
    }
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::InvalidId { .. } | Self::Config { .. } | Self::Argument(_) => Code::InvalidArgument,
            Self::NotRunning { .. } | Self::WrongStatus { .. } | Self::Refused(_) => Code::FailedPrecondition,
            Self::Damaged { .. } => Code::DataLoss,
            Self::Step { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            Self::Step { .. } | Self::Init(_) | Self::NotExecuted(_) | Self::Hook { .. } | Self::Criu { .. } => {
                Code::Internal
            }
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "CONTAINER_NOT_FOUND",
            Self::Exists { .. } => "CONTAINER_EXISTS",
            Self::InvalidId { .. } => "INVALID_ID",
            Self::NotRunning { .. } => "CONTAINER_NOT_RUNNING",
            Self::WrongStatus { .. } => "WRONG_STATUS",
            Self::Config { .. } => "INVALID_CONFIG",
            Self::Refused(_) => "REFUSED",
            Self::Argument(_) => "INVALID_ARGUMENT",
            Self::Step { .. } => "SETUP_FAILED",
            Self::Init(_) | Self::NotExecuted(_) => "PROCESS_NOT_STARTED",
            Self::Hook { .. } => "HOOK_FAILED",
            Self::Criu { .. } => "CRIU_FAILED",
            Self::Damaged { .. } => "DAMAGED_STATE",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::NotFound { id }
            | Self::Exists { id }
            | Self::InvalidId { id }
            | Self::NotRunning { id, .. }
            | Self::WrongStatus { id, .. } => id.clone(),
            Self::Config { path, .. } | Self::Damaged { path, .. } => path.display().to_string(),
            _ => String::new(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { id } => Some(format!("remove it first: pier-runtime delete {id}")),
            Self::Damaged { .. } => Some("remove it: pier-runtime delete --force".into()),
            Self::WrongStatus { verb: "delete", .. } => Some("stop it first, or use --force".into()),
            _ => None,
        }
    }
}
