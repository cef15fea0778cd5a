//! Durations and points in time.

use anyhow::Context;

/// Nanoseconds of Go's durations: "30s", "1m30s", "500ms", "1.5h".
pub fn duration_ns(text: &str) -> anyhow::Result<i64> {
    let wrong = || format!("invalid duration {text:?}: expected a form such as 30s, 1m30s or 500ms");
    if text == "0" {
        return Ok(0);
    }
    let parsed = text.parse::<jiff::SignedDuration>().ok().filter(|d| !d.is_negative()).with_context(wrong)?;
    i64::try_from(parsed.as_nanos()).ok().with_context(wrong)
}

/// Nanoseconds since the epoch of a time as docker takes it: seconds since the epoch, RFC 3339 (the zone may be
/// missing, and the time of day too: then local time), or a duration before `now`.
pub fn instant_ns(text: &str, now: i64) -> anyhow::Result<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1e9) as i64);
    }
    if let Ok(before) = duration_ns(text) {
        return Ok(now - before);
    }
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let local = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp())
    };
    let time = zoned.or_else(local).with_context(|| {
        format!("invalid time {text:?}: expected RFC 3339, seconds since the epoch, or a duration such as 10m")
    })?;
    Ok(i64::try_from(time.as_nanosecond())?)
}

/// This moment, in nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(duration_ns(text).unwrap(), want, "{text}");
        }
        for bad in ["", "30", "s", "1x", "-1s"] {
            assert!(duration_ns(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants() {
        assert_eq!(instant_ns("1700000000.5", 0).unwrap(), 1_700_000_000_500_000_000);
        assert_eq!(instant_ns("10m", 700_000_000_000).unwrap(), 100_000_000_000);
        assert_eq!(instant_ns("2023-11-14T22:13:20Z", 0).unwrap(), 1_700_000_000_000_000_000);
        assert!(instant_ns("2023-11-14T22:13:20", 0).is_ok() && instant_ns("yesterday", 0).is_err());
    }
}
