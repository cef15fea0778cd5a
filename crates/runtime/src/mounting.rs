//! One mount of the configuration, placed inside the rootfs by descriptor: the target is resolved once and cannot leave
//! the rootfs.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::Mount;
use rustix::fs::{FileType, StatVfsMountFlags, fstat, fstatfs, fstatvfs};
use rustix::io::Errno;

use crate::copy_up;
use crate::error::words;
use crate::harden::{is_bind, may_cover_proc};
use crate::inroot::{Kind, Root};
use crate::mount_option::{Options, RDONLY};
use crate::source::Sources;
use crate::tree::{FileSystem, Trees};

pub(crate) type Step<T = ()> = Result<T, String>;

/// File systems that have no device which might be read-only: `ro` is a matter of the mount alone.
const DEVICELESS: [&str; 7] = ["proc", "sysfs", "tmpfs", "mqueue", "devpts", "cgroup", "cgroup2"];

/// The rootfs as the mounts see it.
pub(crate) struct Target<'a> {
    root: &'a Root,
    label: Option<&'a str>,
    sources: Sources<'a>,
    trees: &'a Trees,
}

impl<'a> Target<'a> {
    /// Mounts into `root`, new file systems with the SELinux `label`.
    pub(crate) fn new(root: &'a Root, label: Option<&'a str>, sources: Sources<'a>, trees: &'a Trees) -> Self {
        Self { root, label: label.filter(|l| !l.is_empty()), sources, trees }
    }

    /// What is at `path`.
    pub(crate) fn find(&self, path: &Path) -> Step<OwnedFd> {
        match self.root.find(path) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(format!("{}: no such file or directory", path.display())),
            Err(e) => Err(format!("{}: {}", path.display(), words(e))),
        }
    }

    /// Makes one mount; `index` is its place in the configuration, if it has one.
    pub(crate) fn mount(&self, mount: &Mount, index: Option<usize>) -> Step {
        let options = Options::of(mount);
        if options.remount {
            return self.remount(mount, &options);
        }
        if is_bind(mount) { self.bind(mount, &options, index) } else { self.filesystem(mount, &options) }
    }

    fn bind(&self, mount: &Mount, options: &Options, index: Option<usize>) -> Step {
        let source = mount.source().as_deref().ok_or("no source")?;
        let tree = self.sources.open(source, options, index, self.trees)?;
        let stat = fstat(&tree).map_err(words)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let target = self.target(mount.destination(), if directory { Kind::Directory } else { Kind::File })?;
        if mount.destination() == Path::new("/proc") && !is_procfs(&tree)? {
            return Err(format!("{} is not a procfs: it cannot cover /proc", source.display()));
        }
        self.bind_attributes(&tree, options)?;
        self.finish(&tree, options)?;
        self.trees.attach(&tree, &target).map_err(words)
    }

    fn filesystem(&self, mount: &Mount, options: &Options) -> Step {
        let kind = mount.typ().as_deref().filter(|t| !t.is_empty()).ok_or("no type")?;
        let place = mount.destination();
        if matches!(kind, "proc" | "sysfs") {
            self.ordinary(place)?;
        }
        let found = self.root.find(place).map_err(words)?;
        let inherit = if kind == "tmpfs" { found.as_ref().map(mode_of).transpose()? } else { None };
        let target = self.target(place, Kind::Directory)?;
        let tree = self.new_superblock(kind, mount, options, inherit).map_err(words)?;
        if options.copy_up {
            copy_up::copy(&target, &tree).map_err(|e| format!("tmpcopyup: {}", words(e)))?;
            if options.readonly() {
                seal(&tree)?;
            }
        }
        self.finish(&tree, options)?;
        self.trees.attach(&tree, &target).map_err(words)
    }

    fn new_superblock(
        &self,
        kind: &str,
        mount: &Mount,
        options: &Options,
        mode: Option<u32>,
    ) -> rustix::io::Result<OwnedFd> {
        // A tmpfs takes the mode of the directory it covers, as long as nobody says another.
        let mode = mode.filter(|_| !options.data.iter().any(|d| d.starts_with("mode=")));
        let label = self.label.filter(|_| !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup2"));
        let mut all: Vec<String> = mode.map(|mode| format!("mode={mode:o}")).into_iter().collect();
        all.extend_from_slice(&options.data);
        all.extend(label.map(|label| format!("context={label}")));
        self.trees.make(&FileSystem {
            kind,
            source: mount.source().as_ref().map(|s| s.as_os_str()),
            readonly: options.readonly() && !DEVICELESS.contains(&kind),
            options: &all,
            attributes: options.fresh() & if options.copy_up { !RDONLY } else { !0 },
        })
    }

    /// Changes what the container has mounted there before.
    fn remount(&self, mount: &Mount, options: &Options) -> Step {
        let target = self.find(mount.destination())?;
        if !is_bind(mount) && !options.data.is_empty() {
            self.trees.reconfigure(&target, &options.data).map_err(words)?;
        }
        self.bind_attributes(&target, options)?;
        self.finish(&target, options)
    }

    /// The mount point, made if it is not there; never one inside a procfs, where it could redirect what is written to
    /// it on the container's behalf (CVE-2019-16884, CVE-2025-52881).
    fn target(&self, path: &Path, kind: Kind) -> Step<OwnedFd> {
        let target = match self.root.find(path).map_err(words)? {
            Some(found) => found,
            None => self.root.make(path, kind).map_err(|e| format!("cannot make the mount point: {}", words(e)))?,
        };
        if path != Path::new("/proc") && !may_cover_proc(path) && is_procfs(&target)? {
            return Err(format!("{} is inside a procfs", path.display()));
        }
        Ok(target)
    }

    /// Flags that another user namespace has locked stay, unless one of them was to be lifted by name.
    fn bind_attributes(&self, tree: &OwnedFd, options: &Options) -> Step {
        let Some(replaced) = options.replaced() else { return Ok(()) };
        let Err(refused) = self.trees.change(tree, replaced, false) else { return Ok(()) };
        let locked = || options.replaced_locked(existing(tree).ok()?);
        match locked().filter(|_| refused == Errno::PERM) {
            Some(less) => self.trees.change(tree, less, false),
            None => Err(refused),
        }
        .map_err(|e| format!("mount flags: {}", words(e)))
    }

    /// Recursive attributes and propagation.
    fn finish(&self, tree: &OwnedFd, options: &Options) -> Step {
        if let Some(all) = options.recursive() {
            self.trees.change(tree, all, true).map_err(|e| format!("recursive mount flags: {}", words(e)))?;
        }
        options.propagation.iter().try_for_each(|(propagation, recursive)| {
            let done = self.trees.propagate(tree, *propagation, *recursive);
            done.map_err(|e| format!("propagation: {}", words(e)))
        })
    }

    /// procfs and sysfs anywhere but where the path says would let the image choose what the runtime writes to.
    fn ordinary(&self, path: &Path) -> Step {
        match self.root.find_ordinary(path) {
            Ok(found) if is_directory(&found)? => Ok(()),
            Err(Errno::NOENT) => Ok(()),
            _ => Err(format!("filesystem {path:?} must be mounted on ordinary directory")),
        }
    }
}

fn is_directory(fd: &OwnedFd) -> Step<bool> {
    Ok(FileType::from_raw_mode(fstat(fd).map_err(words)?.st_mode) == FileType::Directory)
}

fn is_procfs(fd: &OwnedFd) -> Step<bool> {
    Ok(fstatfs(fd).map_err(words)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

fn mode_of(directory: &OwnedFd) -> Step<u32> {
    Ok(fstat(directory).map_err(words)?.st_mode & 0o7777)
}

/// `MOUNT_ATTR_*` of a mount; the kernel reports them with the same bits where it matters.
fn existing(tree: &OwnedFd) -> rustix::io::Result<u64> {
    let flags = fstatvfs(tree)?.f_flag;
    let lockable =
        StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV | StatVfsMountFlags::NOEXEC;
    Ok(flags.intersection(lockable).bits())
}

/// Makes a mount read-only after it has been filled.
pub(crate) fn seal(target: &OwnedFd) -> Step {
    Trees::default().change(target, (RDONLY, 0), false).map_err(|e| format!("read-only: {}", words(e)))
}
