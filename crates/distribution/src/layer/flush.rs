//! Durability for many at once. One `syncfs` serves everybody who asked before it began; and one is begun whenever enough
//! was written, so that the disk works while layers are still being unpacked and little is left to wait for at their ends.
use crate::{Error, Result};
use rustix::io::Errno;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes after which writing to the disk begins without being asked for.
const EARLY: u64 = 48 << 20;

/// The flushing of one file system by this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Flush(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    /// Bytes written since the last round began, about.
    written: AtomicU64,
    state: Mutex<State>,
    ended: Condvar,
}

/// Rounds are numbered from 1; only one runs at a time.
#[derive(Default)]
struct State {
    /// One for all rounds: the kernel tells each open file of an error once.
    file: Option<Arc<File>>,
    running: bool,
    begun: u64,
    ended: u64,
    /// How often writing failed, and how the last time.
    failures: u64,
    failure: Option<Errno>,
}

/// The flushing as seen by one who writes: failures since this was made are his.
pub(crate) struct Written {
    shared: Arc<Shared>,
    failures: u64,
}

impl Flush {
    /// For the file system that `dir` is on.
    pub(crate) fn new(dir: &Path) -> Self {
        let (written, state, ended) = (AtomicU64::new(0), Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { dir: dir.to_owned(), written, state, ended }))
    }

    /// To be called before the first byte is written.
    pub(crate) fn begin(&self) -> Result<Written> {
        let mut state = self.0.lock();
        if state.file.is_none() {
            let file = File::open(&self.0.dir).map_err(Error::io("open", &self.0.dir))?;
            state.file = Some(Arc::new(file));
        }
        Ok(Written { shared: self.0.clone(), failures: state.failures })
    }
}

impl Written {
    /// So many bytes more; may begin a round in the background.
    pub(crate) fn add(&self, bytes: u64) {
        if self.shared.written.fetch_add(bytes, Ordering::Relaxed) + bytes < EARLY {
            return;
        }
        let mut state = self.shared.lock();
        let Some(file) = state.next(&self.shared.written) else { return };
        drop(state);
        let (shared, same) = (self.shared.clone(), file.clone());
        let begun = std::thread::Builder::new().name("flush".into()).spawn(move || shared.end(sync(&file)));
        // Without a thread it is done here: somebody may count on it already.
        if begun.is_err() {
            self.shared.end(sync(&same));
        }
    }

    /// Returns when everything that was written before is on the disk.
    pub(crate) fn sync(self) -> Result<()> {
        let shared = &self.shared;
        let mut state = shared.lock();
        let mine = state.begun + 1;
        while state.ended < mine {
            if let Some(file) = state.next(&shared.written) {
                drop(state);
                shared.end(sync(&file));
                state = shared.lock();
            } else {
                state = shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        match state.failure.filter(|_| state.failures != self.failures) {
            Some(errno) => Err(Error::io("sync the file system of", &shared.dir)(errno)),
            None => Ok(()),
        }
    }
}

impl State {
    /// Begins a round, unless one runs.
    fn next(&mut self, written: &AtomicU64) -> Option<Arc<File>> {
        if self.running {
            return None;
        }
        let file = self.file.clone()?;
        written.store(0, Ordering::Relaxed);
        self.running = true;
        self.begun += 1;
        Some(file)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, outcome: rustix::io::Result<()>) {
        let mut state = self.lock();
        state.running = false;
        state.ended = state.begun;
        if let Err(errno) = outcome {
            state.failures += 1;
            state.failure = Some(errno);
        }
        self.ended.notify_all();
    }
}

fn sync(file: &File) -> rustix::io::Result<()> {
    crate::store::retry(|| rustix::fs::syncfs(file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_waits_is_served_by_a_round_that_began_after() {
        let dir = tempfile::tempdir().unwrap();
        let flush = Flush::new(dir.path());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let flush = flush.clone();
                scope.spawn(move || {
                    for _ in 0..5 {
                        let written = flush.begin().unwrap();
                        written.add(EARLY / 2 + 1);
                        let before = flush.0.lock().begun;
                        written.sync().unwrap();
                        assert!(flush.0.lock().ended > before);
                    }
                });
            }
        });
        let state = flush.0.lock();
        assert!(state.begun <= 80 && state.failures == 0, "{} rounds", state.begun);
    }

    #[test]
    fn a_failure_is_told_to_all_who_were_writing_and_to_nobody_after() {
        let dir = tempfile::tempdir().unwrap();
        let flush = Flush::new(dir.path());
        let (one, two) = (flush.begin().unwrap(), flush.begin().unwrap());
        let _file = flush.0.lock().next(&flush.0.written).unwrap();
        flush.0.end(Err(Errno::IO));
        assert!(one.sync().is_err() && two.sync().is_err());
        flush.begin().unwrap().sync().unwrap();
    }
}
