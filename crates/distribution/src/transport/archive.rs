//! Tars of images: read at random by an index of their entries, written front to back.
//!
//! A compressed archive, or one that comes through a pipe, is first written out to an unnamed file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::ByteStream;
use super::pump::file_stream;
use crate::error::{Error, Result};
use crate::registry::MANIFEST_MAX;

/// Most entries of an archive.
const ENTRIES_MAX: usize = 100_000;
const BUFFER: usize = 256 << 10;

/// Files by name: a directory or a tar.
pub enum Files {
    /// A directory.
    Dir(PathBuf),
    /// A tar, uncompressed and seekable.
    Tar {
        /// For messages.
        path: PathBuf,
        /// Its content.
        file: File,
        /// Where each entry's content begins, and its length.
        entries: HashMap<String, (u64, u64)>,
    },
}

impl Files {
    /// Opens a directory or an archive. `scratch` takes what has to be decompressed first.
    ///
    /// # Errors
    /// [`Error::ArchiveInvalid`], [`Error::Io`].
    pub fn open(path: &Path, scratch: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Dir(path.to_owned()));
        }
        let file = seekable(path, scratch)?;
        let entries = index(&file, path)?;
        Ok(Self::Tar { path: path.to_owned(), file, entries })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Dir(path) | Self::Tar { path, .. } => path,
        }
    }

    /// Whether there is a file of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Dir(path) => path.join(name).is_file(),
            Self::Tar { entries, .. } => entries.contains_key(name),
        }
    }

    /// The content of a file: a handle of its own, where it begins, its length.
    ///
    /// # Errors
    /// [`Error::ArchiveInvalid`] when there is none; [`Error::Io`].
    pub fn slice(&self, name: &str) -> Result<(File, u64, u64)> {
        match self {
            Self::Dir(path) => {
                let inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
                if !inside {
                    return Err(Error::archive(path, format!("it names {name:?}, which is not in it")));
                }
                let path = path.join(name);
                let file = match File::open(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(self.missing(name)),
                    other => other.map_err(Error::io("open", &path))?,
                };
                let length = file.metadata().map_err(Error::io("inspect", &path))?.len();
                Ok((file, 0, length))
            }
            Self::Tar { path, file, entries } => {
                let (start, length) = *entries.get(name).ok_or_else(|| self.missing(name))?;
                // A duplicate shares the position: each reader needs an opening of its own.
                let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
                let file = File::open(link).map_err(Error::io("open", path))?;
                Ok((file, start, length))
            }
        }
    }

    /// A file's content as a stream.
    ///
    /// # Errors
    /// Those of [`Files::slice`].
    pub fn stream(&self, name: &str, offset: u64) -> Result<ByteStream> {
        let (file, start, length) = self.slice(name)?;
        Ok(file_stream(file, self.path(), start + offset, length.saturating_sub(offset)))
    }

    /// A file's content for a blocking reader.
    ///
    /// # Errors
    /// Those of [`Files::slice`].
    pub fn reader(&self, name: &str) -> Result<io::Take<File>> {
        let (mut file, start, length) = self.slice(name)?;
        file.seek(SeekFrom::Start(start)).map_err(Error::io("read", self.path()))?;
        Ok(file.take(length))
    }

    /// A small file, whole.
    ///
    /// # Errors
    /// [`Error::ArchiveInvalid`] when it is missing or too large.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut reader = self.reader(name)?;
        if reader.limit() > MANIFEST_MAX {
            return Err(Error::archive(self.path(), format!("{name} has {} bytes", reader.limit())));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(Error::io("read", self.path()))?;
        Ok(bytes)
    }

    fn missing(&self, name: &str) -> Error {
        Error::archive(self.path(), format!("{name} is missing"))
    }
}

/// The first bytes of compressed files.
fn compression(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    }
}

/// A reader that decompresses what needs it.
///
/// # Errors
/// [`Error::Io`].
pub fn decompressed<'a>(mut from: impl Read + 'a, path: &Path) -> Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    from.by_ref().take(4).read_to_end(&mut head).map_err(Error::io("read", path))?;
    let kind = compression(&head);
    let whole = io::Cursor::new(head).chain(from);
    Ok(match kind {
        Some("gzip") => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Some(_) => Box::new(zstd::Decoder::new(whole).map_err(Error::io("decompress", path))?),
        None => Box::new(whole),
    })
}

fn seekable(path: &Path, scratch: &Path) -> Result<File> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let regular = file.metadata().map_err(Error::io("inspect", path))?.is_file();
    if regular {
        let mut head = [0; 4];
        let read = file.read(&mut head).map_err(Error::io("read", path))?;
        file.rewind().map_err(Error::io("read", path))?;
        if compression(&head[..read]).is_none() {
            return Ok(file);
        }
    }
    let mut plain = decompressed(file, path)?;
    let mut spool = tempfile::tempfile_in(scratch).map_err(Error::io("create a file in", scratch))?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match plain.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::archive(path, format!("it cannot be decompressed: {e}"))),
        };
        spool.write_all(&buffer[..read]).map_err(Error::io("write a file in", scratch))?;
    }
    spool.rewind().map_err(Error::io("read", scratch))?;
    Ok(spool)
}

fn index(file: &File, path: &Path) -> Result<HashMap<String, (u64, u64)>> {
    let broken = |e: io::Error| Error::archive(path, e);
    let mut archive = tar::Archive::new(file);
    let (mut entries, mut links) = (HashMap::new(), Vec::new());
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let name = entry_name(&entry.path_bytes());
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                entries.insert(name, (entry.raw_file_position(), entry.size()));
            }
            // Docker writes equal layers once and links to them.
            kind @ (tar::EntryType::Link | tar::EntryType::Symlink) => {
                let target = entry.link_name_bytes().map(|target| entry_name(&target)).unwrap_or_default();
                let target = if kind == tar::EntryType::Link { target } else { relative(&name, &target) };
                links.push((name, target));
            }
            _ => {}
        }
        if entries.len() > ENTRIES_MAX {
            return Err(Error::archive(path, "it has too many entries"));
        }
    }
    for (name, target) in links {
        if let Some(place) = entries.get(&target).copied() {
            entries.insert(name, place);
        }
    }
    Ok(entries)
}

fn entry_name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_start_matches("./").to_owned()
}

/// Where a symbolic link in an archive leads.
fn relative(link: &str, target: &str) -> String {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// A tar that is being written: to a file that appears when it is whole, or straight into a pipe.
pub struct TarOut {
    path: PathBuf,
    builder: tar::Builder<BufWriter<File>>,
    temporary: Option<tempfile::TempPath>,
    written: HashSet<String>,
}

impl TarOut {
    /// Begins an archive.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &Path) -> Result<Self> {
        let special = path.starts_with("/proc") || path.starts_with("/dev");
        let exists_otherwise = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file());
        let (file, temporary) = if special || exists_otherwise {
            (File::options().write(true).open(path).map_err(Error::io("open", path))?, None)
        } else {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let file = tempfile::Builder::new()
                .prefix(".pier-")
                .tempfile_in(dir)
                .map_err(Error::io("create a file in", dir))?;
            let (file, temporary) = file.into_parts();
            (file, Some(temporary))
        };
        let mut builder = tar::Builder::new(BufWriter::with_capacity(BUFFER, file));
        builder.sparse(false);
        Ok(Self { path: path.to_owned(), builder, temporary, written: HashSet::new() })
    }

    /// Where it will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an entry of this name was written.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.written.contains(name)
    }

    /// Adds a file of a known size; once only.
    ///
    /// # Errors
    /// [`Error::Io`], also when the content ends early.
    pub fn add(&mut self, name: &str, size: u64, content: impl Read) -> Result<()> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        let mut content = Exactly { from: content, left: size };
        self.builder.append_data(&mut header, name, &mut content).map_err(Error::io("write", &self.path))
    }

    /// Ends the archive; it appears under its name. Gives its bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<u64> {
        let failed = || Error::io("write", &self.path);
        let writer = self.builder.into_inner().map_err(failed())?;
        let file = writer.into_inner().map_err(|e| Error::io("write", &self.path)(e.into_error()))?;
        let Some(temporary) = self.temporary else { return Ok(0) };
        file.sync_all().map_err(failed())?;
        let size = file.metadata().map_err(failed())?.len();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.set_permissions(mode).map_err(failed())?;
        temporary.persist(&self.path).map_err(|e| Error::io("write", &self.path)(e.error))?;
        Ok(size)
    }
}

/// Content that must have exactly so many bytes: a tar's header has promised them.
struct Exactly<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let max = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if max == 0 {
            return Ok(0);
        }
        match self.from.read(&mut buffer[..max])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(dir: &Path) -> PathBuf {
        let path = dir.join("a.tar");
        let mut out = TarOut::create(&path).unwrap();
        out.add("x/y", 3, &b"abc"[..]).unwrap();
        out.add("x/y", 3, &b"abc"[..]).unwrap();
        out.add("z", 0, io::empty()).unwrap();
        assert!(!path.exists(), "only a whole archive appears");
        assert!(out.finish().unwrap() > 0);
        path
    }

    #[test]
    fn plain_and_compressed_archives_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let plain = sample(dir.path());
        let bytes = std::fs::read(&plain).unwrap();
        let zipped = dir.path().join("a.tar.gz");
        let mut encoder = flate2::write::GzEncoder::new(File::create(&zipped).unwrap(), flate2::Compression::fast());
        encoder.write_all(&bytes).unwrap();
        encoder.finish().unwrap();
        let zstd = dir.path().join("a.tar.zst");
        std::fs::write(&zstd, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
        for path in [plain, zipped, zstd] {
            let files = Files::open(&path, dir.path()).unwrap();
            assert_eq!(files.read("x/y").unwrap(), b"abc");
            assert!(files.has("z") && !files.has("nothing"));
            assert!(Files::Dir(dir.path().to_owned()).read("../x").is_err());
            assert!(files.read("nothing").unwrap_err().to_string().contains("nothing is missing"));
        }
    }

    #[test]
    fn an_unfinished_archive_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut out = TarOut::create(&path).unwrap();
        assert!(out.add("x", 5, &b"abc"[..]).is_err());
        drop(out);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_lead_within_the_archive() {
        assert_eq!(relative("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(relative("a", "../../../etc/passwd"), "etc/passwd");
    }
}
