//! The credentials files of docker (`config.json`) and podman (`auth.json`, containers-auth.json(5)), and the credential helpers
//! that they name.
//!
//! Keys may be as long as a repository: of "example.com/a/b", "example.com/a" and "example.com" the longest counts. Unknown
//! parts of a file are kept when it is written.

mod helper;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::{Map, Value};

use super::Options;
use super::error::{Error, Result};
use helper::{ask_helper, run_helper};

/// What docker calls the Hub's credentials.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name that says "the secret is an identity token".
const TOKEN_USER: &str = "<token>";

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password.
    Password {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
        }
    }
}

/// The files that are asked when the caller names none, in order: podman's of the session, podman's, docker's.
#[must_use]
pub fn files() -> Vec<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let session = directory("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    let user = super::user_config_dir().map(|dir| dir.join("containers/auth.json"));
    [session, user, docker_file()].into_iter().flatten().collect()
}

/// Docker's file, which logins go to: `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
#[must_use]
pub fn docker_file() -> Option<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let dir = directory("DOCKER_CONFIG").or_else(|| Some(directory("HOME")?.join(".docker")))?;
    Some(dir.join("config.json"))
}

/// Looks a repository up in the files that count; the first that knows it decides.
pub(super) async fn look_up(options: &Options, registry: &str, repository: &str) -> Result<Option<Credentials>> {
    let files = options.auth_file.as_ref().map_or_else(files, |given| vec![given.clone()]);
    for file in files {
        if let Some(found) = find(&file, registry, repository).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Looks a repository up in a credentials file; asks the helper that the file names for its registry.
///
/// A missing file or entry is `None`: anonymous.
///
/// # Errors
/// [`Error::Credentials`] when the file is damaged or the helper fails or hangs.
pub async fn find(file: &Path, registry: &str, repository: &str) -> Result<Option<Credentials>> {
    let config = read(file, registry)?;
    if let Some(helper) = helper_for(&config, registry) {
        return ask_helper(&helper, registry, &key(registry)).await;
    }
    let Some(entry) = entry(&config, registry, repository) else { return Ok(None) };
    from_entry(entry).map_err(|problem| bad(file, registry, problem))
}

/// Writes credentials into the file, or hands them to the helper that the file names.
///
/// # Errors
/// [`Error::Credentials`].
pub async fn store(file: &Path, registry: &str, credentials: &Credentials) -> Result<()> {
    let mut config = read(file, registry)?;
    if let Some(helper) = helper_for(&config, registry) {
        let (username, secret) = match credentials {
            Credentials::Password { username, password } => (username.as_str(), password),
            Credentials::IdentityToken(token) => (TOKEN_USER, token),
        };
        let input = serde_json::json!({"ServerURL": key(registry), "Username": username, "Secret": secret});
        run_helper(&helper, registry, "store", &input.to_string()).await?;
        return Ok(());
    }
    let value = match credentials {
        Credentials::Password { username, password } => {
            serde_json::json!({"auth": STANDARD.encode(format!("{username}:{password}"))})
        }
        Credentials::IdentityToken(token) => {
            serde_json::json!({"auth": STANDARD.encode(format!("{TOKEN_USER}:")), "identitytoken": token})
        }
    };
    auths(&mut config, file, registry)?.insert(key(registry), value);
    write(file, registry, &config)
}

/// Forgets a registry. Idempotent.
///
/// # Errors
/// [`Error::Credentials`].
pub async fn erase(file: &Path, registry: &str) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let mut config = read(file, registry)?;
    if let Some(helper) = helper_for(&config, registry) {
        run_helper(&helper, registry, "erase", &key(registry)).await?;
    }
    let auths = auths(&mut config, file, registry)?;
    let mut removed = false;
    for name in names(registry) {
        removed |= auths.shift_remove(&name).is_some();
    }
    if removed { write(file, registry, &config) } else { Ok(()) }
}

fn bad(place: impl AsRef<Path>, registry: &str, problem: impl ToString) -> Error {
    Error::Credentials {
        registry: registry.into(),
        place: place.as_ref().display().to_string(),
        problem: problem.to_string(),
    }
}

fn read(file: &Path, registry: &str) -> Result<Map<String, Value>> {
    match std::fs::read(file) {
        Ok(bytes) if bytes.is_empty() => Ok(Map::new()),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| bad(file, registry, e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(e) => Err(bad(file, registry, e)),
    }
}

fn write(file: &Path, registry: &str, config: &Map<String, Value>) -> Result<()> {
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent).map_err(|e| bad(parent, registry, e))?;
    }
    let mut text = serde_json::to_vec_pretty(config).map_err(|e| bad(file, registry, e))?;
    text.push(b'\n');
    statedir::atomic_write(file, &text, 0o600).map_err(|e| bad(file, registry, e))
}

fn auths<'a>(config: &'a mut Map<String, Value>, file: &Path, registry: &str) -> Result<&'a mut Map<String, Value>> {
    config
        .entry("auths")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or_else(|| bad(file, registry, "\"auths\" is no object"))
}

/// The name that docker writes for a registry.
fn key(registry: &str) -> String {
    if is_hub(registry) { HUB_KEY.into() } else { registry.into() }
}

fn is_hub(registry: &str) -> bool {
    matches!(registry, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// All names by which files of other programs know a registry.
fn names(registry: &str) -> Vec<String> {
    let mut names = vec![registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")];
    names.extend([
        format!("https://{registry}/"),
        format!("https://{registry}/v1/"),
        format!("https://{registry}/v2/"),
    ]);
    if is_hub(registry) {
        names.extend([HUB_KEY.into(), "docker.io".into(), "index.docker.io".into()]);
    }
    names
}

fn entry<'a>(config: &'a Map<String, Value>, registry: &str, repository: &str) -> Option<&'a Value> {
    let auths = config.get("auths")?.as_object()?;
    let mut scope = format!("{registry}/{repository}");
    while let Some((shorter, _)) = scope.rsplit_once('/').filter(|_| scope.len() > registry.len() + 1) {
        if let Some(found) = auths.get(&scope) {
            return Some(found);
        }
        scope = shorter.to_owned();
    }
    names(registry).iter().find_map(|name| auths.get(name))
}

fn helper_for(config: &Map<String, Value>, registry: &str) -> Option<String> {
    let special = config.get("credHelpers").and_then(Value::as_object);
    let name = special
        .and_then(|helpers| names(registry).iter().find_map(|name| helpers.get(name)))
        .or_else(|| config.get("credsStore"))?
        .as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn from_entry(entry: &Value) -> std::result::Result<Option<Credentials>, String> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::IdentityToken(token.into())));
    }
    if let Some(auth) = text("auth") {
        let (username, password) = decode_auth(auth)?;
        return Ok(Some(Credentials::Password { username, password }));
    }
    match (text("username"), text("password")) {
        (Some(username), Some(password)) => {
            Ok(Some(Credentials::Password { username: username.into(), password: password.into() }))
        }
        _ => Ok(None),
    }
}

fn decode_auth(auth: &str) -> std::result::Result<(String, String), String> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient)
        .decode(auth.trim())
        .map_err(|e| format!("\"auth\" is not base64: {e}"))?;
    let text = String::from_utf8(bytes).map_err(|_| "\"auth\" is not UTF-8".to_owned())?;
    let (username, password) = text.split_once(':').ok_or("\"auth\" has no colon")?;
    Ok((username.into(), password.trim_end_matches('\0').into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn password(username: &str, password: &str) -> Credentials {
        Credentials::Password { username: username.into(), password: password.into() }
    }

    #[tokio::test]
    async fn what_is_stored_is_found_and_the_rest_of_the_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/config.json");
        assert_eq!(find(&file, "example.com", "").await.unwrap(), None);
        store(&file, "docker.io", &password("hub", "x:y")).await.unwrap();
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert!(config["auths"].get(HUB_KEY).is_some());
        config["psFormat"] = "kept".into();
        std::fs::write(&file, config.to_string()).unwrap();
        store(&file, "example.com", &Credentials::IdentityToken("t".into())).await.unwrap();
        assert_eq!(find(&file, "docker.io", "").await.unwrap(), Some(password("hub", "x:y")));
        assert_eq!(find(&file, "example.com", "").await.unwrap(), Some(Credentials::IdentityToken("t".into())));
        erase(&file, "docker.io").await.unwrap();
        assert_eq!(find(&file, "docker.io", "").await.unwrap(), None);
        assert!(std::fs::read_to_string(&file).unwrap().contains("psFormat"));
    }

    #[tokio::test]
    async fn other_spellings_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let auth = STANDARD.encode("u:p");
        std::fs::write(&file, format!(r#"{{"auths":{{"https://example.com/v2/":{{"auth":"{auth}"}}}}}}"#)).unwrap();
        assert_eq!(find(&file, "example.com", "").await.unwrap(), Some(password("u", "p")));
    }

    #[tokio::test]
    async fn the_longest_path_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.json");
        let auth = |text: &str| serde_json::json!({"auth": STANDARD.encode(text)});
        let auths = serde_json::json!({"auths": {
            "example.com": auth("host:p"), "example.com/team": auth("team:p"), "example.com/team/one": auth("one:p"),
        }});
        std::fs::write(&file, auths.to_string()).unwrap();
        for (repository, user) in [("team/one", "one"), ("team/two", "team"), ("teams/x", "host"), ("", "host")] {
            assert_eq!(
                find(&file, "example.com", repository).await.unwrap(),
                Some(password(user, "p")),
                "{repository}"
            );
        }
        assert_eq!(find(&file, "other.com", "team/one").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_damaged_file_and_a_missing_helper_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, "{").unwrap();
        assert!(find(&file, "example.com", "").await.unwrap_err().to_string().contains("config.json"));
        std::fs::write(&file, r#"{"credsStore":"pier-missing"}"#).unwrap();
        let error = find(&file, "example.com", "").await.unwrap_err();
        assert!(error.to_string().contains("docker-credential-pier-missing"), "{error}");
    }
}
