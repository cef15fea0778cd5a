//! The store through its public functions: archives good and bad, snapshots, commits, crashes, garbage.
//! Needs root: it makes devices and, in mount namespaces of its own threads, overlay mounts.
#![allow(clippy::unwrap_used, missing_docs)]

mod archive;
mod crash;
mod escape;
mod garbage;
mod round_trip;
mod speed;

use distribution::Store;
use oci::Digest;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A store in a directory that goes with the test.
pub(crate) struct Bed {
    pub store: Store,
    pub dir: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("distribution")).unwrap();
        Self { store, dir }
    }

    pub fn apply(&self, tar: &[u8]) -> distribution::Result<Digest> {
        let diff_id = Digest::of(tar);
        self.store
            .layers()
            .apply(tar, &oci::Descriptor::of(oci::media_type::LAYER, b""), &diff_id, None)
            .map(|info| info.diff_id)
    }

    /// Everything below the store's working directories that should be empty when nothing runs.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let list = |name: &str| std::fs::read_dir(self.store.root().join(name)).unwrap().map(|e| e.unwrap().path());
        list("staging").chain(list("ingest")).chain(list("trash")).collect()
    }
}

/// Builds archives entry by entry, also impossible ones.
#[derive(Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn raw(mut self, kind: u8, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut h = tar::Header::new_ustar();
        let bytes = h.as_mut_bytes();
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
        bytes[156] = kind;
        h.set_mode(mode);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(1_000_000_000);
        h.set_size(data.len() as u64);
        h.set_cksum();
        self.0.write_all(h.as_bytes()).unwrap();
        self.data(data)
    }

    pub fn header(mut self, edit: impl FnOnce(&mut tar::Header), data: &[u8]) -> Self {
        let mut h = tar::Header::new_ustar();
        h.set_mode(0o644);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(5);
        h.set_size(data.len() as u64);
        edit(&mut h);
        h.set_cksum();
        self.0.write_all(h.as_bytes()).unwrap();
        self.data(data)
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.raw(b'0', name, "", 0o644, data)
    }

    pub fn dir(self, name: &str) -> Self {
        self.raw(b'5', name, "", 0o755, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name, target, 0o777, b"")
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name, target, 0o644, b"")
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut all = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            all.extend_from_slice(format!("{length} {key}=").as_bytes());
            all.extend_from_slice(value);
            all.push(b'\n');
        }
        self.raw(b'x', "PaxHeaders/x", "", 0o644, &all)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// Runs in a thread with a mount namespace of its own.
pub fn privately<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(|| {
        sys::mount::private_namespace().unwrap();
        f()
    })
    .join()
    .unwrap()
}

/// One line for everything in a tree: type, mode, owner, size, time, target, content, attributes, link count.
pub fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let content = if kind.is_file() {
                Digest::of(&std::fs::read(&path).unwrap()).to_string()
            } else if kind.is_symlink() {
                std::fs::read_link(&path).unwrap().display().to_string()
            } else if kind.is_char_device() || kind.is_block_device() {
                format!("{:x}", meta.rdev())
            } else {
                String::new()
            };
            let links = if kind.is_dir() { 0 } else { meta.nlink() };
            let line = format!(
                "{:o} {}:{} {}.{:09} {links} {} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                attributes(&path),
            );
            all.insert(path.strip_prefix(root).unwrap().to_owned(), line);
            if kind.is_dir() {
                open.push(path);
            }
        }
    }
    all
}

fn attributes(path: &Path) -> String {
    let mut list = vec![0; 4096];
    let n = rustix::fs::llistxattr(path, &mut list).unwrap();
    let mut all: Vec<String> = list[..n]
        .split(|b| *b == 0)
        .filter(|key| !key.is_empty() && !key.starts_with(b"trusted.overlay."))
        .map(|key| {
            let mut value = [0; 256];
            let n = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(key), &mut value).unwrap();
            format!("{}={:?}", String::from_utf8_lossy(key), &value[..n])
        })
        .collect();
    all.sort();
    all.join(",")
}
