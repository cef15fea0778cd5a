//! Reading a tree of files that somebody may be changing: every step is relative to an open directory and follows no
//! link, so that a swapped directory leads to an error and never out of the tree.
use super::Privilege;
use super::entry::{Entry, Kind};
use super::root::proc_path;
use crate::{Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;

/// Directories below each other; more is an attack.
pub(crate) const MAX_DEPTH: usize = 4096;

/// Opens a directory by name, not following a link.
pub(crate) fn open_dir(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Opens a regular file by name; never waits for a fifo's other end.
pub(crate) fn open_file(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile { Ok(fd.into()) } else { Err(Errno::STALE) }
}

/// Names in a directory, sorted by their bytes.
pub(crate) fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            all.push(name.to_vec());
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// What is at a name; `None` when it has gone.
pub(crate) fn stat(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Extended attributes of a name, sorted, without overlay's own and without the host's labels.
fn xattrs(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = proc_path(dir, name);
    let mut list = Vec::new();
    match rustix::fs::llistxattr_query(&path)? {
        0 => return Ok(Vec::new()),
        n => list.reserve(n + 256),
    }
    rustix::fs::llistxattr(&path, rustix::buffer::spare_capacity(&mut list))?;
    let mut all = Vec::new();
    for key in list.split(|b| *b == 0).filter(|key| carried(key)) {
        let size = rustix::fs::lgetxattr_query(&path, key)?;
        let mut value = Vec::with_capacity(size);
        if size > 0 {
            rustix::fs::lgetxattr(&path, key, rustix::buffer::spare_capacity(&mut value))?;
        }
        all.push((key.to_vec(), value));
    }
    all.sort_unstable();
    Ok(all)
}

/// [`xattrs`], none on a file system without them.
pub(crate) fn attribute_pairs(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    match xattrs(dir, name) {
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        other => other,
    }
}

/// One extended attribute of an open directory.
pub(crate) fn attribute(dir: &OwnedFd, key: &str) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(16);
    rustix::fs::fgetxattr(dir, key, rustix::buffer::spare_capacity(&mut value)).ok()?;
    Some(value)
}

/// Whether an attribute belongs to the image, both ways. The others are the host's: overlay's would redirect or hide what lies
/// below, and the rest of `trusted.` and SELinux's labels mean nothing that an image could know.
pub(crate) fn carried(key: &[u8]) -> bool {
    !key.is_empty() && !key.starts_with(b"trusted.") && !key.starts_with(b"user.overlay.") && key != b"security.selinux"
}

/// The archive entry of what is at a name; `None` for sockets, which archives do not have.
pub(crate) fn entry(dir: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<Option<Entry>> {
    let fail = |step| move |e: Errno| failed(step, path)(e);
    let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::Char { major: device().0, minor: device().1 },
        FileType::BlockDevice => Kind::Block { major: device().0, minor: device().1 },
        _ => return Ok(None),
    };
    let link = match kind {
        Kind::Symlink => {
            rustix::fs::readlinkat(dir, name, Vec::new()).map_err(fail("read the symbolic link"))?.into_bytes()
        }
        _ => Vec::new(),
    };
    let xattrs = attribute_pairs(dir, name).map_err(fail("read the attributes of"))?;
    let mut path = path.to_vec();
    if kind == Kind::Directory {
        path.push(b'/');
    }
    let size = if kind == Kind::File { stat.st_size.unsigned_abs() } else { 0 };
    let mtime = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
    let mode = stat.st_mode & 0o7777;
    let (uid, gid) = Privilege::of_process().stored_owner(stat.st_uid, stat.st_gid);
    Ok(Some(Entry { path, link, kind, mode, uid, gid, mtime, size, xattrs, sparse: None }))
}

/// For calls that fail on a path of the tree.
pub(crate) fn failed<E: Into<std::io::Error>>(step: &'static str, path: &[u8]) -> impl FnOnce(E) -> Error {
    let entry = String::from_utf8_lossy(path).into_owned();
    move |e| Error::Tree { step, entry, source: e.into() }
}

/// `dir/name`, without the slash at the root.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, name].join(&b'/') }
}

#[cfg(test)]
mod tests {
    use super::carried;

    #[test]
    fn the_hosts_attributes_stay_with_it() {
        assert!(["user.text", "security.capability", "system.posix_acl_access"].iter().all(|k| carried(k.as_bytes())));
        let hosts = ["", "trusted.md5", "trusted.overlay.opaque", "user.overlay.opaque", "security.selinux"];
        assert!(!hosts.iter().any(|k| carried(k.as_bytes())));
    }
}
