//! Errors across the wire: a code, a machine-readable reason, the chain of causes and a hint, there and back.
use crate::Code;
use api::types::v1::ErrorDetail;
use prost::Message;
use std::error::Error;
use std::fmt;

/// An error of a tool's library that knows how to tell a program what it is.
pub trait Coded: Error {
    /// Which of the short list.
    fn code(&self) -> Code;
    /// Stable, UPPER_SNAKE: "NETWORK_NOT_FOUND".
    fn reason(&self) -> &'static str;
    /// The path, id, name or step it is about.
    fn subject(&self) -> String {
        String::new()
    }
    /// What to do next, a sentence for people.
    fn hint(&self) -> Option<String> {
        None
    }
}

const DETAIL_TYPE: &str = "type.googleapis.com/pier.types.v1.ErrorDetail";

/// google.rpc.Status (google/rpc/status.proto), the shape of grpc-status-details-bin.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// A gRPC status with everything the error says. An error whose cause is a [`Failure`] (it came from another tool)
/// keeps that tool's causes, and its hint when it has none itself.
pub fn status<E: Coded + 'static>(error: &E) -> tonic::Status {
    let inner = inner_failure(error);
    Failure {
        code: error.code(),
        reason: error.reason().to_string(),
        subject: error.subject(),
        message: error.to_string(),
        causes: chain(error.source()),
        hint: error.hint().or_else(|| inner.map(|f| f.hint.clone())).unwrap_or_default(),
        cause: None,
    }
    .into()
}

fn inner_failure<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Failure> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(found) = e.downcast_ref::<Failure>() {
            return Some(found);
        }
        next = e.source();
    }
    None
}

fn chain(first: Option<&(dyn Error + 'static)>) -> Vec<String> {
    let mut out = Vec::new();
    let mut next = first;
    while let Some(e) = next {
        let text = e.to_string();
        if out.last() != Some(&text) {
            out.push(text);
        }
        next = e.source();
    }
    out
}

/// A failed call, as its caller sees it. The causes that came over the wire are its `source` chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Which of the short list.
    pub code: Code,
    /// Stable, UPPER_SNAKE; empty when the other side is not of ours.
    pub reason: String,
    /// What it is about.
    pub subject: String,
    /// What went wrong.
    pub message: String,
    /// Outermost first, without `message`.
    pub causes: Vec<String>,
    /// What to do next; may be empty.
    pub hint: String,
    cause: Option<Box<Cause>>,
}

impl Failure {
    /// A failure made on this side of the wire.
    pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            subject: String::new(),
            message: message.into(),
            causes: Vec::new(),
            hint: String::new(),
            cause: None,
        }
    }

    /// The same with a cause chain.
    pub fn with_cause(mut self, cause: &(dyn Error + 'static)) -> Self {
        self.causes = chain(Some(cause));
        self.cause = Cause::linked(&self.causes);
        self
    }

    /// The same with a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// One link of a cause chain that came over the wire.
#[derive(Clone, Debug, PartialEq)]
struct Cause {
    text: String,
    next: Option<Box<Cause>>,
}

impl Cause {
    fn linked(texts: &[String]) -> Option<Box<Cause>> {
        let (first, rest) = texts.split_first()?;
        Some(Box::new(Cause { text: first.clone(), next: Cause::linked(rest) }))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.next.as_deref().map(|c| c as _)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|c| c as _)
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let detail = RpcStatus::decode(status.details())
            .ok()
            .and_then(|s| s.details.into_iter().find(|d| d.type_url == DETAIL_TYPE))
            .and_then(|any| ErrorDetail::decode(any.value.as_slice()).ok());
        let mut failure = Failure::new(status.code().into(), "", status.message());
        if let Some(detail) = detail {
            failure.reason = detail.reason;
            failure.subject = detail.subject;
            failure.hint = detail.hint;
            failure.causes = detail.causes;
        } else if let Some(source) = status.source() {
            failure.causes = chain(Some(source));
        }
        failure.cause = Cause::linked(&failure.causes);
        failure
    }
}

impl From<Failure> for tonic::Status {
    fn from(failure: Failure) -> Self {
        let code = tonic::Code::from(failure.code);
        let detail = ErrorDetail {
            reason: failure.reason,
            subject: failure.subject,
            causes: failure.causes,
            hint: failure.hint,
        };
        let any = prost_types::Any { type_url: DETAIL_TYPE.into(), value: detail.encode_to_vec() };
        let body = RpcStatus { code: code as i32, message: failure.message.clone(), details: vec![any] };
        tonic::Status::with_details(code, failure.message, body.encode_to_vec().into())
    }
}

/// The hint and the reason found anywhere in an error's chain, for `console::finish`.
pub fn explain(error: &anyhow::Error) -> (Option<String>, Option<String>) {
    match error.chain().find_map(|e| e.downcast_ref::<Failure>()) {
        Some(f) => {
            let full = |s: &String| (!s.is_empty()).then(|| s.clone());
            (full(&f.hint), full(&f.reason))
        }
        None => (None, None),
    }
}

/// As [`explain`], for a program whose own library fails with `E`: its errors need not have come over the wire.
pub fn explain_own<E: Coded + 'static>(error: &anyhow::Error) -> (Option<String>, Option<String>) {
    match error.chain().find_map(|cause| cause.downcast_ref::<E>()) {
        Some(own) => (own.hint().or_else(|| explain(error).0), Some(own.reason().into())),
        None => explain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no such network {0:?}")]
    struct NoNetwork(&'static str, #[source] std::io::Error);

    impl Coded for NoNetwork {
        fn code(&self) -> Code {
            Code::NotFound
        }
        fn reason(&self) -> &'static str {
            "NETWORK_NOT_FOUND"
        }
        fn hint(&self) -> Option<String> {
            Some("see `pier network ls`".into())
        }
    }

    #[test]
    fn everything_crosses_the_wire() {
        let error = NoNetwork("blue", std::io::Error::other("state file missing"));
        let back = Failure::from(status(&error));
        assert_eq!((back.code, back.reason.as_str()), (Code::NotFound, "NETWORK_NOT_FOUND"));
        assert_eq!(back.source().map(ToString::to_string).as_deref(), Some("state file missing"));
        let (hint, reason) = explain(&anyhow::Error::new(back).context("start web"));
        assert_eq!(hint.as_deref(), Some("see `pier network ls`"));
        assert_eq!(reason.as_deref(), Some("NETWORK_NOT_FOUND"));
    }

    #[test]
    fn codes_map_one_to_one() {
        for n in 1..=16 {
            let theirs = tonic::Code::from(n);
            if !matches!(theirs, tonic::Code::Unknown | tonic::Code::OutOfRange) {
                assert_eq!(tonic::Code::from(Code::from(theirs)), theirs);
            }
        }
    }
}
