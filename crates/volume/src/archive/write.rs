//! A tree as a tar.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use tar::{Builder, EntryType, GnuExtSparseHeader, Header};

use crate::copy_up::copy::extended;
use crate::handle::Handle;
use crate::{Error, Result};

/// Longest name that the header itself holds.
const NAME: usize = 100;

/// Writes everything below a directory, the directory itself first as "./", entries sorted by name.
pub(super) fn tree(root: &Path, out: &mut dyn Write) -> Result<()> {
    let mut writer = Writer { builder: Builder::new(out), links: HashMap::new() };
    let top = Handle::of(root)?;
    writer.directory(&top, &top.metadata()?, Path::new("."))?;
    writer.builder.into_inner().and_then(|out| out.flush()).map_err(Error::io("write the archive of", root))
}

struct Writer<'a> {
    builder: Builder<&'a mut dyn Write>,
    /// First name of a file with several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Writer<'_> {
    fn directory(&mut self, from: &Handle, metadata: &Metadata, shown: &Path) -> Result<()> {
        self.entry(from, shown, metadata, EntryType::Directory, None)?;
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(from.path()).map_err(Error::io("list", from.path()))? {
            names.push(entry.map_err(Error::io("list", from.path()))?.file_name());
        }
        names.sort();
        for name in names {
            // Gone since it was listed, else.
            let Some(file) = Handle::at(&from.path().join(&name))? else { continue };
            let (shown, metadata) = (shown.join(&name), file.metadata()?);
            if metadata.is_dir() {
                self.directory(&file, &metadata, &shown)?;
            } else {
                self.other(&file, &shown, &metadata)?;
            }
        }
        Ok(())
    }

    fn other(&mut self, from: &Handle, shown: &Path, metadata: &Metadata) -> Result<()> {
        let kind = metadata.file_type();
        if kind.is_socket() {
            tracing::info!(path = %shown.display(), "a socket is not exported");
            return Ok(());
        }
        let inode = (metadata.dev(), metadata.ino());
        if metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&inode).cloned() {
                return self.entry(from, shown, metadata, EntryType::Link, Some(&first));
            }
            self.links.insert(inode, shown.into());
        }
        if kind.is_file() {
            return self.file(from, shown, metadata);
        }
        if kind.is_symlink() {
            return self.entry(from, shown, metadata, EntryType::Symlink, Some(&from.link()?));
        }
        let node = if kind.is_fifo() {
            EntryType::Fifo
        } else if kind.is_char_device() {
            EntryType::Char
        } else {
            EntryType::Block
        };
        self.entry(from, shown, metadata, node, None)
    }

    /// Everything but a file's content.
    fn entry(
        &mut self,
        from: &Handle,
        shown: &Path,
        metadata: &Metadata,
        kind: EntryType,
        link: Option<&Path>,
    ) -> Result<()> {
        let mut header = self.header(from, shown, metadata, kind, link)?;
        header.set_size(0);
        header.set_cksum();
        self.builder.append(&header, std::io::empty()).map_err(Error::io("write the archive entry of", from.path()))
    }

    /// The header, with what it cannot hold written as PAX records before it.
    fn header(
        &mut self,
        from: &Handle,
        shown: &Path,
        metadata: &Metadata,
        kind: EntryType,
        link: Option<&Path>,
    ) -> Result<Header> {
        let failed = || Error::io("write the archive entry of", from.path());
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let nanoseconds = metadata.mtime_nsec();
        if nanoseconds != 0 || metadata.mtime() < 0 {
            records.push(("mtime".into(), time(metadata.mtime(), nanoseconds).into_bytes()));
        }
        let mut name = shown.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            name.push(b'/');
        }
        if let Some(gnu) = header.as_gnu_mut() {
            if !put(&mut gnu.name, &name) {
                records.push(("path".into(), name));
            }
            if let Some(link) = link.map(|link| link.as_os_str().as_bytes())
                && !put(&mut gnu.linkname, link)
            {
                records.push(("linkpath".into(), link.to_vec()));
            }
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let device = metadata.rdev();
            header.set_device_major(rustix::fs::major(device)).map_err(failed())?;
            header.set_device_minor(rustix::fs::minor(device)).map_err(failed())?;
        }
        if kind != EntryType::Link {
            for (name, value) in extended(from)? {
                records.push((format!("SCHILY.xattr.{}", name.to_string_lossy()), value));
            }
        }
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.builder.append_pax_extensions(records).map_err(failed())?;
        }
        Ok(header)
    }

    fn file(&mut self, from: &Handle, shown: &Path, metadata: &Metadata) -> Result<()> {
        let failed = || Error::io("write the archive entry of", from.path());
        let file = from.content()?;
        let length = metadata.len();
        let parts = segments(&file, length);
        let whole = matches!(parts.as_slice(), [(0, all)] if *all == length) || length == 0;
        let kind = if whole { EntryType::Regular } else { EntryType::GNUSparse };
        let mut header = self.header(from, shown, metadata, kind, None)?;
        let mut more = Vec::new();
        if !whole {
            more = sparse(&mut header, &parts, length);
        }
        let stored: u64 = parts.iter().map(|(_, count)| count).sum();
        header.set_size(stored);
        header.set_cksum();
        // A file that shrinks meanwhile is filled up with zeros: the archive stays whole.
        let data = Parts { file, parts: parts.into_iter(), left: 0 }.chain(std::io::repeat(0)).take(stored);
        self.builder.append(&header, more.as_slice().chain(data)).map_err(failed())
    }
}

fn put(field: &mut [u8; NAME], text: &[u8]) -> bool {
    match field.get_mut(..text.len()) {
        Some(place) => {
            place.copy_from_slice(text);
            true
        }
        None => false,
    }
}

fn time(seconds: i64, nanoseconds: i64) -> String {
    // Before 1970 the fraction counts towards zero.
    match (seconds < 0, nanoseconds) {
        (true, 1..) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
        _ => format!("{seconds}.{nanoseconds:09}"),
    }
}

/// Offset and length of the parts that hold data.
fn segments(file: &File, length: u64) -> Vec<(u64, u64)> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < length {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            // A file system without holes.
            Err(_) => return vec![(0, length)],
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(length).min(length);
        if end > start {
            parts.push((start, end - start));
        }
        at = end.max(at + 1);
    }
    parts
}

/// Fills the map of a sparse header; what does not fit goes into the blocks that follow.
fn sparse(header: &mut Header, parts: &[(u64, u64)], length: u64) -> Vec<u8> {
    // Readers learn the length of a file that ends in a hole from an empty part there.
    let mut map = parts.to_vec();
    if map.last().is_none_or(|(start, count)| start + count < length) {
        map.push((length, 0));
    }
    let Some(gnu) = header.as_gnu_mut() else { return Vec::new() };
    gnu.set_real_size(length);
    let (first, rest) = map.split_at(map.len().min(gnu.sparse.len()));
    for (place, (start, count)) in gnu.sparse.iter_mut().zip(first) {
        place.set_offset(*start);
        place.set_length(*count);
    }
    gnu.set_is_extended(!rest.is_empty());
    let mut more = Vec::new();
    let mut left = rest;
    while !left.is_empty() {
        let mut block = GnuExtSparseHeader::new();
        let (now, then) = left.split_at(left.len().min(block.sparse().len()));
        for (place, (start, count)) in block.sparse_mut().iter_mut().zip(now) {
            place.set_offset(*start);
            place.set_length(*count);
        }
        block.set_is_extended(!then.is_empty());
        more.extend_from_slice(block.as_bytes());
        left = then;
    }
    more
}

/// The data of the parts, one after the other.
struct Parts {
    file: File,
    parts: std::vec::IntoIter<(u64, u64)>,
    left: u64,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.left == 0 {
            let Some((start, count)) = self.parts.next() else { return Ok(0) };
            self.file.seek(std::io::SeekFrom::Start(start))?;
            self.left = count;
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(place) = buffer.get_mut(..most) else { return Ok(0) };
        let count = self.file.read(place)?;
        if count == 0 {
            // It shrank: zeros keep the place of what was there.
            place.fill(0);
            self.left -= most as u64;
            return Ok(most);
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times() {
        assert_eq!(time(5, 7), "5.000000007");
        assert_eq!(time(-1, 500_000_000), "-0.500000000");
        assert_eq!(time(-2, 0), "-2.000000000");
    }
}
