//! Platforms: image-spec, image-index.md; architecture names are Go's.
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What an image runs on. Written `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// "linux".
    pub os: String,
    /// "amd64", "arm64", ...
    pub architecture: String,
    /// "v8"; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Windows build number.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Required features.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: expected os/architecture[/variant], such as linux/arm64/v8")]
pub struct InvalidPlatform(pub String);

impl Platform {
    /// This program's own.
    pub fn host() -> Self {
        Self::new("linux", normal_architecture(std::env::consts::ARCH), "")
    }

    /// From its three main parts.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.into(),
            os_version: String::new(),
            os_features: Vec::new(),
        }
    }

    /// How well content of platform `have` serves this one: `None` not at all, else the lower the better.
    pub fn match_rank(&self, have: &Platform) -> Option<u8> {
        if self.os != have.os || self.architecture != have.architecture {
            return None;
        }
        if !self.os_version.is_empty() && !have.os_version.starts_with(&self.os_version) {
            return None;
        }
        match (self.normal_variant(), have.normal_variant()) {
            (want, have) if want == have => Some(0),
            ("", _) => Some(1),
            // A newer 32-bit arm runs what was made for an older one.
            (want, have) if self.architecture == "arm" && have < want => {
                Some(1 + want.len().abs_diff(have.len()) as u8)
            }
            (_, "") => Some(2),
            _ => None,
        }
    }

    fn normal_variant(&self) -> &str {
        match (self.architecture.as_str(), self.variant.as_str()) {
            ("arm64", "v8" | "8") | ("amd64", "v1") => "",
            ("arm", "") => "v7",
            (_, v) => v,
        }
    }
}

/// Go's name of an architecture.
pub fn normal_architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i686" => "386",
        "powerpc64le" => "ppc64le",
        other => other,
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;
    fn from_str(s: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<&str> = s.split('/').collect();
        let word = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if parts.len() > 3 || !parts.iter().all(|p| word(p)) {
            return Err(InvalidPlatform(s.into()));
        }
        Ok(match parts.as_slice() {
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => Self::new(os, &Self::host().architecture, ""),
            [arch] => Self::new("linux", normal_architecture(arch), ""),
            [os, arch] => Self::new(os, normal_architecture(arch), ""),
            [os, arch, variant, ..] => Self::new(os, normal_architecture(arch), variant),
            [] => return Err(InvalidPlatform(s.into())),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn matching() {
        let p = |s: &str| s.parse::<Platform>().unwrap();
        assert_eq!(p("linux/arm64").match_rank(&p("linux/arm64/v8")), Some(0));
        assert_eq!(p("linux/amd64").match_rank(&p("linux/arm64")), None);
        assert_eq!(p("linux/arm/v5").match_rank(&p("linux/arm/v7")), None);
        assert!(p("linux/arm/v7").match_rank(&p("linux/arm/v6")).is_some());
        assert_eq!(p("x86_64").to_string(), "linux/amd64");
        assert!("a/b/c/d".parse::<Platform>().is_err() && "".parse::<Platform>().is_err());
    }
}
