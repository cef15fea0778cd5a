//! `events`: what a container uses, again and again, and when its processes are killed for lack of memory.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::cgroup::Placement;
use crate::state::Store;
use crate::{Error, Result};

fn stats_event(id: &str, cgroup: &Placement) -> Value {
    json!({"type": "stats", "id": id, "data": cgroup.stats()})
}

/// One reading.
///
/// # Errors
/// [`Error::NotRunning`].
pub fn stats(store: &Store, id: &str) -> Result<Value> {
    let container = store.load(id)?;
    container.init()?;
    Ok(stats_event(id, &container.record.cgroup))
}

/// Hands events to `each` until the container ends or `each` says that nobody listens (`false`): `stats` every `interval`,
/// `oom` when it happens.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::Argument`] for an interval of 0.
pub fn follow(store: &Store, id: &str, interval: Duration, each: &mut dyn FnMut(Value) -> bool) -> Result<()> {
    if interval.is_zero() {
        return Err(Error::Argument("duration interval must be greater than 0".into()));
    }
    let container = store.load(id)?;
    let cgroup = &container.record.cgroup;
    let gone = |_| Error::NotRunning { id: id.to_owned(), status: "stopped" };
    let pidfd = container.init()?.open().map_err(gone)?;
    let mut oom = cgroup.watch_oom()?;
    let mut next = Instant::now() + interval;
    loop {
        let ended = {
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
            let fd = oom.as_ref().map(|o| o.fd());
            fds.extend(fd.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let left = next.saturating_duration_since(Instant::now());
            let limit = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut fds, Some(&limit)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::step("poll", e)),
            }
            fds.first().is_some_and(|fd| !fd.revents().is_empty())
        };
        for _ in 0..oom.as_mut().map_or(0, |o| o.news()) {
            if !each(json!({"type": "oom", "id": id})) {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            next += interval;
            if !each(stats_event(id, cgroup)) {
                return Ok(());
            }
        }
    }
}

/// A duration as Go writes it: `5s`, `100ms`, `1m30s`, `1.5h`.
///
/// # Errors
/// [`Error::Argument`].
pub fn duration(text: &str) -> Result<Duration> {
    let bad = || Error::Argument(format!("invalid duration {text:?}"));
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| bad())?;
    Duration::try_from(parsed).ok().filter(|d| !d.is_zero()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(duration("100ms").unwrap(), Duration::from_millis(100));
        assert_eq!(duration("1m30s").unwrap(), Duration::from_secs(90));
        for wrong in ["", "5", "s", "-1s", "0s", "1x"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
