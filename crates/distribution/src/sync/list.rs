//! What is to be synced, as text: one reference a line, or skopeo's YAML (skopeo-sync(1), "YAML FILE CONTENT").

use std::collections::BTreeMap;

use oci::Reference;
use regex::Regex;
use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::image::parse;
use crate::registry::{Credentials, Options};

/// Images of one repository.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The repository; its tag does not count.
    pub repository: Reference,
    /// Which of its images.
    pub tags: Tags,
    /// How the registry is reached.
    pub registry: Options,
}

/// Which images of a repository.
#[derive(Debug, Clone)]
pub enum Tags {
    /// These, by tag or digest.
    These(Vec<Reference>),
    /// All tags that pass.
    All(Filter),
}

/// Which tags pass.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    regex: Option<Regex>,
    exclude: Option<Regex>,
    /// Alternatives; empty: any.
    versions: Vec<VersionReq>,
}

impl Filter {
    /// Reads the parts of a filter: regular expressions that are found somewhere in the tag, and a range of versions such as
    /// `>=1.2 <2` or `^1 || ^3`.
    ///
    /// # Errors
    /// [`Error::NameInvalid`].
    pub fn new(regex: Option<&str>, exclude: Option<&str>, versions: Option<&str>) -> Result<Self> {
        let expression = |text: &str| {
            Regex::new(text).map_err(|e| Error::NameInvalid {
                what: "regular expression",
                name: text.into(),
                problem: e.to_string(),
            })
        };
        Ok(Self {
            regex: regex.map(expression).transpose()?,
            exclude: exclude.map(expression).transpose()?,
            versions: versions.map(ranges).transpose()?.unwrap_or_default(),
        })
    }

    /// Whether nothing is left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.regex.is_none() && self.exclude.is_none() && self.versions.is_empty()
    }

    /// Whether a tag passes.
    #[must_use]
    pub fn passes(&self, tag: &str) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(tag))
            && !self.exclude.as_ref().is_some_and(|regex| regex.is_match(tag))
            && (self.versions.is_empty()
                || version(tag).is_some_and(|version| self.versions.iter().any(|range| range.matches(&version))))
    }
}

/// `>= 1.2 < 2 || ^3`: alternatives of bounds, with commas or white space between them.
fn ranges(text: &str) -> Result<Vec<VersionReq>> {
    let bounds = |part: &str| {
        let mut tight = part.trim().to_owned();
        for operator in [">=", "<=", ">", "<", "=", "~", "^"] {
            tight = tight.replace(&format!("{operator} "), operator);
        }
        let words: Vec<&str> = tight.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        VersionReq::parse(&words.join(", ")).map_err(|e| Error::NameInvalid {
            what: "range of versions",
            name: text.into(),
            problem: e.to_string(),
        })
    };
    text.split("||").map(bounds).collect()
}

/// A tag as a version: `1.2`, `v1.2.3`, `1.2.3-rc1`; none for anything else.
fn version(tag: &str) -> Option<Version> {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    let (numbers, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let missing = 3usize.checked_sub(numbers.split('.').count())?;
    Version::parse(&format!("{numbers}{}{rest}", ".0".repeat(missing))).ok()
}

/// A list: one reference a line, without a tag the whole repository as far as `filter` goes; `#` begins a comment.
///
/// # Errors
/// [`Error::NameInvalid`].
pub fn from_text(text: &str, registry: &Options, filter: &Filter) -> Result<Vec<Wanted>> {
    let lines = text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| one(line, registry, filter)).collect()
}

/// One reference; without a tag the whole repository.
fn one(text: &str, registry: &Options, filter: &Filter) -> Result<Wanted> {
    let text = text.strip_prefix("docker://").unwrap_or(text);
    let repository = parse(text)?;
    let last = text.rsplit('/').next().unwrap_or(text);
    let tags = match last.contains([':', '@']) {
        true => Tags::These(vec![repository.clone()]),
        false => Tags::All(filter.clone()),
    };
    Ok(Wanted { repository, tags, registry: registry.clone() })
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Host {
    #[serde(default)]
    images: BTreeMap<String, Option<Vec<String>>>,
    #[serde(default)]
    images_by_tag_regex: BTreeMap<String, String>,
    #[serde(default)]
    images_by_semver: BTreeMap<String, String>,
    credentials: Option<Login>,
    tls_verify: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    username: String,
    password: String,
}

/// Skopeo's YAML: by registry, `images` (with tags or digests; none: all), `images-by-tag-regex`, `images-by-semver`,
/// `credentials`, `tls-verify`.
///
/// # Errors
/// [`Error::NameInvalid`] with the line.
pub fn from_yaml(text: &str, registry: &Options) -> Result<Vec<Wanted>> {
    let hosts: BTreeMap<String, Host> = serde_saphyr::from_str(text).map_err(|e| Error::NameInvalid {
        what: "list of images",
        name: "YAML".into(),
        problem: e.to_string(),
    })?;
    let mut all = Vec::new();
    for (name, host) in hosts {
        let mut options = registry.clone();
        if let Some(Login { username, password }) = &host.credentials {
            let (username, password) = (username.clone(), password.clone());
            options.credentials = Some(Credentials::Password { username, password });
        }
        options.tls_skip_verify = host.tls_verify.map_or(options.tls_skip_verify, |verify| !verify);
        let repository = |image: &str| parse(&format!("{name}/{image}"));
        let mut add = |image: &str, tags: Tags| -> Result<()> {
            all.push(Wanted { repository: repository(image)?, tags, registry: options.clone() });
            Ok(())
        };
        for (image, tags) in &host.images {
            match tags.as_deref().unwrap_or_default() {
                [] => add(image, Tags::All(Filter::default()))?,
                tags => {
                    let of = |tag: &String| match tag.contains(':') {
                        true => repository(&format!("{image}@{tag}")),
                        false => repository(&format!("{image}:{tag}")),
                    };
                    add(image, Tags::These(tags.iter().map(of).collect::<Result<_>>()?))?;
                }
            }
        }
        for (image, regex) in &host.images_by_tag_regex {
            add(image, Tags::All(Filter::new(Some(regex), None, None)?))?;
        }
        for (image, versions) in &host.images_by_semver {
            add(image, Tags::All(Filter::new(None, None, Some(versions))?))?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tags_pass_by_expression_and_version() {
        let passes = |regex, exclude, versions, tag| Filter::new(regex, exclude, versions).unwrap().passes(tag);
        assert!(passes(Some("^1\\."), None, None, "1.2") && !passes(Some("^1\\."), None, None, "21.2"));
        assert!(!passes(None, Some("rc"), None, "1.2-rc1") && passes(None, Some("rc"), None, "1.2"));
        for (range, yes, no) in [
            (">= 3.12.0", "3.12", "3.11.9"),
            ("^1.2", "v1.9.0", "2.0"),
            (">=1.2 <2 || ~3.1", "3.1.4", "2.1"),
            ("1.x", "1.7", "edge"),
            (">=1, <2", "1.0.0", "1.0.0.1"),
        ] {
            assert!(passes(None, None, Some(range), yes), "{range} {yes}");
            assert!(!passes(None, None, Some(range), no), "{range} {no}");
        }
        assert!(Filter::new(Some("("), None, None).is_err() && Filter::new(None, None, Some("?")).is_err());
    }

    #[test]
    fn a_list_names_images_and_repositories() {
        let text = "# mine\nbusybox:1\n\nlocalhost:5000/a/b   # all of it\ndocker://h.io/c@sha256:";
        let text = format!("{text}{}", "a".repeat(64));
        let list = from_text(&text, &Options::default(), &Filter::default()).unwrap();
        let kinds: Vec<bool> = list.iter().map(|wanted| matches!(wanted.tags, Tags::All(_))).collect();
        assert_eq!(kinds, [false, true, false]);
        assert_eq!(list[1].repository.name(), "localhost:5000/a/b");
        assert!(from_text("NO", &Options::default(), &Filter::default()).is_err());
    }

    #[test]
    fn skopeos_yaml_is_read() {
        let text = "
registry.example.com:
  images:
    busybox: []
    redis:
      - \"1.0\"
      - sha256:0000000000000000000000000000000000000000000000000000000000000000
  images-by-tag-regex:
    nginx: ^1\\.13
  images-by-semver:
    alpine: \">= 3.12.0\"
  credentials:
    username: john
    password: secret
  tls-verify: false
quay.io:
  images:
    coreos/etcd:
      - latest
";
        let list = from_yaml(text, &Options::default()).unwrap();
        assert_eq!(list.len(), 5);
        let redis = list.iter().find(|w| w.repository.repository() == "redis").unwrap();
        let Tags::These(these) = &redis.tags else { panic!() };
        assert_eq!((these[0].tag(), these[1].digest().is_some()), (Some("1.0"), true));
        assert!(redis.registry.tls_skip_verify && redis.registry.credentials.is_some());
        assert!(!list.iter().find(|w| w.repository.registry() == "quay.io").unwrap().registry.tls_skip_verify);
        let unknown = from_yaml("h.io:\n  imagez: {}\n", &Options::default()).unwrap_err();
        assert!(unknown.to_string().contains("imagez"), "{unknown}");
    }
}
