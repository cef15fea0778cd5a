//! Mounts: mount(2), umount2(2), overlays of any number of directories and erofs images, mapped ids, fuse-overlayfs.
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::clone::{MountAttr, mount_setattr};
use crate::userns::IdMaps;

mod fuse;
mod idmapped;
mod image;
mod overlay;

pub use idmapped::tree as mapped_tree;
pub use image::erofs_image;
pub use overlay::overlay_options;

/// An option of [`Mount`] as mount(8) has it, for `bind`, `overlay` (whose directories are mapped, for it cannot be itself) and
/// `fuse.fuse-overlayfs`: which ids, as they are stored, are which, as they are seen. After it, [`IdMaps`] as text.
pub const IDMAP: &str = "X-mount.idmap=";

/// An option of [`Mount`] in the runtime specification's words: read-only with all that is mounted below.
const RECURSIVE_RO: &str = "rro";

/// One mount, in the words of mount(8).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mount {
    /// "bind", "overlay", "tmpfs", ...
    pub fstype: String,
    /// Host path for a bind, else a label.
    pub source: PathBuf,
    /// Below the rootfs; empty or "/" is the rootfs itself.
    pub target: PathBuf,
    /// "ro", "rbind", "lowerdir=/a:/b", ... A lower directory of an overlay that is a file is an erofs image: it is mounted for
    /// the overlay alone, in no place, and goes with it.
    pub options: Vec<String>,
}

/// A mount that failed.
#[derive(Debug, thiserror::Error)]
#[error("mount {fstype} {source_path} on {target}")]
pub struct MountError {
    /// Filesystem type.
    pub fstype: String,
    /// What was to be mounted.
    pub source_path: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// The kernel's answer.
    #[source]
    pub cause: io::Error,
}

/// Gives the calling thread a mount namespace of its own that still receives mounts from the host (rslave) but sends
/// none back. Call it in `main` before any other thread exists, so that the whole process has it.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn private_namespace() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS alone changes no memory of this process; rustix marks unshare unsafe for CLONE_FILES.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
    propagation(Path::new("/"), MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
}

/// Changes how a mount passes mounts on (mount_namespaces(7)).
pub fn propagation(target: &Path, flags: MountPropagationFlags) -> io::Result<()> {
    Ok(rustix::mount::mount_change(target, flags)?)
}

/// Applies `mounts` in order with their targets below `rootfs`. On failure those done are taken back.
pub fn mount_all(rootfs: &Path, mounts: &[Mount]) -> Result<(), MountError> {
    for (done, mount) in mounts.iter().enumerate() {
        let target = target_below(rootfs, &mount.target);
        if let Err(cause) = mount_one(mount, &target) {
            for earlier in mounts[..done].iter().rev() {
                let _ = unmount(&target_below(rootfs, &earlier.target));
            }
            return Err(MountError { fstype: mount.fstype.clone(), source_path: mount.source.clone(), target, cause });
        }
    }
    Ok(())
}

/// Mounts one on `target`, which must exist.
pub fn mount_one(mount: &Mount, target: &Path) -> io::Result<()> {
    let plan = Plan::of(&mount.options)?;
    match mount.fstype.as_str() {
        kind if kind == "bind" || plan.flags.contains(MountFlags::BIND) => mount_bind(mount, &plan, target)?,
        "overlay" => overlay::mount(mount, &plan, target)?,
        "fuse.fuse-overlayfs" => fuse::mount(mount, &plan, target)?,
        kind if plan.ids.is_some() => {
            let why = format!("the ids of a mount of type {kind} cannot be mapped");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        kind => {
            let data = CString::new(plan.rest.join(",")).map_err(|_| io::ErrorKind::InvalidInput)?;
            rustix::mount::mount(&mount.source, target, kind, plan.flags, Some(data.as_c_str()))?;
        }
    }
    if mount.options.iter().any(|option| option == RECURSIVE_RO) {
        read_only_below(target).inspect_err(|_| drop(unmount(target)))?;
    }
    match plan.propagation {
        Some(flags) => propagation(target, flags),
        None => Ok(()),
    }
}

/// Makes a mount and all that is mounted below it read-only (mount_setattr(2), Linux 5.12).
fn read_only_below(target: &Path) -> io::Result<()> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let fd = rustix::fs::open(target, flags, rustix::fs::Mode::empty())?;
    let attr = MountAttr { set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), ..MountAttr::default() };
    mount_setattr(fd.as_fd(), &attr, true)
}

/// Detaches the mount at `target` at once, its users may go on (MNT_DETACH). A target that is no mount is no error.
pub fn unmount(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn target_below(rootfs: &Path, target: &Path) -> PathBuf {
    let mut out = rootfs.to_path_buf();
    // Only plain names: a target never climbs out of the rootfs by its text.
    out.extend(target.components().filter(|c| matches!(c, std::path::Component::Normal(_))));
    out
}

fn mount_bind(mount: &Mount, plan: &Plan<'_>, target: &Path) -> io::Result<()> {
    let recursive = mount.options.iter().any(|o| o == "rbind");
    if let Some(ids) = &plan.ids {
        let tree = mapped_tree(&mount.source, ids, recursive)?;
        rustix::mount::move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    } else if recursive {
        rustix::mount::mount_bind_recursive(&mount.source, target)?;
    } else {
        rustix::mount::mount_bind(&mount.source, target)?;
    }
    let flags = plan.flags - MountFlags::BIND - MountFlags::REC;
    if flags.is_empty() {
        return Ok(());
    }
    rustix::mount::mount_remount(target, MountFlags::BIND | flags, c"").map_err(|e| {
        let _ = unmount(target);
        e.into()
    })
}

fn attributes(flags: MountFlags) -> MountAttrFlags {
    let pairs = [
        (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
        (MountFlags::STRICTATIME, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
        (MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ];
    pairs.iter().filter(|(f, _)| flags.contains(*f)).fold(MountAttrFlags::empty(), |all, (_, a)| all | *a)
}

/// An error with words: what it is about, and the kernel's.
fn said(error: Errno, what: &str) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// What an option list means: flags of mount(2), a change of propagation, mapped ids, and the rest for the filesystem.
struct Plan<'a> {
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    ids: Option<IdMaps>,
    rest: Vec<&'a str>,
}

impl<'a> Plan<'a> {
    fn of(options: &'a [String]) -> io::Result<Self> {
        let mut plan = Self { flags: MountFlags::empty(), propagation: None, ids: None, rest: Vec::new() };
        for option in options {
            if let Some(ids) = option.strip_prefix(IDMAP) {
                plan.ids = Some(IdMaps::parse(ids)?);
                continue;
            }
            // Done at the end; see `mount_one`.
            if option == RECURSIVE_RO {
                continue;
            }
            match (flag(option), propagation_flag(option)) {
                (Some((flag, true)), _) => plan.flags |= flag,
                (Some((flag, false)), _) => plan.flags -= flag,
                (None, Some(flags)) => plan.propagation = Some(flags),
                (None, None) => plan.rest.push(option),
            }
        }
        Ok(plan)
    }
}

fn flag(option: &str) -> Option<(MountFlags, bool)> {
    Some(match option {
        "bind" => (MountFlags::BIND, true),
        "rbind" => (MountFlags::BIND | MountFlags::REC, true),
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "noatime" => (MountFlags::NOATIME, true),
        "relatime" => (MountFlags::RELATIME, true),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "dirsync" => (MountFlags::DIRSYNC, true),
        "defaults" => (MountFlags::empty(), true),
        _ => return None,
    })
}

fn propagation_flag(option: &str) -> Option<MountPropagationFlags> {
    let (recursive, kind) = match option.strip_prefix('r') {
        Some(kind @ ("private" | "shared" | "slave" | "unbindable")) => (true, kind),
        _ => (false, option),
    };
    let flags = match kind {
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(if recursive { flags | MountPropagationFlags::REC } else { flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_out() {
        let words =
            ["ro", "nodev", "rslave", "lowerdir=/a:/b", "upperdir=/u", "rw", "X-mount.idmap=0:5:1"].map(String::from);
        let plan = Plan::of(&words).expect("a plan");
        assert_eq!(plan.flags, MountFlags::NODEV);
        assert_eq!(plan.rest, ["lowerdir=/a:/b", "upperdir=/u"]);
        assert_eq!(plan.propagation, Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC));
        assert_eq!(plan.ids.map(|ids| ids.root()), Some((5, 5)));
        assert!(Plan::of(&["X-mount.idmap=x".to_owned()]).is_err());
    }

    #[test]
    fn targets_stay_below() {
        assert_eq!(target_below(Path::new("/r"), Path::new("/../../etc/./x")), Path::new("/r/etc/x"));
    }
}
