//! Challenges, tokens and what goes into the `Authorization` header.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::Credentials;
use super::error::{Error, Result};

/// Tokens are renewed this long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(5);
/// Largest answer of a token service, in bytes.
const TOKEN_MAX: usize = 1 << 20;

/// What a request needs: "repository:library/busybox:pull", one per repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Scope(Vec<String>);

impl Scope {
    /// No repository: only that the credentials are right.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// To read a repository.
    #[must_use]
    pub fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    /// To write a repository.
    #[must_use]
    pub fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// To delete from a repository. Docker's token service knows "delete", others take "*".
    #[must_use]
    pub fn delete(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:delete,pull,push")])
    }

    /// To list repositories.
    #[must_use]
    pub fn catalog() -> Self {
        Self(vec!["registry:catalog:*".into()])
    }

    /// To write a repository from the blobs of another one.
    #[must_use]
    pub fn mount(repository: &str, from: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push"), format!("repository:{from}:pull")])
    }
}

/// One scheme of a `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Reads all challenges that we can answer; the strongest (bearer) first.
pub(super) fn parse_challenges<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = headers.filter_map(parse_challenge).collect();
    found.sort_by_key(|c| matches!(c, Challenge::Basic));
    found
}

/// The token services that a `WWW-Authenticate` header names (RFC 9110 section 11.6.1).
#[must_use]
pub fn realms(header: &str) -> Vec<String> {
    let realm = |challenge| match challenge {
        Challenge::Bearer { realm, .. } => Some(realm),
        Challenge::Basic => None,
    };
    parse_challenges([header].into_iter()).into_iter().filter_map(realm).collect()
}

fn parse_challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parse_parameters(rest);
    Some(Challenge::Bearer {
        realm: parameters.remove("realm")?,
        service: parameters.remove("service"),
        scope: parameters.remove("scope"),
    })
}

/// `key="value with, commas", key2=token` → a map with lower-case keys.
fn parse_parameters(text: &str) -> HashMap<String, String> {
    let mut out = HashMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let after = after.trim_start();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => take_quoted(quoted),
            None => after.split_once(',').map_or((after.trim().to_owned(), ""), |(v, t)| (v.trim().to_owned(), t)),
        };
        out.insert(key, value);
        rest = tail;
    }
    out
}

fn take_quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

struct Token {
    header: String,
    until: Instant,
}

/// Credentials and tokens of one registry.
pub(super) struct Authenticator {
    registry: String,
    credentials: Option<Credentials>,
    tokens: Mutex<HashMap<Scope, Token>>,
}

impl Authenticator {
    pub(super) fn new(registry: String, credentials: Option<Credentials>) -> Self {
        Self { registry, credentials, tokens: Mutex::default() }
    }

    /// The header for a scope, when an earlier answer made it known.
    pub(super) async fn known(&self, scope: &Scope) -> Option<String> {
        let tokens = self.tokens.lock().await;
        tokens.get(scope).filter(|token| token.until > Instant::now()).map(|token| token.header.clone())
    }

    /// Answers a 401: finds the header to try again with. `None`: nothing more can be done.
    pub(super) async fn answer(
        &self,
        http: &reqwest::Client,
        base: &Url,
        scope: &Scope,
        challenges: &[Challenge],
    ) -> Result<Option<String>> {
        for challenge in challenges {
            let token = match challenge {
                Challenge::Basic => match self.basic() {
                    Some(header) => Token { header, until: Instant::now() + Duration::from_secs(3600) },
                    None => continue,
                },
                Challenge::Bearer { realm, service, scope: offered } => {
                    let realm = self.realm(base, realm)?;
                    self.exchange(http, realm, service.as_deref(), scope, offered.as_deref()).await?
                }
            };
            let header = token.header.clone();
            self.tokens.lock().await.insert(scope.clone(), token);
            return Ok(Some(header));
        }
        Ok(None)
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    fn basic(&self) -> Option<String> {
        match &self.credentials {
            Some(Credentials::Password { username, password }) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            _ => None,
        }
    }

    /// A token service may be on any host, but a registry behind TLS cannot have the password sent in the clear.
    fn realm(&self, base: &Url, realm: &str) -> Result<Url> {
        let url = base
            .join(realm)
            .map_err(|e| Error::Protocol { url: base.to_string(), problem: format!("token service {realm:?}: {e}") })?;
        if base.scheme() == "https" && url.scheme() != "https" && self.credentials.is_some() {
            return Err(Error::Protocol {
                url: base.to_string(),
                problem: format!("it wants the credentials sent without encryption to {url}"),
            });
        }
        Ok(url)
    }

    async fn exchange(
        &self,
        http: &reqwest::Client,
        realm: Url,
        service: Option<&str>,
        scope: &Scope,
        offered: Option<&str>,
    ) -> Result<Token> {
        let scopes: Vec<&str> = match (scope.0.is_empty(), offered) {
            (true, Some(offered)) => vec![offered],
            _ => scope.0.iter().map(String::as_str).collect(),
        };
        let request = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let mut form = form_pairs(service, &[&scopes.join(" ")]);
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("client_id", "pier").append_pair("refresh_token", token);
                http.post(realm.clone())
                    .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.finish().query().unwrap_or_default().to_owned())
            }
            _ => http.get(with_query(realm.clone(), service, &scopes)),
        };
        let request = match self.basic() {
            Some(header) => request.header(http::header::AUTHORIZATION, header),
            None => request,
        };
        let answer = request.send().await.map_err(|e| Error::Unreachable {
            url: realm.to_string(),
            source: Box::new(e),
            maybe_plain_http: false,
        })?;
        self.read_token(answer, &realm).await
    }

    async fn read_token(&self, mut answer: reqwest::Response, realm: &Url) -> Result<Token> {
        let status = answer.status();
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > TOKEN_MAX {
                break;
            }
        }
        if status == http::StatusCode::UNAUTHORIZED || status == http::StatusCode::FORBIDDEN {
            return Err(Error::Unauthorized {
                registry: self.registry.clone(),
                action: "these credentials".into(),
                detail: format!("{status} from {realm}"),
            });
        }
        let parsed: Option<TokenAnswer> = serde_json::from_slice(&body).ok();
        let token =
            parsed.as_ref().and_then(|t| t.token.as_ref().or(t.access_token.as_ref())).filter(|t| !t.is_empty());
        match (status.is_success(), token) {
            (true, Some(token)) => {
                let seconds = parsed.as_ref().and_then(|t| t.expires_in).unwrap_or(60).clamp(10, 24 * 3600);
                Ok(Token {
                    header: format!("Bearer {token}"),
                    until: Instant::now() + Duration::from_secs(seconds) - RENEW_BEFORE,
                })
            }
            _ => Err(Error::Protocol { url: realm.to_string(), problem: format!("{status}, and no token") }),
        }
    }
}

fn with_query(mut realm: Url, service: Option<&str>, scopes: &[&str]) -> Url {
    {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
    }
    realm
}

/// A form body, built with a URL's query serialiser.
struct Form(Url);

impl Form {
    fn append_pair(&mut self, key: &str, value: &str) -> &mut Self {
        self.0.query_pairs_mut().append_pair(key, value);
        self
    }

    fn finish(self) -> Url {
        self.0
    }
}

fn form_pairs(service: Option<&str>, scopes: &[&str]) -> Form {
    #[allow(clippy::unwrap_used, reason = "a constant")]
    let empty = Url::parse("form:/").unwrap();
    let scopes: Vec<&str> = scopes.iter().copied().filter(|s| !s.is_empty()).collect();
    Form(with_query(empty, service, &scopes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_a_bearer_challenge_with_commas_in_quotes() {
        let header = r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#;
        assert_eq!(
            parse_challenges([header].into_iter()),
            [Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("reg".into()),
                scope: Some("repository:a/b:pull,push".into()),
            }]
        );
    }

    #[test]
    fn bearer_goes_before_basic_and_the_unknown_is_left_out() {
        let found = parse_challenges(["Negotiate", "Basic realm=x", "bearer realm=\"r\""].into_iter());
        assert_eq!(found.len(), 2);
        assert!(matches!(found[0], Challenge::Bearer { .. }));
        assert_eq!(found[1], Challenge::Basic);
    }

    #[test]
    fn credentials_do_not_leave_encryption() {
        let user = Credentials::Password { username: "u".into(), password: "p".into() };
        let auth = Authenticator::new("example.com".into(), Some(user));
        let base = Url::parse("https://example.com/").unwrap();
        assert!(auth.realm(&base, "http://evil.example/token").is_err());
        assert!(auth.realm(&base, "https://auth.example/token").is_ok());
    }
}
