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

/// Limits the bytes of a project on the file system of `file`; 0: no limit.
///
/// # Errors
/// `ESRCH` where project quotas are not enforced, `ENOSYS` before Linux 5.14.
pub fn limit(file: &File, project: u32, bytes: u64) -> io::Result<()> {
    // SAFETY: zero is a valid value of the plain structure.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    block.dqb_bhardlimit = bytes.div_ceil(1024);
    block.dqb_bsoftlimit = block.dqb_bhardlimit;
    block.dqb_valid = libc::QIF_BLIMITS;
    quotactl(file, libc::Q_SETQUOTA, project, &mut block)
}

/// What a project uses on the file system of `file`.
///
/// # Errors
/// As [`limit`]; `ESRCH` too for a project that nothing was ever in.
pub fn usage(file: &File, project: u32) -> io::Result<Usage> {
    // SAFETY: zero is a valid value of the plain structure.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    quotactl(file, libc::Q_GETQUOTA, project, &mut block)?;
    Ok(Usage { used: block.dqb_curspace, limit: block.dqb_bhardlimit * 1024, inodes: block.dqb_curinodes })
}

fn quotactl(file: &File, command: i32, project: u32, block: &mut libc::dqblk) -> io::Result<()> {
    // QCMD of quotactl(2).
    let command = (command << 8) | PROJECT_QUOTA;
    // SAFETY: the kernel reads or writes one `dqblk`, which outlives the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command, project, std::ptr::from_mut(block)) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
