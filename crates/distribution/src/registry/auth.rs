//! Tokens and what goes into the `Authorization` header.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, StatusCode};
use reqwest::{Response, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::Credentials;
use super::challenge::Challenge;
pub(super) use super::challenge::parse_challenges;
use super::connection::{Body, Connection};
use super::error::{Error, Result};

/// Tokens are renewed this long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(5);
/// Largest answer of a token service, in bytes.
const TOKEN_MAX: u64 = 1 << 20;
/// How long a basic header is taken for known.
const BASIC_TTL: Duration = Duration::from_secs(3600);

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

/// What is known of a registry's wishes. One request at a time renews a token, the others wait for it.
#[derive(Default)]
struct State {
    tokens: HashMap<Scope, Token>,
    challenge: Option<Challenge>,
}

impl State {
    fn fresh(&self, scope: &Scope) -> Option<String> {
        self.tokens.get(scope).filter(|token| token.until > Instant::now()).map(|token| token.header.clone())
    }
}

/// Credentials and tokens of one registry.
pub(super) struct Authenticator {
    registry: String,
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

impl Authenticator {
    pub(super) fn new(registry: String, credentials: Option<Credentials>) -> Self {
        Self { registry, credentials, state: Mutex::default() }
    }

    /// The header for a scope. After the first challenge it is renewed here, before a request can fail for want of it.
    pub(super) async fn header(&self, connection: &Connection, scope: &Scope) -> Result<Option<String>> {
        let mut state = self.state.lock().await;
        if let Some(header) = state.fresh(scope) {
            return Ok(Some(header));
        }
        let Some(challenge) = state.challenge.clone() else { return Ok(None) };
        let Some(token) = self.token(connection, scope, &challenge).await? else { return Ok(None) };
        let header = token.header.clone();
        state.tokens.insert(scope.clone(), token);
        Ok(Some(header))
    }

    /// Answers a 401: finds the header to try again with. `None`: nothing more can be done.
    pub(super) async fn answer(
        &self,
        connection: &Connection,
        scope: &Scope,
        challenges: &[Challenge],
        refused: Option<&str>,
    ) -> Result<Option<String>> {
        let mut state = self.state.lock().await;
        // Another request may have got one while this one waited.
        if let Some(header) = state.fresh(scope).filter(|header| Some(header.as_str()) != refused) {
            return Ok(Some(header));
        }
        for challenge in challenges {
            let Some(token) = self.token(connection, scope, challenge).await? else { continue };
            let header = token.header.clone();
            // The same again would be refused again.
            if refused == Some(header.as_str()) {
                continue;
            }
            state.challenge = Some(challenge.clone());
            state.tokens.insert(scope.clone(), token);
            return Ok(Some(header));
        }
        state.tokens.remove(scope);
        Ok(None)
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// What a challenge asks for; `None` when we do not have it.
    async fn token(&self, connection: &Connection, scope: &Scope, challenge: &Challenge) -> Result<Option<Token>> {
        match challenge {
            Challenge::Basic => Ok(self.basic().map(|header| Token { header, until: Instant::now() + BASIC_TTL })),
            Challenge::Bearer { realm, service, scope: offered } => {
                let realm = self.realm(&connection.host.base, realm)?;
                self.exchange(connection, realm, service.as_deref(), scope, offered.as_deref()).await.map(Some)
            }
        }
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
        connection: &Connection,
        realm: Url,
        service: Option<&str>,
        scope: &Scope,
        offered: Option<&str>,
    ) -> Result<Token> {
        let scopes: Vec<&str> = match (scope.0.is_empty(), offered) {
            (true, Some(offered)) => vec![offered],
            _ => scope.0.iter().map(String::as_str).collect(),
        };
        let answer = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = refresh_form(service, &scopes, token);
                let attach = |request: reqwest::RequestBuilder, at: &Url| match at.origin() == realm.origin() {
                    true => request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.clone()),
                    false => request,
                };
                connection.send(&Method::POST, &realm, attach).await?
            }
            _ => {
                let (url, basic) = (with_query(realm.clone(), service, &scopes), self.basic());
                // The secret goes to the token service that the registry names, but not where that redirects to.
                let attach = |request: reqwest::RequestBuilder, at: &Url| match &basic {
                    Some(header) if at.origin() == realm.origin() => request.header(AUTHORIZATION, header),
                    _ => request,
                };
                connection.send(&Method::GET, &url, attach).await?
            }
        };
        self.read_token(connection, answer, &realm).await
    }

    async fn read_token(&self, connection: &Connection, answer: Response, realm: &Url) -> Result<Token> {
        let status = answer.status();
        let body = Body::new(answer, connection).read(TOKEN_MAX).await?;
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
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
                let until = Instant::now() + Duration::from_secs(seconds) - RENEW_BEFORE;
                Ok(Token { header: format!("Bearer {token}"), until })
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

/// The form of OAuth2's refresh_token grant (RFC 6749, section 6), written with a URL's query serialiser.
fn refresh_form(service: Option<&str>, scopes: &[&str], token: &str) -> String {
    #[allow(clippy::unwrap_used, reason = "a constant")]
    let mut form = Url::parse("form:/").unwrap();
    {
        let mut pairs = form.query_pairs_mut();
        pairs.append_pair("grant_type", "refresh_token").append_pair("client_id", "pier");
        pairs.append_pair("refresh_token", token);
        if let Some(service) = service {
            pairs.append_pair("service", service);
        }
        if !scopes.is_empty() {
            pairs.append_pair("scope", &scopes.join(" "));
        }
    }
    form.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn credentials_do_not_leave_encryption() {
        let user = Credentials::Password { username: "u".into(), password: "p".into() };
        let auth = Authenticator::new("example.com".into(), Some(user));
        let base = Url::parse("https://example.com/").unwrap();
        assert!(auth.realm(&base, "http://evil.example/token").is_err());
        assert!(auth.realm(&base, "https://auth.example/token").is_ok());
    }
}
