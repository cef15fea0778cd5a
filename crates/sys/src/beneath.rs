//! A directory below another that stays below it, whatever links others make there meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Opens (O_PATH) the directory at a relative path below `root`, links followed as long as they stay below.
///
/// Before openat2(2) (Linux 5.6, or forbidden by a seccomp profile) no link is followed.
///
/// # Errors
/// `EXDEV` for a path that leaves `root`, `ELOOP` for a link where none can be followed, `ENOTDIR`, `ENOENT`.
pub fn open_directory(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(root, FLAGS, Mode::empty())?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&root, path, FLAGS, Mode::empty(), inside) {
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => step_by_step(root, path),
        other => Ok(other?),
    }
}

const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn step_by_step(root: OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mut at = root;
    for component in path.components() {
        let Component::Normal(name) = component else {
            if component == Component::CurDir {
                continue;
            }
            return Err(rustix::io::Errno::XDEV.into());
        };
        at = match rustix::fs::openat(&at, name, FLAGS | OFlags::NOFOLLOW, Mode::empty()) {
            // What O_NOFOLLOW with O_DIRECTORY says of a link.
            Err(rustix::io::Errno::NOTDIR) if is_link(&at, name) => return Err(rustix::io::Errno::LOOP.into()),
            other => other?,
        };
    }
    Ok(at)
}

fn is_link(at: &OwnedFd, name: &std::ffi::OsStr) -> bool {
    let found = rustix::fs::statat(at, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode).is_symlink())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stays_below() {
        let root = std::env::temp_dir().join(format!("pier-sys-beneath-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        let _ = std::os::unix::fs::symlink("/etc", root.join("out"));
        let _ = std::os::unix::fs::symlink("a", root.join("in"));
        let open = || rustix::fs::open(&root, FLAGS, Mode::empty()).unwrap();
        assert!(open_directory(&root, Path::new("in/b")).is_ok() && open_directory(&root, Path::new("out")).is_err());
        assert!(step_by_step(open(), Path::new("./a/b")).is_ok());
        let error = |path| step_by_step(open(), Path::new(path)).unwrap_err().raw_os_error();
        assert_eq!(error("in/b"), Some(libc::ELOOP));
        assert_eq!(error("../x"), Some(libc::EXDEV));
        assert_eq!(error("nope"), Some(libc::ENOENT));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
