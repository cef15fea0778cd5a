//! `docker://…`, `oci:…` and the others, as text.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use oci::{Digest, Reference};

use crate::error::Error;

/// A place that an image is read from or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `docker://registry/repository:tag`.
    Registry(Reference),
    /// `oci:directory[:name]`, `oci:directory@digest`, `oci:directory:@index`.
    OciLayout {
        /// The layout's directory.
        path: PathBuf,
        /// The image in it: `org.opencontainers.image.ref.name`, a digest, or `@` and its place in `index.json`.
        name: Option<String>,
    },
    /// `oci-archive:file[:name]`, and as for a directory.
    OciArchive {
        /// The tar.
        path: PathBuf,
        /// The image in it.
        name: Option<String>,
    },
    /// `docker-archive:file[:reference]`, `docker-archive:file:@index`.
    DockerArchive {
        /// The tar.
        path: PathBuf,
        /// The image in it.
        name: Option<String>,
    },
    /// `dir:directory`.
    Dir {
        /// The directory.
        path: PathBuf,
    },
    /// `store:reference`.
    Store(String),
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid =
            |problem: &str| Error::NameInvalid { what: "image location", name: text.into(), problem: problem.into() };
        let usage = "expected docker://, oci:, oci-archive:, docker-archive:, dir: or store:";
        let (transport, rest) = text.split_once(':').ok_or_else(|| invalid(usage))?;
        if transport == "docker" {
            let reference = rest.strip_prefix("//").ok_or_else(|| invalid("expected docker://registry/repository"))?;
            return Ok(Self::Registry(crate::image::parse(reference)?));
        }
        if rest.is_empty() {
            return Err(invalid("nothing follows the transport"));
        }
        let (path, name) = split_name(rest);
        match transport {
            "docker-daemon" => Err(invalid("use `docker save -o FILE` and docker-archive:FILE")),
            "containers-storage" => Err(invalid("use `podman save --format oci-archive -o FILE` and oci-archive:FILE")),
            "oci" => Ok(Self::OciLayout { path, name }),
            "oci-archive" => Ok(Self::OciArchive { path, name }),
            "docker-archive" => Ok(Self::DockerArchive { path, name }),
            "dir" => Ok(Self::Dir { path: rest.into() }),
            "store" => Ok(Self::Store(rest.into())),
            _ => Err(invalid(usage)),
        }
    }
}

/// A path ends at its first colon: that is where all tools of the field cut. A digest after `@` wins over a name.
fn split_name(text: &str) -> (PathBuf, Option<String>) {
    if let Some((path, digest)) = text.split_once('@')
        && digest.parse::<Digest>().is_ok()
    {
        return (split_name(path).0, Some(digest.into()));
    }
    match text.split_once(':') {
        Some((path, name)) if !name.is_empty() => (path.into(), Some(name.into())),
        Some((path, _)) => (path.into(), None),
        None => (text.into(), None),
    }
}

impl Location {
    /// Whether it lies in this tool's store.
    #[must_use]
    pub fn is_store(&self) -> bool {
        matches!(self, Self::Store(_))
    }

    /// A location, or without a transport an image of the store.
    ///
    /// # Errors
    /// [`Error::NameInvalid`] for a location that does not read.
    pub fn or_stored(text: &str) -> Result<Self, Error> {
        if has_transport(text) { text.parse() } else { Ok(Self::Store(text.into())) }
    }

    /// A location, or without a transport an image at a registry.
    ///
    /// # Errors
    /// [`Error::NameInvalid`].
    pub fn or_remote(text: &str) -> Result<Self, Error> {
        if has_transport(text) { text.parse() } else { Ok(Self::Registry(crate::image::parse(text)?)) }
    }
}

fn has_transport(text: &str) -> bool {
    const TRANSPORTS: [&str; 8] = [
        "docker://",
        "oci:",
        "oci-archive:",
        "docker-archive:",
        "dir:",
        "store:",
        "docker-daemon:",
        "containers-storage:",
    ];
    TRANSPORTS.iter().any(|transport| text.starts_with(transport))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut named = |transport: &str, path: &PathBuf, name: &Option<String>| {
            write!(f, "{transport}:{}", path.display())?;
            match name {
                Some(digest) if digest.parse::<Digest>().is_ok() => write!(f, "@{digest}"),
                Some(name) => write!(f, ":{name}"),
                None => Ok(()),
            }
        };
        match self {
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::OciLayout { path, name } => named("oci", path, name),
            Self::OciArchive { path, name } => named("oci-archive", path, name),
            Self::DockerArchive { path, name } => named("docker-archive", path, name),
            Self::Dir { path } => write!(f, "dir:{}", path.display()),
            Self::Store(name) => write!(f, "store:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn digests_and_places_name_images_of_a_layout() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in [format!("oci:/x@{digest}"), "oci-archive:x.tar:@1".into(), "docker-archive:a:b:1".into()] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        let Location::OciLayout { path, name } = format!("oci:/x:tag@{digest}").parse().unwrap() else { panic!() };
        assert_eq!((path, name), ("/x".into(), Some(digest)));
        assert_eq!(Location::or_stored("a:1").unwrap(), Location::Store("a:1".into()));
        assert!(matches!(Location::or_remote("a:1").unwrap(), Location::Registry(_)));
    }

    #[test]
    fn all_transports_are_read() {
        let parse = |text: &str| text.parse::<Location>().unwrap();
        assert!(matches!(parse("docker://localhost:5000/a:1"), Location::Registry(_)));
        assert_eq!(parse("oci:/x/y:a:1"), Location::OciLayout { path: "/x/y".into(), name: Some("a:1".into()) });
        assert_eq!(parse("oci-archive:x.tar"), Location::OciArchive { path: "x.tar".into(), name: None });
        assert_eq!(parse("dir:/x:y"), Location::Dir { path: "/x:y".into() });
        assert_eq!(parse("store:busybox:1"), Location::Store("busybox:1".into()));
        for bad in ["busybox", "busybox:1", "docker:busybox", "oci:", "ftp://x", "docker://A"] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
