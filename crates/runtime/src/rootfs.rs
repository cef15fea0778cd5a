//! The container's file system tree: mounts in order, devices, the change of root. Runs inside the new mount namespace.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libcontainer::rootfs::Mount as Mounter;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use oci_spec::runtime::{Mount, MountBuilder, Spec};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::cgroup::{Dir, Placement};
use crate::device;
use crate::error::words;
use crate::harden::{has_option, is_bind};
use crate::hook::chain;
use crate::inroot::{self, Root};
use crate::mounting::{self, Step, Target};
use crate::source::Sources;
use crate::tree::Trees;

/// Goes to the rootfs, before the process gives up the right to look for it: from then on it is the working directory,
/// also across a change of mount namespace.
pub(crate) fn go_to(rootfs: &Path) -> Step {
    // The path has been resolved before: a symlink in it now is somebody's trick.
    inroot::absolute(rootfs)
        .and_then(rustix::process::fchdir)
        .map_err(|e| format!("rootfs {}: {}", rootfs.display(), words(e)))
}

/// Builds the whole tree at the working directory, up to the change of root, and returns the root of it.
pub(crate) fn prepare(
    spec: &Spec,
    rootfs: &Path,
    cgroup: &Placement,
    in_user_namespace: bool,
    sources: Sources<'_>,
) -> Step<Root> {
    let trees = Trees::default();
    let linux = spec.linux().as_ref().ok_or("linux is required")?;
    propagate(linux.rootfs_propagation().as_deref(), rootfs)?;
    let root = bind_root(&trees)?;
    no_symlinks(&root)?;
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let target = Target::new(&root, linux.mount_label().as_deref(), sources, &trees);
    for (index, entry) in spec.mounts().iter().flatten().enumerate() {
        let mut entry = std::borrow::Cow::Borrowed(entry);
        if entry.destination() == Path::new("/dev") && !is_bind(&entry) {
            let options = entry.options().iter().flatten().filter(|o| *o != "ro").cloned().collect();
            entry.to_mut().set_options(Some(options));
        }
        one(&target, &entry, index, cgroup).map_err(|e| {
            format!(
                "error mounting {:?} to rootfs at {:?}: {e}",
                entry.source().clone().unwrap_or_default(),
                entry.destination()
            )
        })?;
    }
    device::setup(spec, &root, in_user_namespace, &trees)?;
    nix::sys::stat::umask(old);
    // Hooks run in here.
    rustix::process::fchdir(&root).map_err(|e| format!("rootfs: {}", words(e)))?;
    Ok(root)
}

/// What the container's mount namespace has to do with the one it was copied from.
fn propagate(wanted: Option<&str>, rootfs: &Path) -> Step {
    let propagation = match wanted {
        None | Some("" | "slave" | "rslave" | "unbindable" | "runbindable") => MsFlags::MS_SLAVE,
        Some("private" | "rprivate") => MsFlags::MS_PRIVATE,
        Some("shared" | "rshared") => MsFlags::MS_SHARED,
        Some(other) => return Err(format!("rootfsPropagation {other:?} is unknown")),
    };
    change(Path::new("/"), propagation | MsFlags::MS_REC).map_err(|e| format!("propagation of /: {e}"))?;
    if propagation == MsFlags::MS_SHARED {
        // pivot_root takes no shared parent, and the mounts below are the container's own.
        Mounter::new().make_parent_mount_private(rootfs).map_err(|e| format!("parent of the rootfs: {}", chain(&e)))?;
    }
    Ok(())
}

/// Binds the working directory over itself: the root has to be a mount.
fn bind_root(trees: &Trees) -> Step<Root> {
    let go = || -> Step<OwnedFd> {
        let here =
            openat(CWD, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(words)?;
        trees.cover(&here, || trees.clone(&here, true)).map_err(words)
    };
    go().map(Root::new).map_err(|e| format!("rootfs: {e}"))
}

/// An image whose `/dev`, `/proc` or `/sys` is a symlink would make the runtime work somewhere else (CVE-2026-41579).
fn no_symlinks(root: &Root) -> Step {
    for name in ["dev", "proc", "sys"] {
        let stat = rustix::fs::statat(root, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        if let Ok(stat) = stat
            && rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory
        {
            return Err(format!(
                "/{name} of the rootfs is not a directory: /{name} must be mounted on ordinary directory"
            ));
        }
    }
    Ok(())
}

fn change(path: &Path, flags: MsFlags) -> nix::Result<()> {
    let none: Option<&str> = None;
    mount(none, path, none, flags, none)
}

fn one(target: &Target<'_>, entry: &Mount, index: usize, cgroup: &Placement) -> Step {
    match entry.typ().as_deref() {
        Some("cgroup" | "cgroup2") if cgroup.unified => cgroup_v2(target, entry, cgroup),
        Some("cgroup") => cgroup_v1(target, entry, cgroup),
        _ => target.mount(entry, Some(index)),
    }
}

/// Where the container may not mount cgroup2 itself, it sees its own directory.
fn cgroup_v2(target: &Target<'_>, entry: &Mount, cgroup: &Placement) -> Step {
    let mut own = entry.clone();
    own.set_typ(Some("cgroup2".into()));
    target.mount(&own, None).or_else(|e| {
        let dir = cgroup.dirs.first().ok_or(e)?;
        let mut options = entry.options().clone().unwrap_or_default();
        options.push("bind".into());
        target.mount(&build("bind", &dir.path, entry.destination().clone(), options)?, None)
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

/// The name of a hierarchy's directory inside a container.
pub(crate) fn hierarchy_name(dir: &Dir) -> String {
    match dir.controllers.as_slice() {
        [] => "unified".to_owned(),
        [one] => one.trim_start_matches("name=").to_owned(),
        many => many.join(","),
    }
}

/// v1 hierarchies as the container may see them: a tmpfs with its own cgroups bound in, read-only if asked.
fn cgroup_v1(target: &Target<'_>, entry: &Mount, cgroup: &Placement) -> Step {
    let base = entry.destination();
    let readonly = has_option(entry, &["ro"]);
    let flags = |extra: &[&str]| -> Vec<String> {
        ["nosuid", "noexec", "nodev"].iter().chain(extra).map(|s| (*s).to_owned()).collect()
    };
    target.mount(&build("tmpfs", Path::new("tmpfs"), base.clone(), flags(&["mode=755"]))?, None)?;
    let top = target.find(base)?;
    for dir in &cgroup.dirs {
        let name = hierarchy_name(dir);
        let options = flags(if readonly { &["bind", "ro"] } else { &["bind"] });
        target.mount(&build("bind", &dir.path, base.join(&name), options)?, None)?;
        if dir.controllers.len() > 1 {
            for one in &dir.controllers {
                let _ = rustix::fs::symlinkat(name.as_str(), &top, one.as_str());
            }
        }
    }
    if readonly { mounting::seal(&top) } else { Ok(()) }
}

/// `/dev` has to be writable until it is filled, also with the console; `ro` is due after that. Runs in the new root.
pub(crate) fn late_readonly_dev(spec: &Spec) -> Step {
    match spec.mounts().iter().flatten().find(|m| m.destination() == Path::new("/dev")) {
        Some(dev) if has_option(dev, &["ro"]) && !is_bind(dev) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dev = openat(CWD, "/dev", flags, Mode::empty()).map_err(|e| format!("/dev: {}", words(e)))?;
            mounting::seal(&dev)
        }
        _ => Ok(()),
    }
}

/// Makes `root` the root; the old one is gone afterwards.
pub(crate) fn pivot(root: &Root, no_pivot: bool) -> Step {
    rustix::process::fchdir(root).map_err(|e| format!("rootfs: {}", words(e)))?;
    if no_pivot {
        return move_root().map_err(|e| format!("move the root: {}", words(e)));
    }
    let go = || -> std::io::Result<()> {
        let old = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // The old root comes to lie on the new one, at the same place, and is taken off there.
        nix::unistd::pivot_root(".", ".")?;
        rustix::process::fchdir(&old)?;
        change(Path::new("."), MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
        umount2(".", MntFlags::MNT_DETACH)?;
        Ok(nix::unistd::chdir("/")?)
    };
    go().map_err(|e| format!("pivot_root: {}", words(e)))
}

fn move_root() -> std::io::Result<()> {
    let none: Option<&str> = None;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let here = std::env::current_dir()?;
    // On a ramfs root the old tree stays mounted below: a whole procfs or sysfs there would let the container mount new ones.
    for path in pseudo_mounts(&table).iter().rev().filter(|p| !p.starts_with(&here)) {
        change(path, MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
        if umount2(path, MntFlags::MNT_DETACH).is_err() {
            mount(none, path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k"))?;
        }
    }
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
    nix::unistd::chroot(".")?;
    Ok(nix::unistd::chdir("/")?)
}

/// Mount points of procfs and sysfs in the text of a mountinfo (proc(5)).
fn pseudo_mounts(table: &str) -> Vec<PathBuf> {
    let kind = |line: &str| line.split_once(" - ").and_then(|(_, tail)| tail.split(' ').next().map(str::to_owned));
    table
        .lines()
        .filter(|line| matches!(kind(line).as_deref(), Some("proc" | "sysfs")))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudo_file_systems() {
        let table = "22 1 8:1 / / rw - ext4 /dev/sda rw\n23 22 0:5 / /proc rw shared:2 - proc proc rw\n\
                     24 22 0:6 / /a\\040b rw - sysfs sysfs rw\n25 23 0:5 /sys /proc/sys ro - proc proc rw\n";
        assert_eq!(pseudo_mounts(table), ["/proc", "/a b", "/proc/sys"].map(PathBuf::from));
    }
}
