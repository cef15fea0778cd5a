//! Copies files into a root filesystem as COPY and ADD do.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use tokio_util::sync::CancellationToken;

use super::attributes::{self, Attributes};
use super::digest::reopen;
use super::ignore::Ignore;
use super::root::{self, Root};
use super::source::{Match, Source};
use super::unpack;
use crate::error::Error;

/// How files arrive.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// Instead of the owner of the source.
    pub owner: Option<(u32, u32)>,
    /// Instead of the permissions of the source.
    pub mode: Option<u32>,
    /// Paths, relative to what is copied, that are left out.
    pub exclude: Ignore,
    /// A directory stands for its contents.
    pub contents: bool,
    /// Tar archives are taken apart.
    pub unpack: bool,
    /// Time of everything, seconds since the epoch, instead of that of the source.
    pub timestamp: Option<i64>,
}

/// Copies `matches` to `destination` in `target`. Runs on a blocking thread; looks at `cancel` between files.
pub fn copy(
    source: &Source,
    matches: &[Match],
    target: &Root,
    destination: &str,
    options: &CopyOptions,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let into_directory = destination.ends_with('/')
        || target.stat(destination, true)?.is_some_and(|stat| root::is(&stat, FileType::Directory));
    if matches.len() > 1 && !into_directory {
        let problem = format!("{} paths cannot be copied to {destination}, which is no directory", matches.len());
        return Err(Error::Request(problem));
    }
    let mut copier = Copier { source, target, options, cancel, links: HashMap::new() };
    for found in matches {
        copier.one(found, destination, into_directory)?;
    }
    Ok(())
}

/// An empty file or one with `data`.
pub fn make_file(target: &Root, path: &str, data: &[u8], attributes: &Attributes) -> Result<(), Error> {
    let (parent, name) = root::split(path);
    let directory = target.make_directory(parent, &Attributes { mode: 0o755, ..attributes.clone() })?;
    let fd = create(directory.as_fd(), OsStr::new(name)).map_err(Error::sys("create", target.name_of(path)))?;
    let mut file = File::from(fd);
    std::io::Write::write_all(&mut file, data).map_err(Error::io("write", target.name_of(path)))?;
    attributes.apply(file.as_fd()).map_err(Error::sys("set the attributes of", target.name_of(path)))
}

/// Makes a regular file in the place of whatever but a directory is there.
pub(super) fn create(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    clear(parent, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
}

/// Removes what is there unless it is a directory.
pub(super) fn clear(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

struct Copier<'a> {
    source: &'a Source,
    target: &'a Root,
    options: &'a CopyOptions,
    cancel: &'a CancellationToken,
    /// First copies of files with several names: directory and name in the target.
    links: HashMap<(u64, u64), (OwnedFd, OsString)>,
}

impl Copier<'_> {
    fn one(&mut self, found: &Match, destination: &str, into_directory: bool) -> Result<(), Error> {
        let directory = root::is(&found.stat, FileType::Directory);
        if directory && self.options.contents {
            return self.contents(found, destination);
        }
        if self.options.unpack && root::is(&found.stat, FileType::RegularFile) && self.unpack(found, destination)? {
            return Ok(());
        }
        let name = found.name.to_string_lossy();
        let path =
            if into_directory { format!("{}/{name}", destination.trim_end_matches('/')) } else { destination.into() };
        let (parent, name) = root::split(&path);
        let parent = self.target.make_directory(parent, &self.way())?;
        let name = OsStr::new(name);
        if directory {
            let from = self.reopen(found)?;
            return self.directory(from.as_fd(), &found.path, "", &found.stat, parent.as_fd(), name);
        }
        let from = || reopen(found.fd.as_fd(), &found.stat);
        let symlink = root::is(&found.stat, FileType::Symlink);
        let link = || rustix::fs::readlinkat(&found.fd, "", Vec::new()).map(|target| target.to_bytes().to_vec());
        let link = if symlink { Some(link().map_err(self.failed("read the link", &found.path))?) } else { None };
        self.leaf(&found.path, &found.stat, from, link, parent.as_fd(), name)
    }

    fn reopen(&self, found: &Match) -> Result<OwnedFd, Error> {
        reopen(found.fd.as_fd(), &found.stat).map_err(self.failed("open", &found.path))
    }

    fn contents(&mut self, found: &Match, destination: &str) -> Result<(), Error> {
        let from = self.reopen(found)?;
        let fresh = self.target.stat(destination, true)?.is_none();
        let to = self.target.make_directory(destination, &self.way())?;
        self.children(from.as_fd(), &found.path, "", to.as_fd())?;
        if fresh {
            self.finish_directory(from.as_fd(), &found.path, &found.stat, to.as_fd())?;
        }
        Ok(())
    }

    fn unpack(&mut self, found: &Match, destination: &str) -> Result<bool, Error> {
        let file = File::from(self.reopen(found)?);
        let name = self.source.root.name_of(&found.path);
        unpack::unpack(file, &name, self.target, destination, self.options.owner, self.cancel)
    }

    fn children(&mut self, from: BorrowedFd<'_>, path: &str, below: &str, to: BorrowedFd<'_>) -> Result<(), Error> {
        for child in self.source.children(from, path)? {
            if self.cancel.is_cancelled() {
                return Err(Error::Canceled);
            }
            let name = child.name.to_string_lossy();
            let below = if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") };
            if self.options.exclude.excludes(&below) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let open = || root::open_child(from, &child.name, flags);
            if root::is(&child.stat, FileType::Directory) {
                let from = open().map_err(self.failed("open the directory", &child.path))?;
                self.directory(from.as_fd(), &child.path, &below, &child.stat, to, &child.name)?;
                continue;
            }
            let symlink = root::is(&child.stat, FileType::Symlink);
            let link = || attributes::link_target(from, &child.name).map_err(self.failed("read the link", &child.path));
            let link = if symlink { Some(link()?) } else { None };
            self.leaf(&child.path, &child.stat, open, link, to, &child.name)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        path: &str,
        below: &str,
        stat: &Stat,
        parent: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Error> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(self.failed("create the directory", path)(error)),
        }
        let to = root::open_child(parent, name, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => {
                Error::Request(format!("cannot copy the directory {path} over {}, which is none", name.display()))
            }
            error => self.failed("open the directory", path)(error),
        })?;
        self.children(from, path, below, to.as_fd())?;
        self.finish_directory(from, path, stat, to.as_fd())
    }

    /// Times last: making the children changed them.
    fn finish_directory(&self, from: BorrowedFd<'_>, path: &str, stat: &Stat, to: BorrowedFd<'_>) -> Result<(), Error> {
        self.extended(from, to, path)?;
        self.attributes(stat).apply(to).map_err(self.failed("set the attributes of", path))
    }

    fn leaf(
        &mut self,
        path: &str,
        stat: &Stat,
        open: impl FnOnce() -> rustix::io::Result<OwnedFd>,
        link: Option<Vec<u8>>,
        parent: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Error> {
        clear(parent, name).map_err(|error| match error {
            Errno::ISDIR => {
                Error::Request(format!("cannot copy the file {path} over the directory {}", name.display()))
            }
            error => self.failed("replace", path)(error),
        })?;
        let attributes = self.attributes(stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(path, stat, open, parent, name),
            FileType::Symlink => {
                let target = link.unwrap_or_default();
                rustix::fs::symlinkat(OsStr::from_bytes(&target), parent, name)
                    .map_err(self.failed("create the link", path))?;
                attributes.apply_at(parent, name).map_err(self.failed("set the attributes of", path))
            }
            // A socket without its server is nothing.
            FileType::Socket => Ok(()),
            kind => {
                let mode = Mode::from_raw_mode(attributes.mode);
                rustix::fs::mknodat(parent, name, kind, mode, stat.st_rdev).map_err(self.failed("create", path))?;
                attributes.apply_at(parent, name).map_err(self.failed("set the attributes of", path))
            }
        }
    }

    fn file(
        &mut self,
        path: &str,
        stat: &Stat,
        open: impl FnOnce() -> rustix::io::Result<OwnedFd>,
        parent: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Error> {
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some((directory, first)) = self.links.get(&identity)
            && rustix::fs::linkat(directory, first.as_os_str(), parent, name, AtFlags::empty()).is_ok()
        {
            return Ok(());
        }
        let from = open().map_err(self.failed("open", path))?;
        let to = create(parent, name).map_err(self.failed("create a copy of", path))?;
        let (mut from, mut to) = (File::from(from), File::from(to));
        std::io::copy(&mut from, &mut to).map_err(Error::io("copy", self.source.root.name_of(path)))?;
        self.attributes(stat).apply(to.as_fd()).map_err(self.failed("set the attributes of", path))?;
        self.extended(from.as_fd(), to.as_fd(), path)?;
        if stat.st_nlink > 1 {
            let directory = rustix::io::fcntl_dupfd_cloexec(parent, 3).map_err(self.failed("remember", path))?;
            self.links.insert(identity, (directory, name.to_owned()));
        }
        Ok(())
    }

    fn extended(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &str) -> Result<(), Error> {
        let found = attributes::read_extended(from).map_err(self.failed("read the attributes of", path))?;
        attributes::write_extended(to, &found).map_err(self.failed("set the attributes of", path))
    }

    fn attributes(&self, stat: &Stat) -> Attributes {
        let mut attributes = Attributes::of(stat);
        if self.source.own_by_root {
            (attributes.uid, attributes.gid) = (0, 0);
        }
        if let Some((uid, gid)) = self.options.owner {
            (attributes.uid, attributes.gid) = (uid, gid);
        }
        if let Some(mode) = self.options.mode {
            attributes.mode = mode;
        }
        if let Some(timestamp) = self.options.timestamp {
            attributes.modified = Some((timestamp, 0));
        }
        attributes
    }

    /// Directories on the way to the destination.
    fn way(&self) -> Attributes {
        let (uid, gid) = self.options.owner.unwrap_or((0, 0));
        Attributes { uid, gid, mode: 0o755, modified: self.options.timestamp.map(|timestamp| (timestamp, 0)) }
    }

    fn failed(&self, action: &'static str, path: &str) -> impl FnOnce(Errno) -> Error + use<> {
        Error::sys(action, self.source.root.name_of(path))
    }
}
