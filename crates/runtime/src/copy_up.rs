//! `tmpcopyup`: a tmpfs begins with what it covers.
//!
//! What is copied may belong to somebody who changes it meanwhile: names are opened below descriptors and no symlink is
//! followed, else one in the rootfs could bring a file of the host's into the container.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat, readlinkat,
    symlinkat,
};

const READ: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const NEW: OFlags = OFlags::CREATE.union(OFlags::EXCL).union(OFlags::WRONLY).union(READ);

/// Copies directories, files and symlinks with their owners and modes from one directory to another.
pub(crate) fn copy(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let from = openat(&from, ".", READ | OFlags::DIRECTORY, Mode::empty())?;
    let to = openat(&to, ".", READ | OFlags::DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(&from, &to, name)?;
        }
    }
    Ok(())
}

fn one(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::CStr) -> io::Result<()> {
    let found = openat(from, name, READ | OFlags::PATH, Mode::empty())?;
    let stat = fstat(&found)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let made = openat(to, name, READ | OFlags::DIRECTORY, Mode::empty())?;
            copy(&found, &made)?;
            own(&made, &stat)
        }
        FileType::Symlink => {
            symlinkat(readlinkat(&found, c"", Vec::new())?, to, name)?;
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            Ok(chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        FileType::RegularFile => {
            let source = openat(from, name, READ, Mode::empty())?;
            // Opened a second time: it may be something else by now.
            if FileType::from_raw_mode(fstat(&source)?.st_mode) != FileType::RegularFile {
                return Ok(());
            }
            let made = openat(to, name, NEW, Mode::RUSR | Mode::WUSR)?;
            io::copy(&mut File::from(source), &mut File::from(made.try_clone()?))?;
            own(&made, &stat)
        }
        _ => Ok(()),
    }
}

/// The owner first: changing it takes the setuid bit away.
fn own(made: &OwnedFd, stat: &Stat) -> io::Result<()> {
    fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    Ok(fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn trees_are_copied_and_links_are_not_followed() {
        let dir = std::env::temp_dir().join(format!("pier-copy-up-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let (from, secret) = (dir.join("from"), dir.join("secret"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(&secret, "secret").unwrap();
        fs::write(from.join("sub/f"), "open").unwrap();
        fs::set_permissions(from.join("sub/f"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::write(from.join("x"), "open").unwrap();
        symlink(&secret, from.join("y")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                while !stop.load(Ordering::Relaxed) {
                    let _ = renameat_with(CWD, from.join("x"), CWD, from.join("y"), RenameFlags::EXCHANGE);
                }
            });
            for n in 0..500 {
                let to = dir.join(format!("to{n}"));
                fs::create_dir(&to).unwrap();
                // A name that is a symlink at the second look fails the copy.
                if copy(File::open(&from).unwrap(), File::open(&to).unwrap()).is_err() {
                    continue;
                }
                assert_eq!(fs::read(to.join("sub/f")).unwrap(), b"open");
                assert_eq!(fs::metadata(to.join("sub/f")).unwrap().permissions().mode() & 0o7777, 0o4751);
                for name in ["x", "y"] {
                    let kind = fs::symlink_metadata(to.join(name)).map(|m| m.is_file());
                    assert!(
                        !kind.unwrap_or(false) || fs::read(to.join(name)).unwrap() == b"open",
                        "a link was followed"
                    );
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        fs::remove_dir_all(dir).unwrap();
    }
}
