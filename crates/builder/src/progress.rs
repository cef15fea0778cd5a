//! What a build tells while it runs.

use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Started,
    /// It ran.
    Done,
    /// Its result was known.
    Cached,
    /// It did not succeed.
    Failed,
    /// Another step failed, or the build was given up.
    Canceled,
}

/// A step's change of state.
#[derive(Debug, Clone)]
pub struct VertexUpdate {
    /// Digest of the vertex.
    pub digest: String,
    /// For people.
    pub name: String,
    /// Digests of its inputs.
    pub inputs: Vec<String>,
    /// Where it stands.
    pub status: Status,
    /// Why it failed.
    pub error: String,
    /// Nanoseconds since the epoch, 0 when not started.
    pub started: i64,
    /// Nanoseconds since the epoch, 0 when not completed.
    pub completed: i64,
}

/// One message.
#[derive(Debug, Clone)]
pub enum Event {
    /// A step's change of state.
    Vertex(VertexUpdate),
    /// Output of a step.
    Log {
        /// Digest of the vertex.
        digest: String,
        /// 1 stdout, 2 stderr.
        stream: u32,
        /// Bytes as they came.
        data: Vec<u8>,
    },
    /// Pulls, pushes and archives.
    Transfer(api::types::v1::Progress),
}

/// Takes events; a sink that nobody reads swallows them.
#[derive(Debug, Clone)]
pub struct Sink(Option<mpsc::UnboundedSender<Event>>);

impl Sink {
    /// A sink and where its events come out.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Some(sender)), receiver)
    }

    /// A sink without a reader.
    pub fn none() -> Self {
        Self(None)
    }

    /// Tells an event.
    pub fn send(&self, event: Event) {
        if let Some(sender) = &self.0 {
            // The reader went away: the build goes on or is cancelled elsewhere.
            drop(sender.send(event));
        }
    }

    /// Tells output of a step.
    pub fn log(&self, digest: &str, stream: u32, data: &[u8]) {
        self.send(Event::Log { digest: digest.to_owned(), stream, data: data.to_vec() });
    }
}

/// Nanoseconds since the epoch.
pub fn now_nanos() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
