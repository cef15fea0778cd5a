//! Project quotas of ext4 and XFS: a tree of directories whose files count together (quotactl_fd(2), FS_IOC_FSSETXATTR).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

// _IOR('X', 31, struct fsxattr), _IOW('X', 32, struct fsxattr)
const FSGETXATTR: u64 = 0x801c_581f;
const FSSETXATTR: u64 = 0x401c_5820;
/// New files get the project of their directory.
const PROJECT_INHERIT: u32 = 0x200;
const PROJECT_QUOTA: i32 = 2;
/// XQM_CMD(8) of <linux/dqblk_xfs.h>, which all file systems answer.
const Q_XGETQSTATV: i32 = (0x58 << 8) + 8;
/// Limits of projects are enforced.
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// `struct fs_quota_statv`, of which the flags are looked at.
#[repr(C)]
struct State {
    version: i8,
    pad: u8,
    flags: u16,
    rest: [u32; 39],
}

/// What a project uses and may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes used.
    pub used: u64,
    /// Bytes that may be used; 0: no limit.
    pub limit: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// Puts a file or directory into a project.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where the file system has no projects.
pub fn set_project(file: &File, project: u32, inherit: bool) -> io::Result<()> {
    let mut attributes = Attributes::default();
    // SAFETY: both calls read or write one `fsxattr`, which outlives them.
    let ret = unsafe {
        if libc::ioctl(file.as_raw_fd(), FSGETXATTR as _, &raw mut attributes) != 0 {
            return Err(io::Error::last_os_error());
        }
        attributes.project = project;
        if inherit {
            attributes.flags |= PROJECT_INHERIT;
        }
        libc::ioctl(file.as_raw_fd(), FSSETXATTR as _, &raw const attributes)
    };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The project of a file or directory; 0: none.
///
/// # Errors
/// As [`set_project`].
pub fn project(file: &File) -> io::Result<u32> {
    let mut attributes = Attributes::default();
    // SAFETY: the call writes one `fsxattr`, which outlives it.
    let ret = unsafe { libc::ioctl(file.as_raw_fd(), FSGETXATTR as _, &raw mut attributes) };
    if ret == 0 { Ok(attributes.project) } else { Err(io::Error::last_os_error()) }
}

/// Whether limits of projects are enforced on the file system of `file`: some count only.
///
/// # Errors
/// `ENOSYS` before Linux 5.14 and where there are no quotas.
pub fn enforced(file: &File) -> io::Result<bool> {
    // FS_QSTATV_VERSION1
    let mut state = State { version: 1, pad: 0, flags: 0, rest: [0; 39] };
    quotactl(file, Q_XGETQSTATV, 0, &mut state)?;
    Ok(state.flags & FS_QUOTA_PDQ_ENFD != 0)
}

/// Limits the bytes of a project on the file system of `file`; 0: no limit. Whoever reaches it gets `ENOSPC` from XFS and
/// `EDQUOT` from ext4, which lets pass who has CAP_SYS_RESOURCE.
///
/// # Errors
/// `ESRCH` where there are no project quotas, `ENOSYS` before Linux 5.14, `EPERM` without CAP_SYS_ADMIN.
pub fn limit(file: &File, project: u32, bytes: u64) -> io::Result<()> {
    // SAFETY: zero is a valid value of the plain structure.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    block.dqb_bhardlimit = bytes.div_ceil(1024);
    block.dqb_valid = libc::QIF_BLIMITS;
    quotactl(file, libc::Q_SETQUOTA, project, &mut block)
}

/// What a project uses on the file system of `file`; one that nothing was ever in uses nothing.
///
/// # Errors
/// As [`limit`].
pub fn usage(file: &File, project: u32) -> io::Result<Usage> {
    // SAFETY: zero is a valid value of the plain structure.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    match quotactl(file, libc::Q_GETQUOTA, project, &mut block) {
        // XFS of one that it has no entry for.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Usage::default()),
        other => other?,
    }
    Ok(Usage { used: block.dqb_curspace, limit: block.dqb_bhardlimit * 1024, inodes: block.dqb_curinodes })
}

/// `data` is what the command reads or writes: see quotactl(2).
fn quotactl<T>(file: &File, command: i32, project: u32, data: &mut T) -> io::Result<()> {
    // QCMD of quotactl(2).
    let command = (command << 8) | PROJECT_QUOTA;
    // SAFETY: the callers here pass the structure of their command, which outlives the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command, project, std::ptr::from_mut(data)) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Attributes>(), size_of::<State>()), (28, 160));
    }
}
