//! Docker's filters of listings and prunes.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::model::Network;

/// Values by key. Those of one key are alternatives (of "label!" and "until" all count), keys must all match.
pub type Filters = BTreeMap<String, Vec<String>>;

const KNOWN: &str = "known are name, id, driver, label, label! and until";

/// Filters whose values were read.
pub(crate) struct Filter<'a> {
    filters: &'a Filters,
    /// Made before this.
    until: Option<Timestamp>,
}

impl<'a> Filter<'a> {
    /// # Errors
    /// [`Error::Invalid`] for an unknown key, or a value that is no time.
    pub(crate) fn read(filters: &'a Filters) -> Result<Self> {
        let known = |key: &&String| matches!(key.as_str(), "name" | "id" | "driver" | "label" | "label!" | "until");
        if let Some(key) = filters.keys().find(|key| !known(key)) {
            return Err(Error::invalid(format!("filter {key:?}"), KNOWN));
        }
        let now = Timestamp::now();
        let until = filters.get("until").into_iter().flatten().map(|text| instant(text, now));
        Ok(Self { filters, until: until.collect::<Result<Vec<_>>>()?.into_iter().min() })
    }

    pub(crate) fn passes(&self, network: &Network) -> bool {
        self.filters.iter().all(|(key, values)| match key.as_str() {
            "label!" => !values.iter().any(|value| labeled(network, value)),
            // One that does not say is old.
            "until" => {
                let made = network.created_at.parse().unwrap_or(Timestamp::UNIX_EPOCH);
                self.until.is_none_or(|until| made < until)
            }
            key => values.iter().any(|value| fits(network, key, value)),
        })
    }
}

fn fits(network: &Network, key: &str, value: &str) -> bool {
    match key {
        "name" => network.name.contains(value),
        "id" => network.id.starts_with(value),
        "driver" => network.driver.to_string() == value,
        _ => labeled(network, value),
    }
}

fn labeled(network: &Network, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, wanted)) => network.labels.get(key).is_some_and(|is| is == wanted),
        None => network.labels.contains_key(label),
    }
}

/// A time as docker takes it: seconds since the epoch, RFC 3339, or how long before `now`.
fn instant(text: &str, now: Timestamp) -> Result<Timestamp> {
    let seconds = || Timestamp::from_second(text.parse().ok()?).ok();
    let ago = || now.checked_sub(text.parse::<jiff::SignedDuration>().ok().filter(|ago| !ago.is_negative())?).ok();
    let why = "a time is RFC 3339, seconds since the epoch, or an age such as 24h or 10m";
    let found = seconds().or_else(|| text.parse().ok()).or_else(ago);
    found.ok_or_else(|| Error::invalid(format!("filter until={text}"), why))
}
