//! The tar writer: ustar headers, PAX records for what does not fit them. The same tree always gives the same bytes:
//! no user names, no times but the entries' own, records in order of their keys.
use super::entry::{Entry, Kind};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

const BLOCK: usize = 512;
const NAME: usize = 100;
/// The largest numbers of the header's 7- and 11-digit octal fields.
const MAX_SHORT: u64 = 0o7_777_777;
const MAX_LONG: u64 = 0o77_777_777_777;
const READ_BUFFER: usize = 256 * 1024;

/// Writes a tar archive.
pub(crate) struct Archive<W: Write> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, buffer: Vec::new() }
    }

    /// Writes an entry without data.
    pub(crate) fn add(&mut self, entry: &Entry) -> io::Result<()> {
        self.headers(entry)
    }

    /// Writes a file: exactly `entry.size` bytes, with zeros for what the reader does not have (any more).
    pub(crate) fn add_file(&mut self, entry: &Entry, mut data: impl Read) -> io::Result<()> {
        self.headers(entry)?;
        self.buffer.resize(READ_BUFFER, 0);
        let mut left = entry.size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BUFFER);
            let n = match data.read(&mut self.buffer[..want]) {
                Ok(0) => {
                    self.buffer[..want].fill(0);
                    want
                }
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.out.write_all(&self.buffer[..n])?;
            left -= n as u64;
        }
        self.pad(entry.size)
    }

    /// Writes the end.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn headers(&mut self, entry: &Entry) -> io::Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            let base = entry.path.rsplit(|b| *b == b'/').find(|part| !part.is_empty()).unwrap_or(b"root");
            let mut name = b"PaxHeaders.0/".to_vec();
            name.extend_from_slice(&base[..base.len().min(NAME - name.len())]);
            let mut header = plain(&name, 0o644, b'x');
            header.set_size(records.len() as u64);
            header.set_cksum();
            self.out.write_all(header.as_bytes())?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(header(entry).as_bytes())
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let padding = written.next_multiple_of(BLOCK as u64) - written;
        self.out.write_all(&[0; BLOCK][..usize::try_from(padding).unwrap_or(0)])
    }
}

fn plain(name: &[u8], mode: u32, kind: u8) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let bytes = header.as_mut_bytes();
    let n = name.len().min(NAME);
    bytes[..n].copy_from_slice(&name[..n]);
    bytes[156] = kind;
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn header(entry: &Entry) -> tar::Header {
    let (kind, device) = match entry.kind {
        Kind::File => (b'0', None),
        Kind::HardLink => (b'1', None),
        Kind::Symlink => (b'2', None),
        Kind::Char { major, minor } => (b'3', Some((major, minor))),
        Kind::Block { major, minor } => (b'4', Some((major, minor))),
        Kind::Directory => (b'5', None),
        Kind::Fifo => (b'6', None),
    };
    let mut header = plain(&entry.path, entry.mode, kind);
    let n = entry.link.len().min(NAME);
    header.as_mut_bytes()[157..157 + n].copy_from_slice(&entry.link[..n]);
    header.set_uid(u64::from(entry.uid).min(MAX_SHORT));
    header.set_gid(u64::from(entry.gid).min(MAX_SHORT));
    header.set_mtime(u64::try_from(entry.mtime.0).unwrap_or(0).min(MAX_LONG));
    if entry.kind == Kind::File {
        header.set_size(entry.size.min(MAX_LONG));
    }
    if let Some((major, minor)) = device {
        // Only a header that is not ustar refuses these.
        let _ = header.set_device_major(major);
        let _ = header.set_device_minor(minor);
    }
    header.set_cksum();
    header
}

/// What the plain header cannot say.
fn records(entry: &Entry) -> Vec<u8> {
    let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut put = |key: &str, value: Vec<u8>| {
        map.insert(key.as_bytes().to_vec(), value);
    };
    if entry.path.len() > NAME {
        put("path", entry.path.clone());
    }
    if entry.link.len() > NAME {
        put("linkpath", entry.link.clone());
    }
    if entry.kind == Kind::File && entry.size > MAX_LONG {
        put("size", entry.size.to_string().into());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if u64::from(id) > MAX_SHORT {
            put(key, id.to_string().into());
        }
    }
    let (seconds, nanos) = entry.mtime;
    if nanos != 0 || u64::try_from(seconds).map_or(true, |s| s > MAX_LONG) {
        put("mtime", time(seconds, nanos).into());
    }
    for (name, value) in &entry.xattrs {
        map.insert([b"SCHILY.xattr.", &**name].concat(), value.clone());
    }
    map.iter().flat_map(|(key, value)| record(key, value)).collect()
}

fn time(seconds: i64, nanos: u32) -> String {
    let text = match (seconds, nanos) {
        (_, 0) => return seconds.to_string(),
        // The fraction counts towards the past in a negative time.
        (..=-1, _) => {
            let sign = if seconds == -1 { "-" } else { "" };
            format!("{sign}{}.{:09}", seconds + 1, 1_000_000_000 - nanos)
        }
        _ => format!("{seconds}.{nanos:09}"),
    };
    text.trim_end_matches('0').to_owned()
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::entry::Entries;
    use super::*;

    fn round_trip(entry: &Entry) {
        let mut archive = Archive::new(Vec::new());
        archive.add_file(entry, &vec![b'x'; usize::try_from(entry.size).unwrap()][..]).unwrap();
        let bytes = archive.finish().unwrap();
        let mut back = Entries::new(&bytes[..]);
        assert_eq!(back.next().unwrap().as_ref(), Some(entry));
        assert_eq!(back.next().unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn everything_survives(
            path in proptest::collection::vec(1u8..=255, 1..300),
            link in proptest::collection::vec(1u8..=255, 0..150),
            size in 0u64..2000,
            mode in 0u32..0o7777,
            uid in 0u32..=0x7fff_ffff,
            seconds in -99_999_999_999i64..999_999_999_999,
            nanos in 0u32..1_000_000_000,
            xattr in proptest::collection::vec(0u8..=255, 1..80),
        ) {
            let path = if path.ends_with(b"/") { b"p".to_vec() } else { path };
            let xattrs = vec![(b"user.a".to_vec(), xattr)];
            round_trip(&Entry {
                path, link, kind: Kind::File, mode, uid, gid: 7, mtime: (seconds, nanos), size, xattrs, sparse: None,
            });
        }
    }

    #[test]
    fn lengths_count_themselves() {
        assert_eq!(record(b"path", b"a"), b"9 path=a\n");
        assert_eq!(record(b"k", &[b'v'; 4]), b"9 k=vvvv\n");
        assert_eq!(record(b"k", &[b'v'; 5]), b"11 k=vvvvv\n");
    }
}
