//! A directory that entries are written into. Every path is resolved inside of it ([`sys::inside`]), every operation is relative to an open directory, and the directories of late are kept open.
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Directories kept open.
const OPEN_DIRS: usize = 128;
/// Linux's PATH_MAX (with the NUL) and NAME_MAX.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// The root of a layer being written, and its open directories.
pub(crate) struct Root {
    fd: Rc<OwnedFd>,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = Rc::new(rustix::fs::open(path, flags, Mode::empty())?);
        Ok(Self { fd, open: HashMap::new(), last: None })
    }

    /// The directory of that path, resolved inside the root, symbolic links included. The empty path is the root.
    pub(crate) fn dir(&mut self, path: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.fd.clone());
        }
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let fd = match self.open.get(path) {
            Some(fd) => fd.clone(),
            None => {
                let fd = Rc::new(self.resolve(path, OFlags::PATH | OFlags::DIRECTORY)?);
                if self.open.len() >= OPEN_DIRS {
                    self.open.clear();
                }
                self.open.insert(path.to_vec(), fd.clone());
                fd
            }
        };
        self.last = Some((path.to_vec(), fd.clone()));
        Ok(fd)
    }

    /// Opens what the path leads to inside the root.
    pub(crate) fn resolve(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        sys::inside::open(&*self.fd, path, flags)
    }

    /// Forgets open directories: a name on the way to one of them was replaced.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
        self.last = None;
    }
}

/// What lies at a name, not following a link.
pub(crate) fn look(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// True for what overlay takes for a deletion: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// True for a directory.
pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// A path of a name in an open directory, for calls that know no directory descriptors.
pub(crate) fn proc_path(dir: impl AsFd, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let base = PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()));
    // With the dot, calls that follow no link still reach the directory.
    if name.is_empty() { base.join(".") } else { base.join(std::ffi::OsStr::from_bytes(name)) }
}

/// Splits at the last slash: parent and name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// An archive's name as a path inside the root: "./a//b/" is "a/b", "./" is "". A leading slash means the root, as with
/// every other engine: some builders write it. ".." is an error.
pub(crate) fn clean(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    if name.contains(&0) {
        return Err("has a NUL byte in its name");
    }
    let mut path = Vec::with_capacity(name.len());
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("climbs with '..'"),
            part => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
            }
        }
    }
    Ok(path)
}

/// Whether the kernel could take a path.
pub(crate) fn fits(path: &[u8]) -> bool {
    path.len() < MAX_PATH && path.split(|b| *b == b'/').all(|part| part.len() <= MAX_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(clean(b"./a//b/"), Ok(b"a/b".to_vec()));
        assert_eq!(clean(b"./"), Ok(Vec::new()));
        assert_eq!(clean(b"a/..b/..."), Ok(b"a/..b/...".to_vec()));
        assert_eq!(clean(b"/a"), Ok(b"a".to_vec()));
        assert!(!fits(&[b'a'; 256]) && !fits(&b"a/".repeat(2048)) && fits(&[b'a'; 255]));
        for bad in [&b"a/../b"[..], b"..", b"a/..", b"a\0b"] {
            assert!(clean(bad).is_err());
        }
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }
}
