//! One mount of the configuration, placed inside the rootfs by descriptor: the target is resolved once, by the kernel, and
//! cannot leave the rootfs.

use std::fs::{Permissions, canonicalize};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::MsFlags;
use oci_spec::runtime::Mount;
use pathrs::Root;
use pathrs::flags::OpenFlags;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use sys::clone::{MountAttr, mount_setattr};

use crate::harden::{has_option, is_bind};

pub(crate) type Step<T = ()> = Result<T, String>;

/// `MOUNT_ATTR_*` bits by mount(2) flag.
const ATTRS: [(MsFlags, u64); 7] = [
    (MsFlags::MS_RDONLY, 0x1),
    (MsFlags::MS_NOSUID, 0x2),
    (MsFlags::MS_NODEV, 0x4),
    (MsFlags::MS_NOEXEC, 0x8),
    (MsFlags::MS_NOATIME, 0x10),
    (MsFlags::MS_STRICTATIME, 0x20),
    (MsFlags::MS_NODIRATIME, 0x80),
];
const ATIME_MASK: u64 = 0x70;
const RDONLY: u64 = 0x1;

/// How a mount is to be made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    set: u64,
    clear: u64,
    /// For the whole tree below: `(set, clear)`.
    recursive: Option<(u64, u64)>,
    /// Options of the file system itself.
    data: Vec<String>,
    /// `(MS_* propagation, recursive)`.
    propagation: Vec<(u64, bool)>,
    copy_up: bool,
}

/// Reads the options of a mount. Pure.
pub(crate) fn plan(mount: &Mount) -> Step<Plan> {
    let parsed = libcontainer::rootfs::utils::parse_mount(mount).map_err(|e| e.to_string())?;
    let mut plan = Plan { data: parsed.data, ..Plan::default() };
    for (flag, attr) in ATTRS {
        if parsed.flags.contains(flag) {
            plan.set |= attr;
        }
    }
    if parsed.flags.contains(MsFlags::MS_RELATIME) || plan.set & ATIME_MASK != 0 {
        plan.clear |= ATIME_MASK;
    }
    // Strict wins over "no", as for mount(2).
    if plan.set & 0x20 != 0 {
        plan.set &= !0x10;
    }
    plan.recursive = parsed.rec_attr.map(|a| (a.attr_set, a.attr_clr));
    plan.copy_up = has_option(mount, &["tmpcopyup"]);
    plan.data.retain(|d| !d.is_empty() && d != "tmpcopyup");
    for (flag, word) in
        [(MsFlags::MS_SYNCHRONOUS, "sync"), (MsFlags::MS_DIRSYNC, "dirsync"), (MsFlags::MS_MANDLOCK, "mand")]
    {
        if parsed.flags.contains(flag) && !is_bind(mount) {
            plan.data.push(word.to_owned());
        }
    }
    for option in mount.options().iter().flatten() {
        // A bind mount inherits the source's restrictions; what is asked for by name is lifted.
        let lifted = match option.as_str() {
            "rw" => 0x1,
            "suid" => 0x2,
            "dev" => 0x4,
            "exec" => 0x8,
            _ => 0,
        };
        plan.clear |= lifted & !plan.set;
        let (word, recursive) = match option.as_str() {
            "rshared" | "rslave" | "rprivate" | "runbindable" => (&option[1..], true),
            other => (other, false),
        };
        let bits = match word {
            "shared" => MsFlags::MS_SHARED,
            "slave" => MsFlags::MS_SLAVE,
            "private" => MsFlags::MS_PRIVATE,
            "unbindable" => MsFlags::MS_UNBINDABLE,
            _ => continue,
        };
        plan.propagation.push((bits.bits(), recursive));
    }
    if !is_bind(mount) {
        plan.clear &= ATIME_MASK;
    }
    Ok(plan)
}

/// The rootfs as the mounts see it.
pub(crate) struct Target<'a> {
    root: Root,
    label: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Opens the rootfs.
    pub(crate) fn open(rootfs: &Path, label: Option<&'a str>) -> Step<Self> {
        let label = label.filter(|l| !l.is_empty() && Path::new("/sys/fs/selinux").exists());
        Ok(Self { root: Root::open(rootfs).map_err(|e| format!("rootfs: {e}"))?, label })
    }

    /// A path inside, resolved.
    pub(crate) fn resolve(&self, path: &Path) -> Step<OwnedFd> {
        Ok(self.root.resolve(path).map_err(|e| format!("{}: {e}", path.display()))?.into())
    }

    /// Makes one mount.
    pub(crate) fn mount(&self, mount: &Mount) -> Step {
        let plan = plan(mount)?;
        if is_bind(mount) { self.bind(mount, &plan) } else { self.filesystem(mount, &plan) }
    }

    fn bind(&self, mount: &Mount, plan: &Plan) -> Step {
        let source = mount.source().as_deref().ok_or("no source")?;
        let source = canonicalize(source).map_err(|e| e.to_string())?;
        let target = self.target(mount.destination(), source.is_dir())?;
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if has_option(mount, &["rbind"]) {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = open_tree(CWD, &source, flags).map_err(|e| e.to_string())?;
        attributes(&tree, plan)?;
        attach(&tree, &target)
    }

    fn filesystem(&self, mount: &Mount, plan: &Plan) -> Step {
        let kind = mount.typ().as_deref().filter(|t| !t.is_empty()).ok_or("no type")?;
        let strict = matches!(kind, "proc" | "sysfs");
        let target = self.target(mount.destination(), true)?;
        if strict {
            self.no_symlink(mount.destination())?;
        }
        let tree = self.new_superblock(kind, mount, plan).map_err(|e| e.to_string())?;
        if plan.copy_up {
            copy_tree(&target, &tree)?;
        }
        attributes(&tree, plan)?;
        attach(&tree, &target)
    }

    fn new_superblock(&self, kind: &str, mount: &Mount, plan: &Plan) -> rustix::io::Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        if let Some(source) = mount.source() {
            fsconfig_set_string(&context, c"source", source.as_os_str())?;
        }
        for option in &plan.data {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                None => fsconfig_set_flag(&context, option.as_str())?,
            }
        }
        if let Some(label) = self.label.filter(|_| !matches!(kind, "proc" | "sysfs")) {
            fsconfig_set_string(&context, c"context", label)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// The mount point, made if it is not there.
    fn target(&self, path: &Path, directory: bool) -> Step<OwnedFd> {
        if let Ok(found) = self.root.resolve(path) {
            return Ok(found.into());
        }
        let dirs = Permissions::from_mode(0o755);
        let failed = |e: pathrs::error::Error| format!("cannot make the mount point: {e}");
        if directory {
            self.root.mkdir_all(path, &dirs).map_err(failed)?;
        } else {
            let parent = path.parent().ok_or("no parent directory")?;
            self.root.mkdir_all(parent, &dirs).map_err(failed)?;
            let flags = OpenFlags::O_CREAT | OpenFlags::O_EXCL | OpenFlags::O_NOFOLLOW | OpenFlags::O_CLOEXEC;
            self.root.create_file(path, flags, &Permissions::from_mode(0o644)).map_err(failed)?;
        }
        self.resolve(path)
    }

    /// procfs and sysfs anywhere but where the path says would let the image choose what the runtime writes to.
    fn no_symlink(&self, path: &Path) -> Step {
        let root: OwnedFd = self.root.try_clone().map_err(|e| e.to_string())?.into();
        let relative = path.strip_prefix("/").unwrap_or(path);
        crate::device::open_beneath(root.as_fd(), relative)
            .map(drop)
            .map_err(|e| format!("must be mounted on an ordinary directory: {e}"))
    }
}

fn attributes(tree: &OwnedFd, plan: &Plan) -> Step {
    let change =
        |set, clear, recursive| mount_setattr(tree.as_fd(), &MountAttr { set, clear, ..Default::default() }, recursive);
    if plan.set | plan.clear != 0 {
        let atime = plan.clear & ATIME_MASK;
        // Restrictions inherited into a user namespace are locked: then they stay, which is the safe side.
        change(plan.set, plan.clear, false)
            .or_else(|e| if plan.clear == atime { Err(e) } else { change(plan.set, atime, false) })
            .map_err(|e| format!("mount flags: {e}"))?;
    }
    if let Some((set, clear)) = plan.recursive {
        change(set, clear, true).map_err(|e| format!("recursive mount flags: {e}"))?;
    }
    for (propagation, recursive) in &plan.propagation {
        mount_setattr(tree.as_fd(), &MountAttr { propagation: *propagation, ..Default::default() }, *recursive)
            .map_err(|e| format!("propagation: {e}"))?;
    }
    Ok(())
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> Step {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", target, c"", flags).map_err(|e| e.to_string())
}

/// Makes a mount read-only after it has been filled.
pub(crate) fn seal(target: &OwnedFd) -> Step {
    mount_setattr(target.as_fd(), &MountAttr { set: RDONLY, ..Default::default() }, false)
        .map_err(|e| format!("read-only: {e}"))
}

/// Copies what lay under a `tmpcopyup` mount into it: directories, files, symlinks, with owners and modes.
fn copy_tree(from: &OwnedFd, to: &OwnedFd) -> Step {
    let path = |fd: &OwnedFd| std::path::PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    copy_dir(&path(from), &path(to)).map_err(|e| format!("tmpcopyup: {e}"))
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, lchown, symlink};
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source)?;
        if meta.is_dir() {
            fs::create_dir(&target)?;
            copy_dir(&source, &target)?;
        } else if meta.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if meta.is_file() {
            fs::copy(&source, &target)?;
        } else {
            continue;
        }
        lchown(&target, Some(meta.uid()), Some(meta.gid()))?;
        if !meta.is_symlink() {
            fs::set_permissions(&target, meta.permissions())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(typ: &str, options: &[&str]) -> Plan {
        plan(
            &serde_json::from_value(json!({"destination": "/x", "type": typ, "source": "s", "options": options}))
                .unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn flags_and_data() {
        let p = of("tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k", "tmpcopyup", "rw"]);
        assert_eq!((p.set, p.clear, p.copy_up), (0x22, 0x70, true));
        assert_eq!(p.data, ["mode=755", "size=65536k"]);
    }

    #[test]
    fn binds_lift_only_what_is_named() {
        assert_eq!(of("bind", &["rbind", "ro", "exec"]).clear, 0x8);
        assert_eq!(of("bind", &["rbind", "ro"]).set, 0x1);
        assert_eq!(of("tmpfs", &["rw", "exec"]).clear, 0);
    }

    #[test]
    fn propagation() {
        let p = of("bind", &["bind", "rprivate", "shared"]);
        assert_eq!(p.propagation, [(MsFlags::MS_PRIVATE.bits(), true), (MsFlags::MS_SHARED.bits(), false)]);
    }
}
