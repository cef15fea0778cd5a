//! A tree copied with everything that makes a file what it is.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, SeekFrom, Timespec, Timestamps, Uid, XattrFlags};

use super::merged::{Directory, Entry};
use crate::handle::Handle;
use crate::{Error, Result};

/// Copies what is in a directory, and what it is itself, to one that is empty.
pub(crate) fn tree(from: &Directory, to: &Path) -> Result<()> {
    Copier { links: HashMap::new(), layered: from.is_layered() }.fill(from, to)
}

struct Copier {
    layered: bool,
    /// First copy of a file with several names, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copier {
    fn directory(&mut self, from: &Directory, to: &Path) -> Result<()> {
        DirBuilder::new().mode(0o700).create(to).map_err(Error::io("create", to))?;
        self.fill(from, to)
    }

    fn fill(&mut self, from: &Directory, to: &Path) -> Result<()> {
        for name in from.names()? {
            let target = to.join(&name);
            match from.lookup(&name)? {
                Some(Entry::Directory(directory)) => self.directory(&directory, &target)?,
                Some(Entry::Other(source, metadata)) => self.other(&source, &metadata, &target)?,
                // Taken away by a layer, or since it was listed.
                None => {}
            }
        }
        // Last: filling a directory changes its times, and its mode may forbid filling it.
        match from.top() {
            Some(top) => Attributes::read(&Handle::of(top)?, self.layered)?.apply(to),
            None => Ok(()),
        }
    }

    fn other(&mut self, from: &Handle, metadata: &Metadata, to: &Path) -> Result<()> {
        let inode = (metadata.dev(), metadata.ino());
        if metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&inode) {
                return fs::hard_link(first, to).map_err(Error::io("link", to));
            }
            self.links.insert(inode, to.into());
        }
        let kind = metadata.file_type();
        if kind.is_file() {
            contents(from, to)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(from.link()?, to).map_err(Error::io("create", to))?;
        } else {
            let node = if kind.is_fifo() {
                FileType::Fifo
            } else if kind.is_socket() {
                FileType::Socket
            } else if kind.is_char_device() {
                FileType::CharacterDevice
            } else {
                FileType::BlockDevice
            };
            rustix::fs::mknodat(CWD, to, node, Mode::from_raw_mode(0o600), metadata.rdev())
                .map_err(Error::io("create", to))?;
        }
        Attributes::read(from, self.layered)?.apply(to)
    }
}

/// Copies what is in a file to one that does not exist yet: shared blocks where the file system can (true), else the
/// parts that hold data, so that holes stay holes.
pub(crate) fn contents(from: &Handle, to: &Path) -> Result<bool> {
    let mut source = from.content()?;
    let length = source.metadata().map_err(Error::io("read", from.path()))?.len();
    let mut options = OpenOptions::new();
    let mut target = options.write(true).create_new(true).mode(0o600).open(to).map_err(Error::io("create", to))?;
    if length == 0 || rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(true);
    }
    let mut copied = 0;
    // A file that grows meanwhile is copied as long as it was.
    while copied < length {
        let start = match rustix::fs::seek(&source, SeekFrom::Data(copied)) {
            Ok(start) => start,
            // No data after this.
            Err(rustix::io::Errno::NXIO) => break,
            Err(rustix::io::Errno::INVAL) => copied,
            Err(error) => return Err(Error::io("copy", from.path())(error)),
        };
        let end = match rustix::fs::seek(&source, SeekFrom::Hole(start)) {
            Ok(end) => end.min(length),
            Err(_) => length,
        };
        let moved = source.seek(std::io::SeekFrom::Start(start)).and_then(|_| {
            target.seek(std::io::SeekFrom::Start(start))?;
            // copy_file_range(2) where it can be.
            std::io::copy(&mut (&mut source).take(end - start), &mut target)
        });
        if moved.map_err(Error::io("copy", from.path()))? == 0 {
            break;
        }
        copied = end;
    }
    target.set_len(length).map_err(Error::io("copy", from.path()))?;
    Ok(false)
}

/// Owner, mode, times and extended attributes of a file.
pub(crate) struct Attributes {
    metadata: Metadata,
    extended: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    pub(crate) fn read(file: &Handle, layered: bool) -> Result<Self> {
        let metadata = file.metadata()?;
        let mut extended = extended(file)?;
        let own = |name: &CString| {
            [&b"trusted.overlay."[..], b"user.overlay."].iter().any(|own| name.as_bytes().starts_with(own))
        };
        extended.retain(|(name, _)| !(layered && own(name)));
        Ok(Self { metadata, extended })
    }

    pub(crate) fn apply(&self, path: &Path) -> Result<()> {
        let metadata = &self.metadata;
        let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
        rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("change the owner of", path))?;
        // After the owner: changing it clears setuid bits and file capabilities.
        if !metadata.is_symlink() {
            rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(metadata.mode() & 0o7777), AtFlags::empty())
                .map_err(Error::io("change the mode of", path))?;
        }
        for (name, value) in &self.extended {
            match rustix::fs::lsetxattr(path, name.as_c_str(), value, XattrFlags::empty()) {
                Ok(()) => {}
                // The volume's file system knows no such attributes; the content is of use without.
                Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => return Err(Error::io("set attributes of", path)(error)),
            }
        }
        let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps {
            last_access: time(metadata.atime(), metadata.atime_nsec()),
            last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::io("set the times of", path))
    }
}

/// Extended attributes.
pub(crate) fn extended(file: &Handle) -> Result<Vec<(CString, Vec<u8>)>> {
    let path = file.path();
    let failed = || Error::io("read attributes of", &path);
    let names = match whole(|names| rustix::fs::listxattr(&path, names)) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other.map_err(failed())?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = CString::new(name) else { continue };
        match whole(|value| rustix::fs::getxattr(&path, name.as_c_str(), value)) {
            // Gone since it was listed.
            Err(rustix::io::Errno::NODATA) => {}
            value => found.push((name, value.map_err(failed())?)),
        }
    }
    Ok(found)
}

/// What the kernel writes into a buffer that is large enough: most lists and values are short, none is longer than 64 KiB.
fn whole(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut short = [0_u8; 1024];
    match read(&mut short) {
        Err(rustix::io::Errno::RANGE) => {
            let mut long = vec![0; 65536];
            let length = read(&mut long)?;
            long.truncate(length);
            Ok(long)
        }
        other => other.map(|length| short.get(..length).unwrap_or_default().to_vec()),
    }
}
