//! `docker-archive:`: what `docker save` writes and `docker load` reads: `manifest.json`, configs, uncompressed layers.

use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::digest::Hasher;
use oci::manifest::{Document, Manifest};
use oci::{Descriptor, Digest, media_type};
use serde::{Deserialize, Serialize};

use super::archive::{Files, TarOut, decompressed};
use super::checked::Checked;
use super::copy::parse;
use super::pump::{blocking, pump};
use super::{ByteStream, Layer, Sink, Source};
use crate::error::{Error, Result};
use crate::registry::{LAYERS_MAX, RawManifest};

/// One image of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// File of the config.
    pub config: String,
    /// Names with tags.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// Files of the layers, lowest first.
    #[serde(default)]
    pub layers: Vec<String>,
}

/// Reads `manifest.json`.
///
/// # Errors
/// [`Error::ArchiveInvalid`].
pub fn entries(files: &Files) -> Result<Vec<Entry>> {
    let bytes = files.read("manifest.json")?;
    serde_json::from_slice(&bytes).map_err(|e| Error::archive(files.path(), format!("manifest.json: {e}")))
}

/// One image of an archive. Docker's archives have no OCI manifest: one is made, whose layers are the tars as they stand.
pub struct DockerSource {
    files: Arc<Files>,
    manifest: RawManifest,
    names: HashMap<Digest, String>,
}

impl DockerSource {
    /// Reads an image's config and hashes its layers. Blocks.
    ///
    /// # Errors
    /// [`Error::ArchiveInvalid`].
    pub fn open(files: Arc<Files>, entry: &Entry) -> Result<Self> {
        if entry.layers.len() > LAYERS_MAX {
            return Err(Error::archive(files.path(), format!("{} layers", entry.layers.len())));
        }
        let config_bytes = files.read(&entry.config)?;
        let config = Descriptor::of(media_type::CONFIG, &config_bytes);
        let mut names = HashMap::from([(config.digest.clone(), entry.config.clone())]);
        let mut layers = Vec::new();
        for name in &entry.layers {
            let layer = describe_layer(&files, name)?;
            names.insert(layer.digest.clone(), name.clone());
            layers.push(layer);
        }
        let manifest = Manifest::new(config, layers);
        let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::archive(files.path(), e))?;
        let manifest = RawManifest::of(media_type::MANIFEST, bytes);
        Ok(Self { files, manifest, names })
    }

    /// Chooses by name or place (`@0`); without either there must be one image only. Blocks.
    ///
    /// # Errors
    /// [`Error::ArchiveInvalid`] that lists what there is.
    pub fn named(files: Arc<Files>, name: Option<&str>) -> Result<Self> {
        let entries = entries(&files)?;
        let chosen = match (name, entries.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(name), all) => match name.strip_prefix('@') {
                Some(place) => place.parse().ok().and_then(|place: usize| all.get(place)),
                None => all.iter().find(|entry| entry.repo_tags.iter().flatten().any(|tag| same_image(tag, name))),
            },
        };
        match chosen {
            Some(entry) => Self::open(files, entry),
            None => {
                let there: Vec<&String> = entries.iter().flat_map(|entry| entry.repo_tags.iter().flatten()).collect();
                Err(Error::archive(files.path(), format!("the image {name:?} is not in it; there are: {there:?}")))
            }
        }
    }
}

fn same_image(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<oci::Reference>(), b.parse::<oci::Reference>()), (Ok(a), Ok(b)) if a == b)
}

fn describe_layer(files: &Files, name: &str) -> Result<Descriptor> {
    let mut reader = files.reader(name)?;
    let size = reader.limit();
    let (mut hasher, mut buffer, mut head) = (Hasher::sha256(), vec![0; 256 << 10], Vec::new());
    loop {
        let read = reader.read(&mut buffer).map_err(Error::io("read", files.path()))?;
        if read == 0 {
            break;
        }
        if head.len() < 4 {
            head.extend_from_slice(&buffer[..read.min(4)]);
        }
        hasher.update(&buffer[..read]);
    }
    let kind = match head.as_slice() {
        [0x1f, 0x8b, ..] => media_type::LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => media_type::LAYER_ZSTD,
        _ => media_type::LAYER,
    };
    Ok(Descriptor::new(kind, hasher.finish(), size))
}

impl Source for DockerSource {
    fn describe(&self) -> String {
        self.files.path().display().to_string()
    }

    fn root(&self) -> BoxFuture<'_, Result<RawManifest>> {
        async { Ok(self.manifest.clone()) }.boxed()
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<RawManifest>> {
        async { Err(Error::archive(self.files.path(), format!("{} is missing", descriptor.digest))) }.boxed()
    }

    fn open<'a>(&'a self, descriptor: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<ByteStream>> {
        async move {
            let name = self.names.get(&descriptor.digest);
            let missing = || Error::archive(self.files.path(), format!("{} is missing", descriptor.digest));
            self.files.stream(name.ok_or_else(missing)?, offset)
        }
        .boxed()
    }
}

/// An archive that is being written.
#[derive(Clone)]
pub struct DockerSink {
    state: Arc<Mutex<State>>,
    /// Held for the length of a layer: a second one that waited for `state` itself would stop the task that feeds the first.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct State {
    tar: TarOut,
    scratch: std::path::PathBuf,
    entries: Vec<Entry>,
    names: Vec<String>,
    /// Which uncompressed layer a blob became.
    layers: HashMap<Digest, Digest>,
}

impl DockerSink {
    /// Begins an archive. `scratch` takes one layer at a time, uncompressed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &Path, scratch: &Path) -> Result<Self> {
        let tar = TarOut::create(path)?;
        let state =
            State { tar, scratch: scratch.to_owned(), entries: Vec::new(), names: Vec::new(), layers: HashMap::new() };
        Ok(Self { state: Arc::new(Mutex::new(state)), turn: Arc::default() })
    }

    /// The names of the next image that is finished, as people write them.
    pub fn name(&self, names: Vec<String>) {
        self.lock().names = names;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes `manifest.json` and ends the archive. Gives its bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn close(self) -> Result<u64> {
        blocking(move || {
            let state = Arc::into_inner(self.state).and_then(|state| state.into_inner().ok());
            let Some(mut state) = state else { return Err(Error::Canceled { what: "writing the archive".into() }) };
            let bytes = serde_json::to_vec(&state.entries).map_err(|e| Error::archive(state.tar.path(), e))?;
            state.tar.add("manifest.json", bytes.len() as u64, &bytes[..])?;
            state.tar.finish()
        })
        .await
    }
}

fn layer_file(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

impl State {
    /// Decompresses a layer into an unnamed file, since a tar needs the size first, and adds it.
    fn add_layer(&mut self, descriptor: &Descriptor, from: &mut dyn Read) -> Result<()> {
        let (path, dir) = (self.tar.path().to_owned(), self.scratch.clone());
        let mut spool = tempfile::tempfile_in(&dir).map_err(Error::io("create a file in", &dir))?;
        let mut raw = Checked::new(from, &descriptor.digest);
        let mut hasher = Hasher::sha256();
        let mut size = 0;
        {
            let mut plain = decompressed(&mut raw, &path)?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                let read = plain.read(&mut buffer).map_err(|source| Error::LayerCorrupt {
                    digest: descriptor.digest.clone(),
                    source: Box::new(Error::Decompress { format: "layer", source }),
                })?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
                spool.write_all(&buffer[..read]).map_err(Error::io("write a file in", &dir))?;
                size += read as u64;
            }
        }
        std::io::copy(&mut raw, &mut std::io::sink()).map_err(Error::io("read", &path))?;
        raw.verify(&descriptor.digest)?;
        let diff_id = hasher.finish();
        spool.rewind().map_err(Error::io("read a file in", &dir))?;
        self.tar.add(&layer_file(&diff_id), size, spool)?;
        self.layers.insert(descriptor.digest.clone(), diff_id);
        Ok(())
    }
}

impl Sink for DockerSink {
    fn small<'a>(&'a self, descriptor: &'a Descriptor, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        let name = format!("{}.json", descriptor.digest.hex());
        async move { self.lock().tar.add(&name, bytes.len() as u64, bytes) }.boxed()
    }

    fn layer<'a>(&'a self, source: &'a dyn Source, layer: Layer<'a>) -> BoxFuture<'a, Result<()>> {
        async move {
            let _turn = self.turn.lock().await;
            if self.lock().layers.contains_key(&layer.descriptor.digest) {
                layer.track.finish("exists");
                return Ok(());
            }
            let stream = source.open(layer.descriptor, 0).await?;
            let (state, descriptor) = (self.state.clone(), layer.descriptor.clone());
            pump(stream, move |reader| {
                state.lock().unwrap_or_else(PoisonError::into_inner).add_layer(&descriptor, reader)
            })
            .await?;
            layer.track.finish("done");
            Ok(())
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, _manifest: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn finish<'a>(&'a self, root: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        async {
            let mut state = self.lock();
            let path = state.tar.path().to_owned();
            let Document::Manifest(manifest) = parse(root, &path.display().to_string())? else {
                return Err(Error::archive(path, "a docker archive takes one platform only"));
            };
            let file = |layer: &Descriptor| state.layers.get(&layer.digest).map(layer_file);
            let layers: Vec<String> = manifest.layers.iter().filter_map(file).collect();
            let names = std::mem::take(&mut state.names);
            let config = format!("{}.json", manifest.config.digest.hex());
            // One image that was asked for by several names is one entry.
            match state.entries.iter_mut().find(|known| known.config == config && known.layers == layers) {
                Some(known) => known.repo_tags.get_or_insert_default().extend(names),
                None => state.entries.push(Entry { config, repo_tags: Some(names), layers }),
            }
            Ok(())
        }
        .boxed()
    }
}
