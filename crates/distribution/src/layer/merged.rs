//! Several layers seen as one tree, as overlay would show them, without mounting anything.
use super::Marks;
use super::root::{is_dir, is_whiteout};
use super::tree::{failed, names, open_dir, stat};
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags, Stat};
use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

/// One layer of the view.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Its directory.
    pub fs: PathBuf,
    /// Hides everything below it.
    pub opaque_root: bool,
    /// How its directories say that they hide those below.
    pub marks: Marks,
}

/// The directories that together are one directory of the view, topmost first, each with its part's index. Empty: no
/// such directory.
#[derive(Clone, Default)]
pub(crate) struct View(Vec<Shown>);

/// One of them.
#[derive(Clone)]
pub(crate) struct Shown {
    /// Of its part.
    pub index: usize,
    pub dir: Rc<OwnedFd>,
    marks: Marks,
}

/// What the view has at a name.
pub(crate) struct Found {
    /// Of the topmost.
    pub stat: Stat,
    /// The directory that has it.
    pub dir: Rc<OwnedFd>,
    /// For a directory, its view.
    pub view: View,
}

impl View {
    /// The root of the view of these layers, topmost first.
    pub(crate) fn open(parts: &[Part]) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut dirs = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let fd = rustix::fs::open(&part.fs, flags, Mode::empty()).map_err(Error::io("open", &part.fs))?;
            dirs.push(Shown { index, dir: Rc::new(fd), marks: part.marks });
            if part.opaque_root {
                break;
            }
        }
        Ok(Self(dirs))
    }

    /// The view of one directory.
    pub(crate) fn single(dir: OwnedFd) -> Self {
        Self(vec![Shown { index: 0, dir: Rc::new(dir), marks: Marks::Trusted }])
    }

    /// The topmost directory.
    pub(crate) fn top(&self) -> Option<&Rc<OwnedFd>> {
        self.0.first().map(|shown| &shown.dir)
    }

    /// Which parts have this directory, topmost first.
    pub(crate) fn parts(&self) -> &[Shown] {
        &self.0
    }

    /// What the view has at `name`; `path` is for messages.
    pub(crate) fn find(&self, name: &[u8], path: &[u8]) -> Result<Option<Found>> {
        let mut found: Option<Found> = None;
        for Shown { index, dir, marks } in &self.0 {
            if marks.is_mark(name) {
                continue;
            }
            let Some(there) = stat(dir, name).map_err(failed("look at", path))? else { continue };
            if !is_dir(&there) {
                if found.is_none() && !is_whiteout(&there) {
                    found = Some(Found { stat: there, dir: dir.clone(), view: Self::default() });
                }
                break;
            }
            let inner = Rc::new(open_dir(dir, name).map_err(failed("open the directory", path))?);
            let opaque = marks.is_opaque(&inner);
            found
                .get_or_insert_with(|| Found { stat: there, dir: dir.clone(), view: Self::default() })
                .view
                .0
                .push(Shown { index: *index, dir: inner, marks: *marks });
            if opaque {
                break;
            }
        }
        Ok(found)
    }

    /// What the view has at a path of plain names, not following links.
    pub(crate) fn walk(&self, path: &[u8]) -> Result<Option<Found>> {
        let mut view = self.clone();
        let mut parts = path.split(|b| *b == b'/').peekable();
        while let Some(name) = parts.next() {
            match view.find(name, path)? {
                Some(found) if parts.peek().is_none() => return Ok(Some(found)),
                Some(found) => view = found.view,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The view of the directory at a path; empty when there is none.
    pub(crate) fn walk_dir(&self, path: &[u8]) -> Result<Self> {
        if path.is_empty() {
            return Ok(self.clone());
        }
        Ok(self.walk(path)?.map(|found| found.view).unwrap_or_default())
    }

    /// Everything the view has in this directory, sorted by name. `path` is for messages.
    pub(crate) fn list(&self, path: &[u8]) -> Result<BTreeMap<Vec<u8>, Found>> {
        let mut all = BTreeMap::new();
        let mut seen = HashSet::new();
        for Shown { dir, .. } in &self.0 {
            for name in names(dir).map_err(failed("list", path))? {
                if seen.insert(name.clone())
                    && let Some(found) = self.find(&name, &super::tree::join(path, &name))?
                {
                    all.insert(name, found);
                }
            }
        }
        Ok(all)
    }
}
