//! One host: requests with tokens, retries and limits. [`super::Registry`] chooses which host is asked.

use std::sync::{Arc, Mutex, PoisonError};

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use oci::Digest;
use oci_distribution::errors::OciEnvelope;
use reqwest::{RequestBuilder, Response, Url};

use super::auth::{Authenticator, Scope, parse_challenges};
use super::configuration::Place;
use super::connection::{Body, Connection};
use super::error::{Error, Result};
use super::retry::{backoff, pause, rate_limit, worth_retrying};
use super::{Host, Options, credentials};

/// How often a request is made before its failure is the answer.
const ATTEMPTS: u32 = 4;
/// The same when another place can be asked instead.
const ATTEMPTS_MIRROR: u32 = 2;
/// Longest error text that is read from a registry, in bytes.
const ERROR_MAX: usize = 64 << 10;

/// A host, with its connections and tokens. Cheap to clone.
#[derive(Clone)]
pub(super) struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Connection,
    auth: Authenticator,
    attempts: u32,
    limit: Mutex<Option<String>>,
}

impl Endpoint {
    /// Prepares to talk to a host; asks the credentials files and helpers.
    pub(super) async fn open(place: &Place, options: &Options) -> Result<Self> {
        // What was given for a registry is not for its mirrors.
        let credentials = match options.credentials.as_ref().filter(|_| !place.mirror) {
            Some(given) => Some(given.clone()),
            None => credentials::look_up(options, &place.host, &place.repository).await?,
        };
        let connection = Connection::open(place, options).await?;
        let auth = Authenticator::new(place.host.clone(), credentials);
        let attempts = if place.mirror { ATTEMPTS_MIRROR } else { ATTEMPTS };
        Ok(Self { inner: Arc::new(Inner { connection, auth, attempts, limit: Mutex::default() }) })
    }

    /// Where it is.
    pub(super) fn host(&self) -> &Host {
        &self.inner.connection.host
    }

    /// What the registry last said of its limits.
    pub(super) fn limit(&self) -> Option<String> {
        self.inner.limit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the registry lets us in.
    pub(super) async fn ping(&self) -> Result<()> {
        let url = self.host().url("");
        let answer = self.call(&Method::GET, &url, &Scope::none(), |request| request).await?;
        self.expect(answer, "a login", None).await.map(drop)
    }

    pub(super) fn full_name(&self, repository: &str, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{repository}{separator}{reference}", self.host().name)
    }

    /// The size of a blob; `None` when the repository does not have it.
    pub(super) async fn blob_size(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        let url = self.host().url(&format!("{repository}/blobs/{digest}"));
        let answer = self.call(&Method::HEAD, &url, &Scope::push(repository), |request| request).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.expect(answer, "push", None).await?;
        let length = answer.headers().get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        Ok(Some(length.and_then(|text| text.parse().ok()).unwrap_or(0)))
    }

    /// Sends a request that may be repeated: with a token when asked for one, again after 429, 5xx and broken connections.
    pub(super) async fn call(
        &self,
        method: &Method,
        url: &Url,
        scope: &Scope,
        attach: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = self.once(method, url, scope, &attach).await;
            let wait = match &result {
                Ok(answer) if worth_retrying(answer.status()) => pause(answer.headers(), attempt),
                Err(Error::Unreachable { .. }) => Some(backoff(attempt)),
                _ => return result,
            };
            let Some(wait) = wait.filter(|_| attempt < self.inner.attempts) else { return result };
            tracing::info!(%url, attempt, ?wait, "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// One request and, after a 401, the same with an answer to the challenge.
    async fn once(
        &self,
        method: &Method,
        url: &Url,
        scope: &Scope,
        attach: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let ours = self.host().owns(url);
        let header = if ours { self.authorization(scope).await? } else { None };
        let answer = self.send(method, url, header.as_deref(), &attach).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || !ours {
            return Ok(answer);
        }
        match self.answer_challenge(&answer, scope, header.as_deref()).await? {
            Some(header) => self.send(method, url, Some(&header), &attach).await,
            None => Ok(answer),
        }
    }

    /// The `Authorization` header for a scope, renewed when it is about to end; `None` as long as nothing was asked for.
    pub(super) async fn authorization(&self, scope: &Scope) -> Result<Option<String>> {
        self.inner.auth.header(&self.inner.connection, scope).await
    }

    /// Gets another header after a 401; `None`: nothing more can be done.
    pub(super) async fn answer_challenge(
        &self,
        answer: &Response,
        scope: &Scope,
        refused: Option<&str>,
    ) -> Result<Option<String>> {
        let values = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenges = parse_challenges(values.iter().filter_map(|value| value.to_str().ok()));
        self.inner.auth.answer(&self.inner.connection, scope, &challenges, refused).await
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        header: Option<&str>,
        attach: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let attach = |request: RequestBuilder, at: &Url| match header.filter(|_| self.host().owns(at)) {
            Some(header) => attach(request.header(AUTHORIZATION, header)),
            None => attach(request),
        };
        let answer = self.inner.connection.send(method, url, attach).await?;
        if let Some(limit) = rate_limit(answer.headers()) {
            *self.inner.limit.lock().unwrap_or_else(PoisonError::into_inner) = Some(limit);
        }
        Ok(answer)
    }

    /// For bodies that stream: the caller sends it, once.
    pub(super) fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// An answer's body, watched while it is read.
    pub(super) fn body(&self, answer: Response) -> Body {
        Body::new(answer, &self.inner.connection)
    }

    /// Turns an error status into an error with the registry's own words.
    pub(super) async fn expect(&self, answer: Response, action: &str, reference: Option<&str>) -> Result<Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let (url, busy) = (answer.url().clone(), busy(&answer));
        let detail = describe(&read_some(self.body(answer)).await, status);
        Err(match (status, reference) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Error::Unauthorized {
                registry: self.host().name.clone(),
                action: action.into(),
                detail: match self.inner.auth.has_credentials() {
                    true => detail,
                    false => format!("{detail} (no credentials given)"),
                },
            },
            (StatusCode::NOT_FOUND, Some(reference)) => {
                Error::NotFound { reference: reference.into(), url: url.to_string() }
            }
            _ => Error::Refused { url: url.to_string(), status: status.as_u16(), detail: format!("{detail}{busy}") },
        })
    }
}

/// What a busy registry says of when to come back.
fn busy(answer: &Response) -> String {
    let wait = super::retry::retry_after(answer.headers(), jiff::Timestamp::now());
    let words = [rate_limit(answer.headers()), wait.map(|wait| format!("try again in {} s", wait.as_secs()))];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join("; ")) }
}

async fn read_some(mut body: Body) -> Vec<u8> {
    let mut some = Vec::new();
    while let Ok(Some(chunk)) = body.chunk().await {
        some.extend_from_slice(&chunk[..chunk.len().min(ERROR_MAX)]);
        if some.len() >= ERROR_MAX {
            break;
        }
    }
    some
}

fn describe(body: &[u8], status: StatusCode) -> String {
    if let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body) {
        let words: Vec<String> = envelope.errors.iter().map(|e| format!("{:?}: {}", e.code, e.message)).collect();
        if !words.is_empty() {
            return words.join("; ").chars().take(1000).collect();
        }
    }
    let text: String = String::from_utf8_lossy(body).trim().chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() { status.canonical_reason().unwrap_or("no explanation").to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_words_are_kept_short() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        assert_eq!(describe(body, StatusCode::NOT_FOUND), "ManifestUnknown: manifest unknown");
        assert_eq!(describe(b"", StatusCode::NOT_FOUND), "Not Found");
        assert_eq!(describe(&[b'x'; 500], StatusCode::BAD_GATEWAY).len(), 200);
    }
}
