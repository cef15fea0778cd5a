//! The identity of files by what they are: names, types, permissions, owners, extended attributes and content. Times
//! do not count, so a fresh checkout of the same files is the same.

use oci::digest::Hasher;
use rustix::fs::{FileType, OFlags, Stat};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use super::attributes;
use super::root;
use super::source::{Match, Source};
use crate::error::Error;

/// Hashes what `matches` name in `source`. Runs on a blocking thread.
pub fn digest(source: &Source, matches: &[Match]) -> Result<String, Error> {
    let mut walk = Walk { source, hasher: Hasher::sha256(), buffer: vec![0; 1 << 17] };
    for found in matches {
        walk.field(found.name.as_bytes());
        walk.entry(&found.path, "", &found.stat, || reopen(found.fd.as_fd(), &found.stat))?;
    }
    Ok(walk.hasher.finish().to_string())
}

/// From an `O_PATH` descriptor to one that can be read.
pub(super) fn reopen(fd: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    if root::is(stat, FileType::Directory) {
        return root::open_child(fd, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY);
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
}

struct Walk<'a> {
    source: &'a Source,
    hasher: Hasher,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn field(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// `below` is the path relative to what was selected: where the files lie in the context does not count.
    fn entry(
        &mut self,
        path: &str,
        below: &str,
        stat: &Stat,
        open: impl FnOnce() -> rustix::io::Result<OwnedFd>,
    ) -> Result<(), Error> {
        let failed = |action| Error::sys(action, self.source.root.name_of(path));
        self.field(below.as_bytes());
        self.head(stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let fd = open().map_err(failed("open"))?;
                self.extended(fd.as_fd(), path)?;
                self.content(File::from(fd), path)
            }
            FileType::Directory => {
                let fd = open().map_err(failed("open the directory"))?;
                self.extended(fd.as_fd(), path)?;
                self.directory(fd.as_fd(), path, below)
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.field(&stat.st_rdev.to_le_bytes());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn head(&mut self, stat: &Stat) {
        let (uid, gid) = if self.source.own_by_root { (0, 0) } else { (stat.st_uid, stat.st_gid) };
        self.field(format!("{:o} {uid} {gid}", stat.st_mode).as_bytes());
    }

    fn extended(&mut self, fd: BorrowedFd<'_>, path: &str) -> Result<(), Error> {
        let failed = Error::sys("read the attributes of", self.source.root.name_of(path));
        for (name, value) in attributes::read_extended(fd).map_err(failed)? {
            self.field(&name);
            self.field(&value);
        }
        Ok(())
    }

    fn directory(&mut self, fd: BorrowedFd<'_>, path: &str, below: &str) -> Result<(), Error> {
        for child in self.source.children(fd, path)? {
            let name = child.name.to_string_lossy();
            let below = if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") };
            if root::is(&child.stat, FileType::Symlink) {
                let target = attributes::link_target(fd, &child.name)
                    .map_err(Error::sys("read the link", self.source.root.name_of(&child.path)))?;
                self.field(&target);
            }
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            self.entry(&child.path, &below, &child.stat, || root::open_child(fd, &child.name, flags))?;
        }
        self.field(b"end of directory");
        Ok(())
    }

    fn content(&mut self, mut file: File, path: &str) -> Result<(), Error> {
        let mut size = 0_u64;
        loop {
            let count = file.read(&mut self.buffer).map_err(Error::io("read", self.source.root.name_of(path)))?;
            if count == 0 {
                break;
            }
            self.hasher.update(&self.buffer[..count]);
            size += count as u64;
        }
        self.hasher.update(&size.to_le_bytes());
        Ok(())
    }
}
