//! Changes as a comparison of a whole tree with its parents tells them.
use super::{
    Entry, Found, Gate, MAX_DEPTH, Part, Place, Prepared, Result, Sink, Stamp, View, entry, failed, is_dir, join,
    names, open_dir, stat, too_deep,
};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Compares the tree `fs` with `parents` (topmost first). True when something differs. A file counts as the same when
/// its metadata, its size and its time of change to the nanosecond are the same.
pub(crate) fn compare(fs: &Path, parents: &[Part], prepared: &Prepared, sink: &mut dyn Sink) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(fs, flags, Mode::empty()).map_err(crate::Error::io("open", fs))?;
    let there = rustix::fs::fstat(&root).map_err(crate::Error::io("inspect", fs))?;
    let mut gate = Gate::new(sink);
    if prepared.get(&b""[..]).is_some_and(|before| !before.same_access(&Stamp::of(&there))) {
        gate.present(&Place { dir: &root, name: b"", path: b"", stat: &there })?;
    }
    let mut walk = Compare { gate, prepared };
    walk.dir(&root, &View::open(parents)?, b"", 0)?;
    Ok(walk.gate.open)
}

struct Compare<'a> {
    gate: Gate<'a>,
    prepared: &'a Prepared,
}

impl Compare<'_> {
    fn dir(&mut self, here: &OwnedFd, parents: &View, path: &[u8], depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(too_deep(path));
        }
        let own = names(here).map_err(failed("list", path))?;
        let mut theirs: BTreeMap<Vec<u8>, Found> = parents.list(path)?;
        for name in theirs.keys().filter(|name| own.binary_search(name).is_err()) {
            self.gate.deleted(&join(path, name))?;
        }
        for name in own {
            let inner = join(path, &name);
            let Some(there) = stat(here, &name).map_err(failed("look at", &inner))? else { continue };
            let place = Place { dir: here, name: &name, path: &inner, stat: &there };
            let before = theirs.remove(&name);
            let prepared = self.prepared.get(&inner).is_some_and(|before| *before == Stamp::of(&there));
            let same = match &before {
                _ if prepared => true,
                Some(found) => same(&place, found, &name)?,
                None => false,
            };
            if is_dir(&there) {
                if same {
                    self.gate.enter(&place)?
                } else {
                    self.gate.present(&place)?
                }
                let below = open_dir(here, &name).map_err(failed("open the directory", &inner))?;
                self.dir(&below, &before.map(|found| found.view).unwrap_or_default(), &inner, depth + 1)?;
                self.gate.leave(&inner);
            } else if !same {
                self.gate.present(&place)?;
            }
        }
        Ok(())
    }
}

fn same(place: &Place<'_>, before: &Found, name: &[u8]) -> Result<bool> {
    let describe = |dir: &OwnedFd, stat: &Stat| -> Result<Option<Entry>> { entry(dir, name, place.path, stat) };
    if !quick(place.stat, &before.stat) {
        return Ok(false);
    }
    Ok(describe(place.dir, place.stat)? == describe(&before.dir, &before.stat)?)
}

/// What can be told without reading attributes.
fn quick(now: &Stat, before: &Stat) -> bool {
    let is_file = FileType::from_raw_mode(now.st_mode) == FileType::RegularFile;
    (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
        && (now.st_mtime, now.st_mtime_nsec) == (before.st_mtime, before.st_mtime_nsec)
        && (!is_file || now.st_size == before.st_size)
}
