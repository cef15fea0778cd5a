//! The journal of events: appended by whoever does something (shims too), followed by inotify.

use std::collections::BTreeMap;
use std::path::Path;

use oci::shim::{JOURNAL_LIMITS, JournalEntry};
use statedir::segments::{Follower, Limits, append_shared};
use sys::fd::ChangeWatch;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::Supervisor;
use crate::definition::Definition;
use crate::error::Error;

const BUFFER: usize = 64 << 10;

/// Waits for changes of directories without a thread of its own.
pub(crate) struct Changes {
    fd: AsyncFd<ChangeWatch>,
}

impl Changes {
    pub(crate) fn of(paths: &[&Path]) -> Result<Self, Error> {
        let watch = ChangeWatch::new().map_err(Error::system("inotify"))?;
        for path in paths {
            watch.add(path).map_err(Error::file("watch", *path))?;
        }
        Ok(Self { fd: crate::watch_fd(watch, "inotify")? })
    }

    /// Returns after something has changed since the last call.
    pub(crate) async fn next(&self) -> Result<(), Error> {
        loop {
            let mut guard = self.fd.readable().await.map_err(Error::system("inotify"))?;
            let seen = guard.get_inner().drain().map_err(Error::system("inotify"))?;
            guard.clear_ready();
            if seen {
                return Ok(());
            }
        }
    }
}

impl Supervisor {
    pub(crate) fn journal(&self, definition: &Definition, action: &str, more: &[(&str, String)]) {
        let mut attributes: BTreeMap<String, String> = definition.attributes();
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let time = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let entry = JournalEntry { time, action: action.into(), id: definition.id.clone(), attributes };
        let (max_size, max_files) = JOURNAL_LIMITS;
        let written = serde_json::to_vec(&entry).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            append_shared(&self.store().journal(), 0o600, Limits { max_size, max_files }, &line)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the journal of events cannot be written");
        }
    }

    pub(crate) fn journal_of(&self, id: &str, action: &str, more: &[(&str, String)]) {
        if let Ok(definition) = self.store().definition(id) {
            self.journal(&definition, action, more);
        }
    }

    /// Events from `since` (nanoseconds, 0: from now on) to `until` (0: for ever), oldest first. Ends when the
    /// receiver is dropped.
    pub fn events(&self, since: i64, until: i64) -> Result<mpsc::Receiver<JournalEntry>, Error> {
        let journal = self.store().journal();
        let dir = self.store().root.join("events");
        let changes = Changes::of(&[&dir])?;
        let follower = if since > 0 { Follower::from_start(&journal) } else { Follower::from_end(&journal) };
        let follower = follower.map_err(Error::file("read", &journal))?;
        let (sender, receiver) = mpsc::channel(256);
        tokio::spawn(async move {
            let pump = pump(follower, since, until, &sender, &changes);
            let bound = async {
                match until_left(until) {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pump => {}
                // One more turn so that what stands in the journal at the bound is sent.
                () = bound => {}
                () = sender.closed() => {}
            }
        });
        Ok(receiver)
    }
}

fn until_left(until: i64) -> Option<std::time::Duration> {
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    // A bound in the past still gives the reader the time to read what there is.
    (until > 0).then(|| std::time::Duration::from_nanos(u64::try_from(until - now).unwrap_or(0)) + LAST_LOOK)
}

/// Time to read the journal once when the bound lies in the past.
const LAST_LOOK: std::time::Duration = std::time::Duration::from_millis(200);

async fn pump(mut follower: Follower, since: i64, until: i64, sender: &mpsc::Sender<JournalEntry>, changes: &Changes) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        while let Ok(count @ 1..) = follower.read(&mut buffer) {
            for line in lines.push(&buffer[..count]) {
                let Ok(entry) = serde_json::from_slice::<JournalEntry>(&line) else { continue };
                if entry.time < since || (until > 0 && entry.time > until) {
                    continue;
                }
                if sender.send(entry).await.is_err() {
                    return;
                }
            }
        }
        if changes.next().await.is_err() {
            return;
        }
    }
}

/// Cuts bytes into whole lines, newline included.
#[derive(Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                lines.push(std::mem::take(&mut self.partial));
            }
        }
        lines
    }
}
