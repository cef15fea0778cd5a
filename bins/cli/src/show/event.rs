//! Lines of `events`.

use api::types::v1::Event;
use serde_json::{Value, json};

/// "2026-01-02T03:04:05.000000006Z container start <id> (image=alpine, name=web)".
pub fn line(event: &Event) -> String {
    let mut attributes: Vec<String> = event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    attributes.sort();
    let about = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{} {} {} {}{about}", time(event.time_unix_nano), event.r#type, event.action, event.id)
}

/// The same with docker's keys.
pub fn document(event: &Event) -> Value {
    json!({
        "Type": event.r#type, "Action": event.action, "status": event.action, "id": event.id,
        "Actor": {"ID": event.id, "Attributes": event.attributes}, "scope": "local",
        "time": event.time_unix_nano / 1_000_000_000, "timeNano": event.time_unix_nano,
    })
}

/// RFC 3339 with all nine digits, as docker writes log times.
pub fn time(nanoseconds: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let event = Event {
            time_unix_nano: 1_700_000_000_000_000_006,
            r#type: "container".into(),
            action: "start".into(),
            id: "abc".into(),
            attributes: [("name".to_owned(), "web".to_owned()), ("image".to_owned(), "alpine".to_owned())].into(),
        };
        assert_eq!(line(&event), "2023-11-14T22:13:20.000000006Z container start abc (image=alpine, name=web)");
    }
}
