//! Answers and their bodies, and the specification's error envelope.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

use crate::Error;
use crate::transport::ByteStream;

/// What is sent: bytes at hand or a stream from the disk.
pub(super) type Body = UnsyncBoxBody<Bytes, Error>;
/// An answer.
pub(super) type Reply = Response<Body>;

/// The digest of what an answer is about.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Reply {
    sized(status, Bytes::new())
}

/// An answer with bytes.
pub(super) fn sized(status: StatusCode, bytes: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    *reply.status_mut() = status;
    reply
}

/// 200 with JSON.
pub(super) fn json(value: &serde_json::Value) -> Reply {
    sized(StatusCode::OK, value.to_string().into()).with(CONTENT_TYPE, "application/json")
}

/// 200 with a stream of known length.
pub(super) fn stream(stream: ByteStream, length: u64) -> Reply {
    let frames = stream.map_ok(Frame::data);
    let body = StreamBody::new(frames.boxed()).boxed_unsync();
    Response::new(body).with(CONTENT_LENGTH, &length.to_string())
}

/// Headers, one after the other.
pub(super) trait With {
    /// Adds a header. A text that no header can carry is left out.
    fn with(self, name: HeaderName, value: &str) -> Self;
}

impl With for Reply {
    fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers_mut().append(name, value);
        }
        self
    }
}

/// A request that is refused, or that failed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    /// One of the specification's codes.
    pub code: &'static str,
    pub message: String,
    pub headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { status, code, message, headers: Vec::new() }
    }

    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message.into())
    }

    pub fn not_found(code: &'static str, what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, format!("{what} is not here"))
    }

    pub fn unsupported(message: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message.into()).with(ALLOW, "GET, HEAD")
    }

    pub fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this endpoint has no such method".into())
    }

    pub fn unauthorized() -> Self {
        let message = "a user name and a password are needed".into();
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
            .with(WWW_AUTHENTICATE, "Basic realm=\"pier-distribution\", charset=\"UTF-8\"")
    }

    /// Adds a header.
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The envelope.
    pub fn into_reply(self, head: bool) -> Reply {
        let errors = serde_json::json!({"errors": [{"code": self.code, "message": self.message}]});
        let body = if head { Bytes::new() } else { errors.to_string().into() };
        let reply = sized(self.status, body).with(CONTENT_TYPE, "application/json");
        self.headers.into_iter().fold(reply, |reply, (name, value)| reply.with(name, &value))
    }
}

/// Failures of the store are ours, not the client's: the log has the causes, the client the sentence.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match &error {
            Error::DigestMismatch { .. } => Self::bad("DIGEST_INVALID", error.to_string()),
            Error::SizeMismatch { .. } => Self::bad("SIZE_INVALID", error.to_string()),
            Error::NotFound { what: "blob", .. } => Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", error.to_string()),
            Error::Registry(_) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the upstream failed");
                Self::new(StatusCode::BAD_GATEWAY, "UNKNOWN", error.to_string())
            }
            _ => {
                tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
                let full = error.is_full();
                let status = if full { StatusCode::INSUFFICIENT_STORAGE } else { StatusCode::INTERNAL_SERVER_ERROR };
                Self::new(status, "UNKNOWN", if full { "the disk is full".into() } else { error.to_string() })
            }
        }
    }
}
