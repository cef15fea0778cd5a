//! Blobs as files and directories. A title, and every name in a packed directory, stays below the directory that was asked for.
//! A packed directory is unpacked within the limits of a layer, beside its place; it is there as a whole, or not at all.

use std::cell::Cell;
use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use oci::Descriptor;

use super::UNPACK;
use crate::error::{Error, Result};
use crate::layer::compress::decoder;
use crate::layer::{RATIO_FREE, RATIO_MAX};
use crate::transport::checked::Checked;

/// Entries of one packed directory; more is an attack.
const ENTRIES_MAX: u64 = 1_000_000;

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
            let aside = tempfile::Builder::new().prefix(".pier-").tempdir_in(&self.into);
            let aside = aside.map_err(Error::io("create a directory in", &self.into))?;
            unpack(aside.path(), archive, self.layer.size)?;
            settle(aside.path(), &self.into, Path::new(""))?;
            return Ok(path);
        }
        let mode = std::fs::Permissions::from_mode(0o644);
        temporary.as_file().set_permissions(mode).map_err(failed())?;
        temporary.persist(&path).map_err(|e| Error::io("write", &path)(e.error))?;
        Ok(path)
    }
}

/// Files and directories first, links last: so no link is ever gone through. `size`: bytes of the archive as it came.
fn unpack(into: &Path, archive: std::fs::File, size: u64) -> Result<()> {
    let grown = Cell::new(None);
    let broken = |e: std::io::Error| match grown.get() {
        Some(uncompressed) => Error::LayerExpands { compressed: size, uncompressed },
        None => Error::BadTar { offset: 0, problem: e.to_string() },
    };
    let most = RATIO_FREE.max(size.saturating_mul(RATIO_MAX));
    let mut tar = tar::Archive::new(Limited { inner: decoder(archive, "")?, came: 0, most, grown: &grown });
    let (mut links, mut entries) = (Vec::new(), 0);
    for entry in tar.entries().map_err(broken)? {
        entries += 1;
        if entries > ENTRIES_MAX {
            let problem = format!("more than {ENTRIES_MAX} entries in one directory");
            return Err(Error::BadTar { offset: 0, problem });
        }
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

/// Ends a stream that grows beyond measure.
struct Limited<'a, R> {
    inner: R,
    came: u64,
    most: u64,
    /// How far it had come.
    grown: &'a Cell<Option<u64>>,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.came += read as u64;
        if self.came > self.most {
            self.grown.set(Some(self.came));
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        Ok(read)
    }
}

/// Moves what was unpacked to its place: directories are joined, the rest is replaced.
fn settle(from: &Path, into: &Path, below: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from.join(below)).map_err(Error::io("list", from))? {
        let entry = entry.map_err(Error::io("list", from))?;
        let name = below.join(entry.file_name());
        let (source, to) = (entry.path(), into.join(&name));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && to.symlink_metadata().is_ok() {
            parent(into, &name.join("x"))?;
            settle(from, into, &name)?;
        } else {
            std::fs::rename(&source, &to).map_err(Error::io("write", to))?;
        }
    }
    Ok(())
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
            assert!(unpack(&out, std::fs::File::open(&path).unwrap(), 1024).is_err(), "{name} {target}");
            assert!(out.join("d/l").symlink_metadata().is_err());
        }
    }

    #[test]
    fn a_packed_directory_is_joined_with_what_is_there_and_stays_within_measure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
        for (name, bytes) in [("d/new", b"n".repeat(5000)), ("d/old", b"o".to_vec())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        tar.finish().unwrap();
        let out = dir.path().join("out");
        std::fs::create_dir_all(out.join("d")).unwrap();
        std::fs::write(out.join("d/old"), b"before").unwrap();
        std::fs::write(out.join("d/mine"), b"m").unwrap();
        let layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar", &std::fs::read(&path).unwrap());
        let annotations = [(UNPACK.to_owned(), "true".to_owned())].into();
        let job = Job { into: out.clone(), title: "d".into(), layer: Descriptor { annotations, ..layer } };
        job.run(&mut std::fs::File::open(&path).unwrap()).unwrap();
        let read = |name: &str| std::fs::read(out.join(name)).unwrap();
        assert_eq!((read("d/old"), read("d/mine"), read("d/new").len()), (b"o".to_vec(), b"m".to_vec(), 5000));
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1, "nothing lies beside it");
        let grown = Cell::new(None);
        let mut limited = Limited { inner: std::io::repeat(0), came: 0, most: 10_000, grown: &grown };
        assert!(std::io::copy(&mut limited, &mut std::io::sink()).is_err());
        assert!(grown.get().is_some_and(|came| came > 10_000));
    }
}
