//! Content: blobs named by digest, written through verified, resumable ingests.
use crate::lease::{Kind, hold};
use crate::store::{lock_and_confirm, retry, sync_dir};
use crate::{Error, Result, Store};
use oci::digest::Hasher;
use oci::{Descriptor, Digest};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// After so many bytes the disk is given work, so that little is left to wait for at the end; and what is on the disk leaves
/// the memory: a blob is seldom read again, and its pages serve the next ones.
const WRITE_BEHIND: u64 = 8 << 20;

/// Blobs of a store.
pub struct Content<'a>(pub(crate) &'a Store);

impl Content<'_> {
    /// Where a blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.0.dir("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// Bytes of a blob; `None` when it is not there. Says nothing of the next moment: use [`Self::hold`] for that.
    pub fn has(&self, digest: &Digest) -> Result<Option<u64>> {
        size_of(&self.path(digest))
    }

    /// [`Self::has`], and from now on the lease keeps the blob.
    pub fn hold(&self, digest: &Digest, lease: Option<&str>) -> Result<Option<u64>> {
        // What is not there needs no turn among the writers.
        if self.has(digest)?.is_none() {
            return Ok(None);
        }
        self.0.db().passing("hold a blob", |tx| {
            let size = self.has(digest)?;
            if size.is_some() {
                hold(tx, lease, Kind::Blob, digest.as_str())?;
            }
            Ok(size)
        })
    }

    /// [`Self::hold`] of a small blob that is what it should be: a damaged one counts as absent, and what is written then
    /// replaces it.
    pub fn hold_sound(&self, descriptor: &Descriptor, lease: Option<&str>) -> Result<bool> {
        if self.hold(&descriptor.digest, lease)? != Some(descriptor.size) {
            return Ok(false);
        }
        match self.read(&descriptor.digest, descriptor.size) {
            Ok(_) => Ok(true),
            Err(error) => {
                tracing::warn!(%error, "a damaged blob is written again");
                Ok(false)
            }
        }
    }

    /// Bytes that a blob takes on disk; 0 when it is not there.
    pub(crate) fn disk_usage(&self, digest: &Digest) -> u64 {
        rustix::fs::lstat(self.path(digest)).map_or(0, |stat| stat.st_blocks.unsigned_abs() * 512)
    }

    /// Opens a blob for reading.
    pub fn open(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::not_found("blob", digest),
            _ => Error::io("open", path)(e),
        })
    }

    /// Reads a blob whole, and verifies it; [`Error::TooBig`] above `max` bytes.
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let file = self.open(digest)?;
        let size = file.metadata().map_err(Error::io("inspect", &path))?.len();
        if size > max {
            return Err(Error::TooBig { digest: digest.clone(), size, max });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(max).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let mut hasher = Hasher::like(digest);
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != *digest {
            return Err(Error::DigestMismatch { what: "blob", expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    /// Adds a small blob.
    pub fn write(&self, bytes: &[u8], media_type: &str, lease: Option<&str>) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        if !self.hold_sound(&descriptor, lease)? {
            let mut ingest = self.ingest(&descriptor, lease)?;
            ingest.restart()?;
            ingest.write_all(bytes).map_err(Error::io("write", &ingest.path))?;
            ingest.commit()?;
        }
        Ok(descriptor)
    }

    /// Begins or resumes writing a blob. Waits while another process or thread writes the same one: look whether it
    /// [is there](Self::has) afterwards.
    pub fn ingest(&self, descriptor: &Descriptor, lease: Option<&str>) -> Result<Ingest> {
        self.0.hold_blob(&descriptor.digest, lease)?;
        let path = ingest_path(self.0, &descriptor.digest);
        let fd = lock_file(&path)?;
        let mut file = File::from(fd);
        let mut hasher = Hasher::like(&descriptor.digest);
        let mut offset = rehash(&mut file, &mut hasher).map_err(Error::io("read", &path))?;
        if offset > descriptor.size {
            file.set_len(0).map_err(Error::io("shorten", &path))?;
            file.rewind().map_err(Error::io("rewind", &path))?;
            (offset, hasher) = (0, Hasher::like(&descriptor.digest));
        }
        Ok(Ingest { store: self.0.clone(), descriptor: descriptor.clone(), path, file, hasher, offset, done: false })
    }

    /// Every blob with its bytes.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>> {
        let mut all = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let dir = self.0.dir("blobs").join(algorithm);
            for entry in std::fs::read_dir(&dir).map_err(Error::io("list", &dir))?.flatten() {
                let name = entry.file_name();
                let digest = name.to_str().and_then(|hex| format!("{algorithm}:{hex}").parse().ok());
                if let (Some(digest), Ok(meta)) = (digest, entry.metadata()) {
                    all.push((digest, meta.len()));
                }
            }
        }
        Ok(all)
    }

    /// Names of blobs that were published before reach the disk.
    pub(crate) fn sync_names(&self) -> Result<()> {
        ["sha256", "sha512"].iter().try_for_each(|algorithm| sync_dir(&self.0.dir("blobs").join(algorithm)))
    }

    /// Brings a finished, hashed and synced file of a staging directory in as a blob.
    pub(crate) fn adopt(&self, file: &Path, digest: &Digest, lease: Option<&str>) -> Result<()> {
        self.0.hold_blob(digest, lease)?;
        publish(file, &self.path(digest))
    }
}

/// A blob being written. Dropping it keeps the partial file, and the next ingest of the digest goes on from there.
pub struct Ingest {
    store: Store,
    descriptor: Descriptor,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    offset: u64,
    done: bool,
}

impl Ingest {
    /// Bytes that are there: where to resume.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is being written.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The partial file, opened anew for reading from its beginning. It is valid up to [`Self::offset`].
    pub fn partial(&self) -> Result<File> {
        File::open(&self.path).map_err(Error::io("open", &self.path))
    }

    /// Throws away what is there.
    pub fn restart(&mut self) -> Result<()> {
        if self.offset > 0 {
            self.file.set_len(0).map_err(Error::io("shorten", &self.path))?;
            self.file.rewind().map_err(Error::io("rewind", &self.path))?;
            self.hasher = Hasher::like(&self.descriptor.digest);
            self.offset = 0;
        }
        Ok(())
    }

    /// Verifies size and digest and makes the blob visible. On a mismatch the partial file goes.
    pub fn commit(mut self) -> Result<()> {
        self.verify()?;
        self.sync()?;
        let blobs = self.publish()?;
        sync_dir(blobs.parent().unwrap_or(&blobs))
    }

    /// Verifies size and digest of what has come. On a mismatch the partial file goes.
    pub(crate) fn verify(&mut self) -> Result<()> {
        let (digest, expected, actual) = (self.descriptor.digest.clone(), self.descriptor.size, self.offset);
        if actual != expected {
            self.abandon();
            return Err(Error::SizeMismatch { digest, expected, actual });
        }
        let found = std::mem::replace(&mut self.hasher, Hasher::sha256()).finish();
        if found != digest {
            self.abandon();
            return Err(Error::DigestMismatch { what: "blob", expected: digest, actual: found });
        }
        Ok(())
    }

    /// What was written reaches the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        retry(|| rustix::fs::fdatasync(&self.file)).map_err(Error::io("sync", &self.path))?;
        match self.offset < WRITE_BEHIND {
            true => Ok(()),
            false => sys::fd::forget_written(&self.file, 0..self.offset).map_err(Error::io("sync", &self.path)),
        }
    }

    /// Makes a verified and synced blob visible. Its name is on the disk when the directory was synced after this; who
    /// reports anything done before that loses a blob to a power cut, but never gets half of one.
    pub(crate) fn publish(mut self) -> Result<PathBuf> {
        let to = self.store.content().path(&self.descriptor.digest);
        std::fs::rename(&self.path, &to).map_err(Error::io("publish", &to))?;
        self.done = true;
        Ok(to)
    }

    /// The last stretch goes to the disk, and the one before it, which had its time, out of the memory.
    fn write_behind(&self) -> io::Result<()> {
        let start = (self.offset - self.offset % WRITE_BEHIND).saturating_sub(WRITE_BEHIND);
        sys::fd::start_writing(&self.file, start..self.offset)?;
        match start.checked_sub(WRITE_BEHIND) {
            Some(older) => sys::fd::forget_written(&self.file, older..start),
            None => Ok(()),
        }
    }

    fn abandon(&mut self) {
        self.done = true;
        crate::store::empty(&self.path);
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        let before = self.offset / WRITE_BEHIND;
        self.offset += n as u64;
        if self.offset / WRITE_BEHIND > before {
            self.write_behind()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.done && self.offset == 0 {
            crate::store::empty(&self.path);
        }
    }
}

/// The name of a partial file.
pub(crate) fn ingest_path(store: &Store, digest: &Digest) -> PathBuf {
    store.dir("ingest").join(format!("{}-{}", digest.algorithm(), digest.hex()))
}

/// Opens (or makes) a file and locks it. Whoever removes such a file does it with the lock held, so a lock on a
/// file whose name has gone is not the lock that was wanted.
pub(crate) fn lock_file(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(Error::io("open", path))?;
        if lock_and_confirm(&fd, path, FlockOperation::LockExclusive)? {
            return Ok(fd);
        }
    }
}

/// [`lock_file`] of one that exists, without waiting; `None` when somebody has it or it has gone.
pub(crate) fn lock_file_now(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(lock_and_confirm(&fd, path, FlockOperation::NonBlockingLockExclusive)?.then_some(fd)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::io("open", path)(e)),
    }
}

/// The right to do something about one digest, in all processes; others wait and then find it done.
pub(crate) struct Turn {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Turn {
    /// `what`: "layer" for unpacking, "small" for fetching a config.
    pub(crate) fn wait(store: &Store, what: &str, digest: &Digest) -> Result<Self> {
        let path = store.dir("ingest").join(format!("{what}-{}", digest.hex()));
        Ok(Self { _lock: lock_file(&path)?, path })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        crate::store::empty(&self.path);
    }
}

fn size_of(path: &Path) -> Result<Option<u64>> {
    match retry(|| rustix::fs::lstat(path)) {
        Ok(stat) => Ok(Some(u64::try_from(stat.st_size).unwrap_or(0))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::io("inspect", path)(e)),
    }
}

fn publish(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(Error::io("publish", to))?;
    sync_dir(to.parent().unwrap_or(to))
}

/// Feeds what is in the file to the hasher and leaves the file at its end.
pub(crate) fn rehash(file: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    file.rewind()?;
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
