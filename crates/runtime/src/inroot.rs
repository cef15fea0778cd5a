//! Paths inside a rootfs, to descriptors.
//!
//! A path that is there is resolved by the kernel within the root. A missing part is made name by name below a descriptor
//! and no name is followed but by us, within the root: whoever swaps names while we work (CVE-2021-30465, CVE-2024-45310)
//! can move a mount inside the rootfs, never out of it. Kernels before 5.6 have no openat2(2): there every path goes that
//! way.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// As many symlinks as the kernel follows.
const MAX_LINKS: usize = 40;
/// How often a resolution is repeated that the kernel gave up because names changed meanwhile.
const MAX_RACES: usize = 256;

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// What to make where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// The root directory of a container.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// From a descriptor of the directory.
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// What is at `path`, all symlinks resolved within the root; `None` if nothing is there.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        match resolve(self.as_fd(), path, PATH, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// What is at `path` if no part of it is a symlink.
    pub(crate) fn find_ordinary(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        beneath(self.as_fd(), path)
    }

    /// What is at `path`; the end of it is made as `kind` and missing directories before it, mode 0755 and 0644, also
    /// where a symlink points to nothing.
    pub(crate) fn make(&self, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
        Ok(walk(self.as_fd(), path, Links::Follow, Some(kind))?)
    }
}

/// What is at `path` below `base` if no part of it is a symlink.
pub(crate) fn beneath(base: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    resolve(base, path, PATH, BENEATH)
}

/// [`beneath`], if it is a directory.
pub(crate) fn directory_beneath(base: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    resolve(base, path, PATH | OFlags::DIRECTORY, BENEATH)
}

/// What is at the absolute `path` of this process if no part of it is a symlink.
pub(crate) fn absolute(path: &Path) -> rustix::io::Result<OwnedFd> {
    match openat2(CWD, path, PATH, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOSYS) => {
            walk(openat(CWD, "/", PATH | OFlags::DIRECTORY, Mode::empty())?.as_fd(), path, Links::Refuse, None)
        }
        other => other,
    }
}

fn resolve(base: BorrowedFd<'_>, path: &Path, flags: OFlags, how: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let mut races = 0;
    loop {
        match openat2(base, relative, flags, Mode::empty(), how) {
            Err(Errno::AGAIN) if races < MAX_RACES => races += 1,
            Err(Errno::NOSYS) => {
                let links = if how.contains(ResolveFlags::NO_SYMLINKS) { Links::Refuse } else { Links::Follow };
                let found = walk(base, path, links, None)?;
                return if flags.contains(OFlags::DIRECTORY) && kind_of(&found)? != FileType::Directory {
                    Err(Errno::NOTDIR)
                } else {
                    Ok(found)
                };
            }
            other => return other,
        }
    }
}

/// What a walk does with symlinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// Within the root.
    Follow,
    /// `ELOOP`.
    Refuse,
}

/// Goes from name to name. What is missing is made, if there is something to make; else it is `ENOENT`.
fn walk(root: BorrowedFd<'_>, path: &Path, links: Links, make: Option<Kind>) -> rustix::io::Result<OwnedFd> {
    let mut todo = parts(path);
    let mut dirs: Vec<OwnedFd> = Vec::new();
    let mut followed = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            dirs.pop();
            continue;
        }
        let dir = dirs.last().map_or(root, AsFd::as_fd);
        match (openat(dir, &name, PATH | OFlags::NOFOLLOW, Mode::empty()), make) {
            (Ok(found), _) if kind_of(&found)? == FileType::Symlink => {
                followed += 1;
                if links == Links::Refuse || followed > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = OsString::from_vec(readlinkat(&found, "", Vec::new())?.into_bytes());
                if target.as_encoded_bytes().starts_with(b"/") {
                    dirs.clear();
                }
                todo.extend(parts(Path::new(&target)));
            }
            (Ok(found), _) => dirs.push(found),
            (Err(Errno::NOENT), Some(kind)) => {
                make_one(dir, &name, if todo.is_empty() { kind } else { Kind::Directory })?;
                todo.push(name);
            }
            (Err(e), _) => return Err(e),
        }
    }
    dirs.pop().map_or_else(|| rustix::io::fcntl_dupfd_cloexec(root, 0), Ok)
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The names of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn kind_of(fd: &OwnedFd) -> rustix::io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

/// Somebody else may be faster: what is there then is looked at like everything else.
fn make_one(dir: BorrowedFd<'_>, name: &OsString, kind: Kind) -> rustix::io::Result<()> {
    let made = match kind {
        Kind::Directory => mkdirat(dir, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            openat(dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> (Self, Root) {
            let dir = std::env::temp_dir().join(format!("pier-inroot-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(dir.join("root")).unwrap();
            fs::create_dir(dir.join("outside")).unwrap();
            let root = Root::new(fs::File::open(dir.join("root")).unwrap().into());
            (Self(dir), root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_stay_inside() {
        let (tree, root) = Tree::new("links");
        let at = |p: &str| tree.0.join("root").join(p);
        symlink("/a/b", at("absolute")).unwrap();
        symlink("../../../../outside/up", at("up")).unwrap();
        symlink(tree.0.join("outside"), at("host")).unwrap();
        assert!(root.find(Path::new("/absolute")).unwrap().is_none());
        root.make(Path::new("/absolute/c"), Kind::File).unwrap();
        assert!(at("a/b/c").is_file());
        root.make(Path::new("/up"), Kind::Directory).unwrap();
        assert!(at("outside/up").is_dir());
        root.make(Path::new("/host/x"), Kind::Directory).unwrap();
        root.make(Path::new("../../y"), Kind::Directory).unwrap();
        assert!(at("y").is_dir());
        assert_eq!(fs::read_dir(tree.0.join("outside")).unwrap().count(), 0);
        assert!(root.find(Path::new("/host/x")).unwrap().is_some());
        assert!(root.find_ordinary(Path::new("/host/x")).is_err());
    }

    #[test]
    fn without_openat2_it_is_the_same() {
        let (tree, root) = Tree::new("walk");
        let at = |p: &str| tree.0.join("root").join(p);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/f"), "").unwrap();
        symlink("/a/b", at("absolute")).unwrap();
        symlink("../../a", at("a/b/up")).unwrap();
        symlink(tree.0.join("outside"), at("host")).unwrap();
        let same = |one: &OwnedFd, other: &OwnedFd| fstat(one).unwrap().st_ino == fstat(other).unwrap().st_ino;
        for path in ["/", "a", "/absolute", "a/b/up/f", "../a/./f", "host", "no", "a/no/x", "a/f/x", "absolute/up"] {
            let path = Path::new(path);
            for (how, links) in [
                (ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS, Links::Follow),
                (ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS, Links::Refuse),
            ] {
                match (resolve(root.as_fd(), path, PATH, how), walk(root.as_fd(), path, links, None)) {
                    (Ok(kernel), Ok(ours)) => assert!(same(&kernel, &ours), "{path:?} {links:?}"),
                    (kernel, ours) => assert_eq!(kernel.err(), ours.err(), "{path:?} {links:?}"),
                }
            }
        }
    }

    #[test]
    fn loops_end() {
        let (tree, root) = Tree::new("loops");
        symlink("b", tree.0.join("root/a")).unwrap();
        symlink("a", tree.0.join("root/b")).unwrap();
        assert!(root.make(Path::new("/a/x"), Kind::Directory).is_err());
        fs::write(tree.0.join("root/f"), "").unwrap();
        assert!(root.make(Path::new("/f/x"), Kind::Directory).is_err(), "through a file");
    }

    #[test]
    fn a_swapping_neighbour_gets_nothing_out() {
        let (tree, root) = Tree::new("race");
        let (dir, link) = (tree.0.join("root/d"), tree.0.join("root/l"));
        fs::create_dir(&dir).unwrap();
        symlink(tree.0.join("outside"), &link).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE);
                }
            });
            for n in 0..3000 {
                let _ = root.make(Path::new(&format!("/d/{n}/x")), Kind::Directory);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(tree.0.join("outside")).unwrap().count(), 0);
    }
}
