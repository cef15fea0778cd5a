//! `/dev` of a container: nodes and links, made through descriptors that cannot leave the rootfs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, chownat, fstat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::error::words;
use crate::harden::is_bind;
use crate::inroot::{Root, directory_beneath};
use crate::tree::Trees;

/// Symlinks every container has: `(name in /dev, target)`.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the configured and the default devices and the links. Nothing when `/dev` is a bind mount of the host's.
pub(crate) fn setup(spec: &Spec, root: &Root, in_user_namespace: bool, trees: &Trees) -> Result<(), String> {
    let bound = |m: &oci_spec::runtime::Mount| m.destination() == Path::new("/dev") && is_bind(m);
    if spec.mounts().iter().flatten().any(bound) {
        return Ok(());
    }
    let rootfs = root.as_fd();
    let configured = spec.linux().as_ref().and_then(|l| l.devices().as_deref()).unwrap_or(&[]);
    let defaults = libcontainer::rootfs::utils::default_devices();
    let missing = defaults.iter().filter(|d| configured.iter().all(|c| c.path() != d.path()));
    for (device, asked) in configured.iter().map(|d| (d, true)).chain(missing.map(|d| (d, false))) {
        match make(device, rootfs, in_user_namespace, trees) {
            // An image may put a plain file where a default device would be; what masks with one looks for itself.
            Err(Failure::Other) if !asked => {}
            other => other.map_err(|e| format!("device {}: {}", device.path().display(), e.text()))?,
        }
    }
    let dev = directory_beneath(rootfs, Path::new("dev")).map_err(|e| format!("/dev of the rootfs: {e}"))?;
    for (name, target) in LINKS {
        if name == "ptmx" {
            let _ = unlinkat(&dev, name, AtFlags::empty());
        }
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(format!("/dev/{name}: {e}")),
        }
    }
    if Path::new("/proc/kcore").exists() {
        let _ = symlinkat("/proc/kcore", &dev, "core");
    }
    Ok(())
}

/// Why a node could not be made.
enum Failure {
    /// Something else is there.
    Other,
    Reason(String),
}

impl Failure {
    fn text(self) -> String {
        match self {
            Self::Other => "something else is there".into(),
            Self::Reason(reason) => reason,
        }
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Reason(words(error))
    }
}

fn make(device: &LinuxDevice, rootfs: BorrowedFd<'_>, in_user_namespace: bool, trees: &Trees) -> Result<(), Failure> {
    let bad = |reason: &str| Failure::Reason(reason.to_owned());
    let relative: PathBuf =
        device.path().components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect();
    let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
        return Err(bad("not a path"));
    };
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(bad("type a is not one of a device node")),
    };
    let node = Node { kind, number: rustix::fs::makedev(device.major() as u32, device.minor() as u32) };
    let dir = make_dirs(rootfs, parent)?;
    if in_user_namespace && kind != FileType::Fifo {
        return bind(device.path(), node, &dir, name, trees);
    }
    let mode = Mode::from_raw_mode(device.file_mode().unwrap_or(0o666) & 0o7777);
    match mknodat(&dir, name, kind, mode, node.number) {
        Ok(()) => {}
        Err(Errno::EXIST) => return same(&dir, name, node),
        Err(Errno::PERM) => return bind(device.path(), node, &dir, name, trees),
        Err(e) => return Err(e.into()),
    }
    let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    if (uid, gid) != (0, 0) {
        use rustix::fs::{Gid, Uid};
        chownat(&dir, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// What a device node is.
#[derive(Clone, Copy)]
struct Node {
    kind: FileType,
    number: u64,
}

impl Node {
    fn is(self, stat: &rustix::fs::Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == self.kind
            && (self.kind == FileType::Fifo || stat.st_rdev == self.number)
    }
}

/// An image may bring its own `/dev`; a node that is what was asked for will do.
fn same(dir: &OwnedFd, name: &std::ffi::OsStr, node: Node) -> Result<(), Failure> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if node.is(&stat) { Ok(()) } else { Err(Failure::Other) }
}

fn make_dirs(rootfs: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    match directory_beneath(rootfs, if path.as_os_str().is_empty() { Path::new(".") } else { path }) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let parent = make_dirs(rootfs, path.parent().unwrap_or(Path::new("")))?;
    match mkdirat(&parent, path.file_name().unwrap_or_default(), Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    directory_beneath(rootfs, path)
}

/// In a user namespace nodes cannot be made: the host's is bound over an empty file.
fn bind(path: &Path, node: Node, dir: &OwnedFd, name: &std::ffi::OsStr, trees: &Trees) -> Result<(), Failure> {
    let create = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let target = openat(dir, name, create, Mode::from_raw_mode(0o644))
        .or_else(|_| openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()))?;
    let source = trees.clone_path(path, false).map_err(|e| Failure::Reason(format!("the host's: {}", words(e))))?;
    if !node.is(&fstat(&source)?) {
        return Err(Failure::Reason("the host's is another device".into()));
    }
    Ok(trees.attach(&source, &target)?)
}
