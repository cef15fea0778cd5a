//! A blob as a stream of bytes. A broken connection is opened again at the byte where it broke, at another mirror if need be, so
//! whoever reads the stream sees one blob. A large blob that comes slowly is fetched over several connections at once. The reader
//! checks the digest.

mod part;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use oci::Descriptor;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

use super::Registry;
use super::error::Result;
use part::{Part, Wanted};

/// Bytes of content as they come.
pub type ByteStream = BoxStream<'static, crate::error::Result<Bytes>>;

/// Bytes that a further connection fetches, and keeps in memory until they are read.
const AHEAD: u64 = 4 << 20;
/// Further connections for one blob.
const AHEAD_MAX: usize = 3;
/// Further connections of this process: times [`AHEAD`], what they take of memory.
static HELPERS: Semaphore = Semaphore::const_new(3);
/// A blob with less than this to come stays on one connection.
const WORTH: u64 = 16 << 20;
/// Bytes per second from which one connection is enough.
const FAST: u64 = 32 << 20;
/// The first bytes of a connection say nothing of its speed.
const WARM_UP: u64 = 1 << 20;

/// Streams a blob from `offset` to its end. Exactly `descriptor.size - offset` bytes come, or an error.
#[must_use]
pub fn blob(registry: Registry, repository: String, descriptor: Descriptor, offset: u64) -> ByteStream {
    let end = descriptor.size;
    let wanted = Arc::new(Wanted { registry, repository, descriptor });
    let front = Part::new(wanted.clone(), offset, end);
    let download = Download { wanted, front, ahead: VecDeque::new(), ready: None, came: 0, waited: Duration::ZERO };
    futures::stream::try_unfold(download, |mut download| async move {
        Ok::<_, crate::error::Error>(download.next().await?.map(|chunk| (chunk, download)))
    })
    .boxed()
}

/// The front is streamed; what lies behind it may be fetched ahead, in order.
struct Download {
    wanted: Arc<Wanted>,
    front: Part,
    ahead: VecDeque<Ahead>,
    ready: Option<Ready>,
    /// Bytes of the front, and how long we waited for them: the reader's own slowness does not count.
    came: u64,
    waited: Duration,
}

/// A part that another task fetches.
struct Ahead {
    start: u64,
    end: u64,
    task: JoinHandle<Result<VecDeque<Bytes>>>,
    permit: Option<SemaphorePermit<'static>>,
}

/// A part that was fetched ahead; the permit goes back when it has been read.
struct Ready {
    chunks: VecDeque<Bytes>,
    _permit: Option<SemaphorePermit<'static>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(chunk) = self.ready.as_mut().and_then(|ready| ready.chunks.pop_front()) {
                return Ok(Some(chunk));
            }
            self.ready = None;
            self.reach_ahead();
            let before = Instant::now();
            if let Some(chunk) = self.front.next().await? {
                self.waited += before.elapsed();
                self.came += chunk.len() as u64;
                return Ok(Some(chunk));
            }
            match self.ahead.pop_front() {
                Some(ahead) => self.take(ahead).await,
                None if self.front.end == self.size() => return Ok(None),
                None => self.front = Part::new(self.wanted.clone(), self.front.end, self.size()),
            }
        }
    }

    fn size(&self) -> u64 {
        self.wanted.descriptor.size
    }

    /// Starts further connections when the one in front is slow and the registry serves ranges.
    fn reach_ahead(&mut self) {
        let mut end = self.ahead.back().map_or(self.front.end, |ahead| ahead.end);
        if self.ahead.is_empty() && end == self.size() {
            if !self.is_slow() {
                return;
            }
            end = self.front.position + AHEAD;
        }
        while self.ahead.len() < AHEAD_MAX && end < self.size() {
            let Ok(permit) = HELPERS.try_acquire() else { return };
            self.front.end = self.front.end.min(end);
            let part = Part::new(self.wanted.clone(), end, (end + AHEAD).min(self.size()));
            end = part.end;
            self.ahead.push_back(Ahead {
                start: part.position,
                end,
                task: tokio::spawn(part.collect()),
                permit: Some(permit),
            });
        }
    }

    fn is_slow(&self) -> bool {
        let left = self.size() - self.front.position;
        let speed = self.came as f64 / self.waited.as_secs_f64().max(0.001);
        self.front.ranges && left >= WORTH && self.came >= WARM_UP && speed < FAST as f64
    }

    /// What was fetched ahead is next; what failed there is tried again in front, with all patience.
    async fn take(&mut self, mut ahead: Ahead) {
        let fetched = (&mut ahead.task).await;
        self.front = match fetched {
            Ok(Ok(chunks)) => {
                self.ready = Some(Ready { chunks, _permit: ahead.permit.take() });
                Part::new(self.wanted.clone(), ahead.end, ahead.end)
            }
            _ => Part::new(self.wanted.clone(), ahead.start, ahead.end),
        };
    }
}
