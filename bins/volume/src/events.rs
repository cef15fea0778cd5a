//! `events` without a daemon: the events are in the root's database.

use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use volume::{EventFilter, Volumes};

/// Prints past events from `since` and then what comes, until `until`.
pub fn print(volumes: &Volumes, since: Option<&str>, until: Option<&str>, filters: &[String]) -> anyhow::Result<()> {
    let filter = EventFilter {
        since_unix_nano: since.map_or(Ok(0), nanoseconds)?,
        until_unix_nano: until.map_or(Ok(0), nanoseconds)?,
        filters: crate::grouped(filters)?,
    };
    let mut sequence = if since.is_some() { 0 } else { volumes.last_event()? };
    loop {
        let over = filter.is_over();
        for event in volumes.events_after(sequence)? {
            sequence = event.sequence;
            if filter.admit(&event) {
                console::print_json_line(&json!({
                    "time_unix_nano": event.time_unix_nano, "type": "volume", "action": event.action,
                    "id": event.volume, "attributes": event.attributes,
                }))?;
            }
        }
        if over {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// An RFC 3339 time or seconds since the epoch.
fn nanoseconds(text: &str) -> anyhow::Result<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1e9) as i64);
    }
    let time: jiff::Timestamp = text.parse().with_context(|| format!("{text:?} is no RFC 3339 time"))?;
    Ok(i64::try_from(time.as_nanosecond())?)
}
