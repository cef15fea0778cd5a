//! Paths inside of a directory as if that were the root: links lead wherever they say, but never out of it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As the kernel's limit.
const MAX_LINKS: usize = 40;
/// How often a resolution that raced with a rename is tried again (openat2 answers EAGAIN).
const ATTEMPTS: usize = 64;

/// The kernel has no openat2 (or a filter does not know it).
static OLD_KERNEL: AtomicBool = AtomicBool::new(false);

/// Opens what a path leads to inside of `root` (openat2(2) with RESOLVE_IN_ROOT, Linux 5.6; else one component after the
/// other). With `NOFOLLOW` a last link is opened itself, or refused.
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `ELOOP`; `EAGAIN` when somebody does nothing but rename.
pub fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        if OLD_KERNEL.load(Ordering::Relaxed) {
            return walk(root.as_fd(), path, flags);
        }
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
            // Somebody renamed something somewhere while the kernel looked at a "..".
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS) => OLD_KERNEL.store(true, Ordering::Relaxed),
            // Some filters say that of what they do not know; if it was meant, it is said again.
            Err(Errno::PERM) => return walk(root.as_fd(), path, flags),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The text of a small file, at most so many bytes of it; what is not there, or is no file, is empty.
pub fn text(root: &Path, path: &str, most: u64) -> String {
    let Ok(root) = crate::fd::open_dir(root) else { return String::new() };
    let Ok(file) = open(&root, path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) else { return String::new() };
    let mut text = Vec::new();
    let _ = File::from(file).take(most).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// ".." never goes above the root because it goes to the directory that we came from.
fn walk(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut todo = components(path);
    let mut below: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        let here = below.last().map_or(root, AsFd::as_fd);
        if name == b".." {
            below.pop();
            continue;
        }
        let found = step(here, &name, OFlags::PATH)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        match kind {
            FileType::Symlink if todo.is_empty() && flags.contains(OFlags::NOFOLLOW) => {
                let itself = flags.contains(OFlags::PATH) && !flags.contains(OFlags::DIRECTORY);
                return if itself { Ok(found) } else { Err(Errno::LOOP) };
            }
            FileType::Symlink => {
                links += 1;
                let target = rustix::fs::readlinkat(&found, "", Vec::new())?.into_bytes();
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.starts_with(b"/") {
                    below.clear();
                }
                todo.extend(components(&target));
            }
            FileType::Directory => below.push(found),
            _ if !todo.is_empty() => return Err(Errno::NOTDIR),
            _ => return step(here, &name, flags),
        }
    }
    step(below.last().map_or(root, AsFd::as_fd), b".", flags)
}

/// Last first, without what means nothing.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').rev().filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect()
}

fn step(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    /// The same answer as the kernel's, for everything that is there and much that is not.
    #[test]
    fn as_openat2() {
        let dir = std::env::temp_dir().join(format!("pier-sys-inside-{}", std::process::id()));
        let at = |name: &str| dir.join(name);
        std::fs::create_dir_all(at("root/a/b")).unwrap();
        std::fs::write(at("root/a/file"), b"").unwrap();
        std::fs::write(at("outside"), b"").unwrap();
        for (name, target) in [
            ("up", "../../.."),
            ("out", "../outside"),
            ("abs", "/a/b"),
            ("loop", "loop"),
            ("far", "abs/../../../a"),
            ("file", "a/file"),
        ] {
            symlink(target, at("root").join(name)).unwrap();
        }
        let root = crate::fd::open_dir(&at("root")).unwrap();
        let inode = |fd: rustix::io::Result<OwnedFd>| fd.map(|fd| rustix::fs::fstat(&fd).unwrap().st_ino);
        let parts = ["a", "b", "file", "up", "out", "abs", "loop", "far", "..", ".", "none", ""];
        for one in parts {
            for two in parts {
                for three in ["", "..", "a", "file", "b"] {
                    let path = [one, two, three].join("/");
                    let path = path.trim_start_matches('/');
                    for flags in [
                        OFlags::PATH | OFlags::DIRECTORY,
                        OFlags::RDONLY,
                        OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY,
                        OFlags::PATH | OFlags::NOFOLLOW,
                    ] {
                        // A trailing slash makes the kernel follow a last link even with O_NOFOLLOW.
                        if path.is_empty() || path.ends_with('/') {
                            continue;
                        }
                        let theirs = inode(open(&root, path.as_bytes(), flags));
                        let ours = inode(walk(root.as_fd(), path.as_bytes(), flags));
                        assert_eq!(theirs.is_ok(), ours.is_ok(), "{path} {flags:?} {theirs:?} {ours:?}");
                        assert_eq!(theirs.ok(), ours.ok(), "{path}");
                    }
                }
            }
        }
        std::fs::write(at("root/a/file"), b"words").unwrap();
        assert_eq!((text(&at("root"), "file", 4), text(&at("root"), "/up/a/file", 9)), ("word".into(), "words".into()));
        assert_eq!((text(&at("root"), "out", 9), text(&at("root"), "a", 9)), (String::new(), String::new()));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
