//! HTTP to one host: TLS, proxies, redirects, time limits.
//!
//! Redirects are followed here and not by the HTTP client, so that neither `Authorization` nor configured headers ever reach
//! another host.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, Method, StatusCode};
use reqwest::{RequestBuilder, Response, Url};

use super::certificates::Certificates;
use super::configuration::Place;
use super::error::{Error, Result};
use super::{Host, Options};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the first look at a port may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const REDIRECTS_MAX: usize = 10;
/// Bytes in flight on one HTTP/2 stream, and on all of a connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes per second below which a transfer is taken for dead.
const PACE_MIN: u64 = 256;

/// How long a registry may stay silent: 60 s, or `PIER_REGISTRY_TIMEOUT` in seconds.
pub(super) fn patience() -> Duration {
    let given = std::env::var("PIER_REGISTRY_TIMEOUT").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.filter(|seconds| *seconds > 0).unwrap_or(60))
}

/// Connections to a host.
pub(super) struct Connection {
    http: reqwest::Client,
    trusting: OnceLock<reqwest::Client>,
    how: How,
    pub(super) host: Host,
    headers: HeaderMap,
    pub(super) patience: Duration,
}

impl Connection {
    /// Prepares; loopback and insecure hosts are asked whether they speak TLS, since either may be meant.
    pub(super) async fn open(place: &Place, options: &Options) -> Result<Self> {
        let certificates = Certificates::find(&place.host, options.certs_dir.as_deref())?;
        let host = Host::resolve(&place.host, false)?;
        let insecure = options.insecure || place.insecure;
        let skip_verify = options.tls_skip_verify || insecure;
        let how = How { certificates, skip_verify, loopback: host.is_loopback() };
        let failed = |e| unreachable(&host.base, e);
        let may_be_plain = (host.is_loopback() || insecure) && how.certificates.is_empty();
        let bare = match options.plain_http || may_be_plain && how.loopback {
            true => Some(how.client(Roots::None).map_err(failed)?),
            false => None,
        };
        let (http, trusting, plain) = match bare {
            Some(bare) if options.plain_http || answers_plain(&bare, &host).await => (bare, OnceLock::new(), true),
            _ => {
                let trusting = how.client(Roots::System).map_err(failed)?;
                let plain = may_be_plain && !speaks_tls(&trusting, &host).await;
                (trusting.clone(), trusting.into(), plain)
            }
        };
        let host = if plain { Host::resolve(&place.host, true)? } else { host };
        Ok(Self { http, trusting, how, host, headers: place.headers.clone(), patience: patience() })
    }

    /// Sends a request without a body, or with one that can be sent again; follows redirects. `attach` learns where
    /// the request goes, since not every host may see every secret.
    pub(super) async fn send(
        &self,
        method: &Method,
        url: &Url,
        attach: impl Fn(RequestBuilder, &Url) -> RequestBuilder,
    ) -> Result<Response> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let request = attach(self.request(method, &url), &url);
            let answer = match tokio::time::timeout(self.patience, request.send()).await {
                Ok(answer) => answer.map_err(|e| unreachable(&url, e))?,
                Err(_) => return Err(self.silent(&url)),
            };
            match redirected(&answer, method, &url)? {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        let problem = format!("more than {REDIRECTS_MAX} redirects");
        Err(Error::Protocol { url: url.to_string(), problem })
    }

    /// A request with what configuration adds for this host.
    pub(super) fn request(&self, method: &Method, url: &Url) -> RequestBuilder {
        let http = if url.scheme() == "https" { self.trusting() } else { &self.http };
        let request = http.request(method.clone(), url.clone());
        if self.host.owns(url) { request.headers(self.headers.clone()) } else { request }
    }

    /// For TLS, where a plain host may send us to.
    fn trusting(&self) -> &reqwest::Client {
        self.trusting.get_or_init(|| {
            self.how.client(Roots::System).unwrap_or_else(|error| {
                tracing::warn!(%error, "the machine's certificates cannot be read");
                self.http.clone()
            })
        })
    }

    /// Nothing came for too long.
    pub(super) fn silent(&self, url: &Url) -> Error {
        let source = format!("nothing came for {} s", self.patience.as_secs());
        Error::Unreachable { url: url.to_string(), source: source.into(), maybe_plain_http: false }
    }
}

/// Reads a body while watching that it moves: a server that trickles is as dead as a silent one.
pub(super) struct Body {
    answer: Response,
    patience: Duration,
    window: tokio::time::Instant,
    came: u64,
}

impl Body {
    pub(super) fn new(answer: Response, connection: &Connection) -> Self {
        Self { answer, patience: connection.patience, window: tokio::time::Instant::now(), came: 0 }
    }

    /// Where it comes from, after redirects.
    pub(super) fn url(&self) -> &Url {
        self.answer.url()
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let seconds = self.patience.as_secs();
        let chunk = match tokio::time::timeout(self.patience, self.answer.chunk()).await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(error)) => return Err(unreachable(self.answer.url(), error)),
            Err(_) => return Err(self.dead(format!("nothing came for {seconds} s"))),
        };
        self.came += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.window.elapsed() >= self.patience {
            if self.came < PACE_MIN * seconds {
                return Err(self.dead(format!("only {} bytes came in {seconds} s", self.came)));
            }
            (self.window, self.came) = (tokio::time::Instant::now(), 0);
        }
        Ok(chunk)
    }

    fn dead(&self, problem: String) -> Error {
        let url = self.answer.url().to_string();
        Error::Unreachable { url, source: problem.into(), maybe_plain_http: false }
    }

    /// Reads all, refusing more than `max` bytes before they are in memory.
    pub(super) async fn read(mut self, max: u64) -> Result<Vec<u8>> {
        let too_large = |url: &Url, size: u64| Error::TooLarge { url: url.to_string(), size, max };
        if let Some(length) = self.answer.content_length().filter(|length| *length > max) {
            return Err(too_large(self.url(), length));
        }
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            let size = all.len() as u64 + chunk.len() as u64;
            if size > max {
                return Err(too_large(self.url(), size));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

/// Where an answer sends us; `None` when it is the answer itself.
fn redirected(answer: &Response, method: &Method, from: &Url) -> Result<Option<Url>> {
    let status = answer.status();
    let same_method = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let read = matches!(*method, Method::GET | Method::HEAD) && matches!(status.as_u16(), 301..=303);
    if !same_method && !read {
        return Ok(None);
    }
    let protocol = |problem: &str| Error::Protocol { url: from.to_string(), problem: problem.into() };
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = from.join(location.ok_or_else(|| protocol("a redirect to nowhere"))?);
    let next = next.map_err(|_| protocol("a redirect to what is no URL"))?;
    if from.scheme() == "https" && next.scheme() != "https" {
        return Err(protocol(&format!("redirected from https to {next}")));
    }
    Ok(Some(next))
}

/// Whom a client trusts.
enum Roots {
    /// Nobody: it is not for TLS. Reading the machine's certificates takes longer than a small pull.
    None,
    /// The machine's certificates, and the registry's own.
    System,
}

/// How clients are made.
struct How {
    certificates: Certificates,
    skip_verify: bool,
    loopback: bool,
}

impl How {
    fn client(&self, trust: Roots) -> reqwest::Result<reqwest::Client> {
        let builder = builder();
        let mut builder = match trust {
            Roots::None => builder.tls_certs_only(Vec::new()),
            Roots::System => builder.tls_certs_merge(self.certificates.roots.clone()),
        };
        if let Some(identity) = &self.certificates.identity {
            builder = builder.identity(identity.clone());
        }
        // HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are the client's business; nobody means them for this machine itself.
        if self.loopback {
            builder = builder.no_proxy();
        }
        builder.tls_danger_accept_invalid_certs(self.skip_verify).build()
    }
}

fn builder() -> reqwest::ClientBuilder {
    // Without a provider reqwest panics; a second installation is an error that does not matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let loopback = [([127, 0, 0, 1], 0).into(), (std::net::Ipv6Addr::LOCALHOST, 0).into()];
    reqwest::Client::builder()
        .user_agent(concat!("pier-distribution/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        // Neither NSS nor a name server is needed to find oneself; other names do not go through NSS either, so that a static
        // program resolves them.
        .resolve_to_addrs("localhost", &loopback)
        .hickory_dns(true)
}

/// This machine's own ports mostly speak plainly, so they are asked that way first; an insecure host is asked for TLS first.
/// Servers of TLS answer plain requests with a 400 that says so, with a TLS alert, or by hanging up.
async fn answers_plain(http: &reqwest::Client, host: &Host) -> bool {
    let mut url = host.url("");
    if url.set_scheme("http").is_err() {
        return false;
    }
    match tokio::time::timeout(PROBE_TIMEOUT, http.get(url).send()).await {
        Ok(Ok(answer)) => answer.status() != StatusCode::BAD_REQUEST,
        // Nobody is there: asking twice does not help. Somebody who takes his time is asked again anyway.
        Ok(Err(error)) => error.is_connect(),
        Err(_) => true,
    }
}

async fn speaks_tls(http: &reqwest::Client, host: &Host) -> bool {
    match tokio::time::timeout(CONNECT_TIMEOUT, http.get(host.url("")).send()).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => tls_error(&error).is_some_and(|tls| !matches!(tls, rustls::Error::InvalidMessage(_))),
        Err(_) => false,
    }
}

/// What TLS said, wherever it is in the chain of causes.
pub(super) fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        // An io::Error hides what it wraps from source().
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inner.map(|inner| inner as _).or_else(|| cause.source());
    }
    None
}

pub(super) fn unreachable(url: &Url, error: reqwest::Error) -> Error {
    let maybe_plain_http = url.scheme() == "https" && error.is_connect();
    Error::Unreachable { url: url.to_string(), source: Box::new(error.without_url()), maybe_plain_http }
}
