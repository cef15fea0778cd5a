//! Subvolumes of btrfs (btrfs-ioctl(2), `linux/btrfs.h`). Deleting them needs no call of its own: rmdir(2) does it since
//! Linux 4.18.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// `BTRFS_SUPER_MAGIC`.
const MAGIC: u64 = 0x9123_683e;
/// `BTRFS_IOC_SNAP_CREATE` and `BTRFS_IOC_SUBVOL_CREATE`: `_IOW(0x94, n, struct btrfs_ioctl_vol_args)`.
const SNAP_CREATE: u32 = 0x5000_9401;
const SUBVOL_CREATE: u32 = 0x5000_940e;
const PATH_NAME_MAX: usize = 4087;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; PATH_NAME_MAX + 1],
}

/// Whether a path lies on btrfs.
///
/// # Errors
/// Those of statfs(2).
pub fn is_btrfs(path: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(path)?.f_type as u64 == MAGIC)
}

/// Makes the empty subvolume `name` in a directory.
///
/// # Errors
/// `EEXIST`, `ENOTTY` where there is no btrfs, `EPERM` without the right to write there.
pub fn create_subvolume(directory: &Path, name: &str) -> io::Result<()> {
    call(SUBVOL_CREATE, directory, 0, name)
}

/// Makes the writable snapshot `name` of a subvolume in a directory of the same file system.
///
/// # Errors
/// As [`create_subvolume`]; `EINVAL` when `source` is no subvolume, `EXDEV` for another file system.
pub fn snapshot(source: &Path, directory: &Path, name: &str) -> io::Result<()> {
    let source: OwnedFd = File::open(source)?.into();
    call(SNAP_CREATE, directory, source.as_raw_fd().into(), name)
}

fn call(request: u32, directory: &Path, fd: i64, name: &str) -> io::Result<()> {
    let mut args = VolArgs { fd, name: [0; PATH_NAME_MAX + 1] };
    let room = args.name.get_mut(..name.len().min(PATH_NAME_MAX)).ok_or(io::ErrorKind::InvalidInput)?;
    if room.len() < name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    room.copy_from_slice(name.as_bytes());
    let directory = File::open(directory)?;
    // SAFETY: the request takes a pointer to this structure, which outlives the call and ends in a NUL.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), request as _, &raw const args) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
