//! Two trees that should be equal.
use crate::layer::tree::{attribute_pairs, failed, join, names, open_dir, open_file, stat};
use crate::layer::{Marks, Row, is_dir, is_whiteout};
use crate::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Differences that are told by name; the rest is counted.
const TOLD: usize = 3;
const BUFFER: usize = 256 * 1024;

/// What is wrong with `actual`, a layer, compared with `fresh`, the same unpacked just now; `None` when nothing is.
pub(super) fn differences(fresh: &Path, actual: &Path, row: &Row, marks: Marks) -> Result<Option<String>> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
    };
    let mut untimed: HashSet<Vec<u8>> = row.unresolved.directories.iter().map(|p| p.as_ref().to_vec()).collect();
    if !row.root_entry {
        untimed.insert(Vec::new());
    }
    let mut work = Compare { untimed, marks, found: Vec::new(), count: 0 };
    let (fresh, actual) = (open(fresh)?, open(actual)?);
    if row.root_entry {
        let of = |dir: &OwnedFd| rustix::fs::fstat(dir).map_err(failed("inspect", b""));
        let (a, b) = (of(&fresh)?, of(&actual)?);
        work.attributes(b"", &a, &b);
        work.extended(b"", (&fresh, b""), (&actual, b""))?;
    }
    work.dir(&fresh, &actual, b"")?;
    let more = work.count.saturating_sub(work.found.len());
    let told = work.found.join(", ");
    Ok(match (work.count, more) {
        (0, _) => None,
        (_, 0) => Some(told),
        _ => Some(format!("{told} and {more} more")),
    })
}

struct Compare {
    /// Directories whose times the archive does not say.
    untimed: HashSet<Vec<u8>>,
    marks: Marks,
    found: Vec<String>,
    count: usize,
}

impl Compare {
    fn tell(&mut self, path: &[u8], what: &str) {
        self.count += 1;
        if self.found.len() < TOLD {
            self.found.push(format!("{what} /{}", String::from_utf8_lossy(path)));
        }
    }

    fn dir(&mut self, fresh: &OwnedFd, actual: &OwnedFd, path: &[u8]) -> Result<()> {
        let expected = names(fresh).map_err(failed("list", path))?;
        let there = names(actual).map_err(failed("list", path))?;
        for name in there.iter().filter(|name| expected.binary_search(name).is_err()) {
            self.tell(&join(path, name), "extra:");
        }
        for name in &expected {
            let inner = join(path, name);
            let look = |dir| stat(dir, name).map_err(failed("look at", &inner));
            match (look(fresh)?, look(actual)?) {
                (Some(a), Some(b)) => self.entry(fresh, actual, name, &inner, &a, &b)?,
                (Some(_), None) => self.tell(&inner, "missing:"),
                (None, _) => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, fresh: &OwnedFd, actual: &OwnedFd, name: &[u8], path: &[u8], a: &Stat, b: &Stat) -> Result<()> {
        let kind = |s: &Stat| FileType::from_raw_mode(s.st_mode);
        if kind(a) != kind(b) || a.st_rdev != b.st_rdev {
            self.tell(path, "another kind:");
            return Ok(());
        }
        if is_whiteout(a) {
            return Ok(());
        }
        self.attributes(path, a, b);
        self.extended(path, (fresh, name), (actual, name))?;
        match kind(a) {
            FileType::Directory => {
                let open = |dir| open_dir(dir, name).map_err(failed("open", path));
                self.dir(&open(fresh)?, &open(actual)?, path)
            }
            FileType::Symlink => {
                let read = |dir: &OwnedFd| rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed("read", path));
                if read(fresh)? != read(actual)? {
                    self.tell(path, "another target:");
                }
                Ok(())
            }
            FileType::RegularFile if a.st_size == b.st_size => {
                if !same_content(fresh, actual, name).map_err(failed("read", path))? {
                    self.tell(path, "altered:");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn attributes(&mut self, path: &[u8], a: &Stat, b: &Stat) {
        let time = |s: &Stat| (s.st_mtime, s.st_mtime_nsec);
        if a.st_mode != b.st_mode {
            self.tell(path, &format!("mode {:o} instead of {:o}:", b.st_mode & 0o7777, a.st_mode & 0o7777));
        } else if (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid) {
            self.tell(path, &format!("owner {}:{} instead of {}:{}:", b.st_uid, b.st_gid, a.st_uid, a.st_gid));
        } else if !is_dir(a) && a.st_size != b.st_size {
            self.tell(path, &format!("altered, {} bytes instead of {}:", b.st_size, a.st_size));
        } else if !is_dir(a) && a.st_nlink != b.st_nlink {
            self.tell(path, "linked otherwise:");
        } else if time(a) != time(b) && !self.untimed.contains(path) {
            self.tell(path, "another time:");
        }
    }

    fn extended(&mut self, path: &[u8], a: (&OwnedFd, &[u8]), b: (&OwnedFd, &[u8])) -> Result<()> {
        let pairs = |(dir, name): (&OwnedFd, &[u8])| -> Result<_> {
            let pairs = attribute_pairs(dir, name).map_err(failed("read the attributes of", path))?;
            let opaque = match name {
                b"" => self.marks.is_opaque(dir),
                name => open_dir(dir, name).is_ok_and(|dir| self.marks.is_opaque(&dir)),
            };
            Ok((pairs, opaque))
        };
        if pairs(a)? != pairs(b)? {
            self.tell(path, "other attributes:");
        }
        Ok(())
    }
}

/// Compares the data of two files of one size; what is a hole in both is not read, however large it is.
fn same_content(fresh: &OwnedFd, actual: &OwnedFd, name: &[u8]) -> std::io::Result<bool> {
    let (a, b) = (open_file(fresh, name)?, open_file(actual, name)?);
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    let mut at = 0;
    while let Some(data) = next_data(&a, at)?.into_iter().chain(next_data(&b, at)?).min() {
        let n = a.read_at(&mut left, data)?;
        if n == 0 {
            return Ok(b.read_at(&mut right, data)? == 0);
        }
        match b.read_exact_at(&mut right[..n], data) {
            Ok(()) if left[..n] == right[..n] => at = data + n as u64,
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Where data begins, from an offset on; `None` when only a hole is left.
fn next_data(file: &File, at: u64) -> std::io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn holes_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        for (name, byte) in [("a", b"x"), ("same", b"x"), ("other", b"y")] {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_len(1 << 40).unwrap();
            file.write_all_at(byte, (1 << 39) + 5).unwrap();
        }
        let pair = |x: &str, y: &str| {
            let (one, two) = (dir.path().join("one"), dir.path().join("two"));
            for (from, to) in [(x, &one), (y, &two)] {
                let _ = std::fs::remove_dir_all(to);
                std::fs::create_dir(to).unwrap();
                std::fs::hard_link(dir.path().join(from), to.join("f")).unwrap();
            }
            let open = |path| -> OwnedFd { File::open(path).unwrap().into() };
            same_content(&open(&one), &open(&two), b"f").unwrap()
        };
        assert!(pair("a", "same") && !pair("a", "other"));
    }
}
