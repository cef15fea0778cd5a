//! What a long operation tells while it runs. Updates of bytes are thinned out; changes of status always go through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Least time between two updates of one line that differ in bytes only.
const INTERVAL: Duration = Duration::from_millis(100);

/// One update.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// What the line is about: twelve digits of a digest.
    pub id: String,
    /// "downloading", "uploading", "extracting", "exists", "mounted", "done".
    pub status: &'static str,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all; 0: unknown.
    pub total: u64,
    /// Free text for people.
    pub message: String,
}

/// Where updates go. Cheap to clone; called from any thread; must not block.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(Update) + Send + Sync>);

impl Reporter {
    /// Sends updates to a function.
    pub fn new(to: impl Fn(Update) + Send + Sync + 'static) -> Self {
        Self(Arc::new(to))
    }

    /// Throws updates away.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// A line of text that belongs to no blob.
    pub fn say(&self, id: &str, status: &'static str, message: impl Into<String>) {
        (self.0)(Update { id: id.into(), status, message: message.into(), ..Default::default() });
    }

    /// A line for a piece of content.
    #[must_use]
    pub fn track(&self, id: &str, total: u64) -> Track {
        let state = TrackState { done: AtomicU64::new(0), shown_at_ms: AtomicU64::new(0), start: Instant::now() };
        Track { reporter: self.clone(), id: id.into(), total, state: Arc::new(state) }
    }
}

/// The line of one piece of content.
#[derive(Clone)]
pub struct Track {
    reporter: Reporter,
    id: String,
    total: u64,
    state: Arc<TrackState>,
}

struct TrackState {
    done: AtomicU64,
    shown_at_ms: AtomicU64,
    start: Instant,
}

impl Track {
    /// Sets how much is done, for example when a download resumes.
    pub fn set(&self, done: u64) {
        self.state.done.store(done, Ordering::Relaxed);
    }

    /// Counts bytes in.
    pub fn add(&self, status: &'static str, bytes: u64) {
        let done = self.state.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let now = u64::try_from(self.state.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shown = self.state.shown_at_ms.load(Ordering::Relaxed);
        let due = shown == 0 || now.saturating_sub(shown) >= u64::try_from(INTERVAL.as_millis()).unwrap_or(100);
        if due
            && self.state.shown_at_ms.compare_exchange(shown, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.send(status, done);
        }
    }

    /// Ends the line.
    pub fn finish(&self, status: &'static str) {
        self.send(status, self.total);
    }

    /// Changes the status.
    pub fn status(&self, status: &'static str) {
        self.send(status, self.state.done.load(Ordering::Relaxed));
    }

    fn send(&self, status: &'static str, current: u64) {
        let update = Update { id: self.id.clone(), status, current, total: self.total, message: String::new() };
        (self.reporter.0)(update);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn bytes_are_thinned_out_and_the_end_always_comes() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = seen.clone();
        let track = Reporter::new(move |update| to.lock().unwrap().push(update)).track("abc", 1000);
        for _ in 0..1000 {
            track.add("downloading", 1);
        }
        track.finish("done");
        let seen = seen.lock().unwrap();
        assert!(seen.len() < 100, "{}", seen.len());
        assert_eq!((seen.last().unwrap().status, seen.last().unwrap().current), ("done", 1000));
    }
}
