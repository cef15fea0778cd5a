//! Restart policy: pure.

use crate::definition::{RestartMode, RestartPolicy};

/// First delay.
pub(crate) const FIRST_DELAY_MS: u64 = 100;
/// Longest delay.
pub(crate) const LAST_DELAY_MS: u64 = 60_000;
/// A run this long starts the delays anew.
pub(crate) const STEADY_MS: u64 = 10_000;

/// The end that a decision is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    pub(crate) ran_ms: u64,
    pub(crate) stopped_by_user: bool,
    /// By policy so far.
    pub(crate) restarts: u32,
    /// The delay before this run.
    pub(crate) last_delay_ms: u64,
}

/// Milliseconds until the next try; `None`: stay down.
pub(crate) fn decide(policy: RestartPolicy, ended: Ended) -> Option<u64> {
    if ended.stopped_by_user {
        return None;
    }
    let again = match policy.mode {
        RestartMode::No => false,
        RestartMode::Always | RestartMode::UnlessStopped => true,
        RestartMode::OnFailure => {
            ended.exit_code != 0 && (policy.max_retries == 0 || ended.restarts < policy.max_retries)
        }
    };
    let delay = if ended.ran_ms >= STEADY_MS || ended.last_delay_ms == 0 {
        FIRST_DELAY_MS
    } else {
        (ended.last_delay_ms * 2).min(LAST_DELAY_MS)
    };
    again.then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: Ended = Ended { exit_code: 1, ran_ms: 5, stopped_by_user: false, restarts: 0, last_delay_ms: 0 };

    fn policy(mode: RestartMode, max_retries: u32) -> RestartPolicy {
        RestartPolicy { mode, max_retries }
    }

    #[test]
    fn delays_double_to_a_minute_and_begin_anew() {
        let (mut delay, mut seen) = (0, Vec::new());
        for _ in 0..12 {
            delay = decide(policy(RestartMode::Always, 0), Ended { last_delay_ms: delay, ..ENDED }).unwrap_or(0);
            seen.push(delay);
        }
        assert_eq!(seen[..4], [100, 200, 400, 800]);
        assert_eq!(seen[11], LAST_DELAY_MS);
        let steady = Ended { ran_ms: STEADY_MS, last_delay_ms: delay, ..ENDED };
        assert_eq!(decide(policy(RestartMode::Always, 0), steady), Some(FIRST_DELAY_MS));
    }

    #[test]
    fn modes() {
        let ok = Ended { exit_code: 0, ..ENDED };
        assert_eq!(decide(policy(RestartMode::No, 0), ENDED), None);
        assert_eq!(decide(policy(RestartMode::OnFailure, 0), ok), None);
        assert!(decide(policy(RestartMode::OnFailure, 0), ENDED).is_some());
        assert_eq!(decide(policy(RestartMode::OnFailure, 3), Ended { restarts: 3, ..ENDED }), None);
        assert!(decide(policy(RestartMode::UnlessStopped, 0), ok).is_some());
        assert_eq!(decide(policy(RestartMode::Always, 0), Ended { stopped_by_user: true, ..ENDED }), None);
    }
}
