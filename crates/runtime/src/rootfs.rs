//! The container's file system tree: mounts in order, devices, the change of root. Runs inside the new mount namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::rootfs::Mount as Mounter;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use oci_spec::runtime::{Mount, MountBuilder, Spec};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::cgroup::Placement;
use crate::device;
use crate::harden::{has_option, is_bind};
use crate::hook::chain;
use crate::mounting::{self, Step, Target};

/// Builds the whole tree at `rootfs`, up to the change of root.
pub(crate) fn prepare(spec: &Spec, rootfs: &Path, cgroup: &Placement, in_user_namespace: bool) -> Step {
    let linux = spec.linux().as_ref().ok_or("linux is required")?;
    let propagation = match linux.rootfs_propagation().as_deref() {
        None | Some("" | "slave" | "rslave" | "unbindable" | "runbindable") => MsFlags::MS_SLAVE,
        Some("private" | "rprivate") => MsFlags::MS_PRIVATE,
        Some("shared" | "rshared") => MsFlags::MS_SHARED,
        Some(other) => return Err(format!("rootfsPropagation {other:?} is unknown")),
    };
    change(Path::new("/"), propagation | MsFlags::MS_REC).map_err(|e| format!("propagation of /: {e}"))?;
    if propagation == MsFlags::MS_SHARED {
        Mounter::new().make_parent_mount_private(rootfs).map_err(|e| format!("parent of the rootfs: {}", chain(&e)))?;
    }
    let none: Option<&str> = None;
    mount(Some(rootfs), rootfs, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).map_err(|e| format!("rootfs: {e}"))?;
    let root = openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| format!("rootfs: {e}"))?;
    no_symlinks(&root)?;
    let target = Target::open(rootfs, linux.mount_label().as_deref())?;
    for entry in spec.mounts().iter().flatten() {
        let mut entry = std::borrow::Cow::Borrowed(entry);
        if entry.destination() == Path::new("/dev") && !is_bind(&entry) {
            let options = entry.options().iter().flatten().filter(|o| *o != "ro").cloned().collect();
            entry.to_mut().set_options(Some(options));
        }
        one(&target, &entry, cgroup).map_err(|e| {
            format!(
                "error mounting {:?} to rootfs at {:?}: {e}",
                entry.source().clone().unwrap_or_default(),
                entry.destination()
            )
        })?;
    }
    // Opened again: the descriptor must see the mounts.
    let root = openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| format!("rootfs: {e}"))?;
    device::setup(spec, root.as_fd(), in_user_namespace)?;
    late_readonly_dev(spec, &target)
}

/// An image whose `/dev`, `/proc` or `/sys` is a symlink would make the runtime work somewhere else (CVE-2026-41579).
fn no_symlinks(root: &OwnedFd) -> Step {
    for name in ["dev", "proc", "sys"] {
        let stat = rustix::fs::statat(root, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        if let Ok(stat) = stat
            && rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory
        {
            return Err(format!("/{name} of the rootfs is not a directory"));
        }
    }
    Ok(())
}

fn change(path: &Path, flags: MsFlags) -> nix::Result<()> {
    let none: Option<&str> = None;
    mount(none, path, none, flags, none)
}

fn one(target: &Target<'_>, entry: &Mount, cgroup: &Placement) -> Step {
    match entry.typ().as_deref() {
        Some("cgroup" | "cgroup2") if cgroup.unified => cgroup_v2(target, entry, cgroup),
        Some("cgroup") => cgroup_v1(target, entry, cgroup),
        _ => target.mount(entry),
    }
}

/// Where the container may not mount cgroup2 itself, it sees its own directory.
fn cgroup_v2(target: &Target<'_>, entry: &Mount, cgroup: &Placement) -> Step {
    let mut own = entry.clone();
    own.set_typ(Some("cgroup2".into()));
    target.mount(&own).or_else(|e| {
        let dir = cgroup.dirs.first().ok_or(e)?;
        let mut options = entry.options().clone().unwrap_or_default();
        options.push("bind".into());
        target.mount(&build("bind", &dir.path, entry.destination().clone(), options)?)
    })
}

fn build(typ: &str, source: &Path, destination: PathBuf, options: Vec<String>) -> Step<Mount> {
    MountBuilder::default()
        .typ(typ)
        .source(source)
        .destination(destination)
        .options(options)
        .build()
        .map_err(|e| e.to_string())
}

/// v1 hierarchies as the container may see them: a tmpfs with its own cgroups bound in, read-only if asked.
fn cgroup_v1(target: &Target<'_>, entry: &Mount, cgroup: &Placement) -> Step {
    let base = entry.destination();
    let readonly = has_option(entry, &["ro"]);
    let flags = |extra: &[&str]| -> Vec<String> {
        ["nosuid", "noexec", "nodev"].iter().chain(extra).map(|s| (*s).to_owned()).collect()
    };
    target.mount(&build("tmpfs", Path::new("tmpfs"), base.clone(), flags(&["mode=755"]))?)?;
    let top = target.resolve(base)?;
    for dir in &cgroup.dirs {
        let name = match dir.controllers.as_slice() {
            [] => "unified".to_owned(),
            [one] => one.trim_start_matches("name=").to_owned(),
            many => many.join(","),
        };
        let options = flags(if readonly { &["bind", "ro"] } else { &["bind"] });
        target.mount(&build("bind", &dir.path, base.join(&name), options)?)?;
        if dir.controllers.len() > 1 {
            for one in &dir.controllers {
                let _ = rustix::fs::symlinkat(name.as_str(), &top, one.as_str());
            }
        }
    }
    if readonly { mounting::seal(&top) } else { Ok(()) }
}

/// `/dev` has to be writable until it is filled; `ro` is due now.
fn late_readonly_dev(spec: &Spec, target: &Target<'_>) -> Step {
    match spec.mounts().iter().flatten().find(|m| m.destination() == Path::new("/dev")) {
        Some(dev) if has_option(dev, &["ro"]) => mounting::seal(&target.resolve(Path::new("/dev"))?),
        _ => Ok(()),
    }
}

/// Makes `rootfs` the root; the old one is gone afterwards.
pub(crate) fn pivot(rootfs: &Path, no_pivot: bool) -> Step {
    if !no_pivot {
        return libcontainer::syscall::syscall::create_syscall()
            .pivot_rootfs(rootfs)
            .map_err(|e| format!("pivot_root: {}", chain(&e)));
    }
    let go = || -> nix::Result<()> {
        nix::unistd::chdir(rootfs)?;
        // On a ramfs root the old tree stays mounted below: its /proc and /sys must not stay reachable.
        for path in ["/sys", "/proc"] {
            if umount2(path, MntFlags::MNT_DETACH).is_err() {
                let none: Option<&str> = None;
                mount(none, path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k"))?;
            }
        }
        let none: Option<&str> = None;
        mount(Some(rootfs), "/", none, MsFlags::MS_MOVE, none)?;
        nix::unistd::chroot(".")?;
        nix::unistd::chdir("/")
    };
    go().map_err(|e| format!("move the root: {e}"))
}

/// The root's own propagation, which has to wait for the change of root.
pub(crate) fn final_propagation(spec: &Spec) -> Step {
    let flags = match spec.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref()) {
        Some("shared" | "rshared") => MsFlags::MS_SHARED,
        Some("unbindable" | "runbindable") => MsFlags::MS_UNBINDABLE,
        _ => return Ok(()),
    };
    change(Path::new("/"), flags).map_err(|e| format!("propagation of /: {e}"))
}
