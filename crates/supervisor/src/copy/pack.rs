//! A tree as a tar.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use oci::idmap::IdMap;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use tokio::sync::mpsc;

use super::{PathStat, Root, base_name, kind_of};
use crate::Error;

/// Size of the pieces handed on.
const PIECE: usize = 128 << 10;
/// Directories deeper than this are an attack, not data.
const MAX_DEPTH: usize = 512;

/// An opened source.
pub(super) struct Source {
    fd: OwnedFd,
    pub(super) stat: PathStat,
    ids: Option<IdMap>,
}

impl Source {
    pub(super) fn open(root: &Root, path: &str, follow: bool) -> Result<Self, Error> {
        let through = follow || path.ends_with('/') || path.ends_with("/.");
        let flags = if through { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let fd = root.open(path, flags)?;
        let stat = fstat(&fd).map_err(|errno| root.error(path, errno.into()))?;
        let link_target = if kind_of(stat.st_mode) == FileType::Symlink {
            let target = readlinkat(&fd, "", Vec::new()).map_err(|errno| root.error(path, errno.into()))?;
            target.to_string_lossy().into_owned()
        } else {
            String::new()
        };
        let stat = PathStat {
            name: base_name(path),
            size: stat.st_size,
            mode: stat.st_mode,
            mtime: stat.st_mtime * 1_000_000_000 + i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            link_target,
        };
        Ok(Self { fd, stat, ids: root.ids.clone() })
    }

    pub(super) fn pack(&self, sender: &mpsc::Sender<Result<Vec<u8>, Error>>) -> io::Result<()> {
        let builder = tar::Builder::new(Channel { sender, piece: Vec::with_capacity(PIECE) });
        let mut tar = Tar { builder, ids: self.ids.as_ref() };
        let name = if self.stat.name == "/" { "." } else { &self.stat.name };
        match kind_of(self.stat.mode) {
            FileType::Directory => {
                let dir = openat(&self.fd, ".", dir_flags(), Mode::empty())?;
                add_header(&mut tar, name, &fstat(&dir)?, tar::EntryType::Directory, 0)?;
                add_children(&mut tar, dir.as_fd(), name, 0)?;
            }
            // Through /proc, the O_PATH descriptor opens as itself: no second lookup.
            FileType::RegularFile => {
                let file = File::open(format!("/proc/thread-self/fd/{}", raw(&self.fd)))?;
                add_file(&mut tar, name, file)?;
            }
            FileType::Symlink => add_link(&mut tar, name, &fstat(&self.fd)?, &self.stat.link_target)?,
            _ => add_special(&mut tar, name, &fstat(&self.fd)?)?,
        }
        tar.builder.into_inner()?.flush()
    }
}

fn raw(fd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd as _;
    fd.as_raw_fd()
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The tar, and what the ids of a container in a user namespace are inside.
struct Tar<'a> {
    builder: tar::Builder<Channel<'a>>,
    ids: Option<&'a IdMap>,
}

fn add_children(tar: &mut Tar<'_>, dir: BorrowedFd<'_>, prefix: &str, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("{prefix} is nested too deeply")));
    }
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let file_name = entry.file_name();
        if matches!(file_name.to_bytes(), b"." | b"..") {
            continue;
        }
        let name = format!("{prefix}/{}", file_name.to_string_lossy());
        let stat = match statat(dir, file_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away while we looked: a running container may do that.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        match kind_of(stat.st_mode) {
            FileType::Directory => {
                let child = openat(dir, file_name, dir_flags(), Mode::empty())?;
                add_header(tar, &name, &stat, tar::EntryType::Directory, 0)?;
                add_children(tar, child.as_fd(), &name, depth + 1)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                add_file(tar, &name, openat(dir, file_name, flags, Mode::empty())?.into())?;
            }
            FileType::Symlink => {
                let target = readlinkat(dir, file_name, Vec::new())?;
                add_link(tar, &name, &stat, &target.to_string_lossy())?;
            }
            _ => add_special(tar, &name, &stat)?,
        }
    }
    Ok(())
}

fn header(tar: &Tar<'_>, stat: &Stat, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    let (uid, gid) = tar.ids.map_or((stat.st_uid, stat.st_gid), |ids| ids.stored(stat.st_uid, stat.st_gid));
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(size);
    header
}

fn add_header(tar: &mut Tar<'_>, name: &str, stat: &Stat, kind: tar::EntryType, size: u64) -> io::Result<()> {
    let mut header = header(tar, stat, kind, size);
    tar.builder.append_data(&mut header, name, io::empty())
}

fn add_link(tar: &mut Tar<'_>, name: &str, stat: &Stat, target: &str) -> io::Result<()> {
    let mut header = header(tar, stat, tar::EntryType::Symlink, 0);
    tar.builder.append_link(&mut header, name, target)
}

/// Exactly as many bytes as the header says, however the file changes meanwhile.
fn add_file(tar: &mut Tar<'_>, name: &str, file: File) -> io::Result<()> {
    use std::io::Read as _;
    let stat = fstat(&file)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let padded = file.take(size).chain(io::repeat(0)).take(size);
    let mut header = header(tar, &stat, tar::EntryType::Regular, size);
    tar.builder.append_data(&mut header, name, padded)
}

fn add_special(tar: &mut Tar<'_>, name: &str, stat: &Stat) -> io::Result<()> {
    let kind = match kind_of(stat.st_mode) {
        FileType::Fifo => tar::EntryType::Fifo,
        FileType::CharacterDevice => tar::EntryType::Char,
        FileType::BlockDevice => tar::EntryType::Block,
        // A socket is nothing without its process.
        _ => return Ok(()),
    };
    let mut header = header(tar, stat, kind, 0);
    header.set_device_major(rustix::fs::major(stat.st_rdev))?;
    header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
    tar.builder.append_data(&mut header, name, io::empty())
}

/// Writes into a channel; fails when nobody listens any more.
struct Channel<'a> {
    sender: &'a mpsc::Sender<Result<Vec<u8>, Error>>,
    piece: Vec<u8>,
}

impl Write for Channel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
