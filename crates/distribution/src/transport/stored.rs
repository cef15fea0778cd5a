//! `store:`: this tool's own store. As a sink it unpacks while it downloads: what comes from the network goes into the blob's
//! file and through decompression into the layer's directory in one pass.

use std::collections::BTreeSet;
use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::manifest::{Document, Index};
use oci::{Descriptor, Digest, Reference, media_type};

use super::copy::{Copied, CopiedImage, describe, parse};
use super::oci_layout::referrer;
use super::pump::{StreamReader, blocking, file_stream, pump};
use super::{ByteStream, Layer, Sink, Source};
use crate::content::{Ingest, Turn};
use crate::error::{Error, Result};
use crate::layer::Outcome;
use crate::registry::{MANIFEST_MAX, RawManifest};
use crate::server::catalog::Catalog;
use crate::{ImageRecord, Store};

/// An image of the store, to be read.
pub struct StoreSource {
    store: Store,
    record: ImageRecord,
    whole: bool,
}

impl StoreSource {
    /// `whole`: what the name points at with all platforms that are here; else only the manifest that was chosen.
    #[must_use]
    pub fn new(store: &Store, record: ImageRecord, whole: bool) -> Self {
        Self { store: store.clone(), record, whole }
    }

    fn read(&self, descriptor: &Descriptor) -> Result<RawManifest> {
        let bytes = self.store.content().read(&descriptor.digest, MANIFEST_MAX)?;
        Ok(RawManifest { bytes, media_type: descriptor.media_type.clone(), digest: descriptor.digest.clone() })
    }

    /// Where the registry over this store has the image: what was pushed there about it belongs to it, too.
    fn repositories(&self) -> BTreeSet<String> {
        self.record.names.iter().filter_map(|name| Some(name.parse::<Reference>().ok()?.name())).collect()
    }

    /// The index, without the entries that are not here; a manifest when only one is left.
    fn whole_root(&self) -> Result<RawManifest> {
        let raw = self.read(&self.record.target)?;
        let Document::Index(index) = parse(&raw, &self.describe())? else { return Ok(raw) };
        let here: Vec<Descriptor> = index.manifests.iter().filter(|entry| self.has(entry)).cloned().collect();
        if here.len() == index.manifests.len() {
            return Ok(raw);
        }
        if here.len() < 2 {
            return self.read(&self.record.manifest);
        }
        let partial = Index { manifests: here, ..index };
        let bytes = serde_json::to_vec(&partial).map_err(|e| Error::manifest(self.describe(), e))?;
        Ok(RawManifest { digest: Digest::of(&bytes), media_type: raw.media_type, bytes })
    }
}

impl Source for StoreSource {
    fn describe(&self) -> String {
        self.record.names.first().cloned().unwrap_or_else(|| self.record.config.to_string())
    }

    fn root(&self) -> BoxFuture<'_, Result<RawManifest>> {
        async { if self.whole { self.whole_root() } else { self.read(&self.record.manifest) } }.boxed()
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<RawManifest>> {
        async { self.read(descriptor) }.boxed()
    }

    fn open<'a>(&'a self, descriptor: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<ByteStream>> {
        async move {
            let content = self.store.content();
            let file = content.open(&descriptor.digest)?;
            let rest = descriptor.size.saturating_sub(offset);
            Ok(file_stream(file, &content.path(&descriptor.digest), offset, rest))
        }
        .boxed()
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        let here = self.store.content().has(&descriptor.digest).is_ok_and(|size| size.is_some());
        here && !self.record.dropped.contains(&descriptor.digest)
    }

    fn sibling<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, Result<Option<RawManifest>>> {
        async move {
            for repository in self.repositories() {
                if let Some(found) = Catalog(&self.store).tagged(&repository, tag)? {
                    return self.read(&found).map(Some);
                }
            }
            let own = self.record.attached.iter().find(|own| own.tag.as_deref() == Some(tag));
            own.map(|own| self.read(&own.manifest)).transpose()
        }
        .boxed()
    }

    fn referrers<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>>> {
        async move {
            let mut found = Vec::new();
            for own in self.record.attached.iter().filter(|own| own.tag.is_none()) {
                found.extend(referrer(&self.read(&own.manifest)?, own.manifest.clone(), digest));
            }
            for repository in self.repositories() {
                for entry in Catalog(&self.store).referrers(&repository, digest)? {
                    if found.iter().all(|known: &Descriptor| known.digest != entry.digest) {
                        found.push(entry);
                    }
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn known_at(&self, registry: &str, digest: &Digest) -> Vec<String> {
        let images = self.store.images().list().unwrap_or_default();
        let holding = images.iter().filter(|image| image.layers.iter().any(|layer| layer.digest == *digest));
        let mut repositories: Vec<String> = holding
            .flat_map(|image| &image.repo_digests)
            .filter_map(|name| name.split('@').next()?.strip_prefix(registry)?.strip_prefix('/').map(str::to_owned))
            .collect();
        repositories.sort();
        repositories.dedup();
        repositories.truncate(2);
        repositories
    }
}

/// The store, to be written under a lease.
pub struct StoreSink {
    store: Store,
    lease: Option<String>,
    unpack: bool,
    changed: Arc<AtomicBool>,
}

impl StoreSink {
    /// Everything that comes is held by the lease.
    #[must_use]
    pub fn new(store: &Store, lease: Option<&str>, unpack: bool) -> Self {
        Self { store: store.clone(), lease: lease.map(str::to_owned), unpack, changed: Arc::default() }
    }

    /// Whether anything was not there before.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    /// What it is unpacked to, if it is: a signature has the form of an image whose layers are none.
    fn unpacked(&self, layer: Layer<'_>) -> Option<Digest> {
        let layer_of_image = self.unpack && media_type::is_layer(&layer.descriptor.media_type);
        layer.diff_id.filter(|_| layer_of_image).cloned()
    }

    async fn bytes(&self, descriptor: Descriptor, bytes: Vec<u8>) -> Result<()> {
        let (store, lease, changed) = (self.store.clone(), self.lease.clone(), self.changed.clone());
        blocking(move || {
            let content = store.content();
            if content.hold_sound(&descriptor, lease.as_deref())? {
                return Ok(());
            }
            changed.store(true, Ordering::Relaxed);
            let mut ingest = content.ingest(&descriptor, lease.as_deref())?;
            ingest.restart()?;
            ingest.write_all(&bytes).map_err(Error::io("write", content.path(&descriptor.digest)))?;
            ingest.commit()
        })
        .await
    }

    /// One attempt to get a layer. `None`: it was there.
    async fn receive(&self, source: &dyn Source, layer: Layer<'_>, resumed: &mut bool) -> Result<Option<()>> {
        let Some(ingest) = self.begin(layer).await? else { return Ok(None) };
        self.changed.store(true, Ordering::Relaxed);
        let offset = ingest.offset();
        *resumed = offset > 0;
        layer.track.set(offset);
        let stream = counted(source.open(layer.descriptor, offset).await?, layer.track.clone());
        let job = Receive { store: self.store.clone(), lease: self.lease.clone(), diff_id: self.unpacked(layer) };
        pump(stream, move |reader| job.run(ingest, reader)).await.map(Some)
    }

    /// Starts or resumes a blob; `None` when it is there, and its layer is, too.
    async fn begin(&self, layer: Layer<'_>) -> Result<Option<Ingest>> {
        let (store, lease) = (self.store.clone(), self.lease.clone());
        let (descriptor, diff_id) = (layer.descriptor.clone(), self.unpacked(layer));
        let changed = self.changed.clone();
        let track = layer.track.clone();
        blocking(move || {
            let content = store.content();
            let lease = lease.as_deref();
            let there = |content: &crate::content::Content<'_>| -> Result<bool> {
                // A blob of another size was damaged by a crash of the machine: it is fetched again and replaced.
                Ok(content.hold(&descriptor.digest, lease)? == Some(descriptor.size))
            };
            if !there(&content)? {
                track.status("waiting");
                let ingest = content.ingest(&descriptor, lease)?;
                // Somebody else may have finished it while we waited for the lock.
                if !there(&content)? {
                    return Ok(Some(ingest));
                }
            }
            if let Some(diff_id) = &diff_id
                && !store.layers().hold(diff_id, lease)?
            {
                changed.store(true, Ordering::Relaxed);
                track.status("extracting");
                let file = content.open(&descriptor.digest)?;
                let applied = store.layers().apply(file, &descriptor, diff_id, lease);
                applied.map_err(|e| unpack_error(&descriptor.digest, e))?;
            }
            Ok(None)
        })
        .await
    }
}

fn counted(stream: ByteStream, track: crate::progress::Track) -> ByteStream {
    use futures::StreamExt as _;
    stream
        .inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                track.add("downloading", chunk.len() as u64);
            }
        })
        .boxed()
}

fn unpack_error(digest: &Digest, error: Error) -> Error {
    match error {
        Error::LayerCorrupt { .. } => error,
        error if error.is_full() => error,
        error => Error::LayerCorrupt { digest: digest.clone(), source: Box::new(error) },
    }
}

/// The blocking part: download → blob's file and layer's directory.
struct Receive {
    store: Store,
    lease: Option<String>,
    diff_id: Option<Digest>,
}

impl Receive {
    fn run(&self, ingest: Ingest, reader: &mut StreamReader) -> Result<()> {
        let descriptor = ingest.descriptor().clone();
        let path = self.store.content().path(&descriptor.digest);
        let partial = match ingest.offset() {
            0 => None,
            offset => Some(ingest.partial()?.take(offset)),
        };
        let mut tee = Tee { partial, reader, ingest, write_error: None };
        let lease = self.lease.as_deref();
        let unpacked = match &self.diff_id {
            Some(diff_id) => {
                let layers = self.store.layers();
                layers.unpack(&mut tee, &descriptor, diff_id, lease).map(Some)
            }
            None => Ok(None),
        };
        // The rest is read even when unpacking failed: then the digest tells a damaged download from a damaged layer.
        let full = unpacked.as_ref().is_err_and(Error::is_full);
        let drained = if full { Ok(0) } else { io::copy(&mut tee, &mut io::sink()) };
        if let Some(error) = tee.write_error.take() {
            let error = Error::io("write", path)(error);
            if error.is_full() {
                tee.ingest.restart()?;
            }
            return Err(error);
        }
        if full {
            tee.ingest.restart()?;
            return unpacked.map(drop);
        }
        drained.map_err(Error::io("receive", &path))?;
        match unpacked {
            Ok(unpacked) => {
                let mut ingest = tee.ingest;
                ingest.verify()?;
                // A blob reaches the disk before its name does; the names do when the copy is finished.
                ingest.sync()?;
                if let Some(Outcome::Ready(layer)) = unpacked {
                    layer.publish(&self.store, lease)?;
                }
                ingest.publish().map(drop)
            }
            Err(error) => {
                // Only a blob that can be unpacked is kept.
                verify(&mut tee.ingest)?;
                Err(unpack_error(&descriptor.digest, error))
            }
        }
    }
}

/// Whether what has come is what was promised; throws it away in any case.
fn verify(ingest: &mut Ingest) -> Result<()> {
    let descriptor = ingest.descriptor().clone();
    let mut hasher = oci::digest::Hasher::like(&descriptor.digest);
    let mut file = ingest.partial()?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let actual = hasher.finish();
    ingest.restart()?;
    if actual == descriptor.digest {
        return Ok(());
    }
    Err(Error::DigestMismatch { what: "blob", expected: descriptor.digest, actual })
}

/// What is there already, then what comes; the latter is written down as it passes.
struct Tee<'a> {
    partial: Option<io::Take<std::fs::File>>,
    reader: &'a mut StreamReader,
    ingest: Ingest,
    write_error: Option<io::Error>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(partial) = &mut self.partial {
            match partial.read(buffer)? {
                0 => self.partial = None,
                read => return Ok(read),
            }
        }
        let read = self.reader.read(buffer)?;
        if let Err(error) = self.ingest.write_all(&buffer[..read]) {
            let kind = error.kind();
            self.write_error = Some(error);
            return Err(kind.into());
        }
        Ok(read)
    }
}

impl Sink for StoreSink {
    fn small<'a>(&'a self, descriptor: &'a Descriptor, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        self.bytes(descriptor.clone(), bytes.to_vec()).boxed()
    }

    fn layer<'a>(&'a self, source: &'a dyn Source, layer: Layer<'a>) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut resumed = false;
            let outcome = loop {
                match self.receive(source, layer, &mut resumed).await {
                    // The damage may be in what an earlier try has left, or a mirror's: once more from the start.
                    Err(Error::DigestMismatch { .. }) if resumed || source.distrust(layer.descriptor) => {}
                    other => break other?,
                }
            };
            layer.track.finish(if outcome.is_some() { "done" } else { "exists" });
            Ok(())
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, manifest: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        self.bytes(describe(manifest), manifest.bytes.clone()).boxed()
    }

    /// The image's record says what belongs to it.
    fn attach<'a>(&'a self, _manifest: &'a RawManifest, _tag: Option<&'a str>) -> BoxFuture<'a, Result<bool>> {
        async { Ok(true) }.boxed()
    }

    /// Whoever is told that the copy is done may pull the plug.
    fn finish<'a>(&'a self, _root: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        let store = self.store.clone();
        blocking(move || store.content().sync_names()).boxed()
    }

    fn at_hand(&self, descriptor: &Descriptor) -> Option<Vec<u8>> {
        self.store.content().read(&descriptor.digest, descriptor.size.min(MANIFEST_MAX)).ok()
    }

    fn turn<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Send>>>> {
        let (store, digest) = (self.store.clone(), descriptor.digest.clone());
        async move {
            let turn = blocking(move || Turn::wait(&store, "small", &digest)).await?;
            Ok(Some(Box::new(turn) as Box<dyn Send>))
        }
        .boxed()
    }

    fn takes_partial_index(&self) -> bool {
        true
    }
}

/// The record of what was copied into the store; that of the image which fits this host best.
///
/// # Errors
/// [`Error::ManifestInvalid`] when it is no container image.
pub fn record(copied: &Copied, what: &str) -> Result<ImageRecord> {
    let image = copied.images.first().ok_or_else(|| Error::manifest(what, "it names no image"))?;
    Ok(ImageRecord { attached: copied.attached.clone(), ..record_of(&copied.root, image, what)? })
}

fn record_of(root: &RawManifest, image: &CopiedImage, what: &str) -> Result<ImageRecord> {
    let Some(config) = &image.config else {
        let problem = format!("{} is no container image", image.manifest.config.media_type);
        return Err(Error::manifest(what, problem));
    };
    if let Some(layer) = image.manifest.layers.iter().find(|layer| !media_type::is_layer(&layer.media_type)) {
        return Err(Error::manifest(what, format!("{} is no layer", layer.media_type)));
    }
    Ok(ImageRecord {
        target: describe(root),
        manifest: image.descriptor.clone(),
        config: image.manifest.config.digest.clone(),
        layers: image.manifest.layers.clone(),
        diff_ids: config.rootfs.diff_ids.clone(),
        created_at: config.created.clone().unwrap_or_else(|| jiff::Timestamp::now().to_string()),
        platform: config.platform(),
        repo_digests: Vec::new(),
        attached: Vec::new(),
        dropped: Vec::new(),
        names: Vec::new(),
    })
}
