//! Masked and read-only paths, by descriptors: each path is resolved once, inside the container's root.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};
use sys::clone::{MountAttr, mount_setattr};

const RDONLY: u64 = 1;
const CLONE: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_EMPTY_PATH);

fn open(path: &str) -> rustix::io::Result<Option<OwnedFd>> {
    match openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", target, c"", flags)
}

/// Makes the root itself read-only.
pub(crate) fn readonly_root() -> Result<(), String> {
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| format!("/: {e}"))?;
    mount_setattr(root.as_fd(), &MountAttr { set: RDONLY, ..Default::default() }, false)
        .map_err(|e| format!("read-only /: {e}"))
}

/// Binds each path over itself, read-only with all mounts below it.
pub(crate) fn readonly(paths: &[String]) -> Result<(), String> {
    for path in paths {
        let one = || -> std::io::Result<()> {
            let Some(target) = open(path)? else { return Ok(()) };
            let tree = open_tree(&target, c"", CLONE | OpenTreeFlags::AT_RECURSIVE)?;
            mount_setattr(tree.as_fd(), &MountAttr { set: RDONLY, ..Default::default() }, true)?;
            Ok(attach(&tree, &target)?)
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
    let mut empty: Option<OwnedFd> = None;
    for (at, path) in paths.iter().enumerate() {
        if paths[..at].contains(path) {
            continue;
        }
        let mut one = || -> std::io::Result<()> {
            let Some(target) = open(path)? else { return Ok(()) };
            if FileType::from_raw_mode(fstat(&target)?.st_mode) != FileType::Directory {
                return Ok(attach(&open_tree(&null, c"", CLONE)?, &target)?);
            }
            match &empty {
                // Cloned from the attached one: one superblock, and detached trees cannot be cloned on older kernels.
                Some(first) => Ok(attach(&open_tree(first, c"", CLONE)?, &target)?),
                None => {
                    let fs = empty_tmpfs()?;
                    attach(&fs, &target)?;
                    empty = Some(fs);
                    Ok(())
                }
            }
        };
        one().map_err(|e| format!("maskedPaths {path}: {e}"))?;
    }
    Ok(())
}

fn empty_tmpfs() -> rustix::io::Result<OwnedFd> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", c"tmpfs")?;
    fsconfig_set_string(&context, c"size", c"0k")?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
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
