//! ADD takes local tar archives apart: plain, gzip or zstd.

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use tar::{Entry, EntryType};
use tokio_util::sync::CancellationToken;

use super::attributes::{self, Attributes};
use super::copy;
use super::ignore::clean;
use super::root::{self, Root};
use crate::error::Error;

/// Unpacks `file` below `destination`; false, and nothing done, when it is no archive.
pub(super) fn unpack(
    mut file: File,
    name: &Path,
    target: &Root,
    destination: &str,
    owner: Option<(u32, u32)>,
    cancel: &CancellationToken,
) -> Result<bool, Error> {
    let Some(stream) = open(&mut file, name)? else { return Ok(false) };
    let mut archive = tar::Archive::new(stream);
    let mut unpacking = Unpacking { target, destination, owner, name, directories: Vec::new() };
    for entry in archive.entries().map_err(Error::io("read the archive", name))? {
        if cancel.is_cancelled() {
            return Err(Error::Canceled);
        }
        unpacking.entry(entry.map_err(Error::io("read the archive", name))?)?;
    }
    unpacking.finish()?;
    Ok(true)
}

type Stream<'a> = Box<dyn Read + 'a>;

fn open<'a>(file: &'a mut File, name: &Path) -> Result<Option<Stream<'a>>, Error> {
    let mut magic = Vec::new();
    file.take(6).read_to_end(&mut magic).map_err(Error::io("read", name))?;
    file.rewind().map_err(Error::io("read", name))?;
    let mut stream: Stream<'a> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => match zstd::Decoder::new(file) {
            Ok(decoder) => Box::new(decoder),
            Err(_) => return Ok(None),
        },
        [0xfd, b'7', b'z', b'X', b'Z', 0] | [b'B', b'Z', b'h', ..] => {
            return Err(Error::Unsupported(format!("ADD of {} (an xz or bzip2 file)", name.display())));
        }
        _ => Box::new(BufReader::new(file)),
    };
    let mut block = Vec::new();
    let read = (&mut stream).take(512).read_to_end(&mut block);
    if read.is_err() || !is_header(&block) {
        return Ok(None);
    }
    Ok(Some(Box::new(Cursor::new(block).chain(stream))))
}

/// A tar header has the sum of its own bytes, with the field of the sum as blanks (POSIX.1-1988).
fn is_header(block: &[u8]) -> bool {
    let Ok(block) = <&[u8; 512]>::try_from(block) else { return false };
    let field = String::from_utf8_lossy(&block[148..156]);
    let digits = field.trim_matches(|c: char| c == ' ' || c == '\0');
    let Ok(wanted) = u32::from_str_radix(digits, 8) else { return false };
    let sum = |range: &[u8]| range.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(&block[..148]) + 8 * 32 + sum(&block[156..]) == wanted
}

struct Unpacking<'a> {
    target: &'a Root,
    destination: &'a str,
    owner: Option<(u32, u32)>,
    name: &'a Path,
    /// Times of directories are set when nothing is made in them any more.
    directories: Vec<(String, Attributes)>,
}

impl Unpacking<'_> {
    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), Error> {
        let path = self.place(&entry.path_bytes());
        let extended = self.pax(&mut entry)?;
        let attributes = self.attributes(&entry, &extended)?;
        let kind = entry.header().entry_type();
        if path == clean(&format!("/{}", self.destination)) && kind != EntryType::Directory {
            return Ok(());
        }
        let (parent, leaf) = root::split(&path);
        let leaf = OsStr::new(leaf);
        let failed = |action| Error::sys(action, self.target.name_of(&path));
        if kind == EntryType::Directory {
            let made = self.target.make_directory(&path, &attributes)?;
            attributes::write_extended(made.as_fd(), &extended.attributes).map_err(failed("set the attributes of"))?;
            self.directories.push((path, attributes));
            return Ok(());
        }
        let way = Attributes { mode: 0o755, modified: None, uid: 0, gid: 0 };
        let parent = self.target.make_directory(parent, &way)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let fd = copy::create(parent.as_fd(), leaf).map_err(failed("create"))?;
                let mut file = File::from(fd);
                io::copy(&mut entry, &mut file).map_err(Error::io("write", self.target.name_of(&path)))?;
                attributes.apply(file.as_fd()).map_err(failed("set the attributes of"))?;
                attributes::write_extended(file.as_fd(), &extended.attributes).map_err(failed("set the attributes of"))
            }
            EntryType::Symlink => {
                let link = entry.link_name_bytes().unwrap_or_default().into_owned();
                copy::clear(parent.as_fd(), leaf).map_err(failed("replace"))?;
                rustix::fs::symlinkat(OsStr::from_bytes(&link), &parent, leaf).map_err(failed("create the link"))?;
                attributes.apply_at(parent.as_fd(), leaf).map_err(failed("set the attributes of"))
            }
            EntryType::Link => {
                let link = self.place(&entry.link_name_bytes().unwrap_or_default());
                let (directory, first) = root::split(&link);
                let directory = self
                    .target
                    .resolve(directory, OFlags::PATH | OFlags::DIRECTORY)
                    .map_err(failed("find the first name of"))?;
                copy::clear(parent.as_fd(), leaf).map_err(failed("replace"))?;
                rustix::fs::linkat(&directory, first, &parent, leaf, AtFlags::empty())
                    .map_err(failed("create the hard link"))
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                let device = device(&entry);
                let kind = match kind {
                    EntryType::Fifo => FileType::Fifo,
                    EntryType::Char => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                copy::clear(parent.as_fd(), leaf).map_err(failed("replace"))?;
                rustix::fs::mknodat(&parent, leaf, kind, Mode::from_raw_mode(attributes.mode), device)
                    .map_err(failed("create"))?;
                attributes.apply_at(parent.as_fd(), leaf).map_err(failed("set the attributes of"))
            }
            _ => Ok(()),
        }
    }

    /// Where an entry goes: names cannot climb out of the destination.
    fn place(&self, name: &[u8]) -> String {
        let inside = clean(&format!("/{}", String::from_utf8_lossy(name)));
        clean(&format!("/{}/{inside}", self.destination))
    }

    fn pax<R: Read>(&self, entry: &mut Entry<'_, R>) -> Result<Extended, Error> {
        let mut extended = Extended::default();
        let Some(records) = entry.pax_extensions().map_err(Error::io("read the archive", self.name))? else {
            return Ok(extended);
        };
        for record in records.flatten() {
            match record.key_bytes() {
                b"mtime" => extended.modified = record.value().ok().and_then(time),
                b"uid" => extended.uid = record.value().ok().and_then(|text| text.parse().ok()),
                b"gid" => extended.gid = record.value().ok().and_then(|text| text.parse().ok()),
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        extended.attributes.push((name.to_vec(), record.value_bytes().to_vec()));
                    }
                }
            }
        }
        Ok(extended)
    }

    fn attributes<R: Read>(&self, entry: &Entry<'_, R>, extended: &Extended) -> Result<Attributes, Error> {
        let header = entry.header();
        let bad = |_| Error::Request(format!("{}: broken archive header", self.name.display()));
        let number = |value: u64| u32::try_from(value).unwrap_or(0);
        let (uid, gid) = match self.owner {
            Some(owner) => owner,
            None => (
                extended.uid.map_or_else(|| header.uid().map(number), Ok).map_err(bad)?,
                extended.gid.map_or_else(|| header.gid().map(number), Ok).map_err(bad)?,
            ),
        };
        let seconds = i64::try_from(header.mtime().map_err(bad)?).unwrap_or(0);
        let mode = header.mode().map_err(bad)? & 0o7777;
        Ok(Attributes { uid, gid, mode, modified: Some(extended.modified.unwrap_or((seconds, 0))) })
    }

    fn finish(&self) -> Result<(), Error> {
        for (path, attributes) in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // A later entry may have put something else in its place.
            if let Ok(fd) = self.target.resolve(path, flags) {
                attributes.apply(fd.as_fd()).map_err(Error::sys("set the attributes of", self.target.name_of(path)))?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Extended {
    modified: Option<(i64, i64)>,
    uid: Option<u32>,
    gid: Option<u32>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// "12.5" in seconds and nanoseconds.
fn time(text: &str) -> Option<(i64, i64)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

fn device<R: Read>(entry: &Entry<'_, R>) -> u64 {
    let header = entry.header();
    let part = |value: io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
    rustix::fs::makedev(part(header.device_major()), part(header.device_minor()))
}
