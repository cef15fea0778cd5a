//! Mounts that are made before they are put anywhere: detached trees, by the calls of Linux 5.2 and 5.12.
//!
//! Where one of the calls is missing, the tree is made on a [`Stage`] by mount(2) and moved from there: also a mount that
//! nobody else sees, held by a descriptor. What is missing is found out by what fails, so newer kernels pay nothing.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, fstat};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount, open_tree,
};
use sys::clone::{MountAttr, mount_setattr};

use crate::mount_option::Change;
use crate::stage::{self, Stage};

/// A file system to be mounted.
pub(crate) struct FileSystem<'a> {
    pub kind: &'a str,
    pub source: Option<&'a OsStr>,
    /// The file system itself, not only this mount of it.
    pub readonly: bool,
    /// `key` or `key=value`.
    pub options: &'a [String],
    /// `MOUNT_ATTR_*` of mount_setattr(2).
    pub attributes: u64,
}

/// Makes trees; ends with its stage.
#[derive(Default)]
pub(crate) struct Trees {
    stage: RefCell<Option<Stage>>,
    /// There are no detached trees: open_tree(2) or move_mount(2) is missing.
    old: Cell<bool>,
}

impl Trees {
    /// Whether everything has to be mounted somewhere at once.
    pub(crate) fn old(&self) -> bool {
        self.old.get()
    }

    fn on_stage<T>(&self, work: impl FnOnce(&Stage) -> Result<T>) -> Result<T> {
        let mut stage = self.stage.borrow_mut();
        match stage.as_ref() {
            Some(stage) => work(stage),
            None => work(stage.insert(Stage::new()?)),
        }
    }

    /// Takes the stage away, with all that has not been attached: who enters the namespace now would begin on it.
    pub(crate) fn clear(&self) {
        self.stage.take();
    }

    /// A copy of what `source` lies on; with `recursive` all mounts below it, too.
    pub(crate) fn clone(&self, source: &OwnedFd, recursive: bool) -> Result<OwnedFd> {
        if !self.old() {
            match open_tree(source, c"", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH) {
                Err(Errno::NOSYS) => self.old.set(true),
                other => return other,
            }
        }
        let directory = FileType::from_raw_mode(fstat(source)?.st_mode) == FileType::Directory;
        self.on_stage(|stage| stage.bind(source, directory, recursive))
    }

    /// [`Trees::clone`] of what is at `path`.
    pub(crate) fn clone_path(&self, path: &Path, recursive: bool) -> Result<OwnedFd> {
        if !self.old() {
            match clone_tree(path, recursive) {
                Err(Errno::NOSYS) => self.old.set(true),
                other => return other,
            }
        }
        self.clone(&stage::open(path)?, recursive)
    }

    /// A new mount of a file system.
    pub(crate) fn make(&self, fs: &FileSystem<'_>) -> Result<OwnedFd> {
        if !self.old() {
            match make_detached(fs) {
                Err(Errno::NOSYS) => {}
                other => return other,
            }
        }
        self.on_stage(|stage| stage.mount(fs))
    }

    /// Changes attributes of a tree, attached or not.
    pub(crate) fn change(&self, tree: &OwnedFd, (set, clear): Change, recursive: bool) -> Result<()> {
        match setattr(tree, &MountAttr { set, clear, ..Default::default() }, recursive) {
            Err(Errno::NOSYS) => {
                self.settle(tree)?;
                stage::change(tree, (set, clear), recursive)
            }
            other => other,
        }
    }

    /// Changes the propagation (`MS_*` of mount(2)).
    pub(crate) fn propagate(&self, tree: &OwnedFd, propagation: u64, recursive: bool) -> Result<()> {
        match setattr(tree, &MountAttr { propagation, ..Default::default() }, recursive) {
            Err(Errno::NOSYS) => {
                self.settle(tree)?;
                stage::propagate(tree, propagation, recursive)
            }
            other => other,
        }
    }

    /// mount(2) changes only what is mounted somewhere.
    fn settle(&self, tree: &OwnedFd) -> Result<()> {
        if stage::is_mounted(tree)? { Ok(()) } else { self.on_stage(|stage| stage.take(tree)) }
    }

    /// Puts a tree where `target` is. `ENOSYS`: it was detached, and has to be made again for this kernel.
    pub(crate) fn attach(&self, tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
        if self.old() {
            return stage::move_to(tree, target);
        }
        let moved = move_here(tree, target);
        self.old.set(moved == Err(Errno::NOSYS));
        moved
    }

    /// Makes a tree and puts it where `target` is.
    pub(crate) fn cover(&self, target: &OwnedFd, make: impl Fn() -> Result<OwnedFd>) -> Result<OwnedFd> {
        let tree = make()?;
        match self.attach(&tree, target) {
            Err(Errno::NOSYS) => {
                let tree = make()?;
                self.attach(&tree, target).map(|()| tree)
            }
            other => other.map(|()| tree),
        }
    }

    /// Changes options of the file system that is mounted at `target`.
    pub(crate) fn reconfigure(&self, target: &OwnedFd, options: &[String]) -> Result<()> {
        match fspick(target, c"", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH) {
            Err(Errno::NOSYS) => stage::reconfigure(target, options),
            Err(e) => Err(e),
            Ok(context) => match configure(&context, options).and_then(|()| fsconfig_reconfigure(&context)) {
                Err(Errno::NOSYS) => stage::reconfigure(target, options),
                other => other,
            },
        }
    }
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// A detached copy of what is at `path`; with `recursive` all mounts below it, too.
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    open_tree(CWD, path, clone_flags(recursive))
}

fn make_detached(fs: &FileSystem<'_>) -> Result<OwnedFd> {
    let context = fsopen(fs.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = fs.source {
        fsconfig_set_string(&context, c"source", source)?;
    }
    if fs.readonly {
        fsconfig_set_flag(&context, c"ro")?;
    }
    configure(&context, fs.options)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(fs.attributes).unwrap_or_default());
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn configure(context: &OwnedFd, options: &[String]) -> Result<()> {
    options.iter().try_for_each(|option| match option.split_once('=') {
        Some((key, value)) => fsconfig_set_string(context, key, value),
        None => fsconfig_set_flag(context, option.as_str()),
    })
}

/// move_mount(2) of the mount `tree` to `target`.
pub(crate) fn move_here(tree: &OwnedFd, target: &OwnedFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", target, c"", flags)
}

fn setattr(tree: &OwnedFd, attr: &MountAttr, recursive: bool) -> Result<()> {
    mount_setattr(tree.as_fd(), attr, recursive).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}
