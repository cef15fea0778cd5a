//! Docker's filters for listings and events. Pure.

use std::collections::BTreeMap;

use oci::shim::JournalEntry;

use crate::error::Error;
use crate::observe::Container;

/// Values of one key are alternatives; all keys must match.
pub(crate) type Filters = BTreeMap<String, Vec<String>>;

const CONTAINER_KEYS: [&str; 7] = ["id", "name", "label", "status", "ancestor", "exited", "health"];
const EVENT_KEYS: [&str; 7] = ["type", "event", "container", "image", "network", "volume", "label"];

pub(crate) fn check_container_keys(filters: &Filters) -> Result<(), Error> {
    check(filters, &CONTAINER_KEYS)
}

pub(crate) fn check_event_keys(filters: &Filters) -> Result<(), Error> {
    check(filters, &EVENT_KEYS)
}

fn check(filters: &Filters, known: &[&str]) -> Result<(), Error> {
    match filters.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Error::invalid(format!("filter {key}"), format!("known are {}", known.join(", ")))),
        None => Ok(()),
    }
}

pub(crate) fn matches(filters: &Filters, container: &Container) -> bool {
    let seen = &container.observed;
    filters.iter().all(|(key, values)| {
        values.iter().any(|value| match key.as_str() {
            "id" => container.id.starts_with(value.as_str()),
            "name" => container.name().contains(value.trim_start_matches('/')),
            "label" => container.definition.as_ref().is_some_and(|d| has_label(&d.labels, value)),
            "status" => seen.status.word() == value,
            "ancestor" => container.definition.as_ref().is_some_and(|d| d.image == *value),
            "exited" => !seen.status.is_live() && !seen.finished_at.is_empty() && value.parse() == Ok(seen.exit_code),
            "health" => seen.health == *value,
            _ => false,
        })
    })
}

pub(crate) fn matches_event(filters: &Filters, entry: &JournalEntry) -> bool {
    let attribute = |key: &str| entry.attributes.get(key).map(String::as_str);
    filters.iter().all(|(key, values)| {
        values.iter().any(|value| match key.as_str() {
            "type" => value == "container",
            "event" => entry.action == *value,
            "container" => entry.id.starts_with(value.as_str()) || attribute("name") == Some(value),
            "image" => attribute("image") == Some(value),
            "label" => has_label(&entry.attributes, value),
            _ => false,
        })
    })
}

fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_by_all_keys_and_any_value() {
        let entry = JournalEntry {
            action: "die".into(),
            id: "abcdef".into(),
            attributes: [("name".into(), "web".into()), ("tier".into(), "front".into())].into(),
            ..JournalEntry::default()
        };
        let filters = |pairs: &[(&str, &[&str])]| -> Filters {
            pairs.iter().map(|(k, v)| ((*k).into(), v.iter().map(|v| (*v).into()).collect())).collect()
        };
        assert!(matches_event(&filters(&[("event", &["start", "die"]), ("container", &["web"])]), &entry));
        assert!(matches_event(&filters(&[("label", &["tier=front"])]), &entry));
        assert!(!matches_event(&filters(&[("event", &["die"]), ("container", &["db"])]), &entry));
        assert!(check_event_keys(&filters(&[("colour", &["red"])])).is_err());
    }
}
