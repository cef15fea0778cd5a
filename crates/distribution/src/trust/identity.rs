//! Whether the name that a signature is for is the name that an image was asked for by: containers-policy.json(5), "signedIdentity".

use oci::Reference;
use serde::Deserialize;

/// What the name in a signature has to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub(super) enum Identity {
    /// The same, with its tag or digest.
    #[serde(rename = "matchExact")]
    Exact {},
    /// By tag: the same; by digest: one of the repository.
    #[serde(rename = "matchRepoDigestOrExact")]
    RepositoryByDigestOrExact {},
    /// One of the repository.
    #[serde(rename = "matchRepository")]
    SameRepository {},
    /// This one.
    #[serde(rename = "exactReference", rename_all = "camelCase")]
    OneReference { docker_reference: String },
    /// One of this repository.
    #[serde(rename = "exactRepository", rename_all = "camelCase")]
    OneRepository { docker_repository: String },
    /// As `matchRepoDigestOrExact`, after the beginning of the name was replaced.
    #[serde(rename = "remapIdentity", rename_all = "camelCase")]
    Remapped { prefix: String, signed_prefix: String },
}

impl Default for Identity {
    fn default() -> Self {
        Self::RepositoryByDigestOrExact {}
    }
}

/// A name as it stands, without docker's `:latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    repository: String,
    version: Option<String>,
}

impl Name {
    fn of(reference: &Reference) -> Self {
        let digest = reference.digest().map(|digest| format!("@{digest}"));
        let version = digest.or_else(|| reference.tag().map(|tag| format!(":{tag}")));
        Self { repository: reference.name(), version }
    }

    fn parse(text: &str) -> Option<Self> {
        let reference: Reference = text.parse().ok()?;
        let last = text.rsplit('/').next().unwrap_or(text);
        let explicit = last.contains([':', '@']);
        Some(Self { version: Name::of(&reference).version.filter(|_| explicit), repository: reference.name() })
    }
}

impl Identity {
    /// What is wrong with the rule itself.
    pub fn problem(&self) -> Option<String> {
        let bare = |text: &str| Name::parse(text).is_some_and(|name| name.version.is_none());
        match self {
            Self::OneReference { docker_reference: text } => {
                let fits = Name::parse(text).is_some_and(|name| name.version.is_some());
                (!fits).then(|| format!("dockerReference {text:?} is no name with a tag or digest"))
            }
            Self::OneRepository { docker_repository: text } => {
                (!bare(text)).then(|| format!("dockerRepository {text:?} is no repository"))
            }
            Self::Remapped { prefix, signed_prefix } => {
                let bad = [prefix, signed_prefix].into_iter().find(|text| text.is_empty() || text.ends_with('/'));
                bad.map(|text| format!("{text:?} is no prefix of names"))
            }
            _ => None,
        }
    }

    /// Whether a signature for `signed` counts for an image that was asked for as `wanted`. Without a name to compare with, only
    /// rules that name one themselves can be met.
    pub fn accepts(&self, wanted: Option<&Reference>, signed: &str) -> bool {
        let Some(signed) = Name::parse(signed) else { return false };
        let wanted = wanted.map(Name::of);
        match self {
            Self::Exact {} => wanted.is_some_and(|wanted| wanted == signed),
            Self::RepositoryByDigestOrExact {} => wanted.is_some_and(|wanted| exact_or_by_digest(&wanted, &signed)),
            Self::SameRepository {} => wanted.is_some_and(|wanted| wanted.repository == signed.repository),
            Self::OneReference { docker_reference } => Name::parse(docker_reference).as_ref() == Some(&signed),
            Self::OneRepository { docker_repository } => {
                Name::parse(docker_repository).is_some_and(|name| name.repository == signed.repository)
            }
            Self::Remapped { prefix, signed_prefix } => {
                wanted.is_some_and(|wanted| exact_or_by_digest(&remap(wanted, prefix, signed_prefix), &signed))
            }
        }
    }
}

fn exact_or_by_digest(wanted: &Name, signed: &Name) -> bool {
    match &wanted.version {
        Some(version) if version.starts_with('@') => wanted.repository == signed.repository,
        _ => wanted == signed,
    }
}

/// A prefix ends at the end of a component.
fn remap(wanted: Name, prefix: &str, signed_prefix: &str) -> Name {
    let rest = wanted.repository.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match rest {
        Some(rest) => Name { repository: format!("{signed_prefix}{rest}"), ..wanted },
        None => wanted,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(json: &str) -> Identity {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rules_accept_what_the_manual_says() {
        let digest = format!("r.io/a/b@sha256:{}", "0".repeat(64));
        let cases = [
            (r#"{"type":"matchExact"}"#, "r.io/a/b:1", "r.io/a/b:1", true),
            (r#"{"type":"matchExact"}"#, "r.io/a/b:1", "r.io/a/b:2", false),
            (r#"{"type":"matchExact"}"#, &digest, "r.io/a/b:1", false),
            (r#"{"type":"matchRepoDigestOrExact"}"#, "r.io/a/b:1", "r.io/a/b:1", true),
            (r#"{"type":"matchRepoDigestOrExact"}"#, "r.io/a/b:1", "r.io/a/b", false),
            (r#"{"type":"matchRepoDigestOrExact"}"#, "r.io/a/b:1", "r.io/a/c:1", false),
            (r#"{"type":"matchRepoDigestOrExact"}"#, &digest, "r.io/a/b:1", true),
            (r#"{"type":"matchRepoDigestOrExact"}"#, &digest, "r.io/a/c:1", false),
            (r#"{"type":"matchRepository"}"#, "r.io/a/b:1", "r.io/a/b", true),
            (r#"{"type":"matchRepository"}"#, "busybox", "index.docker.io/library/busybox", true),
            (r#"{"type":"matchRepository"}"#, "r.io/a/b:1", "r.io/a/bb:1", false),
            (r#"{"type":"exactReference","dockerReference":"r.io/x:1"}"#, "r.io/a/b:1", "r.io/x:1", true),
            (r#"{"type":"exactReference","dockerReference":"r.io/x:1"}"#, "r.io/a/b:1", "r.io/x:2", false),
            (r#"{"type":"exactRepository","dockerRepository":"r.io/x"}"#, "r.io/a/b:1", "r.io/x:2", true),
            (r#"{"type":"remapIdentity","prefix":"r.io/a","signedPrefix":"o.io"}"#, "r.io/a/b:1", "o.io/b:1", true),
            (r#"{"type":"remapIdentity","prefix":"r.io/a","signedPrefix":"o.io"}"#, "r.io/ab:1", "o.iob:1", false),
            (r#"{"type":"remapIdentity","prefix":"q.io","signedPrefix":"o.io"}"#, "r.io/a:1", "r.io/a:1", true),
            (r#"{"type":"matchRepository"}"#, "r.io/a/b:1", "not a name", false),
        ];
        for (rule, wanted, signed, expected) in cases {
            assert_eq!(
                read(rule).accepts(Some(&wanted.parse().unwrap()), signed),
                expected,
                "{rule} {wanted} {signed}"
            );
        }
        assert!(!read(r#"{"type":"matchRepository"}"#).accepts(None, "r.io/a"));
        assert!(read(r#"{"type":"exactRepository","dockerRepository":"r.io/x"}"#).accepts(None, "r.io/x:1"));
    }

    #[test]
    fn rules_are_read_strictly() {
        for bad in [
            r#"{"type":"matchAnything"}"#,
            r#"{"type":"matchExact","extra":1}"#,
            r#"{"type":"exactReference"}"#,
            r#"{"type":"remapIdentity","prefix":"a"}"#,
        ] {
            assert!(serde_json::from_str::<Identity>(bad).is_err(), "{bad}");
        }
        assert!(read(r#"{"type":"exactReference","dockerReference":"r.io/x"}"#).problem().is_some());
        assert!(read(r#"{"type":"exactRepository","dockerRepository":"r.io/x:1"}"#).problem().is_some());
    }
}
