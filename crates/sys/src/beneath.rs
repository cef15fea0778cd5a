//! A file below a directory that stays below it, whatever links others make there meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// Opens (O_PATH) what lies at a relative path below `root`, links followed as long as they stay below.
///
/// Before openat2(2) (Linux 5.6, or forbidden by a seccomp profile) no link is followed.
///
/// # Errors
/// `EXDEV` for a path that leaves `root`, `ELOOP` for a link where none can be followed, `ENOTDIR`, `ENOENT`.
pub fn open(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(root, FLAGS | OFlags::DIRECTORY, Mode::empty())?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&root, path, FLAGS, Mode::empty(), inside) {
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => step_by_step(root, path),
        other => Ok(other?),
    }
}

const FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

fn step_by_step(root: OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mut at = root;
    for component in path.components() {
        let Component::Normal(name) = component else {
            if component == Component::CurDir {
                continue;
            }
            return Err(rustix::io::Errno::XDEV.into());
        };
        at = rustix::fs::openat(&at, name, FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
        // With O_PATH a link is opened itself.
        if FileType::from_raw_mode(rustix::fs::fstat(&at)?.st_mode).is_symlink() {
            return Err(rustix::io::Errno::LOOP.into());
        }
    }
    Ok(at)
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
        std::fs::write(root.join("a/file"), "").unwrap();
        let open = || rustix::fs::open(&root, FLAGS, Mode::empty()).unwrap();
        assert!(super::open(&root, Path::new("in/b")).is_ok() && super::open(&root, Path::new("out")).is_err());
        assert!(step_by_step(open(), Path::new("./a/b")).is_ok() && step_by_step(open(), Path::new("a/file")).is_ok());
        let error = |path| step_by_step(open(), Path::new(path)).unwrap_err().raw_os_error();
        assert_eq!(error("in/b"), Some(libc::ELOOP));
        assert_eq!(error("../x"), Some(libc::EXDEV));
        assert_eq!(error("nope"), Some(libc::ENOENT));
        assert_eq!(error("a/file/x"), Some(libc::ENOTDIR));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
