//! Image references, with docker's way of filling in what is left out.
use crate::Digest;
use std::fmt;
use std::str::FromStr;

/// `registry/repository[:tag][@digest]`, normalised: "busybox" is docker.io/library/busybox:latest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {why}")]
pub struct InvalidReference {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Where references without a registry go.
pub const DEFAULT_REGISTRY: &str = "docker.io";

impl Reference {
    /// "docker.io", "localhost:5000".
    pub fn registry(&self) -> &str {
        &self.registry
    }
    /// "library/busybox".
    pub fn repository(&self) -> &str {
        &self.repository
    }
    /// Absent only when a digest is there.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    /// When the reference pins one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
    /// `registry/repository` alone.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
    /// The same repository by digest.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }
    /// The same repository with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, InvalidReference> {
        if !valid_tag(tag) {
            return Err(InvalidReference { text: tag.into(), why: "bad tag" });
        }
        Ok(Self { tag: Some(tag.into()), digest: None, ..self.clone() })
    }
    /// As people write it: without docker.io/library, where it means the same without.
    pub fn familiar(&self) -> String {
        shortened(self.to_string())
    }
    /// [`Reference::name`] as people write it.
    pub fn familiar_name(&self) -> String {
        shortened(self.name())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let bad = |why| InvalidReference { text: text.into(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, d)) => (rest, Some(d.parse::<Digest>().map_err(|_| bad("bad digest"))?)),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (path, tag) = match rest[slash..].split_once(':') {
            Some((last, tag)) => (format!("{}{last}", &rest[..slash]), Some(tag.to_string())),
            None => (rest.to_string(), None),
        };
        if tag.as_deref().is_some_and(|t| !valid_tag(t)) {
            return Err(bad("bad tag: at most 128 of [A-Za-z0-9_.-], not beginning with . or -"));
        }
        let (registry, repository) = split_registry(&path);
        if repository.is_empty() || repository.len() > 255 || !repository.split('/').all(valid_component) {
            return Err(bad("bad repository: lower-case letters, digits and single . _ - between them"));
        }
        if !valid_registry(&registry) {
            return Err(bad("bad registry host"));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_string()) } else { tag };
        Ok(Self { registry, repository, tag, digest })
    }
}

fn shortened(full: String) -> String {
    let Some(short) = full.strip_prefix("docker.io/") else { return full };
    match short.split_once('/') {
        Some(("library", rest)) if !rest.contains('/') => rest.to_owned(),
        Some((first, _)) if is_host(first) => full,
        _ => short.to_owned(),
    }
}

/// Whether the first of several components is a registry's host.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn split_registry(path: &str) -> (String, String) {
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest.to_string()),
        _ => (DEFAULT_REGISTRY, path.to_string()),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let official = registry == DEFAULT_REGISTRY && !repository.contains('/') && !repository.is_empty();
    (registry.to_string(), if official { format!("library/{repository}") } else { repository })
}

fn valid_registry(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((n, p)) if !p.contains(']') => (n, Some(p)),
        _ => (host, None),
    };
    let name_ok = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(|l| {
            !l.is_empty()
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        }),
    };
    name_ok && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0))
}

/// distribution-spec: alphanumeric runs separated by `.`, `_`, `__` or any number of `-`.
fn valid_component(c: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = c.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(*first) || !alnum(*last) || !bytes.iter().all(|b| alnum(*b) || b"._-".contains(b)) {
        return false;
    }
    bytes.split(|b| alnum(*b)).all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|b| *b == b'-'))
}

fn valid_tag(t: &str) -> bool {
    !t.is_empty()
        && t.len() <= 128
        && !t.starts_with(['.', '-'])
        && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn normalisation() {
        let d = format!("sha256:{}", "a".repeat(64));
        for (given, full) in [
            ("busybox", "docker.io/library/busybox:latest".to_string()),
            ("a/b:1", "docker.io/a/b:1".into()),
            ("localhost/x", "localhost/x:latest".into()),
            ("127.0.0.1:5000/x/y:t", "127.0.0.1:5000/x/y:t".into()),
            ("[::1]:5000/x", "[::1]:5000/x:latest".into()),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest".into()),
            (&format!("x@{d}"), format!("docker.io/library/x@{d}")),
            (&format!("x:1@{d}"), format!("docker.io/library/x:1@{d}")),
        ] {
            assert_eq!(given.parse::<Reference>().unwrap().to_string(), full);
        }
        for bad in ["", "UP", "a//b", "-a", "a:", "a:..", "a/../b", "x@sha256:1", "host:99999/x", "a b", "/x", "x/"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        for (full, familiar) in [
            ("busybox", "busybox:latest"),
            ("docker.io/a/b", "a/b:latest"),
            // Without the registry, these would mean others.
            ("docker.io/a.b/c:1", "docker.io/a.b/c:1"),
            ("docker.io/localhost/c:1", "docker.io/localhost/c:1"),
            ("docker.io/library/a/b:1", "library/a/b:1"),
            ("docker.io/library/a.b:1", "a.b:1"),
        ] {
            let reference = full.parse::<Reference>().unwrap();
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(familiar.parse::<Reference>().unwrap(), reference);
        }
    }
}
