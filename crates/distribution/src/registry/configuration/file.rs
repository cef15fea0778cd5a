//! One file of containers-registries.conf(5): what is wrong in it is told with its line.

use std::collections::BTreeMap;
use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Spanned;

use super::super::error::{Error, Result};

/// Keys that the format knows; others are warned of.
const KNOWN: [&str; 7] = [
    "unqualified-search-registries",
    "registry",
    "credential-helpers",
    "short-name-mode",
    "aliases",
    "additional-layer-store-auth-helper",
    "registries",
];

/// One `[[registry]]`, checked.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) prefix: String,
    /// Empty: as the reference says.
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    pub(super) mirror_by_digest_only: bool,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) headers: HeaderMap,
    /// File and line.
    pub(super) origin: String,
}

#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) from: PullFrom,
    pub(super) headers: HeaderMap,
}

/// `pull-from-mirror`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PullFrom {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    unqualified_search_registries: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    #[serde(default)]
    registry: Vec<Spanned<RawEntry>>,
    /// Version 1 of the format.
    registries: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawEntry {
    prefix: Option<String>,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Spanned<RawMirror>>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawMirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFrom,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// Where in which file.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        format!("{}:{}", self.path.display(), before.matches('\n').count() + 1)
    }

    fn bad(&self, at: usize, problem: impl ToString) -> Error {
        Error::Configuration { place: self.place(at), problem: problem.to_string() }
    }
}

/// Reads and checks a file.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>> {
    let unreadable =
        |e: std::io::Error| Error::Configuration { place: path.display().to_string(), problem: e.to_string() };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let source = Source { path, text: &text };
    let parsed: std::result::Result<File, _> = toml::from_str(&text);
    let file = parsed.map_err(|e| source.bad(e.span().map_or(0, |span| span.start), e.message()))?;
    if let Some(old) = &file.registries {
        return Err(source.bad(old.span().start, "this is version 1 of the format; version 2 has [[registry]] tables"));
    }
    for name in file.unqualified_search_registries.iter().flatten() {
        host_of(name.get_ref()).map_err(|problem| source.bad(name.span().start, problem))?;
    }
    warn_of_unknown(path, &text);
    tracing::debug!(path = %path.display(), aliases = file.aliases.len(), "read");
    file.registry.into_iter().map(|entry| check(entry, &source)).collect()
}

fn warn_of_unknown(path: &Path, text: &str) {
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    for key in table.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
        tracing::warn!(path = %path.display(), key, "unknown key");
    }
}

fn check(entry: Spanned<RawEntry>, source: &Source<'_>) -> Result<Entry> {
    let at = entry.span().start;
    let bad = |problem: String| source.bad(at, problem);
    let raw = entry.into_inner();
    let prefix = raw.prefix.filter(|prefix| !prefix.is_empty()).unwrap_or_else(|| raw.location.clone());
    let wildcard = prefix.starts_with("*.");
    if prefix.is_empty() || (raw.location.is_empty() && !wildcard && !raw.blocked) {
        return Err(bad("a registry needs a location, or a prefix of the form *.example.com".into()));
    }
    if prefix.trim_start_matches("*.").contains('*') {
        return Err(bad(format!("{prefix:?}: a star is only allowed as the first part: *.example.com")));
    }
    for name in [prefix.trim_start_matches("*."), &raw.location].into_iter().filter(|name| !name.is_empty()) {
        host_of(name).map_err(bad)?;
    }
    let mirrors = raw.mirror.into_iter().map(|mirror| {
        let at = mirror.span().start;
        let raw = mirror.into_inner();
        host_of(&raw.location).map_err(|problem| source.bad(at, problem))?;
        let headers = headers(&raw.headers).map_err(|problem| source.bad(at, problem))?;
        let location = raw.location.trim_end_matches('/').to_owned();
        Ok(Mirror { location, insecure: raw.insecure, from: raw.pull_from_mirror, headers })
    });
    Ok(Entry {
        mirrors: mirrors.collect::<Result<_>>()?,
        headers: headers(&raw.headers).map_err(bad)?,
        prefix: prefix.trim_end_matches('/').to_owned(),
        location: raw.location.trim_end_matches('/').to_owned(),
        insecure: raw.insecure,
        blocked: raw.blocked,
        mirror_by_digest_only: raw.mirror_by_digest_only,
        origin: source.place(at),
    })
}

fn host_of(location: &str) -> std::result::Result<(), String> {
    if location.contains("://") {
        return Err(format!("{location:?}: a location has no scheme: host[:port][/path]"));
    }
    let host = location.split('/').next().unwrap_or_default();
    super::super::Host::resolve(host, false).map(drop).map_err(|e| e.to_string())
}

fn headers(from: &BTreeMap<String, String>) -> std::result::Result<HeaderMap, String> {
    let pair = |(name, value): (&String, &String)| {
        let mut checked =
            HeaderValue::from_str(value).map_err(|_| format!("the value of header {name:?} is no text"))?;
        checked.set_sensitive(true);
        Ok((HeaderName::try_from(name).map_err(|_| format!("{name:?} is no header"))?, checked))
    };
    from.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn problem(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.conf");
        std::fs::write(&path, text).unwrap();
        let error = read(&path).unwrap_err().to_string();
        error.replace(&dir.path().display().to_string(), "")
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            ("\n[[registry]\n", "/r.conf:2 "),
            ("\n[[registry]]\nlocation = 3\n", "/r.conf:3 "),
            ("[[registry]]\nlocation = \"a\"\ninsecur = true\n", "/r.conf:3 cannot be used: unknown field `insecur`"),
            ("\n\n[[registry]]\nprefix = \"a\"\n", "/r.conf:3 cannot be used: a registry needs a location"),
            ("[[registry]]\nlocation = \"https://a\"\n", "no scheme"),
            ("[[registry]]\nprefix = \"a.*.b\"\nlocation = \"a\"\n", "a star is only allowed"),
            ("[[registry]]\nlocation = \"a\"\nheaders = { \"a b\" = \"\" }\n", "is no header"),
            ("[registries.search]\nregistries = []\n", "version 1"),
            ("unqualified-search-registries = [\"a/\", \"@\"]\n", "/r.conf:1 "),
        ] {
            let problem = problem(text);
            assert!(problem.contains(expected), "{text:?}: {problem}");
        }
        assert!(read(Path::new("/nowhere/r.conf")).unwrap_err().to_string().starts_with("/nowhere/r.conf "));
    }
}
