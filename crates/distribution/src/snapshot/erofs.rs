//! erofs: each layer as one read-only image, below an overlay. Only for who asks for it.
//!
//! The image `layers/<id>/image.erofs` is made of the layer's directory by mkfs.erofs(1) when the first snapshot needs it, and
//! goes with the layer. The directory stays: everything else reads it (differences, commits, other snapshotters). So an image
//! costs disk; what it gives is a lower layer that nobody changes through the store's directory.
//!
//! Nothing of this is mounted in a place. The mount of a snapshot is one overlay whose lower "directories" are the images;
//! who mounts it (`sys::mount`) mounts each image for that overlay alone. So there is nothing to unmount, nothing that a
//! crash leaves, and nothing to find again after a restart. The price: containers do not share what they have read of an image
//! in memory.
use super::driver::{Chain, Driver, privately};
use super::{disk_usage, overlay};
use crate::layer::{Marks, Part, Prepared, is_whiteout};
use crate::store::sync_dir;
use crate::{Error, Result, Store};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use sys::mount::{Mount, erofs_image, mount_one};

pub(super) struct Erofs;

/// The name beside a layer's directory.
const IMAGE: &str = "image.erofs";
const MAKER: &str = "mkfs.erofs";
/// An image has the holes of sparse files written out: so many bytes more than the directory takes is too much.
const HOLES_MAX: u64 = 1 << 30;

impl Driver for Erofs {
    fn name(&self) -> &'static str {
        "erofs"
    }

    fn probe(&self, store: &Store) -> std::result::Result<(), String> {
        attempt(store).map_err(|e| e.to_string())
    }

    fn marks(&self, store: &Store) -> Option<Marks> {
        Some(store.marks())
    }

    fn max_layers(&self) -> usize {
        overlay::MAX_LOWER
    }

    fn fill(&self, chain: &Chain<'_>, to: &Path) -> Result<Prepared> {
        // What takes long, before the snapshot is there.
        chain.parts.iter().try_for_each(|part| ensure(chain.store, &part.fs).map(drop))?;
        overlay::fill(chain, to)
    }

    fn lacking(&self, parts: &[Part]) -> Option<String> {
        let missing = parts.iter().map(|part| beside(&part.fs)).find(|image| !image.is_file());
        missing.map(|image| format!("the erofs image {} is missing", image.display()))
    }

    fn mount(&self, store: &Store, parts: &[Part], dir: &Path, read_only: bool) -> Result<Mount> {
        let image = |part: &Part| Ok(Part { fs: ensure(store, &part.fs)?, ..part.clone() });
        let images = parts.iter().map(image).collect::<Result<Vec<Part>>>()?;
        Ok(overlay::stacked(overlay::KERNEL, store, &images, dir, read_only))
    }
}

/// Where the image of a layer's directory is or would be.
pub(crate) fn beside(fs: &Path) -> PathBuf {
    fs.with_file_name(IMAGE)
}

/// The image of a layer's directory; made where it is missing. Two that make it at once make the same, and one stays.
fn ensure(store: &Store, fs: &Path) -> Result<PathBuf> {
    let image = beside(fs);
    if image.is_file() {
        return Ok(image);
    }
    let failed = |problem: String| Error::LayerImage { path: image.clone(), problem };
    let (seen, used) = (apparent(fs), disk_usage(fs));
    if seen > used + HOLES_MAX {
        return Err(failed(format!("its files are {seen} bytes long and take {used}: holes cannot be kept")));
    }
    let staging = store.stage()?;
    let new = staging.path().join(IMAGE);
    make(fs, &new).map_err(|e| failed(e.to_string()))?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(Error::io("sync", &new))?;
    std::fs::rename(&new, &image).map_err(Error::io("publish", &image))?;
    sync_dir(fs.parent().unwrap_or(fs))?;
    Ok(image)
}

/// Runs the program; what it says when it fails.
fn make(fs: &Path, image: &Path) -> io::Result<()> {
    let out = Command::new(MAKER).arg("--quiet").arg(image).arg(fs).output().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => io::Error::new(e.kind(), format!("{MAKER}(1) is not installed")),
        _ => e,
    })?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it says nothing");
    Err(io::Error::other(format!("{MAKER} failed ({}): {last}", out.status)))
}

/// Bytes of files as they look, holes included, files with several names as often.
fn apparent(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => apparent(&entry.path()),
        Ok(meta) if meta.is_file() => meta.size() / meta.nlink().max(1),
        _ => 0,
    };
    entries.map(size).fold(0, u64::saturating_add)
}

/// An image that says what is deleted, below an overlay that nobody sees.
fn attempt(store: &Store) -> io::Result<()> {
    let staging = store.stage().map_err(io::Error::other)?;
    let path = |name: &str| staging.path().join(name);
    for name in ["upper/gone", "lower/gone", "lower/kept", "fs", "work", "m"] {
        std::fs::create_dir_all(path(name))?;
    }
    std::fs::remove_dir(path("upper/gone"))?;
    let whiteout = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, path("upper/gone"), whiteout, rustix::fs::Mode::empty(), 0)?;
    for name in ["upper", "lower"] {
        make(&path(name), &path(&format!("{name}.erofs")))?;
    }
    drop(erofs_image(&path("upper.erofs"))?);
    let part = |name: &str| Part { fs: path(name), opaque_root: false, marks: store.marks() };
    let parts = [part("upper.erofs"), part("lower.erofs")];
    privately(|| {
        mount_one(&overlay::stacked(overlay::KERNEL, store, &parts, staging.path(), false), &path("m"))?;
        std::fs::remove_dir(path("m/kept"))?;
        if path("m/gone").exists() || !is_whiteout(&rustix::fs::lstat(path("fs/kept"))?) {
            return Err(io::Error::other("deletions leave no whiteouts"));
        }
        Ok(())
    })
}
