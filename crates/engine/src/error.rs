//! The engine's errors. A failure that came from a tool keeps the tool's code, reason, causes and hint.
use crate::tools::Tool;
use rpc::{Code, Failure};
use std::error::Error as StdError;
use std::fmt;

/// Why a composed verb failed.
#[derive(Debug)]
pub enum Error {
    /// A word of the request makes no sense.
    Invalid {
        /// The option: "memory limit".
        what: &'static str,
        /// As it was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Neither the image nor the request says what to run.
    NoCommand {
        /// The reference.
        image: String,
    },
    /// A composed document could not be written or read.
    Encoding {
        /// Which.
        what: &'static str,
        /// Where it broke.
        source: serde_json::Error,
    },
    /// Another container has the name.
    Exists {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// The container is in a state that forbids this.
    State {
        /// Name or id.
        container: String,
        /// "is running", "joined a container that was started again".
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// Something of the host that was asked for is not there.
    Host {
        /// "read", "make directory".
        action: &'static str,
        /// Its path.
        path: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Not built yet, or impossible here.
    Unsupported {
        /// The option.
        what: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// A tool answered with an error.
    Tool {
        /// Which.
        tool: Tool,
        /// Its answer.
        failure: Failure,
    },
    /// A tool cannot be reached or started.
    Down {
        /// Which.
        tool: Tool,
        /// Its socket.
        socket: String,
        /// Why.
        failure: Failure,
    },
    /// A tool did not answer in time.
    Timeout {
        /// Which.
        tool: Tool,
        /// The gRPC method.
        call: &'static str,
        /// The deadline in seconds.
        seconds: u64,
    },
    /// A step of a composed verb failed; what was done before it has been undone.
    Step {
        /// "create container web".
        action: String,
        /// "prepare snapshot".
        step: &'static str,
        /// Its failure.
        cause: Box<Error>,
    },
    /// The caller went away.
    Canceled,
}

impl Error {
    /// An option that makes no sense.
    pub fn invalid(what: &'static str, value: impl fmt::Display, why: impl Into<String>) -> Self {
        Self::Invalid { what, value: value.to_string(), why: why.into() }
    }

    /// The failure as it crosses the wire.
    pub fn failure(&self) -> Failure {
        let (code, reason) = self.code();
        let mut failure = Failure::new(code, &reason, self.to_string());
        if let Some(cause) = self.source() {
            failure = failure.with_cause(cause);
        }
        failure.subject = self.subject();
        failure.hint = self.hint();
        failure
    }

    /// True when the tool says that the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code().0 == Code::NotFound
    }

    /// Code and reason.
    pub fn code(&self) -> (Code, String) {
        let own = |code, reason: &str| (code, reason.to_string());
        match self {
            Self::Invalid { .. } => own(Code::InvalidArgument, "OPTION_INVALID"),
            Self::NoCommand { .. } => own(Code::InvalidArgument, "NO_COMMAND"),
            Self::Encoding { .. } => own(Code::Internal, "SPEC_INVALID"),
            Self::Exists { .. } => own(Code::AlreadyExists, "NAME_IN_USE"),
            Self::State { .. } => own(Code::FailedPrecondition, "CONTAINER_STATE"),
            Self::Host { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                own(Code::InvalidArgument, "HOST_PATH_NOT_FOUND")
            }
            Self::Host { .. } => own(Code::Internal, "HOST_PATH"),
            Self::Unsupported { .. } => own(Code::Unimplemented, "UNSUPPORTED"),
            Self::Tool { failure, .. } => (failure.code, failure.reason.clone()),
            Self::Down { failure, .. } if failure.reason == "TOOL_MISSING" => own(Code::Unavailable, "TOOL_MISSING"),
            Self::Down { .. } => own(Code::Unavailable, "TOOL_DOWN"),
            Self::Timeout { .. } => own(Code::DeadlineExceeded, "TOOL_TIMEOUT"),
            Self::Step { cause, .. } => cause.code(),
            Self::Canceled => own(Code::Canceled, "CANCELED"),
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Invalid { value, .. } => value.clone(),
            Self::NoCommand { image } => image.clone(),
            Self::State { container, .. } => container.clone(),
            Self::Exists { name, .. } => name.clone(),
            Self::Host { path, .. } => path.clone(),
            Self::Unsupported { what, .. } => what.clone(),
            Self::Tool { failure, .. } => failure.subject.clone(),
            Self::Down { tool, .. } | Self::Timeout { tool, .. } => tool.program(),
            Self::Step { cause, .. } => cause.subject(),
            Self::Encoding { .. } | Self::Canceled => String::new(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::State { hint, .. } | Self::Unsupported { hint, .. } => hint.to_string(),
            Self::Exists { .. } => "remove or rename that container, or take another name".into(),
            Self::NoCommand { .. } => "give a command after the image".into(),
            Self::Tool { failure, .. } => failure.hint.clone(),
            Self::Down { tool, failure, .. } if failure.hint.is_empty() => {
                format!("start it by hand to see why: {} serve", tool.program())
            }
            Self::Down { failure, .. } => failure.hint.clone(),
            Self::Step { cause, .. } => cause.hint(),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { what, value, why } => write!(f, "invalid {what} {value:?}: {why}"),
            Self::NoCommand { image } => write!(f, "no command given, and image {image} has none"),
            Self::Encoding { what, .. } => write!(f, "the {what} is not valid"),
            Self::Exists { name, id } => write!(f, "the name {name} is in use by container {id}"),
            Self::State { container, why, .. } => write!(f, "container {container} {why}"),
            Self::Host { action, path, .. } => write!(f, "{action} {path}"),
            Self::Unsupported { what, .. } => write!(f, "{what} is not supported yet"),
            Self::Tool { failure, .. } => f.write_str(&failure.message),
            Self::Down { failure, .. } if failure.reason == "TOOL_MISSING" => f.write_str(&failure.message),
            Self::Down { tool, socket, .. } => write!(f, "{} does not answer on {socket}", tool.program()),
            Self::Timeout { tool, call, seconds } => {
                write!(f, "{} did not answer {call} within {seconds} s", tool.program())
            }
            // The cause stands in the line itself: people read the first line.
            Self::Step { action, step, cause } => write!(f, "{action}: step {step:?}: {cause}"),
            Self::Canceled => f.write_str("the caller went away"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Encoding { source, .. } => Some(source),
            Self::Host { source, .. } => Some(source),
            Self::Tool { failure, .. } => failure.source(),
            Self::Down { failure, .. } if failure.reason == "TOOL_MISSING" => failure.source(),
            Self::Down { failure, .. } => Some(failure),
            Self::Step { cause, .. } => cause.source(),
            _ => None,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        error.failure().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_keeps_the_tools_reason_causes_and_hint() {
        let inner = Failure::new(Code::ResourceExhausted, "DISK_FULL", "cannot write layer")
            .with_cause(&std::io::Error::other("no space left"))
            .with_hint("prune images");
        let cause = Box::new(Error::Tool { tool: Tool::Distribution, failure: inner });
        let error = Error::Step { action: "create container web".into(), step: "prepare snapshot", cause };
        let failure = error.failure();
        assert_eq!(failure.message, "create container web: step \"prepare snapshot\": cannot write layer");
        assert_eq!((failure.code, failure.reason.as_str()), (Code::ResourceExhausted, "DISK_FULL"));
        assert_eq!(failure.causes, ["no space left"]);
        assert_eq!(failure.hint, "prune images");
    }
}
