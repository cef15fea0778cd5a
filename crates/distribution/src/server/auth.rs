//! Basic authentication (RFC 7617) against a file of bcrypt hashes, as `htpasswd -B` writes it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use oci::Digest;

use super::error::Error;
use super::reply::Refusal;
use crate::transport::pump::blocking;

/// Passwords that were right, so that bcrypt's deliberate slowness is paid once for each.
const REMEMBERED: usize = 1024;
/// Checks of passwords at once; more wait. One takes tens of milliseconds of a processor.
const CHECKS: usize = 2;

/// The users of a registry. The file is read again when it changes.
pub(super) struct Users {
    path: PathBuf,
    state: Mutex<State>,
    turns: tokio::sync::Semaphore,
    /// Salts what is remembered: a hash of a password is in memory only, and of no use elsewhere.
    salt: [u8; 32],
}

struct State {
    modified: Option<SystemTime>,
    hashes: HashMap<String, String>,
    right: HashMap<Digest, String>,
}

impl Users {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let hashes = read(path)?;
        let state = State { modified: modified(path), hashes, right: HashMap::new() };
        let turns = tokio::sync::Semaphore::new(CHECKS);
        Ok(Self { path: path.to_owned(), state: Mutex::new(state), turns, salt: rand::random() })
    }

    /// Lets a request in, or says what is missing.
    pub async fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let (user, password) = credentials(headers).ok_or_else(Refusal::unauthorized)?;
        let token = Digest::of(&[&self.salt[..], user.as_bytes(), b":", password.as_bytes()].concat());
        let hash = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            self.refresh(&mut state);
            let hash = state.hashes.get(&user).cloned().ok_or_else(Refusal::unauthorized)?;
            if state.right.get(&token) == Some(&hash) {
                return Ok(());
            }
            hash
        };
        let _turn = self.turns.acquire().await.map_err(|_| Refusal::unauthorized())?;
        let given = hash.clone();
        // bcrypt itself reads 72 bytes.
        if !blocking(move || Ok(bcrypt::verify(password, &given).unwrap_or(false))).await? {
            return Err(Refusal::unauthorized());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.right.len() >= REMEMBERED {
            state.right.clear();
        }
        state.right.insert(token, hash);
        Ok(())
    }

    /// A changed file counts from the next request on; one that became unreadable does not lock everybody out.
    fn refresh(&self, state: &mut State) {
        let now = modified(&self.path);
        if now == state.modified {
            return;
        }
        state.modified = now;
        match read(&self.path) {
            Ok(hashes) => state.hashes = hashes,
            Err(error) => tracing::warn!(%error, "the users stay as they were"),
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn read(path: &Path) -> Result<HashMap<String, String>, Error> {
    let problem = |problem: String| Error::Users { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|e| problem(e.to_string()))?;
    parse(&text).map_err(problem)
}

/// `name:hash` lines; empty ones and those that begin with # say nothing.
fn parse(text: &str) -> Result<HashMap<String, String>, String> {
    let mut hashes = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (user, hash) = line.split_once(':').ok_or(format!("line {number} is not NAME:HASH"))?;
        if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
            return Err(format!("line {number}: the hash of {user} is not bcrypt"));
        }
        hashes.insert(user.to_owned(), hash.to_owned());
    }
    match hashes.is_empty() {
        true => Err("it names nobody".into()),
        false => Ok(hashes),
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = base64::engine::general_purpose::STANDARD.decode(token.trim()).ok()?;
    let text = String::from_utf8(text).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_that_cannot_be_used_is_named() {
        assert_eq!(parse("\n# us\na:$2y$05$x\n").unwrap().len(), 1);
        assert!(parse("a:$2y$05$x\nb:$apr1$x").unwrap_err().contains("line 2"));
        assert!(parse("nobody").unwrap_err().contains("line 1"));
        assert!(parse("").unwrap_err().contains("nobody"));
    }

    #[tokio::test]
    async fn only_the_right_password_lets_in_and_a_changed_file_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |password: &str| format!("ada:{}\n", bcrypt::hash(password, 4).unwrap());
        std::fs::write(file.path(), line("one")).unwrap();
        let users = Users::open(file.path()).unwrap();
        let header = |text: &str| {
            let token = base64::engine::general_purpose::STANDARD.encode(text);
            HeaderMap::from_iter([(AUTHORIZATION, format!("Basic {token}").parse().unwrap())])
        };
        for _ in 0..2 {
            assert!(users.check(&header("ada:one")).await.is_ok());
            assert!(users.check(&header("ada:two")).await.is_err());
            assert!(users.check(&header("bob:one")).await.is_err());
            assert!(users.check(&HeaderMap::new()).await.is_err());
        }
        std::fs::write(file.path(), line("two")).unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options().write(true).open(file.path()).unwrap().set_modified(later).unwrap();
        assert!(users.check(&header("ada:one")).await.is_err());
        assert!(users.check(&header("ada:two")).await.is_ok());
    }
}
