//! What openat2 with RESOLVE_IN_ROOT does (openat2(2)), for kernels before 5.6: one component at a time, each opened without
//! following it, links resolved here. ".." never goes above the root because it goes to the directory that we came from.
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// As the kernel's limit.
const MAX_LINKS: usize = 40;

/// Opens what `path` leads to inside `root`.
pub(super) fn walk(root: &OwnedFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut todo = components(path);
    let mut below: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        let here = below.last().unwrap_or(root);
        if name == b".." {
            below.pop();
            continue;
        }
        let found = open(here, &name, OFlags::PATH)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        match kind {
            FileType::Symlink if todo.is_empty() && flags.contains(OFlags::NOFOLLOW) => return Err(Errno::LOOP),
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
            _ => return open(here, &name, flags),
        }
    }
    open(below.last().unwrap_or(root), b".", flags)
}

/// Last first, without what means nothing.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').rev().filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect()
}

fn open(dir: &OwnedFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Root;
    use super::*;
    use std::os::unix::fs::symlink;

    /// The same answer as the kernel's, for everything that is there and much that is not.
    #[test]
    fn as_openat2() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
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
        let root = Root::open(&at("root")).unwrap();
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
                    ] {
                        // A trailing slash makes the kernel follow a last link even with O_NOFOLLOW.
                        if path.is_empty() || path.ends_with('/') {
                            continue;
                        }
                        let theirs = inode(root.resolve(path.as_bytes(), flags));
                        let ours = inode(walk(&root.fd, path.as_bytes(), flags));
                        assert_eq!(theirs.is_ok(), ours.is_ok(), "{path} {flags:?} {theirs:?} {ours:?}");
                        assert_eq!(theirs.ok(), ours.ok(), "{path}");
                    }
                }
            }
        }
    }
}
