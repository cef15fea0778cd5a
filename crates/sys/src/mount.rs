//! Mounts: mount(2), umount2(2), and the fsopen(2) interface where an option list outgrows a page.
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

/// One mount, in the words of mount(8).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mount {
    /// "bind", "overlay", "tmpfs", ...
    pub fstype: String,
    /// Host path for a bind, else a label.
    pub source: PathBuf,
    /// Below the rootfs; empty or "/" is the rootfs itself.
    pub target: PathBuf,
    /// "ro", "rbind", "lowerdir=/a:/b", ...
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
    let plan = Plan::of(&mount.options);
    let bind = mount.fstype == "bind" || plan.flags.contains(MountFlags::BIND);
    if bind {
        mount_bind(mount, &plan, target)?;
    } else if mount.fstype == "overlay" && plan.data.len() > 3000 {
        match mount_overlay(mount, &plan, target) {
            // A kernel without fsopen(2) or without "lowerdir+", or a path longer than its 255 bytes.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
                mount_overlay_old(mount, &plan, target)?;
            }
            other => other?,
        }
    } else {
        let data = CString::new(plan.data.as_str()).map_err(|_| io::ErrorKind::InvalidInput)?;
        rustix::mount::mount(&mount.source, target, mount.fstype.as_str(), plan.flags, Some(data.as_c_str()))?;
    }
    match plan.propagation {
        Some(flags) => propagation(target, flags),
        None => Ok(()),
    }
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

fn mount_bind(mount: &Mount, plan: &Plan, target: &Path) -> io::Result<()> {
    let recursive = mount.options.iter().any(|o| o == "rbind");
    if recursive {
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

/// fsconfig(2) takes each lower directory by itself ("lowerdir+", Linux 6.5), so that the list has no length limit.
fn mount_overlay(mount: &Mount, plan: &Plan, target: &Path) -> io::Result<()> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&fs, "source", mount.source.as_path())?;
    for option in plan.data.split(',') {
        match option.split_once('=') {
            Some(("lowerdir", dirs)) => {
                for dir in dirs.split(':') {
                    rustix::mount::fsconfig_set_string(&fs, "lowerdir+", dir)?;
                }
            }
            Some((key, value)) => rustix::mount::fsconfig_set_string(&fs, key, value)?,
            None => rustix::mount::fsconfig_set_flag(&fs, option)?,
        }
    }
    rustix::mount::fsconfig_create(&fs)?;
    let made = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes(plan.flags))?;
    rustix::mount::move_mount(&made, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// mount(2) takes a page of options at most. Lower directories get short names, relative to the directory that they share,
/// which a thread of its own makes its working directory: nobody else's changes.
fn mount_overlay_old(mount: &Mount, plan: &Plan, target: &Path) -> io::Result<()> {
    let (base, data) = shortened(&plan.data);
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    let target = std::path::absolute(target)?;
    let work = || -> io::Result<()> {
        // SAFETY: CLONE_FS changes no memory; the thread ends before anybody could miss the shared working directory.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS)? };
        rustix::process::chdir(&base)?;
        Ok(rustix::mount::mount(&mount.source, &target, "overlay", plan.flags, Some(data.as_c_str()))?)
    };
    let broken = |_| Err(io::Error::other("the mounting thread broke"));
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(broken))
}

/// The directory that all lower directories share, and the options with them relative to it.
fn shortened(data: &str) -> (PathBuf, String) {
    let Some(lower) = data.split(',').find_map(|option| option.strip_prefix("lowerdir=")) else {
        return (PathBuf::from("/"), data.to_owned());
    };
    let mut dirs = lower.split(':');
    let mut base = dirs.next().and_then(|dir| dir.rsplit_once('/')).map_or("", |(parent, _)| parent);
    for dir in dirs {
        while !dir.strip_prefix(base).is_some_and(|rest| rest.starts_with('/')) {
            base = base.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
    let short: Vec<&str> = lower.split(':').map(|dir| dir.get(base.len() + 1..).unwrap_or(dir)).collect();
    (PathBuf::from(format!("{base}/")), data.replacen(lower, &short.join(":"), 1))
}

fn attributes(flags: MountFlags) -> MountAttrFlags {
    let pairs = [
        (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ];
    pairs.iter().filter(|(f, _)| flags.contains(*f)).fold(MountAttrFlags::empty(), |all, (_, a)| all | *a)
}

/// What an option list means: flags of mount(2), a change of propagation, and the rest for the filesystem.
struct Plan {
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    data: String,
}

impl Plan {
    fn of(options: &[String]) -> Self {
        let mut plan = Self { flags: MountFlags::empty(), propagation: None, data: String::new() };
        for option in options {
            match (flag(option), propagation_flag(option)) {
                (Some((flag, true)), _) => plan.flags |= flag,
                (Some((flag, false)), _) => plan.flags -= flag,
                (None, Some(flags)) => plan.propagation = Some(flags),
                (None, None) => {
                    if !plan.data.is_empty() {
                        plan.data.push(',');
                    }
                    plan.data.push_str(option);
                }
            }
        }
        plan
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
        let words = ["ro", "nodev", "rslave", "lowerdir=/a:/b", "upperdir=/u", "rw"].map(String::from);
        let plan = Plan::of(&words);
        assert_eq!(plan.flags, MountFlags::NODEV);
        assert_eq!(plan.data, "lowerdir=/a:/b,upperdir=/u");
        assert_eq!(plan.propagation, Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC));
    }

    #[test]
    fn lower_directories_are_shortened() {
        let (base, data) = shortened("lowerdir=/r/layers/1/fs:/r/layers/22/fs,upperdir=/r/u");
        assert_eq!((base.as_path(), &*data), (Path::new("/r/layers/"), "lowerdir=1/fs:22/fs,upperdir=/r/u"));
        let (base, data) = shortened("lowerdir=/r/layers/1:/r/snapshots/2,x");
        assert_eq!((base.as_path(), &*data), (Path::new("/r/"), "lowerdir=layers/1:snapshots/2,x"));
        let (base, data) = shortened("lowerdir=/a/b:/ab/c");
        assert_eq!((base.as_path(), &*data), (Path::new("/"), "lowerdir=a/b:ab/c"));
    }

    /// As on a kernel before 6.5: more directories than fit into a page by their full names.
    #[test]
    fn many_lower_directories_the_old_way() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: many_lower_directories_the_old_way: needs root");
            return;
        }
        let dir = std::env::temp_dir().join(format!("pier-sys-lower-{}", std::process::id()));
        let lower: Vec<PathBuf> = (0..200).map(|n| dir.join("layers").join(n.to_string()).join("fs")).collect();
        for (n, path) in lower.iter().enumerate() {
            std::fs::create_dir_all(path).expect("make a layer");
            std::fs::write(path.join(format!("f{n}")), b"").expect("fill it");
        }
        std::fs::create_dir(dir.join("m")).expect("make the target");
        let text: Vec<String> = lower.iter().map(|p| p.display().to_string()).collect();
        let mount = Mount {
            fstype: "overlay".into(),
            source: "overlay".into(),
            target: PathBuf::new(),
            options: vec!["ro".into(), format!("lowerdir={}", text.join(":"))],
        };
        let plan = Plan::of(&mount.options);
        assert!(plan.data.len() > 4096);
        let seen = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // SAFETY: a mount namespace of this thread alone.
                unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
                propagation(Path::new("/"), MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
                mount_overlay_old(&mount, &plan, &dir.join("m"))?;
                Ok::<_, io::Error>(std::fs::read_dir(dir.join("m"))?.count())
            });
            inside.join().expect("the thread")
        });
        let _ = std::fs::remove_dir_all(&dir);
        assert_eq!(seen.expect("mount"), 200);
    }

    #[test]
    fn targets_stay_below() {
        assert_eq!(target_below(Path::new("/r"), Path::new("/../../etc/./x")), Path::new("/r/etc/x"));
    }
}
