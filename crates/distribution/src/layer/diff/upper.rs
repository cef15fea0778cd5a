//! Changes as an overlay's upper directory tells them.
use super::{
    Gate, MAX_DEPTH, Marks, Part, Place, Prepared, Result, Sink, Stamp, View, failed, is_dir, is_whiteout, join, names,
    open_dir, stat, too_deep,
};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Walks the upper directory `fs` over `parents` (topmost first). True when something counts.
pub(crate) fn upper(
    fs: &Path,
    marks: Marks,
    parents: &[Part],
    prepared: &Prepared,
    sink: &mut dyn Sink,
) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(fs, flags, Mode::empty()).map_err(crate::Error::io("open", fs))?;
    let mut walk = Upper { parents: View::open(parents)?, marks, prepared, gate: Gate::new(sink) };
    let there = rustix::fs::fstat(&root).map_err(crate::Error::io("inspect", fs))?;
    if prepared.get(&b""[..]).is_some_and(|before| !before.same_access(&Stamp::of(&there))) {
        walk.gate.present(&Place { dir: &root, name: b"", path: b"", stat: &there })?;
    }
    walk.dir(&root, b"", false, 0)?;
    Ok(walk.gate.open)
}

struct Upper<'a> {
    parents: View,
    marks: Marks,
    prepared: &'a Prepared,
    gate: Gate<'a>,
}

impl Upper<'_> {
    /// `hides`: what the parents have here does not show through.
    fn dir(&mut self, dir: &OwnedFd, path: &[u8], hides: bool, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(too_deep(path));
        }
        let mut own = names(dir).map_err(failed("list", path))?;
        own.retain(|name| !self.marks.is_mark(name));
        if hides {
            // Each by itself, as the specification prefers; directories that both have are looked into.
            for (name, _) in self.parents.walk_dir(path)?.list(path)? {
                if own.binary_search(&name).is_err() {
                    self.gate.deleted(&join(path, &name))?;
                }
            }
        }
        for name in own {
            let inner = join(path, &name);
            let Some(there) = stat(dir, &name).map_err(failed("look at", &inner))? else { continue };
            let place = Place { dir, name: &name, path: &inner, stat: &there };
            if is_whiteout(&there) {
                if self.parents.walk(&inner)?.is_some() {
                    self.gate.deleted(&inner)?;
                }
            } else if is_dir(&there) {
                self.subdir(&place, hides, depth)?;
            } else if !self.untouched(&place) {
                self.gate.present(&place)?;
            }
        }
        Ok(())
    }

    fn subdir(&mut self, place: &Place<'_>, hides: bool, depth: usize) -> Result<()> {
        let inner = open_dir(place.dir, place.name).map_err(failed("open the directory", place.path))?;
        let hides = hides || self.marks.is_opaque(&inner);
        if self.untouched(place) {
            self.gate.enter(place)?;
        } else {
            self.gate.present(place)?;
        }
        self.dir(&inner, place.path, hides, depth + 1)?;
        self.gate.leave(place.path);
        Ok(())
    }

    fn untouched(&self, place: &Place<'_>) -> bool {
        self.prepared.get(place.path).is_some_and(|before| *before == Stamp::of(place.stat))
    }
}
