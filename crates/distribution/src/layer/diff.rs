//! What a snapshot changed against its parents, as a list or as an archive.
//!
//! Two ways to find out. Of an overlay's upper directory everything counts, deletions are there as whiteouts and
//! opaque directories ([`upper`]). A copied tree is compared with its parents ([`compare`]). Both feed the same sink,
//! in the order of names, so that the same change gives the same archive.
use super::Marks;
use super::archive::Archive;
use super::entry::{Entry, Kind};
use super::merged::{Found, Part, View};
use super::root::{is_dir, is_whiteout};
use super::tree::{MAX_DEPTH, entry, failed, join, names, open_dir, open_file, stat};
use crate::{Error, Result};
use rustix::fs::Stat;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::fd::OwnedFd;

mod between;
mod compare;
mod sink;
mod upper;

pub(crate) use between::between;
pub(crate) use compare::compare;
pub(crate) use sink::{ChangeList, TarSink};
pub(crate) use upper::upper;

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Its content or metadata; for a directory also what is in it.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Absolute inside the filesystem.
    pub path: String,
    /// How.
    pub kind: ChangeKind,
}

/// What preparation wrote into a snapshot, to be told from what its user wrote: path to stamp.
pub(crate) type Prepared = BTreeMap<Vec<u8>, Stamp>;

/// Enough of a file's state to see that somebody touched it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Stamp {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub time: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Self {
        // Overlay itself touches the change time of an upper directory when it first looks at it.
        let (seconds, nanos) = match is_dir(stat) {
            true => (stat.st_mtime, stat.st_mtime_nsec),
            false => (stat.st_ctime, stat.st_ctime_nsec),
        };
        let time = (seconds, i64::try_from(nanos).unwrap_or(0));
        Self { mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid, time }
    }

    /// The same owner and mode: all that counts for the root, whose times change with everything in it.
    fn same_access(&self, other: &Self) -> bool {
        (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
    }
}

/// Where changes go. Directories come before what is in them.
pub(crate) trait Sink {
    /// Something is there now. `dir` and `name` lead to it; the path is its place inside the filesystem.
    fn present(&mut self, place: &Place<'_>) -> Result<()>;
    /// Something of the parents is gone.
    fn deleted(&mut self, path: &[u8]) -> Result<()>;
}

/// One path of the tree that is read.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub dir: &'a OwnedFd,
    pub name: &'a [u8],
    pub path: &'a [u8],
    pub stat: &'a Stat,
}

/// Passes changes on, but a directory only when it counts itself or something in it does.
struct Gate<'a> {
    sink: &'a mut dyn Sink,
    waiting: Vec<(OwnedFd, Vec<u8>, Vec<u8>, Stat)>,
    /// Something was passed on.
    open: bool,
}

impl<'a> Gate<'a> {
    fn new(sink: &'a mut dyn Sink) -> Self {
        Self { sink, waiting: Vec::new(), open: false }
    }

    fn present(&mut self, place: &Place<'_>) -> Result<()> {
        self.flush()?;
        self.sink.present(place)
    }

    fn deleted(&mut self, path: &[u8]) -> Result<()> {
        self.flush()?;
        self.sink.deleted(path)
    }

    fn flush(&mut self) -> Result<()> {
        self.open = true;
        for (dir, name, path, stat) in std::mem::take(&mut self.waiting) {
            self.sink.present(&Place { dir: &dir, name: &name, path: &path, stat: &stat })?;
        }
        Ok(())
    }

    /// Enters a directory that counts only with its content.
    fn enter(&mut self, place: &Place<'_>) -> Result<()> {
        let dir = place.dir.try_clone().map_err(failed("open the parent of", place.path))?;
        self.waiting.push((dir, place.name.to_vec(), place.path.to_vec(), *place.stat));
        Ok(())
    }

    /// Leaves it. Still waiting: nothing inside counted.
    fn leave(&mut self, path: &[u8]) {
        if self.waiting.last().is_some_and(|(_, _, waiting, _)| waiting == path) {
            self.waiting.pop();
        }
    }
}

fn too_deep(path: &[u8]) -> Error {
    let mut entry = String::from_utf8_lossy(path).into_owned();
    entry.truncate(entry.floor_char_boundary(100));
    let problem = format!("lies deeper than {MAX_DEPTH} directories");
    Error::TarEntry { entry, problem }
}
