//! Docker's filters of image listings and prunes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use oci::Reference;

use super::{config, find};
use crate::error::{Error, Result};
use crate::{ImageRecord, Store};

/// Values by key; all keys must match. A "reference" is one of several, of "label" and "label!" all count.
pub type Filters = BTreeMap<String, Vec<String>>;

/// The keys.
const KNOWN: [&str; 7] = ["reference", "label", "label!", "dangling", "before", "since", "until"];

/// The images that pass all filters, newest first.
///
/// # Errors
/// [`Error::NameInvalid`] for an unknown filter or value; those of [`find`] for "before" and "since".
pub fn list(store: &Store, filters: &Filters) -> Result<Vec<ImageRecord>> {
    let filter = Filter::read(store, filters)?;
    let mut images = store.images().list()?;
    images.retain(|record| filter.passes(store, record));
    images.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.names.cmp(&b.names)));
    Ok(images)
}

/// Filters, with their names looked up.
#[derive(Default)]
struct Filter<'a> {
    references: &'a [String],
    labels: &'a [String],
    without: &'a [String],
    dangling: Option<bool>,
    /// Created before all of these.
    before: Vec<Timestamp>,
    since: Vec<Timestamp>,
}

impl<'a> Filter<'a> {
    fn read(store: &Store, filters: &'a Filters) -> Result<Self> {
        let created = |name: &String| -> Result<Timestamp> { Ok(created(&find(store, name)?.0)) };
        let now = Timestamp::now();
        let mut filter = Self::default();
        for (key, values) in filters {
            match key.as_str() {
                "reference" => filter.references = values,
                "label" => filter.labels = values,
                "label!" => filter.without = values,
                "dangling" => filter.dangling = values.last().map(|value| boolean(key, value)).transpose()?,
                "before" => filter.before.extend(values.iter().map(created).collect::<Result<Vec<_>>>()?),
                "since" => filter.since.extend(values.iter().map(created).collect::<Result<Vec<_>>>()?),
                "until" => {
                    filter.before.extend(values.iter().map(|value| instant(value, now)).collect::<Result<Vec<_>>>()?);
                }
                unknown => return Err(invalid(unknown, format!("there are: {}", KNOWN.join(", ")))),
            }
        }
        Ok(filter)
    }

    fn passes(&self, store: &Store, record: &ImageRecord) -> bool {
        let time = created(record);
        self.before.iter().all(|limit| time < *limit)
            && self.since.iter().all(|limit| time > *limit)
            && self.dangling.is_none_or(|dangling| dangling == record.names.is_empty())
            && self.named(record)
            && self.labeled(store, record)
    }

    fn named(&self, record: &ImageRecord) -> bool {
        let fits = |pattern: &String| record.names.iter().any(|name| name_matches(pattern, name));
        self.references.is_empty() || self.references.iter().any(fits)
    }

    /// An image whose config cannot be read has no labels.
    fn labeled(&self, store: &Store, record: &ImageRecord) -> bool {
        if self.labels.is_empty() && self.without.is_empty() {
            return true;
        }
        let labels = config(store, record).map(|config| config.config.labels).unwrap_or_default();
        let has = |label: &String| match label.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(label),
        };
        self.labels.iter().all(has) && !self.without.iter().any(has)
    }
}

/// When an image was made; one that does not say is as old as can be.
fn created(record: &ImageRecord) -> Timestamp {
    record.created_at.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}

fn invalid(filter: &str, problem: String) -> Error {
    Error::NameInvalid { what: "filter", name: filter.into(), problem }
}

fn boolean(key: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid(&format!("{key}={value}"), "it is true or false".into())),
    }
}

/// A time as docker takes it: seconds since the epoch, RFC 3339, the same without a zone (the local one), or how long before
/// `now`.
fn instant(text: &str, now: Timestamp) -> Result<Timestamp> {
    let seconds = || Timestamp::from_second(text.parse().ok()?).ok();
    let ago = || now.checked_sub(text.parse::<jiff::SignedDuration>().ok().filter(|ago| !ago.is_negative())?).ok();
    let local = || {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp())
    };
    let problem = "a time is RFC 3339, seconds since the epoch, or an age such as 24h or 10m";
    let found = seconds().or_else(|| text.parse().ok()).or_else(ago).or_else(local);
    found.ok_or_else(|| invalid(&format!("until={text}"), problem.into()))
}

/// Docker's rule: a pattern fits the full name, the name as people write it, or the latter without its tag.
fn name_matches(pattern: &str, name: &str) -> bool {
    let Ok(reference) = name.parse::<Reference>() else { return false };
    [name.to_owned(), reference.familiar(), reference.familiar_name(), reference.name()]
        .iter()
        .any(|form| glob(pattern.as_bytes(), form.as_bytes()))
}

/// `*` is any run without a slash, `?` any one character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            let run = text.iter().take_while(|c| **c != b'/').count();
            (0..=run).any(|taken| glob(rest, &text[taken..]))
        }
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((p, rest)), Some((t, tail))) => p == t && glob(rest, tail),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_do_not_cross_slashes() {
        assert!(glob(b"busy*", b"busybox"));
        assert!(glob(b"*/b?", b"a/bc"));
        assert!(!glob(b"*", b"a/b"));
        assert!(!glob(b"busy", b"busybox"));
        assert!(name_matches("busybox", "docker.io/library/busybox:1"));
        assert!(name_matches("busybox:*", "docker.io/library/busybox:1"));
        assert!(name_matches("localhost:5000/*", "localhost:5000/x:1"));
    }

    #[test]
    fn times() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let at = |text: &str| instant(text, now).map(|time| time.to_string()).ok();
        assert_eq!(at("24h").as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(at("1h30m").as_deref(), Some("2026-01-01T22:30:00Z"));
        assert_eq!(at("1700000000").as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(at("2023-11-14T23:13:20+01:00").as_deref(), Some("2023-11-14T22:13:20Z"));
        assert!(at("2023-11-14").is_some() && at("2023-11-14T10:00:00").is_some());
        for bad in ["", "yesterday", "-3h", "24x"] {
            assert_eq!(at(bad), None, "{bad}");
        }
        assert!(boolean("dangling", "1").unwrap() && boolean("dangling", "yes").is_err());
    }
}
