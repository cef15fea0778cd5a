//! Mounting on kernels without the newer mount calls: everything by mount(2), on a stage that nobody else sees.
//!
//! mount(2) takes paths; `/proc/self/fd/N` names what a descriptor stands for and is not looked up again, so a name that is
//! swapped meanwhile changes nothing.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, StatVfsMountFlags, fstat, fstatvfs, mkdirat, openat};
use rustix::io::{Errno, Result};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_move,
    mount_remount, unmount,
};

use crate::inroot;
use crate::mount_option::{ATIME_MASK, Change, FLAG_BITS, RDONLY, remount_flags, superblock_flag};
use crate::mount_table::Table;
use crate::tree::{FileSystem, move_here};

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// Mount points on the stage.
const DIRECTORY: &str = "directory";
const FILE: &str = "file";

/// A tmpfs over `/` of the mount namespace. No path leads there but `/..`; who was in `/` stays below it.
pub(crate) struct Stage(OwnedFd);

impl Stage {
    /// Needs a procfs at `/proc` (else `ENOSYS`).
    pub(crate) fn new() -> Result<Self> {
        let root = openat(CWD, "/", PATH | OFlags::DIRECTORY, Mode::empty())?;
        // What is mounted on a shared mount appears with all its peers, on the host too.
        let shared = Table::read()?.is_shared(mount_id(&root)?);
        if shared {
            mount_change("/", MountPropagationFlags::PRIVATE)?;
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", "/", "tmpfs", flags, c"mode=700")?;
        // At the root of the process `..` leads nowhere but to what lies on it.
        let stage = Self(openat(CWD, "/..", PATH | OFlags::DIRECTORY, Mode::empty())?);
        // Else a recursive bind of the host's root would have it on top.
        mount_change(by_number(&stage.0)?, MountPropagationFlags::UNBINDABLE)?;
        if shared {
            mount_change("/", MountPropagationFlags::SHARED)?;
        }
        mkdirat(&stage.0, DIRECTORY, Mode::RWXU)?;
        openat(&stage.0, FILE, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR)?;
        Ok(stage)
    }

    /// Mounts on the stage and returns the root of the mount.
    fn put(&self, directory: bool, mount: impl FnOnce(&str) -> Result<()>) -> Result<OwnedFd> {
        let name = if directory { DIRECTORY } else { FILE };
        let place = format!("{}/{name}", by_number(&self.0)?);
        // The rest of something that went wrong.
        let _ = unmount(&place, UnmountFlags::DETACH);
        mount(&place)?;
        openat(&self.0, name, PATH | OFlags::NOFOLLOW, Mode::empty())
    }

    /// A copy of what `source` lies on.
    pub(crate) fn bind(&self, source: &OwnedFd, directory: bool, recursive: bool) -> Result<OwnedFd> {
        let source = by_number(source)?;
        self.put(directory, |place| match recursive {
            true => mount_bind_recursive(&source, place),
            false => mount_bind(&source, place),
        })
    }

    /// A new mount of a file system.
    pub(crate) fn mount(&self, fs: &FileSystem<'_>) -> Result<OwnedFd> {
        let (mut flags, data) = split(fs.options)?;
        flags |= remount_flags(fs.attributes);
        flags.set(MountFlags::RDONLY, fs.readonly || fs.attributes & RDONLY != 0);
        self.put(true, |place| mount(fs.source.unwrap_or_default(), place, fs.kind, flags, data.as_c_str()))
    }

    /// Takes a detached tree in, so that mount(2) can change it.
    pub(crate) fn take(&self, tree: &OwnedFd) -> Result<()> {
        let directory = FileType::from_raw_mode(fstat(tree)?.st_mode) == FileType::Directory;
        let name = if directory { DIRECTORY } else { FILE };
        let place = openat(&self.0, name, PATH | OFlags::NOFOLLOW, Mode::empty())?;
        move_here(tree, &place)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = by_number(&self.0).and_then(|path| unmount(path, UnmountFlags::DETACH));
    }
}

/// The descriptor of a path.
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, PATH, Mode::empty())
}

/// The path that is always what the descriptor stands for.
fn by_number(fd: impl AsFd) -> Result<String> {
    const OWN: &str = "/proc/self/fd";
    match rustix::fs::statfs(OWN) {
        Ok(stat) if stat.f_type == PROC_SUPER_MAGIC => Ok(format!("{OWN}/{}", fd.as_fd().as_raw_fd())),
        _ => Err(Errno::NOSYS),
    }
}

/// The number of the mount that the descriptor lies on (proc(5), fdinfo).
fn mount_id(fd: &OwnedFd) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
    let text = text.map_err(|_| Errno::NOSYS)?;
    text.lines().find_map(|l| l.strip_prefix("mnt_id:")?.trim().parse().ok()).ok_or(Errno::NOSYS)
}

/// Whether the mount is in this namespace, and not detached.
pub(crate) fn is_mounted(tree: &OwnedFd) -> Result<bool> {
    Ok(Table::read()?.contains(mount_id(tree)?))
}

/// Moves a mount.
pub(crate) fn move_to(tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
    mount_move(by_number(tree)?, by_number(target)?)
}

/// Changes the attributes (`MOUNT_ATTR_*`) of a mount, and with `recursive` of all below it.
pub(crate) fn change(tree: &OwnedFd, change: Change, recursive: bool) -> Result<()> {
    change_one(tree.as_fd(), change)?;
    if !recursive {
        return Ok(());
    }
    let id = mount_id(tree)?;
    for (below, path) in Table::read()?.below(id) {
        let mount = match inroot::beneath(tree.as_fd(), &path) {
            // The directory has been removed: nobody gets there.
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if mount_id(&mount)? != below {
            return Err(Errno::AGAIN);
        }
        change_one(mount.as_fd(), change)?;
    }
    Ok(())
}

fn change_one(mount: BorrowedFd<'_>, (set, clear): Change) -> Result<()> {
    let flags = remount_flags((existing(mount)? & !clear) | set);
    mount_remount(by_number(mount)?, MountFlags::BIND | flags, c"")
}

/// `MOUNT_ATTR_*` of a mount, from statvfs(3).
fn existing(mount: BorrowedFd<'_>) -> Result<u64> {
    let flags = fstatvfs(mount)?.f_flag;
    let times = match () {
        () if flags.contains(StatVfsMountFlags::NOATIME) => 0x10,
        () if flags.contains(StatVfsMountFlags::RELATIME) => 0,
        () => 0x20,
    };
    let nodiratime = if flags.contains(StatVfsMountFlags::NODIRATIME) { 0x80 } else { 0 };
    // ST_NOSYMFOLLOW, which has no name there.
    let nosymfollow = if flags.bits() & 0x2000 != 0 { 0x20_0000 } else { 0 };
    Ok((flags.bits() & FLAG_BITS) | (times & ATIME_MASK) | nodiratime | nosymfollow)
}

/// Changes the propagation (`MS_*` of mount(2)).
pub(crate) fn propagate(tree: &OwnedFd, propagation: u64, recursive: bool) -> Result<()> {
    let flags = MountPropagationFlags::from_bits_retain(u32::try_from(propagation).unwrap_or_default());
    mount_change(by_number(tree)?, if recursive { flags | MountPropagationFlags::REC } else { flags })
}

/// Changes options of the file system that is mounted at `target`.
pub(crate) fn reconfigure(target: &OwnedFd, options: &[String]) -> Result<()> {
    let (flags, data) = split(options)?;
    mount_remount(by_number(target)?, flags | remount_flags(existing(target.as_fd())?), data.as_c_str())
}

/// Some options are words for fsconfig(2), but flags for mount(2).
fn split(options: &[String]) -> Result<(MountFlags, CString)> {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match superblock_flag(option) {
            Some(flag) => flags |= flag,
            None => data.push(option.as_str()),
        }
    }
    Ok((flags, CString::new(data.join(",")).map_err(|_| Errno::INVAL)?))
}
