//! Regular files: open, write, and then owner, mode, attributes, times, in the order in which they do not undo
//! each other (a change of owner clears set-id bits and capabilities).
use super::{DISK_BLOCK, SPECIAL_BITS, Unpacker, attribute_failed, failed, owner, times, tolerate};
use crate::Result;
use crate::layer::entry::{Entries, Entry, Source};
use crate::layer::tree::carried;
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

impl Unpacker {
    pub(super) fn file<S: Source>(
        &mut self,
        entry: &Entry,
        dir: &OwnedFd,
        name: &[u8],
        data: &mut Entries<S>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let open = || rustix::fs::openat(dir, name, flags, mode);
        let file = match open() {
            Err(Errno::EXIST) => {
                self.displace(entry, dir, name)?;
                open()
            }
            other => other,
        };
        let file = File::from(file.map_err(failed("create", entry))?);
        self.done.size_bytes += match &entry.sparse {
            Some(map) => scatter(entry, &file, data, map)?,
            None => write(entry, &file, data)?,
        };
        if (entry.uid, entry.gid) != (0, 0) {
            let (owner, group) = owner(entry);
            let done = rustix::fs::fchown(&file, owner, group);
            self.owned(done).map_err(failed("set the owner of", entry))?;
        }
        if entry.mode & (self.umask | SPECIAL_BITS) != 0 {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(failed("set the mode of", entry))?;
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| carried(key)) {
            tolerate(key, rustix::fs::fsetxattr(&file, &**key, value, XattrFlags::empty()))
                .map_err(|e| attribute_failed(entry, key, e))?;
        }
        rustix::fs::futimens(&file, &times(entry.mtime)).map_err(failed("set the times of", entry))
    }
}

/// Copies the entry's data; gives bytes on disk.
fn write<S: Source>(entry: &Entry, file: &File, data: &mut Entries<S>) -> Result<u64> {
    let mut at = 0u64;
    loop {
        let bytes = data.data()?;
        if bytes.is_empty() {
            return Ok(at.next_multiple_of(DISK_BLOCK));
        }
        file.write_all_at(bytes, at).map_err(failed("write", entry))?;
        let n = bytes.len();
        at += n as u64;
        data.took(n);
    }
}

/// Puts the entry's data where its map says and leaves holes between; gives bytes on disk.
fn scatter<S: Source>(entry: &Entry, file: &File, data: &mut Entries<S>, map: &[(u64, u64)]) -> Result<u64> {
    rustix::fs::ftruncate(file, entry.size).map_err(failed("set the size of", entry))?;
    let mut used = 0;
    for (offset, length) in map {
        let (mut at, end) = (*offset, offset + length);
        while at < end {
            let bytes = data.data()?;
            let n = bytes.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            file.write_all_at(&bytes[..n], at).map_err(failed("write", entry))?;
            at += n as u64;
            data.took(n);
        }
        used += length.next_multiple_of(DISK_BLOCK);
    }
    Ok(used)
}
