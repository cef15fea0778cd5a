//! Layers stacked by overlay: the kernel's, or fuse-overlayfs where the kernel refuses its own.
use super::driver::{Chain, Driver, privately};
use crate::layer::{Marks, Part, Prepared, is_whiteout};
use crate::{Error, Result, Store};
use std::io;
use std::path::{Path, PathBuf};
use sys::mount::{Mount, mount_one, overlay_options};

/// The kernel's limit of lower directories.
pub(super) const MAX_LOWER: usize = 500;
pub(super) const KERNEL: &str = "overlay";
const FUSE: &str = "fuse.fuse-overlayfs";

/// overlay of the kernel.
pub(super) struct Overlay;

/// fuse-overlayfs(1), a program of its own that serves the mount.
pub(super) struct FuseOverlayfs;

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn probe(&self, store: &Store) -> std::result::Result<(), String> {
        attempt(store, KERNEL, store.marks())
    }

    fn marks(&self, store: &Store) -> Option<Marks> {
        Some(store.marks())
    }

    fn max_layers(&self) -> usize {
        MAX_LOWER
    }

    fn fill(&self, chain: &Chain<'_>, to: &Path) -> Result<Prepared> {
        fill(chain, to)
    }

    fn mount(&self, store: &Store, parts: &[Part], dir: &Path, read_only: bool) -> Result<Mount> {
        Ok(stacked(KERNEL, store, parts, dir, read_only))
    }
}

impl Driver for FuseOverlayfs {
    fn name(&self) -> &'static str {
        "fuse-overlayfs"
    }

    fn probe(&self, store: &Store) -> std::result::Result<(), String> {
        // It splits its options in ways of its own.
        if store.root().as_os_str().as_encoded_bytes().iter().any(|b| b":,\\\"\n".contains(b)) {
            return Err("the store's path has characters that its options cannot carry".into());
        }
        attempt(store, FUSE, Marks::Fuse)
    }

    fn marks(&self, _: &Store) -> Option<Marks> {
        Some(Marks::Fuse)
    }

    fn max_layers(&self) -> usize {
        MAX_LOWER
    }

    fn fill(&self, chain: &Chain<'_>, to: &Path) -> Result<Prepared> {
        fill(chain, to)
    }

    fn mount(&self, store: &Store, parts: &[Part], dir: &Path, read_only: bool) -> Result<Mount> {
        Ok(stacked(FUSE, store, parts, dir, read_only))
    }
}

/// An upper directory with what the layers leave to be settled, and a work directory.
pub(super) fn fill(chain: &Chain<'_>, to: &Path) -> Result<Prepared> {
    for name in ["fs", "work"] {
        let dir = to.join(name);
        std::fs::create_dir(&dir).map_err(Error::io("create", &dir))?;
    }
    let fs = to.join("fs");
    crate::store::chmod(&fs, 0o755)?;
    chain.settle(&fs)
}

/// Layers with the snapshot's `fs` above them: writable, or as one more lower directory.
pub(super) fn stacked(fstype: &str, store: &Store, parts: &[Part], dir: &Path, read_only: bool) -> Mount {
    let mut lower: Vec<PathBuf> = parts.iter().map(|p| p.fs.clone()).collect();
    let (fs, work) = (dir.join("fs"), dir.join("work"));
    let mut options = if read_only {
        lower.insert(0, fs);
        [vec!["ro".into()], overlay_options(&lower, None)].concat()
    } else {
        overlay_options(&lower, Some((&fs, &work)))
    };
    if fstype == KERNEL {
        options.extend(kernel_options(store.marks()));
    }
    Mount { fstype: fstype.into(), source: "overlay".into(), target: PathBuf::new(), options }
}

/// Options that make what is written independent of this kernel's defaults: only those that it knows, it refuses a mount
/// with others.
fn kernel_options(marks: Marks) -> Vec<String> {
    let parameters = Path::new("/sys/module/overlay/parameters");
    // index and metacopy would make an upper directory mean something only above its own parents; redirects would
    // make a renamed directory's content invisible to a diff.
    let fixed = [("index", "off"), ("redirect_dir", "nofollow"), ("metacopy", "off")];
    let known = fixed.iter().filter(|(name, _)| parameters.join(name).exists());
    let userxattr = (marks == Marks::User).then(|| "userxattr".to_owned());
    known.map(|(name, value)| format!("{name}={value}")).chain(userxattr).collect()
}

/// Deletes a file of a lower directory through a mount that nobody sees, puts a directory in its place, and looks
/// whether the upper directory says so.
fn attempt(store: &Store, fstype: &str, marks: Marks) -> std::result::Result<(), String> {
    let staging = store.stage().map_err(|e| e.to_string())?;
    let path = |name: &str| staging.path().join(name);
    let part = |name: &str| Part { fs: path(name), opaque_root: false, marks };
    let work = || -> io::Result<()> {
        for name in ["lower", "lower2", "fs", "work", "m"] {
            std::fs::create_dir(path(name))?;
        }
        std::fs::write(path("lower/file"), b"")?;
        mount_one(&stacked(fstype, store, &[part("lower"), part("lower2")], staging.path(), false), &path("m"))?;
        std::fs::remove_file(path("m/file"))?;
        if !is_whiteout(&rustix::fs::lstat(path("fs/file"))?) {
            return Err(io::Error::other("deletions leave no whiteouts"));
        }
        std::fs::create_dir(path("m/file"))?;
        if !marks.is_opaque(&std::fs::File::open(path("fs/file"))?.into()) {
            return Err(io::Error::other("a new directory does not hide an old one"));
        }
        Ok(())
    };
    privately(work).map_err(|e| e.to_string())
}

/// A bind of one directory.
pub(crate) fn bind(fs: &Path, read_only: bool) -> Mount {
    let options = vec!["rbind".into(), if read_only { "ro".into() } else { "rw".into() }];
    Mount { fstype: "bind".into(), source: fs.to_owned(), target: PathBuf::new(), options }
}
