//! Which volumes and events a caller wants: pure.

use std::collections::BTreeMap;

use crate::{Error, Event, Result, Volume};

/// Docker's filters: values of one key are alternatives, keys must all match.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    names: Vec<String>,
    drivers: Vec<String>,
    labels: Vec<String>,
    without_labels: Vec<String>,
    dangling: Option<bool>,
}

impl Filters {
    /// Reads a map of filters: "name" (part of the name), "driver", "label", "label!" (`k` or `k=v`), "dangling".
    ///
    /// # Errors
    /// An unknown key, or a value of "dangling" that is no truth value.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [String])>) -> Result<Self> {
        let mut filters = Self::default();
        for (key, values) in pairs {
            match key {
                "name" => filters.names.extend_from_slice(values),
                "driver" => filters.drivers.extend_from_slice(values),
                "label" => filters.labels.extend_from_slice(values),
                "label!" => filters.without_labels.extend_from_slice(values),
                "dangling" => {
                    for value in values {
                        filters.dangling = Some(truth(value)?);
                    }
                }
                _ => return Err(invalid(key, "filters are name, driver, label, label! and dangling")),
            }
        }
        Ok(filters)
    }

    /// Whether a volume is wanted.
    #[must_use]
    pub fn admit(&self, volume: &Volume) -> bool {
        (self.names.is_empty() || self.names.iter().any(|name| volume.name.contains(name)))
            && (self.drivers.is_empty() || self.drivers.contains(&volume.driver))
            && self.labels.iter().all(|label| has_label(&volume.labels, label))
            && !self.without_labels.iter().any(|label| has_label(&volume.labels, label))
            && self.dangling.is_none_or(|wanted| wanted == volume.consumers.is_empty())
    }
}

/// Which events a caller wants, and from when to when.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Nanoseconds since the epoch; 0: only what comes.
    pub since_unix_nano: i64,
    /// Nanoseconds since the epoch; 0: never ends.
    pub until_unix_nano: i64,
    /// "type", "event", "volume", "label"; keys of other tools match nothing here.
    pub filters: BTreeMap<String, Vec<String>>,
}

impl EventFilter {
    /// Whether nothing that is wanted can come any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let now = jiff::Timestamp::now().as_nanosecond();
        self.until_unix_nano > 0 && now > i128::from(self.until_unix_nano)
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn admit(&self, event: &Event) -> bool {
        let late = self.until_unix_nano > 0 && event.time_unix_nano > self.until_unix_nano;
        if late || event.time_unix_nano < self.since_unix_nano {
            return false;
        }
        self.filters.iter().all(|(key, values)| match key.as_str() {
            "type" => values.iter().any(|value| value == "volume"),
            "event" => values.contains(&event.action),
            "volume" => values.contains(&event.volume),
            "label" => values.iter().all(|label| has_label(&event.attributes, label)),
            _ => false,
        })
    }
}

fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    }
}

fn truth(text: &str) -> Result<bool> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid(text, "dangling is true or false")),
    }
}

fn invalid(value: &str, why: &str) -> Error {
    Error::Invalid { field: "filter", value: value.into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn events_in_time() {
        let event = |time_unix_nano| Event {
            sequence: 1,
            time_unix_nano,
            action: "create".into(),
            volume: "v".into(),
            attributes: BTreeMap::new(),
        };
        let filter = EventFilter { since_unix_nano: 5, until_unix_nano: 7, ..Default::default() };
        assert_eq!([4, 5, 7, 8].map(|time| filter.admit(&event(time))), [false, true, true, false]);
        assert!(filter.is_over() && !EventFilter::default().is_over());
        let creations =
            EventFilter { filters: BTreeMap::from([("event".into(), vec!["create".into()])]), ..Default::default() };
        assert!(creations.admit(&event(1)));
    }

    #[test]
    fn admits() {
        let volume = Volume {
            name: "web-data".into(),
            driver: "local".into(),
            labels: BTreeMap::from([("app".into(), "web".into())]),
            consumers: vec!["c".into()],
            ..Default::default()
        };
        let ask = |key: &str, value: &str| {
            let values = [value.to_owned()];
            Filters::parse([(key, &values[..])]).unwrap().admit(&volume)
        };
        assert!(ask("name", "data") && !ask("name", "other"));
        assert!(ask("label", "app") && ask("label", "app=web") && !ask("label", "app=db"));
        assert!(!ask("label!", "app") && ask("label!", "x"));
        assert!(ask("dangling", "false") && !ask("dangling", "true"));
        assert!(Filters::parse([("nope", &["x".to_owned()][..])]).is_err());
        assert!(Filters::parse([("dangling", &["x".to_owned()][..])]).is_err());
    }
}
