//! Mounts whose ids are mapped (mount_setattr(2), Linux 5.12; below an overlay 5.19): what is stored as the ids inside of a
//! user namespace shows as those outside, and no file is touched.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::{said, unmount};
use crate::clone::{MountAttr, mount_setattr};
use crate::userns::IdMaps;

/// `MOUNT_ATTR_IDMAP`.
const IDMAP: u64 = 0x10_0000;

/// A copy of what lies at `path`, attached nowhere, with its ids mapped.
///
/// # Errors
/// `EINVAL` where the file system cannot be mapped, `EPERM` without privilege over it, `ENOSYS` on older kernels; in words.
pub fn tree(path: &Path, ids: &IdMaps, recursive: bool) -> io::Result<OwnedFd> {
    let wrap = |e: io::Error| {
        let why = format!("the ids of {} cannot be mapped: {e}", path.display());
        io::Error::new(e.kind(), why)
    };
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let tree = rustix::mount::open_tree(CWD, path, flags).map_err(|e| wrap(e.into()))?;
    map(&tree, ids, recursive).map_err(wrap)?;
    Ok(tree)
}

/// Maps the ids of a mount that is attached nowhere.
pub(super) fn map(tree: &OwnedFd, ids: &IdMaps, recursive: bool) -> io::Result<()> {
    let namespace = ids.namespace()?;
    let userns_fd = namespace.as_raw_fd().unsigned_abs().into();
    let attr = MountAttr { set: IDMAP, userns_fd, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), &attr, recursive)
}

/// A mapped view of a directory in its own place, as long as this lives. Only for a mount namespace that nobody else looks
/// at meanwhile.
pub(super) struct Over(PathBuf);

impl Over {
    pub(super) fn mount(directory: &Path, ids: &IdMaps) -> io::Result<Self> {
        let tree = tree(directory, ids, false)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&tree, "", CWD, directory, flags)
            .map_err(|e| said(e, &format!("the mapped view of {}", directory.display())))?;
        Ok(Self(directory.to_owned()))
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        let _ = unmount(&self.0);
    }
}
