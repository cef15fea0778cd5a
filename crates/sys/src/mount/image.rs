//! The erofs in a file (Documentation/filesystems/erofs.rst), mounted without a place.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::{idmapped, said};
use crate::userns::IdMaps;

/// Mounts an erofs image, read-only, attached nowhere: it is gone with its last descriptor, or with the last overlay that is
/// made of it. The image must not be written to meanwhile; its name may go.
///
/// # Errors
/// `ENOTBLK` where the kernel mounts no erofs from a file (Linux 6.12 does), `ENODEV` where it has no erofs, `EPERM` without
/// privilege, `EUCLEAN` or `EINVAL` for a damaged image; in words.
pub fn erofs_image(path: &Path) -> io::Result<OwnedFd> {
    let failed = |e: Errno| said(e, &format!("mount the image {}", path.display()));
    let file =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
    let fs = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    // A name that always fits into one fsconfig(2).
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::mount::fsconfig_set_string(&fs, "source", source).map_err(failed)?;
    rustix::mount::fsconfig_create(&fs).map_err(failed)?;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).map_err(failed)
}

/// [`erofs_image`], its ids mapped where that is asked for.
pub(super) fn mapped(path: &Path, ids: Option<&IdMaps>) -> io::Result<OwnedFd> {
    let image = erofs_image(path)?;
    if let Some(ids) = ids {
        idmapped::map(&image, ids, false)?;
    }
    Ok(image)
}
