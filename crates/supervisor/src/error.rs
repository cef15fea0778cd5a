//! What can go wrong, and what it means to a program.

use std::io;
use std::path::PathBuf;

use rpc::Code;

use crate::status::Status;

/// Why a start failed, in the classes of `docker run`'s exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// 127: the command is not there.
    NotFound,
    /// 126: it cannot be executed.
    CannotExecute,
    /// Something else.
    Other,
}

impl StartFailure {
    /// From the words of any OCI runtime.
    pub(crate) fn classify(message: &str) -> Self {
        let lower = message.to_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let about_command = any(&["exec: ", "executable"]);
        if any(&["executable file not found", "executable file `"])
            || (about_command && any(&["no such file or directory", "not found in $path", "not found"]))
        {
            Self::NotFound
        } else if about_command && any(&["permission denied", "exec format error", "is a directory", "not executable"])
        {
            Self::CannotExecute
        } else {
            Self::Other
        }
    }

    /// The container's exit code.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::NotFound => 127,
            Self::CannotExecute => 126,
            Self::Other => 128,
        }
    }
}

/// A failure of the supervisor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No id, unique prefix or name of that kind.
    #[error("no such container: {0}")]
    NotFound(String),
    /// A prefix of more than one id.
    #[error("container id prefix {0} is ambiguous")]
    Ambiguous(String),
    /// The name has an owner.
    #[error("container name {name:?} is in use by container {id}")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// The id has an owner.
    #[error("container {0} exists")]
    IdTaken(String),
    /// A request that no state of the world would make right.
    #[error("{what}: {message}")]
    Invalid {
        /// Field or argument.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// The container's state forbids it.
    #[error("container {id} is {}: cannot {action}", status.word())]
    State {
        /// Which.
        id: String,
        /// Its state.
        status: Status,
        /// What was asked.
        action: &'static str,
    },
    /// Compare-and-set lost.
    #[error("container {0} was changed by somebody else")]
    Changed(String),
    /// The runtime, a mount, or the shim refused the start.
    #[error("start container {id}: {message}")]
    Start {
        /// Which.
        id: String,
        /// Class.
        failure: StartFailure,
        /// The runtime's words.
        message: String,
    },
    /// The runtime refused another verb.
    #[error("{action} container {id}: {message}")]
    Runtime {
        /// Which.
        id: String,
        /// "pause", "exec", ...
        action: &'static str,
        /// Class, for exec.
        failure: StartFailure,
        /// The runtime's words.
        message: String,
    },
    /// It survived SIGKILL.
    #[error("container {id} (pid {pid}) was sent SIGKILL and is still there after {seconds} s")]
    Unkillable {
        /// Which.
        id: String,
        /// First process.
        pid: i32,
        /// How long was waited.
        seconds: u64,
    },
    /// A path in the container.
    #[error("{path} in container {id}")]
    Path {
        /// Which.
        id: String,
        /// Path.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file of ours.
    #[error("{step} {}", path.display())]
    File {
        /// "read", "write", ...
        step: &'static str,
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A record of ours.
    #[error("record of container {id}")]
    Record {
        /// Which.
        id: String,
        /// What is wrong with it.
        source: statedir::Error,
    },
    /// The shim cannot be talked to.
    #[error("shim of container {id}: {message}")]
    Shim {
        /// Which.
        id: String,
        /// What happened.
        message: String,
    },
    /// A program that is needed was not found.
    #[error("program {0} was not found")]
    Program(String),
    /// A defect or an odd kernel answer.
    #[error("{step}: {message}")]
    Internal {
        /// What was being done.
        step: &'static str,
        /// What happened.
        message: String,
    },
}

impl Error {
    pub(crate) fn file(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { step, path, source }
    }

    pub(crate) fn record(id: &str) -> impl FnOnce(statedir::Error) -> Self {
        let id = id.to_owned();
        move |source| Self::Record { id, source }
    }

    pub(crate) fn invalid(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), message: message.into() }
    }

    pub(crate) fn system(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Internal { step, message: source.to_string() }
    }
}

impl rpc::Coded for Error {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::Ambiguous(_) | Self::Invalid { .. } => Code::InvalidArgument,
            Self::NameTaken { .. } | Self::IdTaken(_) => Code::AlreadyExists,
            Self::State { .. } | Self::Program(_) | Self::Start { .. } | Self::Runtime { .. } => {
                Code::FailedPrecondition
            }
            Self::Changed(_) => Code::Aborted,
            Self::Unkillable { .. } => Code::DeadlineExceeded,
            Self::Path { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Code::NotFound,
                io::ErrorKind::PermissionDenied => Code::PermissionDenied,
                _ => Code::FailedPrecondition,
            },
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::ResourceExhausted,
            Self::Record { source: statedir::Error::Damaged { .. } | statedir::Error::Format { .. }, .. } => {
                Code::DataLoss
            }
            Self::Shim { .. } => Code::Unavailable,
            Self::File { .. } | Self::Record { .. } | Self::Internal { .. } => Code::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "CONTAINER_NOT_FOUND",
            Self::Ambiguous(_) => "CONTAINER_AMBIGUOUS",
            Self::NameTaken { .. } => "NAME_IN_USE",
            Self::IdTaken(_) => "CONTAINER_EXISTS",
            Self::Invalid { what, .. } if what.starts_with("spec") || what.starts_with("oci_spec") => "SPEC_INVALID",
            Self::Invalid { .. } => "INVALID_ARGUMENT",
            Self::State { status: Status::Running | Status::Paused, action: "remove", .. }
            | Self::State { status: Status::Running, .. } => "CONTAINER_RUNNING",
            Self::State { status: Status::Paused, .. } => "CONTAINER_PAUSED",
            Self::State { status: Status::Created | Status::Exited | Status::Restarting, .. } => {
                "CONTAINER_NOT_RUNNING"
            }
            Self::State { .. } => "CONTAINER_STATE",
            Self::Changed(_) => "CONTAINER_CHANGED",
            Self::Start { failure, .. } | Self::Runtime { failure, .. } => match failure {
                StartFailure::NotFound => "COMMAND_NOT_FOUND",
                StartFailure::CannotExecute => "COMMAND_NOT_EXECUTABLE",
                StartFailure::Other => "RUNTIME_FAILED",
            },
            Self::Unkillable { .. } => "CONTAINER_UNKILLABLE",
            Self::Path { .. } => "CONTAINER_PATH",
            Self::Record { .. } => "RECORD_DAMAGED",
            Self::Shim { .. } => "SHIM_UNREACHABLE",
            Self::Program(_) => "PROGRAM_MISSING",
            Self::File { .. } | Self::Internal { .. } => "INTERNAL",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::NotFound(id) | Self::Ambiguous(id) | Self::IdTaken(id) | Self::Changed(id) => id.clone(),
            Self::NameTaken { name, .. } => name.clone(),
            Self::Invalid { what, .. } => what.clone(),
            Self::State { id, .. }
            | Self::Start { id, .. }
            | Self::Runtime { id, .. }
            | Self::Unkillable { id, .. }
            | Self::Path { id, .. }
            | Self::Record { id, .. }
            | Self::Shim { id, .. } => id.clone(),
            Self::File { path, .. } => path.display().to_string(),
            Self::Program(name) => name.clone(),
            Self::Internal { step, .. } => (*step).to_owned(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NameTaken { .. } => Some("remove or rename that container, or choose another name".into()),
            Self::State { status: Status::Running | Status::Paused, action: "remove", .. } => {
                Some("stop it first, or force the removal".into())
            }
            Self::Record { .. } => Some("remove the container; its other files are left until then".into()),
            Self::Unkillable { .. } => Some(
                "it is likely stuck in the kernel (disk or network file system); look at its state in /proc".into(),
            ),
            Self::Program(_) => Some("install it, or name another one with --runtime".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_several_runtimes() {
        let class = StartFailure::classify;
        for text in [
            "runc create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH",
            "executable file `nope` not found in $PATH: No such file or directory",
            "runc create failed: exec: \"/nope\": stat /nope: no such file or directory",
        ] {
            assert_eq!(class(text), StartFailure::NotFound, "{text}");
        }
        assert_eq!(class("exec: \"/etc\": permission denied"), StartFailure::CannotExecute);
        assert_eq!(class("open `/bin/x`: cannot mount"), StartFailure::Other);
        assert_eq!(class("cannot move process 1 into cgroup /x: No such file or directory"), StartFailure::Other);
    }
}
