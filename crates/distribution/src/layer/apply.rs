//! From a blob to a layer: one thread decompresses, this one hashes, reads the archive and writes files.
use super::compress::decoder;
use super::entry::{Entries, Source};
use super::record::{Row, insert, write_beside};
use super::unpack::unpack;
use super::volatile::boot_id;
use super::{LayerInfo, Marks, compress};
use crate::content::Turn;
use crate::store::Staging;
use crate::{Error, Result, Store};
use crossbeam_channel::{Receiver, Sender, bounded};
use oci::digest::Hasher;
use oci::{Descriptor, Digest};
use rustix::fs::Mode;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that go from thread to thread at once, and how many of these may wait.
const PIECE: usize = 256 * 1024;
const WAITING: usize = 2;
/// A layer may grow to this many bytes whatever it is made of; from there on to at most so many times its blob.
pub(crate) const RATIO_FREE: u64 = 1 << 30;
pub(crate) const RATIO_MAX: u64 = 256;

/// A layer that is unpacked, but not yet visible. Dropped, it is gone.
pub(crate) struct Ready {
    staging: Staging,
    row: Row,
    /// Nobody else makes the same meanwhile.
    _turn: Option<Turn>,
}

impl Ready {
    /// Makes it visible. Its blob is on the disk by then, or is before anything that uses the layer.
    pub(crate) fn publish(self, store: &Store, lease: Option<&str>) -> Result<LayerInfo> {
        insert(store, &self.staging, &self.row, lease)
    }
}

/// Unpacked now, or there already.
pub(crate) enum Outcome {
    Ready(Box<Ready>),
    There(LayerInfo),
}

pub(super) fn apply<R: Read + Send>(
    store: &Store,
    blob: R,
    descriptor: &Descriptor,
    expected: Option<&Digest>,
    lease: Option<&str>,
) -> Result<LayerInfo> {
    match prepare(store, blob, descriptor, expected, lease)? {
        Outcome::There(info) => Ok(info),
        Outcome::Ready(ready) => ready.publish(store, lease),
    }
}

/// Unpacks into a staging directory.
pub(super) fn prepare<R: Read + Send>(
    store: &Store,
    blob: R,
    descriptor: &Descriptor,
    expected: Option<&Digest>,
    lease: Option<&str>,
) -> Result<Outcome> {
    let turn = expected.map(|diff_id| Turn::wait(store, "layer", diff_id)).transpose()?;
    if let Some(diff_id) = expected
        && store.layers().hold(diff_id, lease)?
        && let Some(there) = store.layers().find(diff_id)?
    {
        return Ok(Outcome::There(there.info(false)));
    }
    let (staging, row) = unpack_staged(store, blob, descriptor)?;
    if let Some(expected) = expected
        && row.diff_id != *expected
    {
        return Err(Error::DigestMismatch { what: "layer", expected: expected.clone(), actual: row.diff_id });
    }
    Ok(Outcome::Ready(Box::new(Ready { staging, row, _turn: turn })))
}

/// Unpacks an archive into an empty directory as it would be unpacked in the store, whiteouts in overlay's form.
/// Gives the digest of the uncompressed archive. Syncs nothing; after an error the directory holds what came before it.
///
/// # Errors
/// As [`super::Layers::apply`].
pub fn unpack_into<R: Read + Send>(blob: R, media_type: &str, dir: &Path) -> Result<LayerInfo> {
    Ok(unpack_stream(blob, media_type, dir, Marks::possible(dir))?.info(true))
}

/// Unpacks into a new staging directory, the layer's record beside it. Not synced yet.
pub(super) fn unpack_staged<R: Read + Send>(store: &Store, blob: R, descriptor: &Descriptor) -> Result<(Staging, Row)> {
    let staging = store.stage()?;
    let fs = staging.path().join("fs");
    rustix::fs::mkdir(&fs, Mode::from_raw_mode(0o755)).map_err(Error::io("create", &fs))?;
    crate::store::chmod(&fs, 0o755)?;
    let row = unpack_stream(blob, &descriptor.media_type, &fs, store.marks())?;
    let row = Row { volatile: Some(boot_id()?), blob: Some(descriptor.clone()), ..row };
    write_beside(staging.path(), &row)?;
    Ok((staging, row))
}

/// Everything on the file system of a path reaches the disk.
pub(crate) fn sync_filesystem(path: &Path) -> Result<()> {
    let dir = std::fs::File::open(path).map_err(Error::io("open", path))?;
    rustix::fs::syncfs(&dir).map_err(Error::io("sync the file system of", path))
}

/// Unpacks into `fs`, reading the blob to its end.
fn unpack_stream<R: Read + Send>(blob: R, media_type: &str, fs: &Path, marks: Marks) -> Result<Row> {
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
        let unpacked = unpack(&mut entries, fs, marks)?;
        let diff_id = entries.into_source().finish()?;
        Ok(Row {
            id: 0,
            diff_id,
            size_bytes: unpacked.size_bytes,
            entries: unpacked.entries,
            root_entry: unpacked.root_entry,
            whiteouts: unpacked.whiteouts,
            unresolved: unpacked.unresolved,
            volatile: None,
            blob: None,
        })
    })
}

type Piece = Result<Vec<u8>>;

/// Decompresses until the end of the blob or until nobody wants more.
fn produce<R: Read + Send>(blob: R, media_type: &str, full: &Sender<Piece>, used: &Receiver<Vec<u8>>) -> Result<()> {
    let broken = AtomicBool::new(false);
    let (taken, mut produced) = (AtomicU64::new(0), 0);
    let mut blob = Watched { inner: blob, broken: &broken, taken: &taken };
    let mut decoder = decoder(&mut blob, media_type)?;
    let format = decoder.format;
    loop {
        let piece = used.try_recv().unwrap_or_default();
        let piece = next_piece(&mut decoder, piece).map_err(|source| explain(&broken, format, source))?;
        if piece.is_empty() {
            break;
        }
        produced += piece.len() as u64;
        if produced > RATIO_FREE && produced / RATIO_MAX > taken.load(Ordering::Relaxed) {
            return Err(Error::LayerExpands { compressed: taken.load(Ordering::Relaxed), uncompressed: produced });
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

/// The next bytes of the stream, [`PIECE`] of them unless it ends before; `old` is used again.
fn next_piece(from: &mut impl Read, old: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut piece = old;
    piece.resize(PIECE, 0);
    let mut have = 0;
    while have < PIECE {
        match from.read(&mut piece[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    piece.truncate(have);
    Ok(piece)
}

fn explain(broken: &AtomicBool, format: compress::Compression, source: io::Error) -> Error {
    if broken.load(Ordering::Relaxed) {
        Error::BlobRead { source }
    } else {
        Error::Decompress { format: format.name(), source }
    }
}

/// Counts what the blob's reader gives, and notices when it fails, so that this is not taken for damaged data.
struct Watched<'a, R> {
    inner: R,
    broken: &'a AtomicBool,
    taken: &'a AtomicU64,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        match &result {
            Ok(n) => drop(self.taken.fetch_add(*n as u64, Ordering::Relaxed)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.broken.store(true, Ordering::Relaxed),
        }
        result
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
