//! Files that are held while they are looked at: a volume may be in use, and who uses it may put a link in the place of a
//! file or a directory at any moment. What is asked of a handle is asked of the very file that was found.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// A file of any kind (O_PATH).
#[derive(Debug)]
pub(crate) struct Handle(OwnedFd);

impl Handle {
    /// What a path leads to, links followed.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        open(path, OFlags::empty()).map(Self).map_err(Error::io("open", path))
    }

    /// What lies at a path, be it a link. `None`: nothing does any more.
    pub(crate) fn at(path: &Path) -> Result<Option<Self>> {
        match open(path, OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(|file| Some(Self(file))).map_err(Error::io("open", path)),
        }
    }

    /// A path that leads to this file (proc_pid_fd(5)); of a directory, names behind it lead to what is in it. The last step
    /// is not one through a link, even if the file is one. Good as long as the handle is.
    pub(crate) fn path(&self) -> PathBuf {
        format!("{OPEN}{}", self.0.as_raw_fd()).into()
    }

    pub(crate) fn metadata(&self) -> Result<Metadata> {
        fs::metadata(self.path()).map_err(Error::io("read", self.path()))
    }

    /// For reading; only files have content.
    pub(crate) fn content(&self) -> Result<File> {
        File::open(self.path()).map_err(Error::io("open", self.path()))
    }

    /// Where a symbolic link points to.
    pub(crate) fn link(&self) -> Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.0, "", Vec::new()).map_err(Error::io("read", self.path()))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }
}

impl From<OwnedFd> for Handle {
    fn from(file: OwnedFd) -> Self {
        Self(file)
    }
}

fn open(path: &Path, more: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | more, Mode::empty())
}

const OPEN: &str = "/proc/self/fd/";

/// The path for people of one that leads through a handle.
pub(crate) fn shown(path: PathBuf) -> PathBuf {
    let Ok(rest) = path.strip_prefix(OPEN) else { return path };
    let mut parts = rest.components();
    let Some(number) = parts.next() else { return path };
    match fs::read_link(Path::new(OPEN).join(number)) {
        Ok(place) if parts.as_path().as_os_str().is_empty() => place,
        Ok(place) => place.join(parts.as_path()),
        Err(_) => path,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn stays_with_what_it_found() {
        let root = std::env::temp_dir().join(format!("pier-volume-handle-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "one").unwrap();
        symlink("/etc", root.join("l")).unwrap();
        let directory = Handle::at(&root.join("d")).unwrap().unwrap();
        fs::rename(root.join("d"), root.join("e")).unwrap();
        symlink("/etc", root.join("d")).unwrap();
        let file = Handle::at(&directory.path().join("f")).unwrap().unwrap();
        assert_eq!(std::io::read_to_string(file.content().unwrap()).unwrap(), "one");
        assert_eq!(shown(directory.path().join("a/b")), root.join("e/a/b"));
        assert_eq!((shown(file.path()), shown("/etc".into())), (root.join("e/f"), "/etc".into()));
        let link = Handle::at(&root.join("l")).unwrap().unwrap();
        assert!(link.metadata().unwrap().is_symlink() && link.link().unwrap() == Path::new("/etc"));
        assert!(Handle::of(&root.join("l")).unwrap().metadata().unwrap().is_dir());
        assert!(Handle::at(&root.join("none")).unwrap().is_none());
        fs::remove_dir_all(&root).unwrap();
    }
}
