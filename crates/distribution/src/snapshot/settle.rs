//! What archives say only in terms of their parents, settled for one chain of layers.
//!
//! Layers are unpacked without looking at their parents. Three things cannot be right that way, and are put right in
//! the snapshot's own part, where they hide what is wrong below:
//! - a directory that an archive writes into without an entry for it has the owner and mode of the parent's;
//! - where the parent has a symbolic link at that place, what was written goes to where the link leads;
//! - a hard link to a file of a parent is a copy of it.
//!
//! Image builders write entries for every directory, so this rarely has anything to do.
use super::copy::{attributes, clear, copy_one, make_dir, merge};
use crate::layer::tree::{attribute_pairs, failed, join, open_dir, stat};
use crate::layer::{Part, Prepared, Row, Stamp, View, is_dir, split};
use crate::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Symbolic links on the way to one place; the kernel's limit, too.
const MAX_LINKS: usize = 40;

/// Writes into `root` what the chain needs: `layers` lowest first, `parts` and their `view` topmost first. Gives the
/// paths it wrote.
pub(super) fn settle(layers: &[Row], parts: &[Part], view: &View, root: &OwnedFd) -> Result<Prepared> {
    // Which parts have a directory only because something lies in it.
    let mut implicit: BTreeMap<&[u8], BTreeSet<usize>> = BTreeMap::new();
    let visible = || layers.iter().rev().take(parts.len()).enumerate();
    for (index, layer) in visible() {
        for path in &layer.unresolved.directories {
            implicit.entry(path.as_ref()).or_default().insert(index);
        }
    }
    let mut work = Settle { view, parts, root, written: BTreeSet::new() };
    for (path, whose) in &implicit {
        work.directory(path, whose)?;
    }
    for (index, layer) in visible() {
        for (path, target) in &layer.unresolved.links {
            work.link(index, path.as_ref(), target.as_ref())?;
        }
    }
    work.stamps()
}

struct Settle<'a> {
    view: &'a View,
    parts: &'a [Part],
    root: &'a OwnedFd,
    written: BTreeSet<Vec<u8>>,
}

impl Settle<'_> {
    fn directory(&mut self, path: &[u8], implicit: &BTreeSet<usize>) -> Result<()> {
        let Some(found) = self.view.walk(path)? else { return Ok(()) };
        let own = found.view.parts();
        let Some(top) = own.first() else { return Ok(()) };
        if !implicit.contains(&top.index) {
            return Ok(());
        }
        match own.iter().find(|shown| !implicit.contains(&shown.index)) {
            Some(explicit) if !same_attributes(&top.dir, &explicit.dir, path)? => {
                let dir = self.make_dirs(path)?;
                let wanted = fstat(&explicit.dir, path)?;
                attributes(&explicit.dir, b"", &dir, b"", &wanted, path)
            }
            Some(_) => Ok(()),
            None => self.behind_link(path, own.last().map_or(0, |shown| shown.index), &found.view),
        }
    }

    /// Below the lowest part that has the directory, there may be a link at its place.
    fn behind_link(&mut self, path: &[u8], lowest: usize, content: &View) -> Result<()> {
        let below = View::open(&self.parts[lowest + 1..])?;
        let Some(link) = below.walk(path)?.filter(|found| is_link(&found.stat)) else { return Ok(()) };
        let Some(target) = resolve(&below, path)? else { return Ok(()) };
        let to = self.make_dirs(&target)?;
        merge(content, &to)?;
        self.remember(&target, content)?;
        let (parent, name) = split(path);
        let dir = self.make_dirs(parent)?;
        clear(&dir, name, path)?;
        copy_one(&link.dir, name, &link.stat, &dir, name, path)?;
        self.written.insert(path.to_vec());
        Ok(())
    }

    fn remember(&mut self, path: &[u8], content: &View) -> Result<()> {
        for (name, found) in content.list(path)? {
            let inner = join(path, &name);
            self.remember(&inner, &found.view)?;
            self.written.insert(inner);
        }
        Ok(())
    }

    fn link(&mut self, index: usize, path: &[u8], target: &[u8]) -> Result<()> {
        let above = View::open(&self.parts[..index])?;
        if above.walk(path)?.is_some() {
            return Ok(());
        }
        let from = View::open(&self.parts[index..])?;
        let shown = || String::from_utf8_lossy(path).into_owned();
        let missing = || {
            let problem = format!("is a hard link to {:?}, which no layer has", String::from_utf8_lossy(target));
            Error::TarEntry { entry: shown(), problem }
        };
        let found = from.walk(target)?.filter(|found| !is_dir(&found.stat)).ok_or_else(missing)?;
        let (parent, name) = split(path);
        let dir = self.make_dirs(parent)?;
        copy_one(&found.dir, split(target).1, &found.stat, &dir, name, path)?;
        self.written.insert(path.to_vec());
        Ok(())
    }

    /// The directory at that path in the snapshot's own part, made like the view's where it is not there.
    fn make_dirs(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let mut dir = self.root.try_clone().map_err(failed("open", path))?;
        let mut prefix = Vec::new();
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            prefix = join(&prefix, name);
            let there = stat(&dir, name).map_err(failed("look at", &prefix))?.is_some_and(|s| is_dir(&s));
            if !there {
                make_dir(&dir, name, &prefix)?;
            }
            let inner = open_dir(&dir, name).map_err(failed("open", &prefix))?;
            if !there && let Some(like) = self.view.walk_dir(&prefix)?.top() {
                attributes(like, b"", &inner, b"", &fstat(like, &prefix)?, &prefix)?;
            }
            self.written.insert(prefix.clone());
            dir = inner;
        }
        Ok(dir)
    }

    /// Taken at the end, when nothing is written into these directories any more.
    fn stamps(self) -> Result<Prepared> {
        let own = View::single(self.root.try_clone().map_err(failed("open", b""))?);
        let mut all = Prepared::new();
        for path in self.written {
            if let Some(found) = own.walk(&path)? {
                all.insert(path, Stamp::of(&found.stat));
            }
        }
        Ok(all)
    }
}

/// The root directory looks like that of the topmost layer that says what it is like.
pub(super) fn root_attributes(layers: &[Row], below: &[Part], root: &OwnedFd) -> Result<()> {
    for (layer, part) in layers.iter().rev().zip(below) {
        if layer.root_entry {
            let from = open(&part.fs)?;
            let stat = rustix::fs::fstat(&from).map_err(Error::io("inspect", &part.fs))?;
            return attributes(&from, b"", root, b"", &stat, b"");
        }
    }
    Ok(())
}

pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
}

fn fstat(dir: &OwnedFd, path: &[u8]) -> Result<Stat> {
    rustix::fs::fstat(dir).map_err(failed("inspect", path))
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

fn same_attributes(a: &OwnedFd, b: &OwnedFd, path: &[u8]) -> Result<bool> {
    let (left, right) = (fstat(a, path)?, fstat(b, path)?);
    let plain = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_mtime, s.st_mtime_nsec);
    let pairs = |dir| attribute_pairs(dir, b"").map_err(failed("read the attributes of", path));
    Ok(plain(&left) == plain(&right) && pairs(a)? == pairs(b)?)
}

/// Where a path leads inside the view, links followed; `None` when that is no directory.
fn resolve(view: &View, path: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut rest: Vec<Vec<u8>> = path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        match &*name {
            b"" | b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => done.push(name),
        }
        let here = done.join(&b'/');
        let Some(found) = view.walk(&here)? else { return Ok(None) };
        if is_link(&found.stat) {
            links += 1;
            let name = done.pop().unwrap_or_default();
            let target = rustix::fs::readlinkat(&*found.dir, &*name, Vec::new()).map_err(failed("read", &here))?;
            let target = target.into_bytes();
            if target.starts_with(b"/") {
                done.clear();
            }
            rest.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        } else if !is_dir(&found.stat) {
            return Ok(None);
        }
        if links > MAX_LINKS {
            return Ok(None);
        }
    }
    Ok(Some(done.join(&b'/')))
}
