//! The plain-copy snapshotter: the whole tree of the layers, copied; shared blocks where the file system can.
use super::driver::{Chain, Driver};
use super::overlay::bind;
use crate::layer::tree::{MAX_DEPTH, attribute_pairs, failed, join, open_dir, open_file};
use crate::layer::{Found, Marks, Part, Prepared, View, is_dir};
use crate::{Error, Result, Store};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use sys::mount::Mount;

/// Works everywhere.
pub(super) struct Copy;

impl Driver for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn probe(&self, _: &Store) -> std::result::Result<(), String> {
        Ok(())
    }

    fn marks(&self, _: &Store) -> Option<Marks> {
        None
    }

    fn fill(&self, chain: &Chain<'_>, to: &Path) -> Result<Prepared> {
        let fs = to.join("fs");
        std::fs::create_dir(&fs).map_err(Error::io("create", &fs))?;
        crate::store::chmod(&fs, 0o755)?;
        materialise(&View::open(chain.parts)?, &fs)?;
        chain.settle(&fs)
    }

    fn mount(&self, _: &Store, _: &[Part], dir: &Path, read_only: bool) -> Result<Mount> {
        Ok(bind(&dir.join("fs"), read_only))
    }
}

/// Copies everything that the view shows into the directory `to`.
pub(crate) fn materialise(view: &View, to: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(to, flags, Mode::empty()).map_err(Error::io("open", to))?;
    merge(view, &root)
}

/// [`materialise`] into a directory that may have something already: directories are joined, the rest is replaced.
pub(crate) fn merge(view: &View, to: &OwnedFd) -> Result<()> {
    let root = to.try_clone().map_err(failed("open", b""))?;
    Copier { linked: HashMap::new(), root }.dir(view, to, b"", 0)
}

/// One copy going on.
struct Copier {
    /// Files with several names: device and inode to the first path.
    linked: HashMap<(u64, u64), Vec<u8>>,
    root: OwnedFd,
}

impl Copier {
    fn dir(&mut self, view: &View, to: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::TarEntry { entry: String::new(), problem: "lies too deep".into() });
        }
        for (name, found) in view.list(path)? {
            let inner = join(path, &name);
            if !is_dir(&found.stat) {
                self.linkable(&found, &name, to, &inner)?;
                continue;
            }
            make_dir(to, &name, &inner)?;
            let below = open_dir(to, &name).map_err(failed("open", &inner))?;
            self.dir(&found.view, &below, &inner, depth + 1)?;
            attributes(&found.dir, &name, to, &name, &found.stat, &inner)?;
        }
        Ok(())
    }

    fn linkable(&mut self, found: &Found, name: &[u8], to: &OwnedFd, path: &[u8]) -> Result<()> {
        if found.stat.st_nlink > 1 {
            let key = (found.stat.st_dev, found.stat.st_ino);
            if let Some(first) = self.linked.get(&key) {
                clear(to, name, path)?;
                return rustix::fs::linkat(&self.root, &**first, to, name, AtFlags::empty())
                    .map_err(failed("link", path));
            }
            self.linked.insert(key, path.to_vec());
        }
        copy_one(&found.dir, name, &found.stat, to, name, path)
    }
}

/// Copies what is no directory, with everything that belongs to it.
pub(crate) fn copy_one(
    from: &OwnedFd,
    from_name: &[u8],
    stat: &Stat,
    to: &OwnedFd,
    to_name: &[u8],
    path: &[u8],
) -> Result<()> {
    clear(to, to_name, path)?;
    let made = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let source = open_file(from, from_name).map_err(failed("open", path))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made =
                rustix::fs::openat(to, to_name, flags, Mode::from_raw_mode(0o600)).map_err(failed("create", path))?;
            return copy_data(&source, &made.into(), path)
                .and_then(|()| attributes(from, from_name, to, to_name, stat, path));
        }
        FileType::Symlink => rustix::fs::readlinkat(from, from_name, Vec::new())
            .and_then(|target| rustix::fs::symlinkat(target, to, to_name)),
        kind => rustix::fs::mknodat(to, to_name, kind, Mode::from_raw_mode(0o600), stat.st_rdev),
    };
    made.map_err(failed("create", path))?;
    attributes(from, from_name, to, to_name, stat, path)
}

/// Makes a directory unless there is one.
pub(crate) fn make_dir(to: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
    match rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) if crate::layer::tree::stat(to, name).ok().flatten().is_some_and(|s| is_dir(&s)) => Ok(()),
        Err(Errno::EXIST) => {
            clear(to, name, path)?;
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)).map_err(failed("create", path))
        }
        other => other.map_err(failed("create", path)),
    }
}

/// Takes away what is at a name.
pub(crate) fn clear(to: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
    match rustix::fs::unlinkat(to, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            std::fs::remove_dir_all(crate::layer::proc_path(to, name)).map_err(failed("replace", path))
        }
        Err(e) => Err(failed("replace", path)(e)),
    }
}

fn copy_data(mut source: &File, mut to: &File, path: &[u8]) -> Result<()> {
    match rustix::fs::ioctl_ficlone(to, source) {
        Ok(()) => Ok(()),
        // copy_file_range underneath, and plain reads where that does not go.
        Err(_) => std::io::copy(&mut source, &mut to).map(drop).map_err(failed("copy", path)),
    }
}

/// Owner, mode, extended attributes, times: in this order.
pub(crate) fn attributes(
    from: &OwnedFd,
    from_name: &[u8],
    to: &OwnedFd,
    to_name: &[u8],
    stat: &Stat,
    path: &[u8],
) -> Result<()> {
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let flags = if to_name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
    let (owner, group) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(to, to_name, owner, group, flags).map_err(failed("set the owner of", path))?;
    let place = crate::layer::proc_path(to.as_fd(), to_name);
    if !is_link {
        rustix::fs::chmod(&place, Mode::from_raw_mode(stat.st_mode & 0o7777))
            .map_err(failed("set the mode of", path))?;
    }
    for (key, value) in attribute_pairs(from, from_name).map_err(failed("read the attributes of", path))? {
        match rustix::fs::lsetxattr(&place, &*key, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(failed("set an attribute of", path)(e)),
        }
    }
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, &place, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the times of", path))
}
