//! One registry: requests with tokens, retries and limits.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use oci::Digest;
use oci_distribution::errors::OciEnvelope;
use reqwest::{RequestBuilder, Response, Url};

use super::auth::{Authenticator, Scope, parse_challenges};
use super::error::{Error, Result};
use super::{Host, Options, credentials};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A registry that sends nothing for so long is taken for dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 4;
/// Longest wait that `Retry-After` may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 10;
/// Longest error text that is read from a registry, in bytes.
const ERROR_MAX: u64 = 64 << 10;
/// A registry, with its connections and tokens. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    host: Host,
    auth: Authenticator,
}

impl Registry {
    /// Prepares to talk to a registry; asks the credentials file and helpers, but not the registry.
    ///
    /// # Errors
    /// [`Error::NameInvalid`], [`Error::Credentials`].
    pub async fn open(name: &str, options: &Options) -> Result<Self> {
        let host = Host::resolve(name, options.plain_http)?;
        let credentials = match (&options.credentials, &options.auth_file) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(file)) => credentials::find(file, name).await?,
            (None, None) => None,
        };
        let http = http_client(options).map_err(|e| Error::Unreachable {
            url: host.base.to_string(),
            source: Box::new(e),
            maybe_plain_http: false,
        })?;
        let auth = Authenticator::new(host.name.clone(), credentials);
        Ok(Self { inner: Arc::new(Inner { http, host, auth }) })
    }

    /// Where it is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// Whether the registry lets us in.
    ///
    /// # Errors
    /// [`Error::Unauthorized`], [`Error::Unreachable`].
    pub async fn ping(&self) -> Result<()> {
        let url = self.host().url("");
        let answer = self.call(&Method::GET, &url, &Scope::none(), |request| request).await?;
        self.expect(answer, "a login", None).await.map(drop)
    }

    pub(super) fn full_name(&self, repository: &str, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{repository}{separator}{reference}", self.host().name)
    }

    /// The size of a blob; `None` when the repository does not have it.
    ///
    /// # Errors
    /// As for any request.
    pub async fn blob_size(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
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
                Ok(answer) if worth_retrying(answer.status()) => {
                    retry_after(answer.headers()).unwrap_or(backoff(attempt))
                }
                Err(Error::Unreachable { .. }) => backoff(attempt),
                _ => return result,
            };
            if attempt == ATTEMPTS {
                return result;
            }
            tracing::debug!(%url, attempt, ?wait, "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// One request and, after a 401, the same with an answer to the challenge.
    pub(super) async fn once(
        &self,
        method: &Method,
        url: &Url,
        scope: &Scope,
        attach: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let ours = self.host().owns(url);
        let known = if ours { self.inner.auth.known(scope).await } else { None };
        let answer = self.send(method, url, known.as_deref(), &attach).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || !ours {
            return Ok(answer);
        }
        let values = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenges = parse_challenges(values.iter().filter_map(|value| value.to_str().ok()));
        let auth = &self.inner.auth;
        match auth.answer(&self.inner.http, &self.host().base, scope, &challenges).await? {
            Some(header) => self.send(method, url, Some(&header), &attach).await,
            None => Ok(answer),
        }
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        header: Option<&str>,
        attach: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let mut request = self.inner.http.request(method.clone(), url.clone());
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header);
        }
        attach(request).send().await.map_err(|e| self.unreachable(url, e))
    }

    pub(super) fn unreachable(&self, url: &Url, error: reqwest::Error) -> Error {
        let maybe_plain_http = self.host().base.scheme() == "https" && error.is_connect();
        Error::Unreachable { url: url.to_string(), source: Box::new(error.without_url()), maybe_plain_http }
    }

    /// Turns an error status into an error with the registry's own words.
    pub(super) async fn expect(&self, answer: Response, action: &str, reference: Option<&str>) -> Result<Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let url = answer.url().clone();
        let body = read_some(answer, ERROR_MAX).await;
        let detail = describe(&body, status);
        Err(match (status, reference) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Error::Unauthorized {
                registry: self.host().name.clone(),
                action: action.into(),
                detail: if self.inner.auth.has_credentials() {
                    detail
                } else {
                    format!("{detail} (no credentials given)")
                },
            },
            (StatusCode::NOT_FOUND, Some(reference)) => {
                Error::NotFound { reference: reference.into(), url: url.to_string() }
            }
            _ => Error::Refused { url: url.to_string(), status: status.as_u16(), detail },
        })
    }
}

fn http_client(options: &Options) -> reqwest::Result<reqwest::Client> {
    // Without a provider reqwest panics; a second installation is an error that does not matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let loopback = [([127, 0, 0, 1], 0).into(), (std::net::Ipv6Addr::LOCALHOST, 0).into()];
    reqwest::Client::builder()
        .user_agent(concat!("pier-distribution/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(reqwest::redirect::Policy::custom(follow))
        .tls_danger_accept_invalid_certs(options.tls_skip_verify)
        // Neither NSS nor a name server is needed to find oneself; other names do not go through NSS either, so that a static
        // program resolves them.
        .resolve_to_addrs("localhost", &loopback)
        .hickory_dns(true)
        .no_proxy()
        .build()
}

/// Follows redirects, but never from TLS to plain text. The client itself drops `Authorization` when the host changes.
fn follow(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error("too many redirects");
    }
    let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if from_tls && attempt.url().scheme() != "https" {
        return attempt.error("redirected from https to http");
    }
    attempt.follow()
}

pub(super) fn worth_retrying(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
        || status == StatusCode::REQUEST_TIMEOUT
}

/// 0.2 s, 0.4 s, 0.8 s, … with up to half as much again, so that many clients do not come back at once.
pub(super) fn backoff(attempt: u32) -> Duration {
    let base = Duration::from_millis(200) * 2u32.saturating_pow(attempt.saturating_sub(1).min(6));
    base + base.mul_f64(rand::random::<f64>() / 2.0)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

async fn read_some(mut answer: Response, max: u64) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > max {
            break;
        }
    }
    body
}

/// Reads a whole body, refusing more than `max` bytes before they are in memory.
pub(super) async fn read_bounded(mut answer: Response, url: &Url, max: u64) -> Result<Vec<u8>> {
    let too_large = |size: u64| Error::TooLarge { url: url.to_string(), size, max };
    let declared = answer.content_length();
    if let Some(length) = declared.filter(|length| *length > max) {
        return Err(too_large(length));
    }
    let mut body = Vec::new();
    loop {
        let chunk = answer.chunk().await.map_err(|e| Error::Unreachable {
            url: url.to_string(),
            source: Box::new(e.without_url()),
            maybe_plain_http: false,
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() as u64 + chunk.len() as u64 > max {
            return Err(too_large(body.len() as u64 + chunk.len() as u64));
        }
        body.extend_from_slice(&chunk);
    }
}

fn describe(body: &[u8], status: StatusCode) -> String {
    if let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body) {
        let words: Vec<String> = envelope.errors.iter().map(|e| format!("{:?}: {}", e.code, e.message)).collect();
        if !words.is_empty() {
            return words.join("; ");
        }
    }
    let text: String = String::from_utf8_lossy(body).trim().chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() { status.canonical_reason().unwrap_or("no explanation").to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_registrys_own_words_are_kept_short() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        assert_eq!(describe(body, StatusCode::NOT_FOUND), "ManifestUnknown: manifest unknown");
        assert_eq!(describe(b"", StatusCode::NOT_FOUND), "Not Found");
        assert_eq!(describe(&[b'x'; 500], StatusCode::BAD_GATEWAY).len(), 200);
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        assert!(backoff(1) < Duration::from_millis(301));
        assert!(backoff(100) < Duration::from_secs(20));
    }
}
