//! From a blob to a layer: one thread decompresses, this one hashes, reads the archive and writes files.
use super::compress::decoder;
use super::entry::{Entries, Source};
use super::record::{Row, insert};
use super::unpack::unpack;
use super::{LayerInfo, compress};
use crate::content::lock_file;
use crate::{Error, Result, Store};
use crossbeam_channel::{Receiver, Sender, bounded};
use oci::Digest;
use oci::digest::Hasher;
use rustix::fs::Mode;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that go from thread to thread at once, and how many of these may wait.
const PIECE: usize = 256 * 1024;
const WAITING: usize = 4;

pub(super) fn apply<R: Read + Send>(
    store: &Store,
    blob: R,
    media_type: &str,
    expected: Option<&Digest>,
    lease: Option<&str>,
) -> Result<LayerInfo> {
    let _one_at_a_time = expected.map(|diff_id| Turn::wait(store, diff_id)).transpose()?;
    if let Some(diff_id) = expected
        && store.layers().hold(diff_id, lease)?
        && let Some(there) = store.layers().find(diff_id)?
    {
        return Ok(there.info(false));
    }
    let staging = store.stage()?;
    let fs = staging.path().join("fs");
    rustix::fs::mkdir(&fs, Mode::from_raw_mode(0o755)).map_err(Error::io("create", &fs))?;
    crate::store::chmod(&fs, 0o755)?;
    let row = unpack_stream(blob, media_type, &fs)?;
    if let Some(expected) = expected
        && row.diff_id != *expected
    {
        return Err(Error::DigestMismatch { what: "layer", expected: expected.clone(), actual: row.diff_id });
    }
    sync_filesystem(&fs)?;
    insert(store, &staging, &row, lease)
}

/// Everything of the layer reaches the disk before its name does: one call for the whole layer.
pub(crate) fn sync_filesystem(path: &Path) -> Result<()> {
    let dir = std::fs::File::open(path).map_err(Error::io("open", path))?;
    rustix::fs::syncfs(&dir).map_err(Error::io("sync the file system of", path))
}

/// Unpacks into `fs`, reading the blob to its end.
fn unpack_stream<R: Read + Send>(blob: R, media_type: &str, fs: &Path) -> Result<Row> {
    std::thread::scope(|scope| {
        let (full, pieces) = bounded(WAITING);
        let (empty, used) = bounded(WAITING + 1);
        scope.spawn(move || {
            if let Err(error) = produce(blob, media_type, &full, &used) {
                // The other side may have given up already; then it has its own reason.
                let _ = full.send(Err(error));
            }
        });
        let pieces = Pieces { pieces, empty, piece: Vec::new(), at: 0, hasher: Hasher::sha256() };
        let mut entries = Entries::new(pieces);
        let unpacked = unpack(&mut entries, fs)?;
        let diff_id = entries.into_source().finish()?;
        Ok(Row {
            id: 0,
            diff_id,
            size_bytes: unpacked.size_bytes,
            entries: unpacked.entries,
            root_entry: unpacked.root_entry,
            whiteouts: unpacked.whiteouts,
            unresolved: unpacked.unresolved,
        })
    })
}

type Piece = Result<Vec<u8>>;

/// Decompresses until the end of the blob or until nobody wants more.
fn produce<R: Read + Send>(blob: R, media_type: &str, full: &Sender<Piece>, used: &Receiver<Vec<u8>>) -> Result<()> {
    let broken = AtomicBool::new(false);
    let mut blob = Watched { inner: blob, broken: &broken };
    let mut decoder = decoder(&mut blob, media_type)?;
    let format = decoder.format;
    loop {
        let mut piece = used.try_recv().unwrap_or_default();
        piece.clear();
        piece.reserve_exact(PIECE);
        match decoder.by_ref().take(PIECE as u64).read_to_end(&mut piece) {
            Ok(0) => break,
            Ok(_) => {}
            Err(source) => return Err(explain(&broken, format, source)),
        }
        if full.send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
    drop(decoder);
    // What lies behind the compressed stream belongs to the blob's digest, too.
    io::copy(&mut blob, &mut io::sink()).map_err(|source| explain(&broken, format, source))?;
    Ok(())
}

fn explain(broken: &AtomicBool, format: compress::Compression, source: io::Error) -> Error {
    if broken.load(Ordering::Relaxed) {
        Error::BlobRead { source }
    } else {
        Error::Decompress { format: format.name(), source }
    }
}

/// Notices when the blob's reader fails, so that this is not taken for damaged data.
struct Watched<'a, R> {
    inner: R,
    broken: &'a AtomicBool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|e| {
            if e.kind() != io::ErrorKind::Interrupted {
                self.broken.store(true, Ordering::Relaxed);
            }
        })
    }
}

/// The decompressed stream as it arrives, hashed.
struct Pieces {
    pieces: Receiver<Piece>,
    empty: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    hasher: Hasher,
}

impl Pieces {
    /// Takes what is left; gives the digest of everything.
    fn finish(mut self) -> Result<Digest> {
        loop {
            let n = self.fill()?.len();
            if n == 0 {
                return Ok(self.hasher.finish());
            }
            self.consume(n);
        }
    }
}

impl Source for Pieces {
    fn fill(&mut self) -> Result<&[u8]> {
        if self.at == self.piece.len()
            && let Ok(next) = self.pieces.recv()
        {
            let used = std::mem::replace(&mut self.piece, next?);
            self.at = 0;
            self.hasher.update(&self.piece);
            let _ = self.empty.try_send(used);
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

/// The right to unpack one diff ID; others wait and then find it done.
struct Turn {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Turn {
    fn wait(store: &Store, diff_id: &Digest) -> Result<Self> {
        let path = store.dir("ingest").join(format!("layer-{}", diff_id.hex()));
        Ok(Self { _lock: lock_file(&path)?, path })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        crate::store::empty(&self.path);
    }
}
