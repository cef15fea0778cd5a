//! Names of volumes: a symbolic link `volumes/<name>` beside the directory `volumes/<id>`.
//!
//! A link is the only place where a name holds, so a name is taken, changed and given back by one system call each, and
//! the data never moves. An anonymous volume has no link: its id is its name. Changes are made under the database's
//! write lock. A link to nothing is what a creation or a removal left that was killed: nobody's name.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use crate::{Error, Result};

/// The id that a name (or an id itself) stands for.
pub(crate) fn resolve(volumes: &Path, name: &str) -> Result<Option<String>> {
    let path = volumes.join(name);
    match fs::read_link(&path) {
        Ok(target) => {
            let id = target.to_string_lossy().into_owned();
            Ok((oci::name::is_id(&id) && volumes.join(&id).is_dir()).then_some(id))
        }
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(oci::name::is_id(name).then(|| name.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// What stands below `volumes/`.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Ids to names, for every volume.
    pub volumes: BTreeMap<String, String>,
    /// Links to nothing.
    pub dangling: Vec<String>,
    /// Directories of before there were ids.
    pub old: Vec<String>,
}

/// Looks through `volumes/`.
pub(crate) fn scan(volumes: &Path) -> Result<Names> {
    let (mut names, mut links) = (Names::default(), Vec::new());
    for entry in fs::read_dir(volumes).map_err(Error::io("list", volumes))?.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_symlink() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            links.push((name, target.to_string_lossy().into_owned()));
        } else if kind.is_dir() && oci::name::is_id(&name) {
            names.volumes.insert(name.clone(), name);
        } else if kind.is_dir() {
            names.old.push(name);
        }
    }
    for (name, id) in links {
        match names.volumes.get_mut(&id) {
            Some(called) => *called = name,
            None => names.dangling.push(name),
        }
    }
    Ok(names)
}

/// The name of an id: its link's, else the id.
pub(crate) fn of(volumes: &Path, id: &str) -> Result<String> {
    Ok(scan(volumes)?.volumes.remove(id).unwrap_or_else(|| id.to_owned()))
}

/// Takes a name for an id, whose directory need not be there yet. `false`: it is another's.
pub(crate) fn take(volumes: &Path, name: &str, id: &str) -> Result<bool> {
    if resolve(volumes, name)?.is_some() {
        return Ok(false);
    }
    let link = volumes.join(name);
    give_back(volumes, name)?;
    symlink(id, &link).map_err(Error::io("make", link))?;
    Ok(true)
}

/// Removes a name, if it is one.
pub(crate) fn give_back(volumes: &Path, name: &str) -> Result<()> {
    let link = volumes.join(name);
    match fs::symlink_metadata(&link) {
        Ok(metadata) if metadata.is_symlink() => fs::remove_file(&link).map_err(Error::io("remove", link)),
        _ => Ok(()),
    }
}

/// Gives a volume another name. `false`: it is taken.
pub(crate) fn rename(volumes: &Path, old: &str, new: &str, id: &str) -> Result<bool> {
    if old == id {
        return take(volumes, new, id);
    }
    if resolve(volumes, new)?.is_some() {
        return Ok(false);
    }
    give_back(volumes, new)?;
    let target = volumes.join(new);
    match rustix::fs::renameat_with(CWD, volumes.join(old), CWD, &target, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(error) => Err(Error::io("make", target)(error)),
    }
}

/// A directory of before there were ids becomes `volumes/<id>`, and its name a link to it, in one step: paths by the old
/// name go on to lead to the data.
pub(crate) fn migrate(volumes: &Path, name: &str, id: &str) -> Result<()> {
    let (old, new) = (volumes.join(name), volumes.join(id));
    symlink(id, &new).map_err(Error::io("make", &new))?;
    rustix::fs::renameat_with(CWD, &old, CWD, &new, RenameFlags::EXCHANGE).map_err(|error| {
        let _ = fs::remove_file(&new);
        Error::io("give an id to", old)(error)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_come_and_go() {
        let volumes = std::env::temp_dir().join(format!("pier-volume-names-{}", std::process::id()));
        let _ = fs::remove_dir_all(&volumes);
        fs::create_dir_all(&volumes).unwrap();
        let (id, other) = ("a".repeat(64), "b".repeat(64));
        assert!(take(&volumes, "data", &id).unwrap());
        // Killed before its directory came: the name is free.
        assert_eq!(resolve(&volumes, "data").unwrap(), None);
        assert!(take(&volumes, "data", &id).unwrap());
        fs::create_dir(volumes.join(&id)).unwrap();
        assert!(!take(&volumes, "data", &other).unwrap());
        assert!(rename(&volumes, "data", "new", &id).unwrap());
        assert_eq!((resolve(&volumes, "data").unwrap(), resolve(&volumes, "new").unwrap()), (None, Some(id.clone())));
        fs::create_dir(volumes.join(&other)).unwrap();
        assert!(!rename(&volumes, &other, "new", &other).unwrap());
        assert_eq!(of(&volumes, &id).unwrap(), "new");
        assert_eq!(of(&volumes, &other).unwrap(), other);
        fs::create_dir(volumes.join("old")).unwrap();
        migrate(&volumes, "old", &"c".repeat(64)).unwrap();
        assert_eq!(resolve(&volumes, "old").unwrap(), Some("c".repeat(64)));
        fs::remove_dir_all(&volumes).unwrap();
    }
}
