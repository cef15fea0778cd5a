//! Per-registry configuration in the format of containers-registries.conf(5), version 2: mirrors, other locations, blocked and
//! insecure registries. Pull, run and build all read it, since all of them come through here.
//!
//! One key is Pier's own, in `[[registry]]` and `[[registry.mirror]]`: `headers = { "X-Name" = "value" }`, sent with each request
//! to that host and to no other. `unqualified-search-registries` and `[aliases]` are checked but not used: a name without a
//! registry is Docker Hub's here, in every tool.
//!
//! Read is what the caller names, else the first of `/etc/pier/registries.conf`,
//! `$XDG_CONFIG_HOME/containers/registries.conf` and `/etc/containers/registries.conf`; then `*.conf` of the directory
//! `registries.conf.d` beside it, where an entry takes the place of an earlier one with the same prefix.

mod file;

use std::path::{Path, PathBuf};

use http::HeaderMap;

use super::error::{Error, Result};
use file::{Entry, PullFrom};

/// A repository on a host that can be asked.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Host and port, as configured.
    pub(super) host: String,
    /// The repository's name there.
    pub(super) repository: String,
    /// TLS without verification, or none.
    pub(super) insecure: bool,
    /// Somebody else can be asked, too.
    pub(super) mirror: bool,
    /// Sent with every request.
    pub(super) headers: HeaderMap,
}

/// Where a repository is.
#[derive(Debug)]
pub(super) struct Plan {
    /// In order; for reading only.
    pub(super) mirrors: Vec<Place>,
    /// The registry itself.
    pub(super) primary: Place,
}

/// All that the files say.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    entries: Vec<Entry>,
}

impl Configuration {
    /// Reads the configuration: the file that is given, or those of the system. No file: no configuration.
    pub(super) fn load(given: Option<&Path>) -> Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for path in files(given)? {
            for entry in file::read(&path)? {
                entries.retain(|known| known.prefix != entry.prefix);
                entries.push(entry);
            }
        }
        Ok(Self { entries })
    }

    /// Finds where a repository is. `version`: tag or digest, "" when it does not matter.
    pub(super) fn plan(&self, registry: &str, repository: &str, version: &str) -> Result<Plan> {
        let name = if repository.is_empty() { registry.to_owned() } else { format!("{registry}/{repository}") };
        let separator = if version.contains(':') { "@" } else { ":" };
        let full = if version.is_empty() { name.clone() } else { format!("{name}{separator}{version}") };
        let matching = self.entries.iter().filter_map(|entry| Some((matched(&entry.prefix, &full)?, entry)));
        // The longest wins; of equals the one that is no wildcard.
        let best = matching.max_by_key(|(length, entry)| (*length, !entry.prefix.starts_with("*.")));
        let Some((length, entry)) = best else {
            let (host, repository) = (registry.to_owned(), repository.to_owned());
            let primary = Place { host, repository, insecure: false, mirror: false, headers: HeaderMap::new() };
            return Ok(Plan { mirrors: Vec::new(), primary });
        };
        if entry.blocked {
            return Err(Error::Blocked { reference: full, place: entry.origin.clone() });
        }
        let place = |location: &str, insecure: bool, headers: &HeaderMap, mirror: bool| {
            let rest = name.get(length..).unwrap_or_default();
            let there = if location.is_empty() { name.clone() } else { format!("{location}{rest}") };
            let (host, repository) = there.split_once('/').unwrap_or((&there, ""));
            Place { host: host.into(), repository: repository.into(), insecure, mirror, headers: headers.clone() }
        };
        let by_digest = version.contains(':');
        let serves = |from: PullFrom| match from {
            PullFrom::All => by_digest || !entry.mirror_by_digest_only,
            PullFrom::DigestOnly => by_digest,
            PullFrom::TagOnly => !by_digest,
        };
        let mirrors = entry.mirrors.iter().filter(|mirror| serves(mirror.from));
        let mirrors = mirrors.map(|mirror| place(&mirror.location, mirror.insecure, &mirror.headers, true)).collect();
        Ok(Plan { mirrors, primary: place(&entry.location, entry.insecure, &entry.headers, false) })
    }
}

/// Bytes of the reference that a prefix covers; `None` when it does not fit. `*.example.com` covers any host below it.
fn matched(prefix: &str, reference: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        None => reference.starts_with(prefix).then_some(prefix.len())?,
        Some(suffix) => {
            let host = reference.split(['/', ':', '@']).next().unwrap_or(reference);
            let domain = suffix.split('/').next().unwrap_or(suffix);
            let end = host.len() + suffix.len() - domain.len();
            let below = host.len() > domain.len() && host.ends_with(domain);
            (below && reference.get(..end)?.ends_with(suffix)).then_some(end)?
        }
    };
    let next = reference.as_bytes().get(end);
    matches!(next, None | Some(b'/' | b':' | b'@')).then_some(end)
}

/// The files to read, in order.
fn files(given: Option<&Path>) -> Result<Vec<PathBuf>> {
    let main = match given {
        // A file that was named has to be there.
        Some(path) => Some(path.to_owned()),
        None => defaults().into_iter().find(|path| path.exists()),
    };
    let Some(main) = main else { return Ok(Vec::new()) };
    let mut more: Vec<PathBuf> = match std::fs::read_dir(main.with_extension("conf.d")) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    more.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    more.sort();
    Ok([main].into_iter().chain(more).collect())
}

fn defaults() -> Vec<PathBuf> {
    let user = super::user_config_dir().map(|dir| dir.join("containers/registries.conf"));
    let system = ["/etc/pier/registries.conf", "/etc/containers/registries.conf"].map(PathBuf::from);
    let [ours, theirs] = system;
    [Some(ours), user, Some(theirs)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(text: &str) -> Configuration {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        std::fs::write(&path, text).unwrap();
        Configuration::load(Some(&path)).unwrap()
    }

    fn hosts(configuration: &Configuration, repository: &str, version: &str) -> Vec<String> {
        let plan = configuration.plan("example.com", repository, version).unwrap();
        plan.mirrors.iter().chain([&plan.primary]).map(|place| format!("{}/{}", place.host, place.repository)).collect()
    }

    #[test]
    fn mirrors_come_in_order_and_names_are_rewritten() {
        let configuration = of(r#"
            [[registry]]
            location = "example.com"
            [[registry.mirror]]
            location = "one.example:5000"
            [[registry.mirror]]
            location = "two.example/cache"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "example.com/deep"
            location = "else.example/x"
        "#);
        assert_eq!(hosts(&configuration, "a/b", "1"), ["one.example:5000/a/b", "example.com/a/b"]);
        assert_eq!(
            hosts(&configuration, "a/b", "sha256:1"),
            ["one.example:5000/a/b", "two.example/cache/a/b", "example.com/a/b"]
        );
        assert_eq!(hosts(&configuration, "deep/c", "1"), ["else.example/x/c"]);
        assert_eq!(hosts(&configuration, "deeper/c", "1"), ["one.example:5000/deeper/c", "example.com/deeper/c"]);
    }

    #[test]
    fn wildcards_cover_the_hosts_below() {
        assert_eq!(matched("*.example.com", "a.b.example.com:5000/x"), Some(15));
        assert_eq!(matched("*.example.com", "a.example.com"), Some(13));
        for other in ["example.com/x", "a.example.comx/x", "evil.org/a.example.com"] {
            assert_eq!(matched("*.example.com", other), None, "{other}");
        }
        assert_eq!(matched("example.com/a", "example.com/ab"), None);
        assert_eq!(matched("example.com/a", "example.com/a:1"), Some(13));
        let configuration =
            of("[[registry]]\nprefix = \"*.com\"\nblocked = true\n[[registry]]\nlocation = \"example.com\"\n");
        assert!(configuration.plan("example.com", "x", "").is_ok(), "the longer one wins");
        let error = configuration.plan("other.com", "x", "").unwrap_err();
        assert!(error.to_string().contains("registries.conf:1"), "{error}");
    }

    #[test]
    fn by_digest_only_keeps_mirrors_out_of_tags() {
        let configuration = of(
            "[[registry]]\nlocation = \"example.com\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m\"\n",
        );
        assert_eq!(hosts(&configuration, "a", "1"), ["example.com/a"]);
        assert_eq!(hosts(&configuration, "a", "sha256:1"), ["m/a", "example.com/a"]);
    }

    #[test]
    fn a_file_beside_it_takes_the_place_of_an_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        std::fs::write(&path, "[[registry]]\nlocation = \"example.com\"\nblocked = true\n").unwrap();
        std::fs::create_dir(dir.path().join("registries.conf.d")).unwrap();
        let more = dir.path().join("registries.conf.d/50.conf");
        std::fs::write(more, "[[registry]]\nprefix = \"example.com\"\nlocation = \"m.example\"\n").unwrap();
        assert_eq!(hosts(&Configuration::load(Some(&path)).unwrap(), "a", "1"), ["m.example/a"]);
    }
}
