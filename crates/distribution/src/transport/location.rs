//! `docker://…`, `oci:…` and the others, as text.

use std::path::PathBuf;
use std::str::FromStr;

use oci::Reference;

use crate::error::Error;

/// A place that an image is read from or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `docker://registry/repository:tag`.
    Registry(Reference),
    /// `oci:directory[:name]`.
    OciLayout {
        /// The layout's directory.
        path: PathBuf,
        /// The image in it: `org.opencontainers.image.ref.name`.
        name: Option<String>,
    },
    /// `oci-archive:file[:name]`.
    OciArchive {
        /// The tar.
        path: PathBuf,
        /// The image in it.
        name: Option<String>,
    },
    /// `docker-archive:file[:reference]`.
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
            "oci" => Ok(Self::OciLayout { path, name }),
            "oci-archive" => Ok(Self::OciArchive { path, name }),
            "docker-archive" => Ok(Self::DockerArchive { path, name }),
            "dir" => Ok(Self::Dir { path: rest.into() }),
            "store" => Ok(Self::Store(rest.into())),
            _ => Err(invalid(usage)),
        }
    }
}

/// A path ends at its first colon: that is where all tools of the field cut.
fn split_name(text: &str) -> (PathBuf, Option<String>) {
    match text.split_once(':') {
        Some((path, name)) if !name.is_empty() => (path.into(), Some(name.into())),
        Some((path, _)) => (path.into(), None),
        None => (text.into(), None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
