//! Compiled programs under `<root>/.cache/seccomp`, so that a profile is compiled once and not per container.
//!
//! A file is named by the hash of what it was compiled from, begins with a hash of its own content, and is taken only from
//! a directory and file that nobody else can write to. A container keeps a hard link of its own: eviction harms nobody.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::compile::MAX_BYTES;

/// Programs kept. An engine uses a handful of profiles; a program has some 5 KiB.
const LIMIT: usize = 64;
const HASH: usize = 32;

/// Where the programs of one store are.
pub(super) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Of the store in that root directory.
    pub(super) fn new(root: &Path) -> Self {
        Self { dir: root.join(".cache/seccomp") }
    }

    /// The name for a section, given as JSON: a hash of it and of all else that the program depends on.
    pub(super) fn key(section: &[u8]) -> String {
        let mut hash = Sha256::new();
        hash.update(concat!("pier-runtime ", env!("CARGO_PKG_VERSION"), " ").as_bytes());
        hash.update(std::env::consts::ARCH.as_bytes());
        if let Ok(version) = libseccomp::ScmpVersion::current() {
            hash.update(format!(" libseccomp {version} ").as_bytes());
        }
        hash.update(section);
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The program of that key, which becomes the container's own `saved` file as well.
    pub(super) fn take(&self, key: &str, saved: &Path) -> Option<Vec<u8>> {
        let mine = fs::symlink_metadata(&self.dir).is_ok_and(|dir| dir.is_dir() && private(&dir));
        let file = self.dir.join(key);
        let program = read(&file).filter(|_| mine)?;
        fs::hard_link(&file, saved).ok()?;
        Some(program)
    }

    /// Keeps a program. Two writers of the same key write the same.
    pub(super) fn put(&self, key: &str, program: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        self.evict();
        let staged = self.dir.join(format!(".{key}.{}", std::process::id()));
        write(&staged, program)?;
        fs::rename(&staged, self.dir.join(key))
    }

    /// Makes room for one: what was written first goes first, also what a killed writer has left.
    fn evict(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut all: Vec<_> =
            entries.flatten().filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path()))).collect();
        if all.len() < LIMIT {
            return;
        }
        all.sort();
        for (_, path) in &all[..=all.len() - LIMIT] {
            let _ = fs::remove_file(path);
        }
    }
}

/// Nobody but this user may have written it.
fn private(meta: &fs::Metadata) -> bool {
    meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0
}

/// Writes a program with its hash.
pub(super) fn write(path: &Path, program: &[u8]) -> io::Result<()> {
    let mut bytes = Sha256::digest(program).to_vec();
    bytes.extend_from_slice(program);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&bytes)
}

/// Reads a program back; `None` if it is not one that this user has written whole.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || !private(&meta) || meta.len() as usize > MAX_BYTES + HASH {
        return None;
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    File::take(file, (MAX_BYTES + HASH) as u64).read_to_end(&mut bytes).ok()?;
    let (hash, program) = bytes.split_at_checked(HASH)?;
    (Sha256::digest(program)[..] == *hash).then(|| program.to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn cache(name: &str) -> (PathBuf, Cache) {
        let root = std::env::temp_dir().join(format!("pier-seccomp-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        (root.clone(), Cache::new(&root))
    }

    #[test]
    fn kept_and_linked() {
        let (root, cache) = cache("kept");
        let saved = root.join("saved");
        assert!(cache.take("k", &saved).is_none());
        cache.put("k", b"program!").unwrap();
        assert_eq!(cache.take("k", &saved).unwrap(), b"program!");
        assert_eq!(read(&saved).unwrap(), b"program!");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn damage_and_strangers_are_not_taken() {
        let (root, cache) = cache("damage");
        cache.put("k", b"program!").unwrap();
        let (file, saved) = (cache.dir.join("k"), root.join("saved"));
        let good = fs::read(&file).unwrap();
        for bad in [&good[..good.len() - 1], &good[..10], b"", &[&good[..], b"x"].concat()] {
            fs::write(&file, bad).unwrap();
            assert!(cache.take("k", &saved).is_none());
        }
        fs::write(&file, &good).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o622)).unwrap();
        assert!(cache.take("k", &saved).is_none(), "writable by others");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        fs::set_permissions(&cache.dir, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(cache.take("k", &saved).is_none(), "in a directory that others may write to");
        fs::set_permissions(&cache.dir, PermissionsExt::from_mode(0o700)).unwrap();
        assert!(cache.take("k", &saved).is_some());
        fs::remove_file(&saved).unwrap();
        fs::rename(&file, root.join("real")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), &file).unwrap();
        assert!(cache.take("k", &saved).is_none(), "a symlink");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn bounded() {
        let (root, cache) = cache("bounded");
        for n in 0..LIMIT + 20 {
            cache.put(&format!("k{n}"), b"p").unwrap();
        }
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), LIMIT);
        assert!(cache.dir.join(format!("k{}", LIMIT + 19)).exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_key_depends_on_the_section() {
        assert_ne!(Cache::key(b"a"), Cache::key(b"b"));
        assert_eq!(Cache::key(b"a").len(), 64);
    }
}
