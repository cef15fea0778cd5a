//! An image of one layer from a tar of a root filesystem; and back: the flattened filesystem as a tar.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use oci::digest::Hasher;
use oci::image::{History, ImageConfig, RootFs};
use oci::{Descriptor, Digest, Platform, media_type};

use crate::change;
use crate::create::{Create, create};
use crate::error::{Error, Result};
use crate::image::find;
use crate::progress::{Reporter, Track};
use crate::{ImageRecord, Store};

const BUFFER: usize = 256 << 10;

/// What to import.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// The tar: plain, gzip or zstd.
    pub path: PathBuf,
    /// Name; empty: none.
    pub reference: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// For the history.
    pub message: String,
    /// None: this host's.
    pub platform: Option<Platform>,
    /// Holds the image when it has no name.
    pub lease: String,
}

/// Imports a root filesystem. Blocks. A plain tar becomes a gzip layer; a compressed one is taken as it is.
///
/// # Errors
/// [`Error::LayerCorrupt`], [`Error::TarEscapes`], [`Error::NameInvalid`].
pub fn import(store: &Store, wanted: &Import, lease: &str, reporter: &Reporter) -> Result<ImageRecord> {
    let mut config = ImageConfig::default();
    change::apply(&mut config.config, &wanted.changes)?;
    if !wanted.reference.is_empty() {
        crate::image::parse(&wanted.reference)?;
    }
    let (mut file, descriptor) = layer_blob(store, &wanted.path, reporter)?;
    let diff_id = add_layer(store, &mut file, &descriptor, lease)?;
    let platform = wanted.platform.clone().unwrap_or_else(Platform::host);
    let now = jiff::Timestamp::now().to_string();
    let comment = if wanted.message.is_empty() { "Imported from a tar".into() } else { wanted.message.clone() };
    config.created = Some(now.clone());
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    config.variant = Some(platform.variant).filter(|variant| !variant.is_empty());
    config.rootfs = RootFs { diff_ids: vec![diff_id], ..RootFs::default() };
    config.history = vec![History { created: Some(now), comment: Some(comment), ..History::default() }];
    let bytes = serde_json::to_vec(&config).map_err(|e| Error::manifest(&wanted.reference, e))?;
    let image = Create {
        reference: wanted.reference.clone(),
        config: bytes,
        layers: vec![descriptor],
        lease: wanted.lease.clone(),
        ..Create::default()
    };
    let image = create(store, &image)?;
    crate::events::record(store, "import", image.config.as_str(), &wanted.reference);
    Ok(image)
}

/// The layer's blob in an unnamed file of the store's disk, at its beginning.
fn layer_blob(store: &Store, path: &Path, reporter: &Reporter) -> Result<(File, Descriptor)> {
    let mut input = File::open(path).map_err(Error::io("open", path))?;
    let total = input.metadata().map_or(0, |meta| meta.len());
    let track = reporter.track("rootfs", total);
    let mut head = Vec::new();
    (&mut input).take(4).read_to_end(&mut head).map_err(Error::io("read", path))?;
    let media_type = match head.as_slice() {
        [0x28, 0xb5, 0x2f, 0xfd] => media_type::LAYER_ZSTD,
        _ => media_type::LAYER_GZIP,
    };
    let compressed = media_type == media_type::LAYER_ZSTD || head.starts_with(&[0x1f, 0x8b]);
    let spool = tempfile::tempfile_in(store.root()).map_err(Error::io("create a file in", store.root()))?;
    let mut out = Counted { file: spool, hasher: Hasher::sha256(), size: 0 };
    let from = std::io::Cursor::new(head).chain(input);
    let failed = || Error::io("write a file in", store.root());
    if compressed {
        pass(from, &mut out, path, store.root(), &track)?;
    } else {
        let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
        pass(from, &mut encoder, path, store.root(), &track)?;
        encoder.finish().map_err(failed())?;
    }
    track.finish("done");
    out.file.rewind().map_err(failed())?;
    Ok((out.file, Descriptor::new(media_type, out.hasher.finish(), out.size)))
}

fn pass(mut from: impl Read, to: &mut impl Write, path: &Path, scratch: &Path, track: &Track) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                to.write_all(&buffer[..read]).map_err(Error::io("write a file in", scratch))?;
                track.add("importing", read as u64);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", path)(e)),
        }
    }
}

struct Counted {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Unpacks the layer, then keeps its blob: what cannot be unpacked is not kept.
fn add_layer(store: &Store, file: &mut File, descriptor: &Descriptor, lease: &str) -> Result<Digest> {
    let lease = Some(lease);
    let corrupt = |e: Error| match e {
        e if e.is_full() => e,
        e => Error::LayerCorrupt { digest: descriptor.digest.clone(), source: Box::new(e) },
    };
    let layer = store.layers().apply_unnamed(&mut *file, descriptor, lease).map_err(corrupt)?;
    let content = store.content();
    if content.hold(&descriptor.digest, lease)?.is_none() {
        file.rewind().map_err(Error::io("read a file in", store.root()))?;
        let mut ingest = content.ingest(descriptor, lease)?;
        ingest.restart()?;
        let copied = std::io::copy(file, &mut ingest).map_err(Error::io("write", content.path(&descriptor.digest)));
        if let Err(error) = copied {
            ingest.restart()?;
            return Err(error);
        }
        ingest.commit()?;
    }
    Ok(layer.diff_id)
}

/// Writes the flattened filesystem of a snapshot as a tar. Blocks. Gives its bytes.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Io`].
pub fn export_snapshot(store: &Store, key: &str, path: &Path) -> Result<u64> {
    write_tar(path, |out| store.snapshots().export(key, out))
}

/// Writes the flattened filesystem of an image as a tar. Blocks. Gives its bytes.
///
/// # Errors
/// [`Error::ImageNotFound`]; [`Error::NotFound`] when a layer was not unpacked; [`Error::Io`].
pub fn export_image(store: &Store, reference: &str, path: &Path) -> Result<u64> {
    let (record, _) = find(store, reference)?;
    crate::image::unpack(store, &record, None)?;
    write_tar(path, |out| store.snapshots().export_layers(&record.diff_ids, out))
}

fn write_tar(path: &Path, export: impl FnOnce(&mut std::io::BufWriter<File>) -> Result<u64>) -> Result<u64> {
    let (file, temporary) = output(path)?;
    let mut out = std::io::BufWriter::with_capacity(BUFFER, file);
    let size = export(&mut out)?;
    let file = out.into_inner().map_err(|e| Error::io("write", path)(e.into_error()))?;
    if let Some(temporary) = temporary {
        file.sync_all().map_err(Error::io("write", path))?;
        temporary.persist(path).map_err(|e| Error::io("write", path)(e.error))?;
    }
    Ok(size)
}

/// A pipe is written to; a file appears when it is whole.
fn output(path: &Path) -> Result<(File, Option<tempfile::TempPath>)> {
    let special = path.starts_with("/proc") || path.starts_with("/dev");
    if special || std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Ok((File::options().write(true).open(path).map_err(Error::io("open", path))?, None));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file =
        tempfile::Builder::new().prefix(".pier-").tempfile_in(dir).map_err(Error::io("create a file in", dir))?;
    let (file, temporary) = file.into_parts();
    Ok((file, Some(temporary)))
}
