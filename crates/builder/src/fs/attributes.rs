//! Owner, permissions, times and extended attributes of files.

use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, futimens, utimensat,
};
use rustix::io::{Errno, Result};
use std::ffi::{CStr, OsStr};
use std::os::fd::BorrowedFd;

/// What a new file gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Seconds and nanoseconds since the epoch; none: now.
    pub modified: Option<(i64, i64)>,
}

impl Attributes {
    /// Those of a file that exists.
    pub fn of(stat: &Stat) -> Self {
        #[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)]
        let modified = Some((stat.st_mtime as i64, stat.st_mtime_nsec as i64));
        Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, modified }
    }

    /// Sets them on an open file. Owner first: changing it takes set-user-ID away.
    pub fn apply(&self, fd: BorrowedFd<'_>) -> Result<()> {
        fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        fchmod(fd, Mode::from_raw_mode(self.mode))?;
        futimens(fd, &self.times())
    }

    /// Sets owner and time of a file that cannot be opened, such as a symbolic link.
    pub fn apply_at(&self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        chownat(parent, name, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)), nofollow)?;
        utimensat(parent, name, &self.times(), nofollow)
    }

    /// Its times for utimensat(2); the access time stays.
    pub fn times(&self) -> Timestamps {
        let modified = match self.modified {
            Some((tv_sec, tv_nsec)) => Timespec { tv_sec, tv_nsec },
            None => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        };
        Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: modified }
    }
}

/// Extended attributes that belong to a file's content: not those of the filesystem below or of the host's policy.
pub fn read_extended(fd: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match listed(fd) {
        Err(Errno::OPNOTSUPP | Errno::NODATA) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| carried(name)) {
        match value(fd, name) {
            Ok(value) => found.push((name.to_vec(), value)),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

/// Sets extended attributes; a filesystem that has none loses them silently.
pub fn write_extended(fd: BorrowedFd<'_>, attributes: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    for (name, value) in attributes {
        match fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn carried(name: &[u8]) -> bool {
    let refused: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"security.selinux"];
    !name.is_empty() && !refused.iter().any(|prefix| name.starts_with(prefix))
}

fn listed(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    // The kernel's limit of a list and of a value.
    let mut buffer = vec![0_u8; 256];
    loop {
        match flistxattr(fd, buffer.as_mut_slice()) {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 65536 => buffer.resize(65536, 0),
            Err(error) => return Err(error),
        }
    }
}

fn value(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>> {
    let mut buffer = vec![0_u8; 256];
    loop {
        match fgetxattr(fd, name, buffer.as_mut_slice()) {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 65536 => buffer.resize(65536, 0),
            Err(error) => return Err(error),
        }
    }
}

/// Target of a symbolic link, as bytes.
pub fn link_target(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<u8>> {
    let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
    Ok(CStr::to_bytes(&target).to_vec())
}
