//! Certificates of registries, as containers-certs.d(5) and docker lay them out: `<directory>/<host[:port]>/` with `*.crt` (CAs),
//! `*.cert` and `*.key` (a client certificate and its key).

use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// Where they are looked for; the first directory that knows the host counts.
const SYSTEM: [&str; 3] = ["/etc/pier/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"];

/// What a registry is known by, and what we are known by there.
#[derive(Default)]
pub(super) struct Certificates {
    pub(super) roots: Vec<reqwest::Certificate>,
    pub(super) identity: Option<reqwest::Identity>,
}

impl Certificates {
    /// Reads the certificates for a host. `given` takes the place of the system's directories.
    pub(super) fn find(host: &str, given: Option<&Path>) -> Result<Self> {
        let of_user = super::user_config_dir().map(|dir| dir.join("containers/certs.d"));
        let directories: Vec<PathBuf> = match given {
            Some(directory) => vec![directory.to_owned()],
            None => of_user.into_iter().chain(SYSTEM.map(PathBuf::from)).collect(),
        };
        let found = directories.into_iter().map(|directory| directory.join(host)).find(|dir| dir.is_dir());
        found.map_or_else(|| Ok(Self::default()), |dir| Self::read(&dir))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.identity.is_none()
    }

    fn read(dir: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(dir).map_err(|e| bad(dir, e))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut all = Self::default();
        for path in &paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => all.roots.extend(roots(path)?),
                Some("cert") if all.identity.is_some() => {
                    tracing::warn!(path = %path.display(), "only the first client certificate is used");
                }
                Some("cert") => all.identity = Some(identity(path)?),
                Some("key") if !path.with_extension("cert").exists() => {
                    return Err(bad(path, format!("there is no {}", path.with_extension("cert").display())));
                }
                _ => {}
            }
        }
        Ok(all)
    }
}

fn roots(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let text = std::fs::read(path).map_err(|e| bad(path, e))?;
    let roots = reqwest::Certificate::from_pem_bundle(&text).map_err(|e| bad(path, e))?;
    if roots.is_empty() {
        return Err(bad(path, "there is no certificate in it"));
    }
    Ok(roots)
}

fn identity(path: &Path) -> Result<reqwest::Identity> {
    let key = path.with_extension("key");
    let mut text = std::fs::read(path).map_err(|e| bad(path, e))?;
    text.push(b'\n');
    text.extend(std::fs::read(&key).map_err(|e| bad(&key, e))?);
    reqwest::Identity::from_pem(&text).map_err(|e| bad(path, super::error::chain(&e)))
}

fn bad(path: &Path, problem: impl ToString) -> Error {
    Error::Configuration { place: path.display().to_string(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("example.com:5000");
        std::fs::create_dir(&host).unwrap();
        let problem = |name: &str| {
            std::fs::write(host.join(name), "x").unwrap();
            let error = Certificates::find("example.com:5000", Some(dir.path())).err().unwrap().to_string();
            std::fs::remove_file(host.join(name)).unwrap();
            error
        };
        assert!(problem("ca.crt").contains("ca.crt"));
        assert!(problem("client.key").contains("client.cert"));
        assert!(problem("client.cert").contains("client.key"));
        assert!(Certificates::find("other.example", Some(dir.path())).unwrap().is_empty());
    }
}
