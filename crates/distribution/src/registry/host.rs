//! From the registry part of a reference to the address that is asked.

use std::net::IpAddr;

use reqwest::Url;

use super::error::{Error, Result};

/// A host's address: scheme, host, port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// As written in references: "docker.io", "localhost:5000".
    pub name: String,
    /// What URLs begin with: "https://registry-1.docker.io".
    pub base: Url,
}

impl Host {
    /// Finds the address of a registry.
    ///
    /// # Errors
    /// [`Error::NameInvalid`] when the name is no host.
    pub fn resolve(name: &str, plain_http: bool) -> Result<Self> {
        let address = match name {
            "docker.io" | "index.docker.io" | "registry-1.docker.io" => "registry-1.docker.io",
            other => other,
        };
        let scheme = if plain_http { "http" } else { "https" };
        let invalid = |problem: String| Error::NameInvalid { name: name.into(), problem };
        let base = Url::parse(&format!("{scheme}://{address}/")).map_err(|e| invalid(e.to_string()))?;
        if base.path() != "/" || base.query().is_some() || !base.username().is_empty() {
            return Err(invalid("only a host and a port are allowed".into()));
        }
        Ok(Self { name: name.to_owned(), base })
    }

    /// The URL of an API path below `/v2/`.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{path}"));
        url
    }

    /// Whether it is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.base.authority())
    }

    /// Whether a URL is on this very host, so that it may see the credentials.
    #[must_use]
    pub fn owns(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }
}

/// Whether a host, with or without a port, is this machine's loopback.
fn is_loopback(address: &str) -> bool {
    let host = match address.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => address.rsplit_once(':').map_or(address, |(host, _)| host),
    };
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_become_addresses() {
        let base = |name: &str, plain| Host::resolve(name, plain).unwrap().base.to_string();
        assert_eq!(base("localhost:5000", true), "http://localhost:5000/");
        assert_eq!(base("docker.io", false), "https://registry-1.docker.io/");
        assert_eq!(base("example.com:81", true), "http://example.com:81/");
        let loopback = |name: &str| Host::resolve(name, false).unwrap().is_loopback();
        assert!(["localhost", "a.localhost:1", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"].into_iter().all(loopback));
        assert!(!loopback("example.com:5000") && !loopback("10.0.0.1"));
    }

    #[test]
    fn only_the_same_origin_may_see_credentials() {
        let host = Host::resolve("example.com", false).unwrap();
        assert!(host.owns(&Url::parse("https://example.com/v2/x").unwrap()));
        assert!(!host.owns(&Url::parse("http://example.com/v2/x").unwrap()));
        assert!(!host.owns(&Url::parse("https://cdn.example.com/v2/x").unwrap()));
        assert!(!host.owns(&Url::parse("https://example.com:444/v2/x").unwrap()));
    }

    #[test]
    fn a_path_is_no_host() {
        assert!(Host::resolve("example.com/x", false).is_err());
        assert!(Host::resolve("user@example.com", false).is_err());
    }
}
