//! Blobs as files and directories. A title, and every name in a packed directory, stays below the directory that was asked for.

use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use oci::Descriptor;

use super::UNPACK;
use crate::error::{Error, Result};
use crate::layer::compress::decoder;
use crate::transport::checked::Checked;

/// Looks at a title before anything is written.
pub(super) fn check(into: &Path, title: &str, replace: bool) -> Result<()> {
    let path = into.join(below(Path::new(title), title)?);
    if !replace && path.symlink_metadata().is_ok() {
        return Err(Error::Exists { what: "file", name: path.display().to_string() });
    }
    Ok(())
}

/// A path of plain names only.
fn below(path: &Path, title: &str) -> Result<PathBuf> {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let clean: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if !plain || clean.as_os_str().is_empty() {
        let problem = "it leads out of the directory".into();
        return Err(Error::NameInvalid { what: "title of a file", name: title.into(), problem });
    }
    Ok(clean)
}

/// The directory in which `path` (below `into`) lies; made when missing, and never reached through a link.
fn parent(into: &Path, path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(into).map_err(Error::io("create", into))?;
    let mut dir = into.to_owned();
    for part in path.parent().unwrap_or(Path::new("")).components() {
        dir.push(part);
        match std::fs::create_dir(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(Error::io("create", dir)(e)),
            _ => {}
        }
        if !dir.symlink_metadata().map_err(Error::io("inspect", &dir))?.is_dir() {
            let problem = "a part of it is no directory".into();
            return Err(Error::NameInvalid { what: "title of a file", name: path.display().to_string(), problem });
        }
    }
    Ok(dir)
}

/// One blob on its way.
pub(super) struct Job {
    pub into: PathBuf,
    pub title: String,
    pub layer: Descriptor,
}

impl Job {
    /// Writes it; gives the path.
    pub fn run(&self, from: &mut (dyn Read + Send)) -> Result<PathBuf> {
        let name = below(Path::new(&self.title), &self.title)?;
        let dir = parent(&self.into, &name)?;
        let path = self.into.join(&name);
        let mut temporary =
            tempfile::Builder::new().prefix(".pier-").tempfile_in(&dir).map_err(Error::io("create a file in", &dir))?;
        let mut checked = Checked::new(from, &self.layer.digest);
        std::io::copy(&mut checked, &mut temporary).map_err(Error::io("write", &path))?;
        checked.verify(&self.layer.digest)?;
        let failed = || Error::io("write", &path);
        temporary.flush().and_then(|()| temporary.as_file().sync_all()).map_err(failed())?;
        if self.layer.annotations.get(UNPACK).is_some_and(|value| value == "true") {
            let archive = temporary.reopen().map_err(failed())?;
            unpack(&self.into, archive)?;
            return Ok(path);
        }
        let mode = std::fs::Permissions::from_mode(0o644);
        temporary.as_file().set_permissions(mode).map_err(failed())?;
        temporary.persist(&path).map_err(|e| Error::io("write", &path)(e.error))?;
        Ok(path)
    }
}

/// Files and directories first, links last: so no link is ever gone through.
fn unpack(into: &Path, archive: std::fs::File) -> Result<()> {
    let broken = |e: std::io::Error| Error::BadTar { offset: 0, problem: e.to_string() };
    let mut tar = tar::Archive::new(decoder(archive, "")?);
    let mut links = Vec::new();
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        let clean = below(&name, &name.display().to_string())?;
        let mode = entry.header().mode().map_err(broken)? & 0o777;
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                parent(into, &clean.join("x"))?;
            }
            tar::EntryType::Regular => {
                let dir = parent(into, &clean)?;
                let mut file = tempfile::NamedTempFile::new_in(&dir).map_err(Error::io("create a file in", &dir))?;
                std::io::copy(&mut entry, &mut file).map_err(broken)?;
                let path = into.join(&clean);
                let permissions = std::fs::Permissions::from_mode(mode);
                file.as_file().set_permissions(permissions).map_err(Error::io("write", &path))?;
                file.persist(&path).map_err(|e| Error::io("write", &path)(e.error))?;
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
                links.push((clean, target));
            }
            tar::EntryType::XGlobalHeader => {}
            other => {
                let problem = format!("is of kind {other:?}, which an artifact does not hold");
                return Err(Error::TarEntry { entry: name.display().to_string(), problem });
            }
        }
    }
    links.into_iter().try_for_each(|(name, target)| link(into, &name, &target))
}

/// A link that leads within the directory.
fn link(into: &Path, name: &Path, target: &Path) -> Result<()> {
    let escapes = || Error::TarEscapes {
        entry: name.display().to_string(),
        problem: format!("is a link to {}, out of the directory", target.display()),
    };
    let mut depth = name.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth = depth.checked_sub(1).ok_or_else(escapes)?,
            _ => return Err(escapes()),
        }
    }
    parent(into, name)?;
    let path = into.join(name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("replace", path)(e)),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &path).map_err(Error::io("link", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn titles_stay_below() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["/etc/x", "../x", "a/../../x", "", "."] {
            assert!(check(dir.path(), bad, true).is_err(), "{bad}");
        }
        check(dir.path(), "a/b", false).unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path().join("a")).unwrap();
        assert!(parent(dir.path(), Path::new("a/b")).is_err(), "not through a link");
        assert!(check(dir.path(), "a", false).is_err(), "it is there");
    }

    #[test]
    fn a_packed_directory_does_not_get_out() {
        let dir = tempfile::tempdir().unwrap();
        for (name, target) in [("d/l", "../../x"), ("d/l", "/etc"), ("../l", "x")] {
            let path = dir.path().join("t.tar");
            let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_link_name(target).unwrap();
            header.set_cksum();
            tar.append(&header, std::io::empty()).unwrap();
            tar.finish().unwrap();
            let out = dir.path().join("out");
            assert!(unpack(&out, std::fs::File::open(&path).unwrap()).is_err(), "{name} {target}");
            assert!(out.join("d/l").symlink_metadata().is_err());
        }
    }
}
