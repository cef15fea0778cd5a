//! Where files are copied from: a root, what of it is ignored, and which paths a pattern names.

use rustix::fs::{Dir, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use super::ignore::Ignore;
use super::pattern::{self, Pattern};
use super::root::{self, Root};
use crate::error::Error;

/// A tree to copy from.
#[derive(Debug)]
pub struct Source {
    /// The tree.
    pub root: Root,
    /// Paths of the tree that do not exist for us.
    pub ignore: Ignore,
    /// Files belong to root whatever the tree says: build contexts.
    pub own_by_root: bool,
    /// For errors: "the build context".
    pub place: String,
}

/// A path that a source pattern named, open.
#[derive(Debug)]
pub struct Match {
    /// Clean and without a leading slash; empty: the root itself.
    pub path: String,
    /// Its last name, links resolved or not.
    pub name: OsString,
    /// What it is, links followed.
    pub stat: Stat,
    /// `O_PATH`.
    pub fd: OwnedFd,
}

/// A child of a directory.
#[derive(Debug)]
pub struct Child {
    /// Its name.
    pub name: OsString,
    /// Path below the source's root.
    pub path: String,
    /// What it is, links not followed.
    pub stat: Stat,
}

/// How source paths are read.
#[derive(Debug, Clone, Copy)]
pub struct Select {
    /// `*`, `?` and `[` are special.
    pub wildcards: bool,
    /// A pattern that names nothing is no mistake.
    pub allow_empty: bool,
    /// A symbolic link stands for what it points to.
    pub follow: bool,
}

impl Source {
    /// The paths that `text` names, in the order of their names.
    pub fn select(&self, text: &str, how: Select) -> Result<Vec<Match>, Error> {
        let text = text.trim_matches('/');
        let missing = || Error::Missing { path: format!("/{text}"), place: self.place.clone() };
        let mut found = Vec::new();
        if how.wildcards && pattern::has_wildcard(text) {
            for path in self.expand(text)? {
                found.extend(self.open(&path, how.follow)?);
            }
            if found.is_empty() && !how.allow_empty {
                return Err(missing());
            }
        } else {
            let path = if how.wildcards { unescape(text) } else { text.to_owned() };
            found.push(self.open(&path, how.follow)?.ok_or_else(missing)?);
        }
        Ok(found)
    }

    fn open(&self, path: &str, follow: bool) -> Result<Option<Match>, Error> {
        if !path.is_empty() && self.ignore.excludes(path) && !self.ignore.has_exceptions() {
            return Ok(None);
        }
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let fd = match self.root.resolve(path, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(Error::sys("open", self.root.name_of(path))(error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(Error::sys("stat", self.root.name_of(path)))?;
        if !path.is_empty() && self.ignore.excludes(path) {
            let below = root::is(&stat, FileType::Directory) && self.any_below(fd.as_fd(), path)?;
            if !below {
                return Ok(None);
            }
        }
        Ok(Some(Match { path: path.to_owned(), name: OsString::from(root::split(path).1), stat, fd }))
    }

    /// Fills in the wildcards, one component after the other.
    fn expand(&self, text: &str) -> Result<Vec<String>, Error> {
        let mut paths = vec![String::new()];
        for part in text.split('/') {
            let mut next = Vec::new();
            for path in &paths {
                if pattern::has_wildcard(part) {
                    next.extend(self.matching(path, part)?);
                } else {
                    next.push(join(path, &unescape(part)));
                }
            }
            paths = next;
        }
        paths.retain(|path| !self.ignore.excludes(path) || self.ignore.has_exceptions());
        Ok(paths)
    }

    fn matching(&self, path: &str, part: &str) -> Result<Vec<String>, Error> {
        let pattern = Pattern::new(part, false).map_err(|error| Error::Request(error.to_string()))?;
        let directory = match self.root.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(error) => return Err(Error::sys("open the directory", self.root.name_of(path))(error)),
        };
        let names = names(directory.as_fd()).map_err(Error::sys("read the directory", self.root.name_of(path)))?;
        let names = names.iter().filter_map(|name| name.to_str());
        Ok(names.filter(|name| pattern.matches(name)).map(|name| join(path, name)).collect())
    }

    /// The children of an open directory that are not ignored, by name.
    pub fn children(&self, directory: BorrowedFd<'_>, path: &str) -> Result<Vec<Child>, Error> {
        let mut children = Vec::new();
        let failed = |action| Error::sys(action, self.root.name_of(path));
        for name in names(directory).map_err(failed("read the directory"))? {
            let Some(stat) = root::stat_child(directory, &name).map_err(failed("read the directory"))? else {
                continue;
            };
            let child = join(path, &name.to_string_lossy());
            let child = Child { name, path: child, stat };
            if self.exists(directory, &child)? {
                children.push(child);
            }
        }
        Ok(children)
    }

    fn exists(&self, parent: BorrowedFd<'_>, child: &Child) -> Result<bool, Error> {
        if !self.ignore.excludes(&child.path) {
            return Ok(true);
        }
        if !root::is(&child.stat, FileType::Directory) || !self.ignore.has_exceptions() {
            return Ok(false);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = root::open_child(parent, &child.name, flags)
            .map_err(Error::sys("open the directory", self.root.name_of(&child.path)))?;
        self.any_below(directory.as_fd(), &child.path)
    }

    /// Whether an ignored directory has something that is not.
    fn any_below(&self, directory: BorrowedFd<'_>, path: &str) -> Result<bool, Error> {
        let directory = root::open_child(directory, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(Error::sys("open the directory", self.root.name_of(path)))?;
        Ok(!self.children(directory.as_fd(), path)?.is_empty())
    }
}

/// Names in a directory, sorted.
fn names(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' { out.extend(chars.next()) } else { out.push(c) }
    }
    out
}
