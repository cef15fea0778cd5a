//! A tar as a tree. Names that are absolute or climb are refused; symlinks are never followed out of the root.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chownat, fchmod, linkat, mkdirat, mknodat,
    openat, statat, symlinkat, unlinkat, utimensat,
};
use tokio::sync::mpsc;

use super::{CopyToOptions, Root, kind_of};
use crate::Error;

/// Unpacks all of it below `options.path`.
pub(super) fn unpack(root: &Root, options: &CopyToOptions, pieces: mpsc::Receiver<Vec<u8>>) -> Result<(), Error> {
    // Looked at first, so that a missing directory is told before anything is read.
    root.open(&options.path, OFlags::PATH | OFlags::DIRECTORY)?;
    let mut archive = tar::Archive::new(Channel { pieces, piece: Vec::new(), at: 0 });
    let broken = |error: io::Error| Error::invalid("tar", error.to_string());
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let name = path.to_string_lossy().into_owned();
        let (parent, last) =
            split(&path).ok_or_else(|| Error::invalid(format!("tar entry {name:?}"), "it leaves the target"))?;
        let Some(last) = last else { continue };
        let parent = format!("{}/{parent}", options.path.trim_end_matches('/'));
        let dir = open_parent(root, &parent)?;
        place(root, options, &dir, &last, &mut entry).map_err(|source| root.error(&name, source))?;
    }
    Ok(())
}

/// (parent, last component); the tar's own root has no last one. `None`: it is absolute or climbs.
fn split(path: &Path) -> Option<(String, Option<String>)> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?.to_owned()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    let last = names.pop();
    Some((names.join("/"), last))
}

/// Parents that the tar leaves out are made.
fn open_parent(root: &Root, path: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match root.open(path, flags) {
        Err(Error::Path { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let (above, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
    let dir = open_parent(root, above)?;
    match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(root.error(path, errno.into())),
    }
    root.open(path, flags)
}

fn place<R: Read>(
    root: &Root,
    options: &CopyToOptions,
    dir: &OwnedFd,
    name: &str,
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<()> {
    let kind = entry.header().entry_type();
    let mode = Mode::from_raw_mode(entry.header().mode().unwrap_or(0o644) & 0o7777);
    let exists = make_room(options, dir, name, kind == tar::EntryType::Directory)?;
    match kind {
        tar::EntryType::Directory => {
            if !exists {
                mkdirat(dir, name, Mode::RWXU)?;
            }
            let made = openat(
                dir,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            own(root, options, dir, name, entry.header())?;
            fchmod(&made, mode)?;
        }
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?);
            io::copy(entry, &mut file)?;
            own(root, options, dir, name, entry.header())?;
            fchmod(&file, mode)?;
        }
        tar::EntryType::Symlink => {
            let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
            symlinkat(target.as_ref(), dir, name)?;
            own(root, options, dir, name, entry.header())?;
        }
        tar::EntryType::Link => {
            let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
            return hard_link(root, options, &target, dir, name);
        }
        tar::EntryType::Fifo | tar::EntryType::Char | tar::EntryType::Block => {
            make_node(dir, name, mode, entry.header())?;
            own(root, options, dir, name, entry.header())?;
        }
        // Global headers and vendor extensions are no files.
        _ => return Ok(()),
    }
    let time = Timespec { tv_sec: i64::try_from(entry.header().mtime().unwrap_or(0)).unwrap_or(0), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Removes what stands in the way; `true`: the directory is there already.
fn make_room(options: &CopyToOptions, dir: &OwnedFd, name: &str, directory: bool) -> io::Result<bool> {
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    let is_directory = kind_of(stat.st_mode) == FileType::Directory;
    match (directory, is_directory) {
        (true, true) => Ok(true),
        (false, false) => {
            unlinkat(dir, name, AtFlags::empty())?;
            Ok(false)
        }
        _ if options.no_overwrite_dir_non_dir => {
            let what = if directory { "a directory over a file" } else { "a file over a directory" };
            Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("will not put {what}")))
        }
        // Only an empty directory gives way: nobody asked for a tree to be deleted.
        (false, true) => {
            unlinkat(dir, name, AtFlags::REMOVEDIR)?;
            Ok(false)
        }
        (true, false) => {
            unlinkat(dir, name, AtFlags::empty())?;
            Ok(false)
        }
    }
}

fn own(root: &Root, options: &CopyToOptions, dir: &OwnedFd, name: &str, header: &tar::Header) -> io::Result<()> {
    let id = |value: io::Result<u64>| value.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    let (uid, gid) = if options.keep_owner { (id(header.uid()), id(header.gid())) } else { (0, 0) };
    let (uid, gid) = match &root.ids {
        Some(ids) => ids.seen(uid, gid).ok_or_else(|| {
            let why = format!("its owner {uid}:{gid} is none of the container's ids");
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?,
        None => (uid, gid),
    };
    Ok(chownat(dir, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The target's name is relative to the tar, as is the link's own.
fn hard_link(root: &Root, options: &CopyToOptions, target: &Path, dir: &OwnedFd, name: &str) -> io::Result<()> {
    let Some((parent, Some(last))) = split(target) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("its target {} leaves the tar", target.display()),
        ));
    };
    let path = format!("{}/{parent}/{last}", options.path.trim_end_matches('/'));
    let file = root.open(&path, OFlags::PATH | OFlags::NOFOLLOW).map_err(io::Error::other)?;
    use std::os::fd::AsRawFd as _;
    let through = format!("/proc/thread-self/fd/{}", file.as_fd().as_raw_fd());
    Ok(linkat(CWD, through, dir, name, AtFlags::SYMLINK_FOLLOW)?)
}

fn make_node(dir: &OwnedFd, name: &str, mode: Mode, header: &tar::Header) -> io::Result<()> {
    let kind = match header.entry_type() {
        tar::EntryType::Char => FileType::CharacterDevice,
        tar::EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let major = header.device_major()?.unwrap_or(0);
    let minor = header.device_minor()?.unwrap_or(0);
    Ok(mknodat(dir, name, kind, mode, rustix::fs::makedev(major, minor))?)
}

/// Reads from a channel; the end of the channel is the end of the file.
struct Channel {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_escape_are_refused() {
        let two = |parent: &str, last: &str| Some((parent.to_owned(), Some(last.to_owned())));
        assert_eq!(split(Path::new("a/b/c")), two("a/b", "c"));
        assert_eq!(split(Path::new("./a")), two("", "a"));
        assert_eq!(split(Path::new(".")), Some((String::new(), None)));
        for bad in ["/etc/passwd", "../x", "a/../../x"] {
            assert_eq!(split(Path::new(bad)), None, "{bad}");
        }
    }
}
