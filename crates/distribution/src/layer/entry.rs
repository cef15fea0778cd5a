//! The tar reader: headers in, entries out. It believes nothing: sizes are bounded before anything is allocated,
//! checksums are verified, and an extended header applies to the next real entry and to nothing else.
use crate::{Error, Result};
use std::borrow::Cow;

mod number;
mod pax;
mod sparse;

use number::{device, number, signed};
use pax::Extended;

/// Bytes of a tar block.
const BLOCK: usize = 512;
/// Of the extended headers and long names of one entry. Go's reader has the same limit for each.
const MAX_SPECIAL: u64 = 1 << 20;
/// Ids beyond this are not ids: (uid_t)-1 and its kin have been used to get root.
const MAX_ID: u64 = i32::MAX as u64;

/// Where the archive's bytes come from.
pub(crate) trait Source {
    /// The bytes at hand, at least one unless the stream has ended.
    fn fill(&mut self) -> Result<&[u8]>;
    /// Takes `n` of those.
    fn consume(&mut self, n: usize);
}

impl Source for &[u8] {
    fn fill(&mut self) -> Result<&[u8]> {
        Ok(self)
    }

    fn consume(&mut self, n: usize) {
        *self = &self[n..];
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
}

/// One entry, with what its extended headers said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As written, not yet checked.
    pub path: Vec<u8>,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    pub kind: Kind,
    /// The twelve mode bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// Of the file, holes included.
    pub size: u64,
    /// Extended attributes by full name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the archive's data belongs, for a file with holes: offset, length.
    pub sparse: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// The path for messages.
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// Reads entries from a source.
pub(crate) struct Entries<S> {
    source: S,
    /// Bytes taken so far.
    offset: u64,
    /// Data of the current entry not yet taken, and its padding.
    data: u64,
    padding: u64,
}

impl<S: Source> Entries<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, offset: 0, data: 0, padding: 0 }
    }

    /// The source, to read what follows the archive.
    pub(crate) fn into_source(self) -> S {
        self.source
    }

    /// The next entry; what was not taken of the last one's data is skipped. `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        let mut said = 0;
        loop {
            self.skip(self.data + self.padding)?;
            (self.data, self.padding) = (0, 0);
            let start = self.offset;
            let Some(block) = self.block()? else { return Ok(None) };
            if is_zero(&block) {
                return match self.block()? {
                    Some(next) if !is_zero(&next) => Err(bad(start, "something follows its end")),
                    _ => Ok(None),
                };
            }
            let header = tar::Header::from_byte_slice(&block);
            verify_checksum(&block).map_err(|problem| bad(start, problem))?;
            let stored = number(&block[124..136]).map_err(|e| bad(start, format!("size {e}")))?;
            if matches!(block[156], b'x' | b'L' | b'K') {
                said += stored;
                if said > MAX_SPECIAL {
                    return Err(bad(start, format!("extended headers of {said} bytes, more than {MAX_SPECIAL}")));
                }
            }
            match block[156] {
                b'x' => extended.pax(&self.special(stored)?).map_err(|problem| bad(start, problem))?,
                // A global header: comments (git's) and defaults that no image tool writes.
                b'g' => drop(self.special(stored)?),
                b'L' => extended.path = Some(until_nul(self.special(stored)?)),
                b'K' => extended.link = Some(until_nul(self.special(stored)?)),
                _ => return self.real(header, &block, stored, extended, start).map(Some),
            }
        }
    }

    /// Gives the data of the current entry piece by piece; empty at its end.
    pub(crate) fn data(&mut self) -> Result<&[u8]> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let bytes = self.source.fill()?;
        if bytes.is_empty() {
            return Err(bad(offset, "it ends inside a file"));
        }
        let n = usize::try_from(self.data).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..n])
    }

    /// Takes `n` bytes of what [`Self::data`] gave.
    pub(crate) fn took(&mut self, n: usize) {
        self.source.consume(n);
        self.offset += n as u64;
        self.data -= n as u64;
    }

    /// Puts the header and what extended headers said together.
    fn real(
        &mut self,
        header: &tar::Header,
        block: &[u8; BLOCK],
        stored: u64,
        mut extended: Extended,
        start: u64,
    ) -> Result<Entry> {
        let path = extended.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.link.take();
        let link = link.unwrap_or_else(|| header.link_name_bytes().map(Cow::into_owned).unwrap_or_default());
        let fail = |problem: String| Error::TarEntry { entry: String::from_utf8_lossy(&path).into_owned(), problem };
        let kind = kind(block, &path).map_err(fail)?;
        let field = |range: std::ops::Range<usize>, what: &str| {
            number(&block[range]).map_err(|e| fail(format!("has a {what} {e}")))
        };
        let id = |n: u64, what: &str| match u32::try_from(n) {
            Ok(id) if n <= MAX_ID => Ok(id),
            _ => Err(fail(format!("has {what} {n}, more than 2147483647"))),
        };
        let uid = id(extended.uid.map_or_else(|| field(108..116, "uid"), Ok)?, "uid")?;
        let gid = id(extended.gid.map_or_else(|| field(116..124, "gid"), Ok)?, "gid")?;
        let mode = field(100..108, "mode")? as u32 & 0o7777;
        let seconds = signed(&block[136..148]).map_err(|e| fail(format!("has a time {e}")))?;
        let mtime = extended.mtime.unwrap_or((seconds, 0));
        // Links, directories and devices carry no data whatever their size says.
        let stored = if kind == Kind::File { extended.size.unwrap_or(stored) } else { 0 };
        self.data = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
        let mut entry =
            Entry { path, link, kind, mode, uid, gid, mtime, size: stored, xattrs: extended.xattrs, sparse: None };
        if block[156] == b'S' {
            self.old_sparse(header, &mut entry, start)?;
        } else if kind == Kind::File
            && let Some(sparse) = extended.sparse.take()
        {
            self.pax_sparse(sparse, &mut entry, start)?;
        }
        Ok(entry)
    }

    /// One block; `None` when the stream has ended before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            let bytes = self.source.fill()?;
            if bytes.is_empty() {
                return if have == 0 { Ok(None) } else { Err(bad(self.offset, "it ends inside a header")) };
            }
            let n = bytes.len().min(BLOCK - have);
            block[have..have + n].copy_from_slice(&bytes[..n]);
            self.source.consume(n);
            self.offset += n as u64;
            have += n;
        }
        Ok(Some(block))
    }

    /// The data of an extended header or long name.
    fn special(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_SPECIAL {
            return Err(bad(self.offset, format!("an extended header of {size} bytes, more than {MAX_SPECIAL}")));
        }
        let mut all = Vec::new();
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        while self.data > 0 {
            let bytes = self.data()?;
            let n = bytes.len();
            all.extend_from_slice(bytes);
            self.took(n);
        }
        Ok(all)
    }

    fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let bytes = self.source.fill()?;
            if bytes.is_empty() {
                return Err(bad(self.offset, "it ends inside a file"));
            }
            let n = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
            self.source.consume(n);
            self.offset += n as u64;
            count -= n as u64;
        }
        Ok(())
    }
}

fn bad(offset: u64, problem: impl Into<String>) -> Error {
    Error::BadTar { offset, problem: problem.into() }
}

/// Two of these end an archive; one at the end of the stream does, too.
fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|b| *b == 0)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn kind(block: &[u8; BLOCK], path: &[u8]) -> Result<Kind, String> {
    let numbers = || -> Result<(u32, u32), String> { Ok((device(&block[329..337])?, device(&block[337..345])?)) };
    Ok(match block[156] {
        // An old archive's directory is a file whose name ends in a slash.
        b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => numbers().map(|(major, minor)| Kind::Char { major, minor })?,
        b'4' => numbers().map(|(major, minor)| Kind::Block { major, minor })?,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(format!("is of the unknown type {:?}", char::from(other))),
    })
}

fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), String> {
    let field = |i: usize| (148..156).contains(&i);
    let bytes = || block.iter().enumerate().map(|(i, b)| if field(i) { b' ' } else { *b });
    let stored = number(&block[148..156]).map_err(|e| format!("checksum {e}"))?;
    let unsigned: u64 = bytes().map(u64::from).sum();
    // Some ancient writers summed signed bytes.
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    if stored == unsigned || i64::try_from(stored) == Ok(signed) {
        Ok(())
    } else {
        Err("a header has a wrong checksum".into())
    }
}
