//! What happened to images: a journal on disk, so that a one-shot verb's events reach whoever follows the daemon's, and the
//! other way round.
//!
//! One JSON object a line in `events/journal.jsonl`; past four MiB it becomes `journal.1.jsonl`. Losing it loses nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use crate::Store;
use crate::error::{Error, Result};

/// Size at which the journal is turned over, in bytes.
const JOURNAL_MAX: u64 = 4 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since the epoch.
    pub time_unix_nano: i64,
    /// "image".
    #[serde(rename = "type")]
    pub kind: String,
    /// Docker's verbs: "pull", "push", "tag", "untag", "delete", "import", "load", "save", "prune".
    pub action: String,
    /// Image id.
    pub id: String,
    /// "name" and others.
    pub attributes: BTreeMap<String, String>,
}

/// Nanoseconds since the epoch.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Records an event of an image. A journal that cannot be written is a warning only.
pub fn record(store: &Store, action: &str, id: &str, name: &str) {
    let event = Event {
        time_unix_nano: now(),
        kind: "image".into(),
        action: action.into(),
        id: id.into(),
        attributes: BTreeMap::from([("name".to_owned(), name.to_owned())]),
    };
    if let Err(error) = Journal::open(store.root()).append(&event) {
        tracing::warn!(%error, "the event is not in the journal");
    }
}

/// The journal of a store.
#[derive(Debug, Clone)]
pub struct Journal {
    dir: PathBuf,
}

impl Journal {
    /// The journal below a store's root.
    #[must_use]
    pub fn open(root: &Path) -> Self {
        Self { dir: root.join("events") }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("journal.jsonl")
    }

    fn older(&self) -> PathBuf {
        self.dir.join("journal.1.jsonl")
    }

    /// Adds a line; lines of several processes do not mix.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&self, event: &Event) -> Result<()> {
        let path = self.path();
        std::fs::create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        let lock_path = self.dir.join("lock");
        let _lock = statedir::Lock::acquire(&lock_path).map_err(Error::state(&lock_path))?;
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > JOURNAL_MAX) {
            std::fs::rename(&path, self.older()).map_err(Error::io("turn over", &path))?;
        }
        let mut line = serde_json::to_vec(event).map_err(|e| Error::io("write", &path)(std::io::Error::from(e)))?;
        line.push(b'\n');
        let file = File::options().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(&line)).map_err(Error::io("write", &path))
    }

    /// Reads events from a time on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn follow(&self, since_unix_nano: i64) -> Result<Follow> {
        std::fs::create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        let failed = |e: rustix::io::Errno| Error::io("watch", &self.dir)(e);
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).map_err(failed)?;
        let kinds = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVE;
        inotify::add_watch(&watch, &self.dir, kinds).map_err(failed)?;
        Ok(Follow {
            journal: self.clone(),
            watch: AsyncWatch::Idle(watch),
            place: None,
            since_unix_nano,
            older_read: false,
        })
    }
}

enum AsyncWatch {
    Idle(OwnedFd),
    Polled(AsyncFd<OwnedFd>),
    Failed,
}

/// A reader of the journal that keeps its place.
pub struct Follow {
    journal: Journal,
    watch: AsyncWatch,
    place: Option<(File, u64)>,
    since_unix_nano: i64,
    older_read: bool,
}

impl Follow {
    /// All events that are there and were not read yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        if !self.older_read {
            self.older_read = true;
            if let Ok(file) = File::open(self.journal.older()) {
                self.lines(&mut (file, 0), &mut events)?;
            }
        }
        if let Some(mut place) = self.place.take() {
            self.lines(&mut place, &mut events)?;
            let same = std::fs::metadata(self.journal.path())
                .is_ok_and(|now| place.0.metadata().is_ok_and(|m| m.ino() == now.ino()));
            if same {
                self.place = Some(place);
                return Ok(events);
            }
        }
        if let Ok(file) = File::open(self.journal.path()) {
            let mut place = (file, 0);
            self.lines(&mut place, &mut events)?;
            self.place = Some(place);
        }
        Ok(events)
    }

    fn lines(&self, place: &mut (File, u64), events: &mut Vec<Event>) -> Result<()> {
        let failed = || Error::io("read", self.journal.path());
        place.0.seek(std::io::SeekFrom::Start(place.1)).map_err(failed())?;
        let mut reader = BufReader::new(&place.0);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed())?;
            // A line without its end is still being written, or was cut off by a crash.
            if read == 0 || line.last() != Some(&b'\n') {
                return Ok(());
            }
            place.1 += read as u64;
            match serde_json::from_slice::<Event>(&line) {
                Ok(event) if event.time_unix_nano >= self.since_unix_nano => events.push(event),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a damaged line of the journal is left out"),
            }
        }
    }

    /// Waits until the journal may have grown.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn changed(&mut self) -> Result<()> {
        let dir = self.journal.dir.clone();
        if let AsyncWatch::Idle(_) = &self.watch
            && let AsyncWatch::Idle(fd) = std::mem::replace(&mut self.watch, AsyncWatch::Failed)
        {
            // Deprecated for types that do not own what they name; an `OwnedFd` does.
            #[allow(deprecated)]
            let watch = AsyncFd::new(fd);
            self.watch = AsyncWatch::Polled(watch.map_err(Error::io("watch", &dir))?);
        }
        let AsyncWatch::Polled(watch) = &self.watch else {
            return Err(Error::io("watch", dir)(std::io::Error::other("not watched")));
        };
        let mut ready = watch.readable().await.map_err(Error::io("watch", &dir))?;
        let mut buffer = [0; 4096];
        while rustix::io::read(watch.get_ref(), &mut buffer).is_ok_and(|read| read > 0) {}
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(action: &str) -> Event {
        Event {
            time_unix_nano: now(),
            kind: "image".into(),
            action: action.into(),
            id: "sha256:1".into(),
            attributes: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn followers_see_what_was_and_what_comes() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path());
        journal.append(&event("pull")).unwrap();
        let mut follow = journal.follow(0).unwrap();
        assert_eq!(follow.read().unwrap().len(), 1);
        assert!(follow.read().unwrap().is_empty());
        journal.append(&event("tag")).unwrap();
        follow.changed().await.unwrap();
        assert_eq!(follow.read().unwrap()[0].action, "tag");
    }

    #[test]
    fn turning_over_loses_nothing_for_a_follower() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path());
        journal.append(&event("pull")).unwrap();
        let mut follow = journal.follow(0).unwrap();
        assert_eq!(follow.read().unwrap().len(), 1);
        journal.append(&event("push")).unwrap();
        std::fs::rename(journal.path(), journal.older()).unwrap();
        journal.append(&event("tag")).unwrap();
        let actions: Vec<String> = follow.read().unwrap().into_iter().map(|e| e.action).collect();
        assert_eq!(actions, ["push", "tag"]);
    }
}
