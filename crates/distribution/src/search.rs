//! Repositories of a registry by a word, with docker's filters.

use oci::Reference;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::image;
use crate::registry::{Hit, Options, Registry};

/// How many are asked for when nobody says: docker's number.
pub const LIMIT: usize = 25;
/// Most that can be asked for.
const LIMIT_MAX: usize = 100;
/// Most characters of a description in a table.
const SHORT: usize = 45;

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// As it is pulled: with the registry, unless that is Docker Hub.
    pub name: String,
    /// As the registry has it: line breaks and anything else may be in it.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Made by those who keep the registry.
    pub official: bool,
    /// Built by the registry itself.
    pub automated: bool,
}

impl Found {
    /// The description as one line, without what a terminal would obey.
    #[must_use]
    pub fn line(&self) -> String {
        let plain: String = self.description.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        plain.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Its beginning, for a table.
    #[must_use]
    pub fn short(&self) -> String {
        let line = self.line();
        match line.chars().count() > SHORT {
            true => line.chars().take(SHORT - 1).chain(['…']).collect(),
            false => line,
        }
    }
}

/// What must be true of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filters {
    official: Option<bool>,
    automated: Option<bool>,
    stars: u64,
}

impl Filters {
    /// Reads `is-official`, `is-automated` and `stars`; of several numbers of stars the largest counts.
    ///
    /// # Errors
    /// [`Error::NameInvalid`] for another key or a value that does not fit.
    pub fn parse(given: &image::Filters) -> Result<Self> {
        let mut filters = Self::default();
        for (key, value) in given.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value))) {
            let invalid = |problem: &str| {
                let (name, problem) = (format!("{key}={value}"), problem.into());
                Error::NameInvalid { what: "filter", name, problem }
            };
            let flag = || value.parse().map(Some).map_err(|_| invalid("it is true or false"));
            match key.as_str() {
                "is-official" => filters.official = flag()?,
                "is-automated" => filters.automated = flag()?,
                "stars" => filters.stars = filters.stars.max(value.parse().map_err(|_| invalid("it is a number"))?),
                _ => return Err(invalid("there are: is-official, is-automated, stars")),
            }
        }
        Ok(filters)
    }

    fn pass(self, hit: &Hit) -> bool {
        self.official.is_none_or(|wanted| wanted == hit.official)
            && self.automated.is_none_or(|wanted| wanted == hit.automated)
            && hit.stars >= self.stars
    }
}

/// Looks for a word at the registry that stands before it ("localhost:5000/word"), else at Docker Hub.
///
/// # Errors
/// [`Error::NameInvalid`]; those of the registry.
pub async fn search(term: &str, limit: usize, filters: &Filters, options: &Options) -> Result<Vec<Found>> {
    if !(1..=LIMIT_MAX).contains(&limit) {
        let problem = format!("it is a number from 1 to {LIMIT_MAX}");
        return Err(Error::NameInvalid { what: "limit", name: limit.to_string(), problem });
    }
    let (registry, word) = split(term)?;
    let hits = Registry::open(registry, options).await?.search(word, limit).await?;
    // A name that cannot be pulled is of no use to anybody.
    let found = hits.into_iter().filter(|hit| filters.pass(hit)).filter_map(|hit| named(registry, hit));
    Ok(found.take(limit).collect())
}

/// Registry and word.
fn split(term: &str) -> Result<(&str, &str)> {
    let invalid =
        |problem: &str| Error::NameInvalid { what: "word to search for", name: term.into(), problem: problem.into() };
    if term.contains("://") {
        return Err(invalid("a registry stands before it without a protocol: localhost:5000/word"));
    }
    let (registry, word) = match term.split_once('/') {
        Some((host, word)) if host.contains(['.', ':']) || host == "localhost" => (host, word),
        _ => ("docker.io", term),
    };
    let hub = matches!(registry, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    match word.strip_prefix("library/").filter(|_| hub).unwrap_or(word) {
        "" if hub => Err(invalid("it is empty")),
        word if hub => Ok(("docker.io", word)),
        word => Ok((registry, word)),
    }
}

fn named(registry: &str, hit: Hit) -> Option<Found> {
    let Hit { name, description, stars, official, automated } = hit;
    // Some registries tell the whole name.
    let name = name.strip_prefix(&format!("{registry}/")).unwrap_or(&name);
    let name = format!("{registry}/{name}").parse::<Reference>().ok()?.familiar_name();
    Some(Found { name, description, stars, official, automated })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_registry_may_stand_before_the_word() {
        assert_eq!(split("redis").unwrap(), ("docker.io", "redis"));
        assert_eq!(split("library/redis").unwrap(), ("docker.io", "redis"));
        assert_eq!(split("bitnami/redis").unwrap(), ("docker.io", "bitnami/redis"));
        assert_eq!(split("docker.io/redis").unwrap(), ("docker.io", "redis"));
        assert_eq!(split("localhost/redis").unwrap(), ("localhost", "redis"));
        assert_eq!(split("h:5000/").unwrap(), ("h:5000", ""));
        assert!(split("").is_err() && split("docker.io/").is_err() && split("https://h/x").is_err());
    }

    #[test]
    fn filters_are_dockers() {
        let parse = |key: &str, value: &str| Filters::parse(&[(key.to_owned(), vec![value.to_owned()])].into());
        let hit = Hit { stars: 3, official: true, ..Hit::default() };
        assert!(parse("stars", "3").unwrap().pass(&hit) && !parse("stars", "4").unwrap().pass(&hit));
        assert!(parse("is-official", "true").unwrap().pass(&hit) && !parse("is-automated", "true").unwrap().pass(&hit));
        assert!(parse("is-official", "maybe").is_err() && parse("stars", "-1").is_err() && parse("name", "x").is_err());
    }

    #[test]
    fn what_a_registry_tells_is_not_trusted() {
        let hit = |name: &str, description: &str| Hit {
            name: name.into(),
            description: description.into(),
            ..Hit::default()
        };
        assert_eq!(named("docker.io", hit("library/redis", "")).unwrap().name, "redis");
        assert_eq!(named("h:1", hit("h:1/a", "")).unwrap().name, "h:1/a");
        assert!(named("h:1", hit("a\u{1b}[2J", "")).is_none());
        let long = named("h:1", hit("a", &format!("x\n\u{1b}[2J {}", "y".repeat(60)))).unwrap();
        assert_eq!((long.line().chars().count(), long.short().chars().count()), (66, 45));
        assert!(!long.line().contains(['\n', '\u{1b}']));
    }
}
