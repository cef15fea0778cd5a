//! When a request is worth repeating, and after how long.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use jiff::Timestamp;

/// Longest wait that `Retry-After` may ask for; a registry that wants more is told to the caller.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

pub(super) fn worth_retrying(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
        || status == StatusCode::REQUEST_TIMEOUT
}

/// 0.2 s, 0.4 s, 0.8 s, … with up to half as much again, so that many clients do not come back at once.
pub(super) fn backoff(attempt: u32) -> Duration {
    let base = Duration::from_millis(200) * 2u32.saturating_pow(attempt.saturating_sub(1).min(6));
    base + base.mul_f64(rand::random::<f64>() / 2.0)
}

/// How long to wait before the next attempt; `None` when the registry wants a longer break than anybody waits for.
pub(super) fn pause(headers: &HeaderMap, attempt: u32) -> Option<Duration> {
    match retry_after(headers, Timestamp::now()) {
        Some(wanted) if wanted > RETRY_AFTER_MAX => None,
        // A little jitter here, too: a whole fleet gets the same answer.
        Some(wanted) => Some(wanted + backoff(1).mul_f64(0.2)),
        None => Some(backoff(attempt)),
    }
}

/// `Retry-After: 5` or `Retry-After: Wed, 21 Oct 2026 07:28:00 GMT` (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

/// What a registry says of its limits, for people: "12 of 100 requests left in 6 h".
/// Docker Hub writes `ratelimit-remaining: 12;w=21600`.
pub(super) fn rate_limit(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    let remaining = text("ratelimit-remaining").or_else(|| text("x-ratelimit-remaining"))?;
    let limit = text("ratelimit-limit").or_else(|| text("x-ratelimit-limit"));
    let number = |text: &str| text.split(';').next().and_then(|number| number.trim().parse::<u64>().ok());
    let window = limit.as_deref().unwrap_or(&remaining).split(";w=").nth(1).and_then(|w| w.trim().parse::<u64>().ok());
    let mut words = number(&remaining)?.to_string();
    if let Some(limit) = limit.as_deref().and_then(number) {
        words.push_str(&format!(" of {limit}"));
    }
    words.push_str(" requests left");
    match window {
        Some(seconds) if seconds >= 3600 => words.push_str(&format!(" in {} h", seconds / 3600)),
        Some(seconds) => words.push_str(&format!(" in {seconds} s")),
        None => {}
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        assert!(backoff(1) < Duration::from_millis(301));
        assert!(backoff(100) < Duration::from_secs(20));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-10-21T07:28:00Z".parse().unwrap();
        let wait = |text: &str| retry_after(&headers(&[("retry-after", text)]), now);
        assert_eq!(wait("5"), Some(Duration::from_secs(5)));
        assert_eq!(wait("Wed, 21 Oct 2026 07:28:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Wed, 21 Oct 2026 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(pause(&headers(&[("retry-after", "86400")]), 1), None);
    }

    #[test]
    fn limits_are_told_in_words() {
        let hub = headers(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")]);
        assert_eq!(rate_limit(&hub).unwrap(), "76 of 100 requests left in 6 h");
        assert_eq!(rate_limit(&headers(&[("ratelimit-remaining", "3")])).unwrap(), "3 requests left");
        assert_eq!(rate_limit(&headers(&[])), None);
    }
}
