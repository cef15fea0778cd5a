//! Masked and read-only paths, by descriptors: each path is resolved once, inside the container's root.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::mount_option::RDONLY;
use crate::tree::{FileSystem, Trees};

/// A tmpfs that nothing fits into.
fn make_empty(trees: &Trees) -> rustix::io::Result<OwnedFd> {
    let source = Some(OsStr::new("tmpfs"));
    let options = &["size=0k".to_owned()];
    trees.make(&FileSystem { kind: "tmpfs", source, readonly: false, options, attributes: RDONLY })
}

fn open(path: &str) -> rustix::io::Result<Option<OwnedFd>> {
    match openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes the root itself read-only.
pub(crate) fn readonly_root() -> Result<(), String> {
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| format!("/: {e}"))?;
    Trees::default().change(&root, (RDONLY, 0), false).map_err(|e| format!("read-only /: {e}"))
}

/// Binds each path over itself, read-only with all mounts below it.
pub(crate) fn readonly(paths: &[String]) -> Result<(), String> {
    let trees = Trees::default();
    for path in paths {
        let one = || -> rustix::io::Result<()> {
            let Some(target) = open(path)? else { return Ok(()) };
            let readonly = || {
                let tree = trees.clone(&target, true)?;
                trees.change(&tree, (RDONLY, 0), true).map(|()| tree)
            };
            trees.cover(&target, readonly).map(drop)
        };
        one().map_err(|e| format!("readonlyPaths {path}: {e}"))?;
    }
    Ok(())
}

/// Covers files with `/dev/null` and directories with one shared, empty, read-only tmpfs.
pub(crate) fn masked(paths: &[String]) -> Result<(), String> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = open_null().map_err(|e| format!("/dev/null: {e}"))?;
    let trees = Trees::default();
    let mut empty: Option<OwnedFd> = None;
    for (at, path) in paths.iter().enumerate() {
        if paths[..at].contains(path) {
            continue;
        }
        let mut one = || -> rustix::io::Result<()> {
            let Some(target) = open(path)? else { return Ok(()) };
            if FileType::from_raw_mode(fstat(&target)?.st_mode) != FileType::Directory {
                return trees.cover(&target, || trees.clone(&null, false)).map(drop);
            }
            // Cloned from the attached one: one superblock, and detached trees cannot be cloned on older kernels.
            let made = trees
                .cover(&target, || empty.as_ref().map_or_else(|| make_empty(&trees), |e| trees.clone(e, false)))?;
            empty.get_or_insert(made);
            Ok(())
        };
        one().map_err(|e| format!("maskedPaths {path}: {e}"))?;
    }
    Ok(())
}

/// The container's `/dev/null`, if it really is one (CVE-2025-31133).
fn open_null() -> std::io::Result<OwnedFd> {
    let fd = openat(CWD, "/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != rustix::fs::makedev(1, 3) {
        return Err(std::io::Error::other("is not the null device"));
    }
    Ok(fd)
}
