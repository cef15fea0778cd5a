//! Mount points that a runtime makes in a root filesystem, and that must not become part of the layer.

use rustix::fs::{AtFlags, FileType};
use std::os::fd::AsFd as _;

use crate::error::Error;
use crate::fs::root::{self, NewDirectory, Root};

/// Which of `destinations`, and of the directories above them, are not there yet; parents first.
pub(super) fn missing(root: &Root, destinations: &[String]) -> Result<Vec<String>, Error> {
    let mut missing = Vec::new();
    for destination in destinations {
        let clean = crate::fs::ignore::clean(&format!("/{destination}"));
        let ends = clean.match_indices('/').skip(1).map(|(at, _)| at).chain([clean.len()]);
        for end in ends {
            let path = &clean[..end];
            if path.len() > 1 && !missing.iter().any(|known| known == path) && root.stat(path, false)?.is_none() {
                missing.push(path.to_owned());
            }
        }
    }
    Ok(missing)
}

/// Removes those of `stubs` that are still empty: what the command put content into is its own.
pub(super) fn remove(root: &Root, stubs: &[String]) -> Result<(), Error> {
    for path in stubs.iter().rev() {
        let Some(stat) = root.stat(path, false)? else { continue };
        let (parent, name) = root::split(path);
        let unused = NewDirectory { uid: 0, gid: 0, mode: 0o755, modified: None };
        let parent = root.make_directory(parent, &unused)?;
        let removed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => rustix::fs::unlinkat(parent.as_fd(), name, AtFlags::REMOVEDIR),
            FileType::RegularFile if stat.st_size == 0 => rustix::fs::unlinkat(parent.as_fd(), name, AtFlags::empty()),
            _ => continue,
        };
        match removed {
            Ok(()) | Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(Error::sys("remove the mount point", root.name_of(path))(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn only_what_was_not_there_goes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("etc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let wanted = ["/proc".to_owned(), "/etc/hosts".into(), "/run/secrets/x".into(), "/data".into()];
        let stubs = missing(&root, &wanted).unwrap();
        assert_eq!(stubs, ["/proc", "/etc/hosts", "/run", "/run/secrets", "/run/secrets/x", "/data"]);
        for path in ["proc", "run/secrets", "data"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        for (path, text) in [("etc/hosts", ""), ("run/secrets/x", ""), ("run/kept", "x")] {
            fs::write(at(path), text).unwrap();
        }
        remove(&root, &stubs).unwrap();
        let left = |path: &str| at(path).exists();
        assert!(left("etc") && left("run/kept"));
        assert!(!left("proc") && !left("etc/hosts") && !left("run/secrets") && !left("data"));
    }
}
