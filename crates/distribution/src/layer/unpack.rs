//! Writes the entries of one archive into a directory.
use super::Marks;
use super::entry::{Entries, Entry, Kind, Source};
use super::record::Unresolved;
use super::root::{Root, clean, fits, is_dir, is_whiteout, look, proc_path, split};
use super::tree::carried;
use crate::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

mod file;
mod privilege;
mod whiteout;

use privilege::Left;
pub(crate) use privilege::Privilege;

/// Entries of one archive; more is an attack.
const MAX_ENTRIES: u64 = 20_000_000;
/// Bytes of names and attributes that have to be remembered until the end; more is an attack.
const MAX_REMEMBERED: u64 = 64 << 20;
/// What remembering one name costs beside its bytes, about.
const REMEMBERING: u64 = 64;
/// Disk usage is counted in these.
const DISK_BLOCK: u64 = 4096;
const SPECIAL_BITS: u32 = 0o7000;

/// What an archive turned out to hold.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub entries: u64,
    pub size_bytes: u64,
    pub root_entry: bool,
    pub whiteouts: bool,
    pub unresolved: Unresolved,
}

/// Reads the archive to its end and writes its entries below `path`, which exists and is empty.
pub(crate) fn unpack<S: Source>(entries: &mut Entries<S>, path: &Path, marks: Marks) -> Result<Unpacked> {
    let root = Root::open(path).map_err(Error::io("open", path))?;
    let mut unpacker = Unpacker {
        root,
        umask: umask(),
        marks,
        privilege: Privilege::of_process(),
        left: Left::default(),
        late: BTreeMap::new(),
        implicit: BTreeSet::new(),
        remembered: 0,
        done: Unpacked { size_bytes: DISK_BLOCK, ..Unpacked::default() },
    };
    while let Some(entry) = entries.next()? {
        unpacker.done.entries += 1;
        if unpacker.done.entries > MAX_ENTRIES {
            return Err(refuse(&entry, format!("is one too many: more than {MAX_ENTRIES} entries")));
        }
        unpacker.add(&entry, entries)?;
    }
    unpacker.finish()
}

struct Unpacker {
    root: Root,
    /// What the process takes away from the modes of new files.
    umask: u32,
    marks: Marks,
    privilege: Privilege,
    left: Left,
    /// What directories get at the end, when nothing is written into them any more.
    late: BTreeMap<Vec<u8>, Late>,
    /// Directories that were made because something lies in them.
    implicit: BTreeSet<Vec<u8>>,
    /// Bytes in these and in what is left to the parents.
    remembered: u64,
    done: Unpacked,
}

struct Late {
    mode: Option<u32>,
    mtime: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Unpacker {
    fn add<S: Source>(&mut self, entry: &Entry, data: &mut Entries<S>) -> Result<()> {
        let path = clean(&entry.path).map_err(|problem| escapes(entry, problem))?;
        if !fits(&path) {
            return Err(refuse(entry, "has a name of more than 4095 bytes, or of more than 255 in one part"));
        }
        let (parent, name) = split(&path);
        if name.is_empty() && entry.kind != Kind::Directory {
            return Err(refuse(entry, "has no name"));
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(entry, parent, hidden);
        }
        if name.is_empty() {
            self.done.root_entry = true;
            let root = self.root.dir(b"").map_err(failed("open the root", entry))?;
            return self.settle_dir(entry, root.as_fd(), path, true);
        }
        let dir = self.parent(entry, parent)?;
        match entry.kind {
            Kind::Directory => self.directory(entry, &dir, path)?,
            Kind::File => self.file(entry, &dir, name, data)?,
            Kind::HardLink => self.hard_link(entry, &dir, &path)?,
            Kind::Symlink => self.symlink(entry, &dir, name)?,
            Kind::Fifo | Kind::Char { .. } | Kind::Block { .. } => self.node(entry, &dir, name)?,
        }
        Ok(())
    }

    /// The open directory that an entry goes into; made, when the archive has no entry for it.
    fn parent(&mut self, entry: &Entry, path: &[u8]) -> Result<Rc<OwnedFd>> {
        match self.root.dir(path) {
            Ok(dir) => Ok(dir),
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(entry, path),
            Err(Errno::LOOP) => Err(escapes(entry, "lies behind a loop of symbolic links")),
            Err(e) => Err(failed("open the parent directory", entry)(e)),
        }
    }

    fn make_parents(&mut self, entry: &Entry, path: &[u8]) -> Result<Rc<OwnedFd>> {
        let mut dir = self.root.dir(b"").map_err(failed("open the root", entry))?;
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
        for end in ends.chain([path.len()]) {
            let prefix = &path[..end];
            dir = match self.root.dir(prefix) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parent(entry, &dir, prefix)?,
                Err(e) => return Err(failed("open the parent directory", entry)(e)),
            };
        }
        Ok(dir)
    }

    fn make_parent(&mut self, entry: &Entry, dir: &OwnedFd, path: &[u8]) -> Result<Rc<OwnedFd>> {
        let (_, name) = split(path);
        let shown = String::from_utf8_lossy(path);
        let mut hides = false;
        if let Some(there) = look(dir, name).map_err(failed("look at the parent directory", entry))? {
            if FileType::from_raw_mode(there.st_mode) == FileType::Symlink {
                let problem =
                    format!("goes through the symbolic link {shown:?}, which leads to no directory of the layer");
                return Err(escapes(entry, problem));
            }
            if !is_whiteout(&there) {
                return Err(refuse(entry, format!("lies below {shown:?}, which is not a directory")));
            }
            rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(failed("replace a whiteout", entry))?;
            hides = true;
        }
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))
            .map_err(failed("create the parent directory", entry))?;
        self.done.size_bytes += DISK_BLOCK;
        let made = self.root.dir(path).map_err(failed("open the parent directory", entry))?;
        if 0o755 & self.umask != 0 {
            chmod(dir, name, 0o755).map_err(failed("set the mode of the parent directory", entry))?;
        }
        if hides {
            self.marks.set_opaque(&made).map_err(failed("mark the parent directory opaque", entry))?;
        }
        self.remember(entry, path.len())?;
        self.implicit.insert(path.to_vec());
        Ok(made)
    }

    fn directory(&mut self, entry: &Entry, dir: &OwnedFd, path: Vec<u8>) -> Result<()> {
        let (_, name) = split(&path);
        let open = if self.privilege.needs_open_directories() { 0o700 } else { 0 };
        let mode = Mode::from_raw_mode(entry.mode & 0o777 | open);
        let mut existed = false;
        match rustix::fs::mkdirat(dir, name, mode) {
            Ok(()) => self.done.size_bytes += DISK_BLOCK,
            Err(Errno::EXIST) => {
                let there = look(dir, name).map_err(failed("look at", entry))?;
                existed = there.as_ref().is_some_and(is_dir);
                if !existed {
                    self.displace(entry, dir, name)?;
                    rustix::fs::mkdirat(dir, name, mode).map_err(failed("create the directory", entry))?;
                }
                if there.as_ref().is_some_and(is_whiteout) {
                    let made = self.root.dir(&path).map_err(failed("open", entry))?;
                    self.marks.set_opaque(&made).map_err(failed("mark opaque", entry))?;
                }
            }
            Err(e) => return Err(failed("create the directory", entry)(e)),
        }
        let name = name.to_vec();
        if existed || (entry.uid, entry.gid) != (0, 0) {
            self.chown(dir, &name, entry)?;
        }
        named_xattrs(dir, &name, entry, |key| !is_late(key))?;
        let exact = !existed && entry.mode & open == open && entry.mode & (self.umask | SPECIAL_BITS) == 0;
        self.settle(entry, path, !exact)
    }

    /// The root directory, which exists: owner now, the rest at the end.
    fn settle_dir(&mut self, entry: &Entry, dir: impl AsFd, path: Vec<u8>, existed: bool) -> Result<()> {
        let (owner, group) = owner(entry);
        let done = rustix::fs::chownat(&dir, "", owner, group, AtFlags::EMPTY_PATH);
        self.owned(done).map_err(failed("set the owner of", entry))?;
        named_xattrs(dir, b"", entry, |key| !is_late(key))?;
        self.settle(entry, path, existed)
    }

    fn settle(&mut self, entry: &Entry, path: Vec<u8>, mode: bool) -> Result<()> {
        let xattrs: Vec<_> = entry.xattrs.iter().filter(|(key, _)| is_late(key)).cloned().collect();
        self.remember(entry, path.len() + xattrs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>())?;
        self.implicit.remove(&path);
        self.late.insert(path, Late { mode: mode.then_some(entry.mode), mtime: entry.mtime, xattrs });
        Ok(())
    }

    /// Counts what is kept in memory until the end.
    fn remember(&mut self, entry: &Entry, bytes: usize) -> Result<()> {
        self.remembered += REMEMBERING + bytes as u64;
        if self.remembered <= MAX_REMEMBERED {
            return Ok(());
        }
        Err(refuse(entry, "is one too many: the names of the layer's directories do not fit into 64 MiB"))
    }

    /// Takes away what lies at a name, so that a later entry can have it.
    fn displace(&mut self, entry: &Entry, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        self.root.forget();
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => std::fs::remove_dir_all(proc_path(dir, name)).map_err(failed("replace", entry)),
            Err(e) => Err(failed("replace", entry)(e)),
        }
    }

    /// Runs a call that makes a name, once more after taking away what was there.
    fn make(
        &mut self,
        step: &'static str,
        entry: &Entry,
        dir: &OwnedFd,
        name: &[u8],
        call: impl Fn() -> rustix::io::Result<()>,
    ) -> Result<()> {
        match call() {
            Err(Errno::EXIST) => {
                self.displace(entry, dir, name)?;
                call().map_err(failed(step, entry))
            }
            other => other.map_err(failed(step, entry)),
        }
    }

    fn symlink(&mut self, entry: &Entry, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(refuse(entry, "is a symbolic link without a target"));
        }
        self.make("create the symbolic link", entry, dir, name, || rustix::fs::symlinkat(&*entry.link, dir, name))?;
        if (entry.uid, entry.gid) != (0, 0) {
            self.chown(dir, name, entry)?;
        }
        named_xattrs(dir, name, entry, |_| true)?;
        set_times(dir, name, entry)
    }

    fn node(&mut self, entry: &Entry, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        let (kind, major, minor) = match entry.kind {
            Kind::Char { major, minor } => (FileType::CharacterDevice, major, minor),
            Kind::Block { major, minor } => (FileType::BlockDevice, major, minor),
            _ => (FileType::Fifo, 0, 0),
        };
        if kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
            return Err(refuse(entry, "is the character device 0:0, which overlay takes for a deletion"));
        }
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let device = rustix::fs::makedev(major, minor);
        let refused = std::cell::Cell::new(false);
        let lenient = self.privilege != Privilege::Machine;
        self.make("create the device", entry, dir, name, || {
            match rustix::fs::mknodat(dir, name, kind, mode, device) {
                Err(Errno::PERM) if lenient => {
                    refused.set(true);
                    Ok(())
                }
                other => other,
            }
        })?;
        if refused.get() {
            self.left.devices += 1;
            return Ok(());
        }
        if (entry.uid, entry.gid) != (0, 0) {
            self.chown(dir, name, entry)?;
        }
        if entry.mode & (self.umask | SPECIAL_BITS) != 0 {
            chmod(dir, name, entry.mode).map_err(failed("set the mode of", entry))?;
        }
        named_xattrs(dir, name, entry, |_| true)?;
        set_times(dir, name, entry)
    }

    fn hard_link(&mut self, entry: &Entry, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        let target = clean(&entry.link).map_err(|problem| {
            escapes(entry, format!("is a hard link to {:?}, which {problem}", String::from_utf8_lossy(&entry.link)))
        })?;
        if target.is_empty() || target == path {
            return Err(refuse(entry, "is a hard link to itself or to the root"));
        }
        let (target_parent, target_name) = split(&target);
        let (_, name) = split(path);
        let found = match self.root.dir(target_parent) {
            Ok(from) => self.link(entry, &from, target_name, dir, name)?,
            Err(Errno::NOENT | Errno::NOTDIR) => false,
            Err(Errno::LOOP) => return Err(escapes(entry, "is a hard link through a loop of symbolic links")),
            Err(e) => return Err(failed("open the directory of the hard link's target", entry)(e)),
        };
        if !found {
            self.remember(entry, path.len() + target.len())?;
            self.done.unresolved.links.push((path.into(), (&*target).into()));
        }
        Ok(())
    }

    /// False when there is no target in this layer.
    fn link(&mut self, entry: &Entry, from: &OwnedFd, target: &[u8], dir: &OwnedFd, name: &[u8]) -> Result<bool> {
        let step = "create the hard link";
        let call = || rustix::fs::linkat(from, target, dir, name, AtFlags::empty());
        let result = match call() {
            Err(Errno::EXIST) => {
                if look(from, target).map_err(failed(step, entry))?.is_none() {
                    return Ok(false);
                }
                self.displace(entry, dir, name)?;
                call()
            }
            other => other,
        };
        match result {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::PERM) => Err(refuse(entry, "is a hard link to a directory")),
            Err(e) => Err(failed(step, entry)(e)),
        }
    }

    /// Gives directories what had to wait. Those that were replaced by something else are no directories any more.
    fn finish(mut self) -> Result<Unpacked> {
        // Backwards, so that what is below comes first.
        for (path, late) in self.late.iter().rev() {
            let shown = || String::from_utf8_lossy(path).into_owned();
            let fail = |step| move |e: Errno| Error::Unpack { step, entry: shown(), source: e.into() };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let dir = match self.root.resolve(if path.is_empty() { b"." } else { path }, flags) {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(e) => return Err(fail("open the directory")(e)),
            };
            if let Some(mode) = late.mode {
                rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode)).map_err(fail("set the mode of the directory"))?;
            }
            for (name, value) in &late.xattrs {
                tolerate(name, rustix::fs::fsetxattr(&dir, &**name, value, XattrFlags::empty()))
                    .map_err(fail("set an attribute of the directory"))?;
            }
            rustix::fs::futimens(&dir, &times(late.mtime)).map_err(fail("set the times of the directory"))?;
        }
        self.left.tell();
        self.done.unresolved.directories = self.implicit.iter().map(|p| (&**p).into()).collect();
        Ok(self.done)
    }
}

/// For entries that would write outside.
fn escapes(entry: &Entry, problem: impl Into<String>) -> Error {
    Error::TarEscapes { entry: entry.name(), problem: problem.into() }
}

/// For entries that make no sense.
fn refuse(entry: &Entry, problem: impl Into<String>) -> Error {
    Error::TarEntry { entry: entry.name(), problem: problem.into() }
}

/// For calls that fail.
fn failed<E: Into<std::io::Error>>(step: &'static str, entry: &Entry) -> impl FnOnce(E) -> Error {
    let entry = entry.name();
    move |e| Error::Unpack { step, entry, source: e.into() }
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn set_times(dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
    rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the times of", entry))
}

/// Sets a mode, following no link: whatever the name has become, nothing outside is touched.
fn chmod(dir: &OwnedFd, name: &[u8], mode: u32) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))
}

/// Attributes of what cannot be opened for writing, those that are asked for.
fn named_xattrs(dir: impl AsFd, name: &[u8], entry: &Entry, which: impl Fn(&[u8]) -> bool) -> Result<()> {
    let chosen = entry.xattrs.iter().filter(|(key, _)| carried(key) && which(key));
    for (key, value) in chosen {
        let set = rustix::fs::lsetxattr(proc_path(&dir, name), &**key, value, XattrFlags::empty());
        tolerate(key, set).map_err(|e| attribute_failed(entry, key, e))?;
    }
    Ok(())
}

/// ACLs of a directory wait: the default one would be inherited by what is created in it.
fn is_late(name: &[u8]) -> bool {
    carried(name) && name.starts_with(b"system.")
}

/// "No space" and its kin are about the attribute here, not about the disk.
fn attribute_failed(entry: &Entry, key: &[u8], error: Errno) -> Error {
    match error {
        Errno::NOSPC | Errno::TOOBIG | Errno::RANGE | Errno::INVAL => {
            let key = String::from_utf8_lossy(key);
            refuse(entry, format!("has the attribute {key:?}, which this file system cannot hold ({error})"))
        }
        other => failed("set an attribute of", entry)(other),
    }
}

/// A file system without attributes, or one that has no such attribute here, is no reason to refuse an image.
fn tolerate(name: &[u8], result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(error @ (Errno::OPNOTSUPP | Errno::PERM)) => {
            tracing::warn!(name = %String::from_utf8_lossy(name), %error, "an attribute of the layer is left out");
            Ok(())
        }
        other => other,
    }
}

/// This process's file mode creation mask, without changing it.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:"));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o777)
}
