//! A directory as a root: paths and symbolic links are resolved within it, whatever they say ([`sys::inside`]).

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, mkdirat, statat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::attributes::Attributes;
use crate::error::Error;

/// Owner, permissions and time of what is newly made; [`Attributes`] of directories that are made on the way.
pub type NewDirectory = Attributes;

/// An open root directory.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the directory `path` of this host.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::sys("open", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Its path on this host, for errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `path` within the root is called on this host, for errors.
    pub fn name_of(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// Opens `path`; symbolic links are followed inside of the root, the last one too unless `flags` has NOFOLLOW.
    pub fn resolve(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        sys::inside::open(&self.fd, path.as_bytes(), flags)
    }

    /// What is at `path`, nothing when it does not exist.
    pub fn stat(&self, path: &str, follow: bool) -> Result<Option<Stat>, Error> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        match self.resolve(path, flags) {
            Ok(fd) => rustix::fs::fstat(&fd).map(Some).map_err(Error::sys("stat", self.name_of(path))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(Error::sys("open", self.name_of(path))(error)),
        }
    }

    /// A small text file, empty when it does not exist or is no regular file.
    pub fn read_text(&self, path: &str) -> Result<String, Error> {
        const LIMIT: u64 = 8 << 20;
        let fd = match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => return Ok(String::new()),
            Err(error) => return Err(Error::sys("open", self.name_of(path))(error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(Error::sys("stat", self.name_of(path)))?;
        if !is(&stat, FileType::RegularFile) {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        File::from(fd).take(LIMIT).read_to_end(&mut bytes).map_err(Error::io("read", self.name_of(path)))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Opens the directory `path` for reading and makes what is missing of it, as `new` says.
    pub fn make_directory(&self, path: &str, new: &NewDirectory) -> Result<OwnedFd, Error> {
        match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::sys("open the directory", self.name_of(path))(error)),
        }
        let (parent, name) = split(path);
        let parent = self.make_directory(parent, new)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::sys("create the directory", self.name_of(path))(error)),
        }
        let made = open_child(parent.as_fd(), OsStr::new(name), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(Error::sys("open the directory", self.name_of(path)))?;
        new.apply(made.as_fd()).map_err(Error::sys("set the attributes of", self.name_of(path)))?;
        Ok(made)
    }
}

/// Opens a child of a directory itself, never what a symbolic link names.
pub fn open_child(parent: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// What a child of a directory is; nothing when it does not exist.
pub fn stat_child(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file is of a type.
pub fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Parent and last name of a clean path.
pub fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
        None => ("/", path),
    }
}
