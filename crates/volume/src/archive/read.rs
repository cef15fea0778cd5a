//! A tar as a tree. The tree is nobody's yet, so its path is stable; what is in the archive never leads out of it: names
//! with `..` are refused, and so is a way through a symbolic link.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use tar::{Archive, Entry, EntryType};

use crate::{Error, Result};

/// Fills an empty directory.
pub(super) fn tree(tar: &mut dyn Read, root: &Path) -> Result<()> {
    // Unless the archive says otherwise.
    rustix::fs::chmod(root, Mode::from_raw_mode(0o755)).map_err(Error::io("change the mode of", root))?;
    let mut directories: HashMap<PathBuf, Attributes> = HashMap::new();
    let mut archive = Archive::new(tar);
    for entry in archive.entries().map_err(broken("the archive"))? {
        let mut entry = entry.map_err(broken("the archive"))?;
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = root.join(inside(&entry.path_bytes(), &shown)?);
        let attributes = Attributes::of(&mut entry, &shown)?;
        if entry.header().entry_type() == EntryType::Directory {
            parents(root, &path, &shown)?;
            directory(&path, &shown)?;
            // Last: what comes into a directory changes its times, and its mode may forbid filling it.
            directories.insert(path, attributes);
            continue;
        }
        parents(root, &path, &shown)?;
        if make(root, &path, &mut entry, &attributes, &shown)? {
            attributes.apply(&path)?;
        }
    }
    let mut directories: Vec<_> = directories.into_iter().collect();
    directories.sort_by(|(one, _), (other, _)| other.cmp(one));
    directories.iter().try_for_each(|(path, attributes)| attributes.apply(path))
}

fn broken(what: &str) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let entry = what.to_owned();
    move |error| Error::Archive { entry, why: error.to_string() }
}

fn refused(shown: &str, why: &str) -> Error {
    Error::Archive { entry: shown.into(), why: why.into() }
}

/// A name without the leading "./" or "/".
fn inside(name: &[u8], shown: &str) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => return Err(refused(shown, "no .. may stand in a name")),
            _ => {}
        }
    }
    Ok(path)
}

/// The directories on the way to a path exist, and none is a link.
fn parents(root: &Path, path: &Path, shown: &str) -> Result<()> {
    let mut at = root.to_owned();
    let below = path.strip_prefix(root).ok().and_then(Path::parent).unwrap_or(Path::new(""));
    for name in below.components() {
        at.push(name);
        directory(&at, shown)?;
    }
    Ok(())
}

fn directory(path: &Path, shown: &str) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(refused(shown, "its way leads through something that is no directory")),
        Err(_) => DirBuilder::new().mode(0o755).create(path).map_err(Error::io("create", path)),
    }
}

/// Makes one that is no directory. `false`: another name of a file, or an entry that means nothing here.
fn make(
    root: &Path,
    path: &Path,
    entry: &mut Entry<'_, &mut dyn Read>,
    attributes: &Attributes,
    shown: &str,
) -> Result<bool> {
    if path == root {
        return Err(refused(shown, "the root is a directory"));
    }
    // A later entry of the same name takes the place of the earlier.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(refused(shown, "a directory is in its place"));
        }
        _ => {}
    }
    let failed = || Error::io("create", path);
    let kind = entry.header().entry_type();
    let node = match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            contents(path, entry)?;
            return Ok(true);
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().ok_or_else(|| refused(shown, "a link to nothing"))?;
            symlink(OsStr::from_bytes(&target), path).map_err(failed())?;
            return Ok(true);
        }
        EntryType::Link => {
            let target = entry.link_name_bytes().ok_or_else(|| refused(shown, "a link to nothing"))?;
            let target = root.join(inside(&target, shown)?);
            parents(root, &target, shown)?;
            fs::hard_link(&target, path).map_err(Error::io("link", path))?;
            return Ok(false);
        }
        EntryType::Fifo => FileType::Fifo,
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        EntryType::XGlobalHeader => return Ok(false),
        other => return Err(refused(shown, &format!("entries of type {:?} are unknown", char::from(other.as_byte())))),
    };
    let header = entry.header();
    let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
    let device = rustix::fs::makedev(number(header.device_major()), number(header.device_minor()));
    let mode = Mode::from_raw_mode(attributes.mode & 0o777);
    rustix::fs::mknodat(CWD, path, node, mode, device).map_err(Error::io("create", path))?;
    Ok(true)
}

/// Writes a file; blocks of zeros become holes.
fn contents(path: &Path, entry: &mut Entry<'_, &mut dyn Read>) -> Result<()> {
    const BLOCK: usize = 4096;
    let failed = || Error::io("write", path);
    let mut options = OpenOptions::new();
    let mut file: File = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed())?;
    let (mut buffer, mut length) = (vec![0_u8; 16 * BLOCK], 0_u64);
    loop {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match entry.read(rest).map_err(broken(&path.display().to_string()))? {
                0 => break,
                count => filled += count,
            }
        }
        for block in buffer.get(..filled).unwrap_or_default().chunks(BLOCK) {
            length += block.len() as u64;
            if block.iter().all(|byte| *byte == 0) {
                file.seek_relative(block.len() as i64).map_err(failed())?;
            } else {
                file.write_all(block).map_err(failed())?;
            }
        }
        if filled < buffer.len() {
            break;
        }
    }
    file.set_len(length).map_err(failed())
}

/// What an entry says of a file besides its content.
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    time: (i64, i64),
    link: bool,
    extended: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    fn of(entry: &mut Entry<'_, &mut dyn Read>, shown: &str) -> Result<Self> {
        let header = entry.header();
        let bad = |error: std::io::Error| refused(shown, &error.to_string());
        let id = |id: u64| u32::try_from(id).map_err(|_| refused(shown, "its owner is no id"));
        let mut attributes = Self {
            uid: id(header.uid().map_err(bad)?)?,
            gid: id(header.gid().map_err(bad)?)?,
            mode: header.mode().map_err(bad)? & 0o7777,
            time: (i64::try_from(header.mtime().map_err(bad)?).unwrap_or(0), 0),
            link: header.entry_type() == EntryType::Symlink,
            extended: Vec::new(),
        };
        for record in entry.pax_extensions().map_err(bad)?.into_iter().flatten() {
            let record = record.map_err(bad)?;
            let Ok(key) = record.key() else { continue };
            if key == "mtime" {
                let text = record.value().unwrap_or_default();
                attributes.time = time(text).ok_or_else(|| refused(shown, "its time is none"))?;
            } else if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                let name = CString::new(name).map_err(|_| refused(shown, "an attribute has no name"))?;
                attributes.extended.push((name, record.value_bytes().to_vec()));
            }
        }
        Ok(attributes)
    }

    fn apply(&self, path: &Path) -> Result<()> {
        rustix::fs::chownat(
            CWD,
            path,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(Error::io("change the owner of", path))?;
        // After the owner: changing it clears setuid bits and file capabilities.
        if !self.link {
            rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(self.mode), AtFlags::empty())
                .map_err(Error::io("change the mode of", path))?;
        }
        for (name, value) in &self.extended {
            rustix::fs::lsetxattr(path, name.as_c_str(), value, XattrFlags::empty())
                .map_err(Error::io("set attributes of", path))?;
        }
        let time = Timespec { tv_sec: self.time.0, tv_nsec: self.time.1 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::io("set the times of", path))
    }
}

/// Seconds and nanoseconds of a PAX time.
fn time(text: &str) -> Option<(i64, i64)> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time("5.000000007"), Some((5, 7)));
        assert_eq!(time("5.5"), Some((5, 500_000_000)));
        assert_eq!(time("-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time("-2"), Some((-2, 0)));
        assert_eq!(time("x"), None);
    }

    #[test]
    fn names_stay_inside() {
        assert!(inside(b"./a/../b", "").is_err() && inside(b"../b", "").is_err());
        assert_eq!(inside(b"/a//./b", "").ok(), Some("a/b".into()));
    }
}
