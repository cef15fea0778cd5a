//! Points in time on the command line.

/// Nanoseconds since the epoch of an RFC 3339 time, Unix seconds, or a span back from now ("10m"). Empty: 0.
pub fn parse(text: &str) -> anyhow::Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    let bad = || anyhow::anyhow!("{text:?} is no time: give RFC 3339, Unix seconds, or a span such as 10m");
    let now = jiff::Timestamp::now();
    let time = if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1e9) as i64);
    } else if let Ok(time) = text.parse::<jiff::Timestamp>() {
        time
    } else {
        let span: jiff::SignedDuration = text.parse().map_err(|_| bad())?;
        now.checked_sub(span).map_err(|_| bad())?
    };
    i64::try_from(time.as_nanosecond()).map_err(|_| bad())
}
