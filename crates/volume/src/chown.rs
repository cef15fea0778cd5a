//! All that is in a directory as one user's: podman's `:U`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, StatxFlags, Uid};

use crate::{Error, Result};

/// Directories that a whole system stands on: nobody means them.
const SYSTEM: [&str; 20] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/opt", "/proc", "/root", "/run",
    "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib",
];

/// Gives a directory and all below it to a user and a group. Links are not followed, other mounts not entered; what is
/// theirs already is not touched, so that a second time is quick and changes no times.
///
/// # Errors
/// One of the system's own directories; the kernel refuses.
pub(crate) fn tree(root: &Path, (uid, gid): (u32, u32)) -> Result<()> {
    let root = root.canonicalize().map_err(Error::io("find", root))?;
    if SYSTEM.iter().any(|system| Path::new(system) == root) {
        let why = "the system's own directories keep their owners".into();
        return Err(Error::Invalid { field: "owner", value: root.display().to_string(), why });
    }
    walk(&root, &mut |file, owner, path| {
        if owner != (uid, gid) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(file, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .map_err(Error::io("change the owner of", path))?;
        }
        Ok(true)
    })
}

/// The user and group that all of a tree belongs to, if it is one.
///
/// # Errors
/// It cannot be read.
pub(crate) fn only_owner(root: &Path) -> Result<Option<(u32, u32)>> {
    let mut first = None;
    let mut same = true;
    walk(root, &mut |_, owner, _| {
        same = *first.get_or_insert(owner) == owner;
        Ok(same)
    })?;
    Ok(first.filter(|_| same))
}

/// A file (O_PATH), whose it is, and its path for messages. `false` ends the walk.
type Visit<'a> = dyn FnMut(BorrowedFd<'_>, (u32, u32), &Path) -> Result<bool> + 'a;

/// Visits all of a tree by descriptors, so that no link put there meanwhile leads out of it.
fn walk(root: &Path, visit: &mut Visit<'_>) -> Result<()> {
    let opened =
        rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(Error::io("open", root))?;
    let mount = mount_of(&opened, root)?;
    let mut pending = Vec::new();
    if let Entered::Directory(entries, path) = enter(opened, root.into(), visit)? {
        pending.push((entries, path));
    }
    while let Some((entries, path)) = pending.last_mut() {
        let Some(entry) = entries.next() else {
            pending.pop();
            continue;
        };
        let entry = entry.map_err(Error::io("list", &*path))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        let at = entries.fd().map_err(Error::io("list", &path))?;
        let found = match rustix::fs::openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        {
            // Gone since it was listed.
            Err(rustix::io::Errno::NOENT) => continue,
            other => other.map_err(Error::io("open", &path))?,
        };
        if mount_of(&found, &path)? != mount {
            continue;
        }
        match enter(found, path, visit)? {
            Entered::Directory(entries, path) => pending.push((entries, path)),
            Entered::Other => {}
            Entered::End => return Ok(()),
        }
    }
    Ok(())
}

enum Entered {
    Directory(Dir, PathBuf),
    Other,
    End,
}

/// Visits a file, and lists it when it is a directory.
fn enter(file: OwnedFd, path: PathBuf, visit: &mut Visit<'_>) -> Result<Entered> {
    let found = rustix::fs::fstat(&file).map_err(Error::io("read", &path))?;
    if !visit(file.as_fd(), (found.st_uid, found.st_gid), &path)? {
        return Ok(Entered::End);
    }
    if !FileType::from_raw_mode(found.st_mode).is_dir() {
        return Ok(Entered::Other);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(&file, c".", flags, Mode::empty()).and_then(Dir::new);
    Ok(Entered::Directory(listed.map_err(Error::io("list", &path))?, path))
}

fn mount_of(directory: &OwnedFd, path: &Path) -> Result<u64> {
    let found = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    found.map(|found| found.stx_mnt_id).map_err(Error::io("read", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn all_below_and_nothing_else() {
        let root = std::env::temp_dir().join(format!("pier-volume-chown-{}", std::process::id()));
        let outside = root.with_extension("outside");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/f"), "x").unwrap();
        std::fs::write(&outside, "x").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink("/etc", root.join("a/etc")).unwrap();
        let own = std::fs::metadata(&root).map(|it| (it.uid(), it.gid())).unwrap();
        assert_eq!(only_owner(&root).unwrap(), Some(own));
        if rustix::process::geteuid().is_root() {
            tree(&root, (33, 34)).unwrap();
            assert_eq!(only_owner(&root).unwrap(), Some((33, 34)));
            let link = std::fs::symlink_metadata(root.join("link")).unwrap();
            assert_eq!((link.uid(), std::fs::metadata(&outside).unwrap().uid()), (33, own.0));
            std::os::unix::fs::chown(root.join("a/b/f"), Some(5), None).unwrap();
            assert_eq!(only_owner(&root).unwrap(), None);
        } else {
            println!("skipped: all_below_and_nothing_else: changing owners needs root");
        }
        assert!(tree(Path::new("/usr"), (1, 1)).is_err());
        std::fs::remove_dir_all(&root).unwrap();
        std::fs::remove_file(&outside).unwrap();
    }
}
