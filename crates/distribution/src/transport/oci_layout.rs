//! `oci:` and `oci-archive:`: an OCI image layout (image-spec, image-layout.md), as a directory or as a tar.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::manifest::{Document, Index};
use oci::{Descriptor, Digest};

use super::archive::{Files, TarOut};
use super::checked::{Checked, verify};
use super::copy::{describe, parse};
use super::pump::{blocking, pump};
use super::{ByteStream, Layer, Sink, Source};
use crate::error::{Error, Result};
use crate::registry::{MANIFEST_MAX, RawManifest};

/// The tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name: what containerd and docker write beside the tag.
pub const FULL_NAME: &str = "io.containerd.image.name";
const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// The names that an entry of `index.json` has, the fullest first.
#[must_use]
pub fn names(entry: &Descriptor) -> Vec<&str> {
    [FULL_NAME, REF_NAME].iter().filter_map(|key| entry.annotations.get(*key)).map(String::as_str).collect()
}

/// Reads the entries of a layout.
///
/// # Errors
/// [`Error::ArchiveInvalid`].
pub fn entries(files: &Files) -> Result<Vec<Descriptor>> {
    let bytes = files.read("index.json")?;
    let index: Index =
        serde_json::from_slice(&bytes).map_err(|e| Error::archive(files.path(), format!("index.json: {e}")))?;
    Ok(index.manifests)
}

/// The entries that are images: no signatures, nor anything else about another entry.
///
/// # Errors
/// [`Error::ArchiveInvalid`].
pub fn images(files: &Arc<Files>) -> Result<Vec<Descriptor>> {
    let mut all = entries(files)?;
    all.retain(|entry| {
        let companion = names(entry).iter().any(|name| crate::trust::is_companion(name));
        let source = LayoutSource::new(files.clone(), entry.clone());
        !companion && source.read(entry).ok().and_then(|raw| subject_of(&raw)).is_none()
    });
    Ok(all)
}

/// One image of a layout.
pub struct LayoutSource {
    files: Arc<Files>,
    entry: Descriptor,
}

impl LayoutSource {
    /// An entry that was chosen.
    #[must_use]
    pub fn new(files: Arc<Files>, entry: Descriptor) -> Self {
        Self { files, entry }
    }

    /// Chooses by name, digest or place (`@0`); without any there must be one image only. A digest may also be that of a
    /// manifest that `index.json` does not list.
    ///
    /// # Errors
    /// [`Error::ArchiveInvalid`] that lists what there is.
    pub fn named(files: Arc<Files>, name: Option<&str>) -> Result<Self> {
        let entries = if name.is_some() { entries(&files)? } else { images(&files)? };
        let chosen = match (name, entries.as_slice()) {
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
            (Some(name), all) => match (name.strip_prefix('@'), name.parse::<Digest>()) {
                (Some(place), _) => place.parse().ok().and_then(|place: usize| all.get(place).cloned()),
                (_, Ok(digest)) => {
                    all.iter().find(|entry| entry.digest == digest).cloned().or_else(|| unlisted(&files, digest))
                }
                _ => all.iter().find(|entry| names(entry).contains(&name)).cloned(),
            },
        };
        let entry = chosen.ok_or_else(|| {
            let there: Vec<&str> = entries.iter().flat_map(|entry| names(entry).into_iter().last()).collect();
            let wanted = name.map_or("no image was named".to_owned(), |name| format!("it has no image {name:?}"));
            Error::archive(files.path(), format!("{wanted}; there are: {}", there.join(", ")))
        })?;
        Ok(Self { files, entry })
    }

    fn read(&self, descriptor: &Descriptor) -> Result<RawManifest> {
        let bytes = self.files.read(&blob_path(&descriptor.digest))?;
        verify("manifest", &descriptor.digest, &bytes)?;
        Ok(RawManifest { bytes, media_type: descriptor.media_type.clone(), digest: descriptor.digest.clone() })
    }
}

impl Source for LayoutSource {
    fn describe(&self) -> String {
        match names(&self.entry).first() {
            Some(name) => format!("{}:{name}", self.files.path().display()),
            None => self.files.path().display().to_string(),
        }
    }

    fn root(&self) -> BoxFuture<'_, Result<RawManifest>> {
        async { self.read(&self.entry) }.boxed()
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<RawManifest>> {
        async { self.read(descriptor) }.boxed()
    }

    fn open<'a>(&'a self, descriptor: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<ByteStream>> {
        async move { self.files.stream(&blob_path(&descriptor.digest), offset) }.boxed()
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        self.files.has(&blob_path(&descriptor.digest))
    }

    fn sibling<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, Result<Option<RawManifest>>> {
        async move {
            let entries = entries(&self.files)?;
            let named = |entry: &&Descriptor| entry.annotations.get(REF_NAME).is_some_and(|name| name == tag);
            entries.iter().find(named).map(|entry| self.read(entry)).transpose()
        }
        .boxed()
    }

    /// A layout lists referrers like images (image-spec, image-layout.md): those whose manifest names the subject.
    fn referrers<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>>> {
        async move {
            let mut found: Vec<Descriptor> = Vec::new();
            for entry in entries(&self.files)? {
                if entry.size > MANIFEST_MAX || found.iter().any(|known| known.digest == entry.digest) {
                    continue;
                }
                found.extend(referrer(&self.read(&entry)?, entry, digest));
            }
            Ok(found)
        }
        .boxed()
    }
}

/// What a manifest is about.
fn subject_of(raw: &RawManifest) -> Option<Digest> {
    match Document::parse(&raw.bytes, &raw.media_type).ok()? {
        Document::Manifest(manifest) => manifest.subject.map(|subject| subject.digest),
        Document::Index(index) => index.subject.map(|subject| subject.digest),
    }
}

/// A manifest that no entry lists, by its digest.
fn unlisted(files: &Files, digest: Digest) -> Option<Descriptor> {
    let (_, _, size) = files.slice(&blob_path(&digest)).ok()?;
    (size <= MANIFEST_MAX).then(|| Descriptor::new("", digest, size))
}

/// The entry as a list of referrers has it: with the manifest's own type and annotations (distribution-spec, "Listing
/// Referrers"); none when it is about something else.
pub(crate) fn referrer(raw: &RawManifest, mut entry: Descriptor, subject: &Digest) -> Option<Descriptor> {
    let (own, artifact_type, annotations) = match parse(raw, "a layout's entry").ok()? {
        Document::Manifest(manifest) => {
            let kind = manifest.artifact_type.unwrap_or(manifest.config.media_type);
            (manifest.subject, Some(kind), manifest.annotations)
        }
        Document::Index(index) => (index.subject, index.artifact_type, index.annotations),
    };
    if own?.digest != *subject {
        return None;
    }
    entry.artifact_type = artifact_type;
    entry.annotations = annotations;
    Some(entry)
}

/// A layout as a directory: blobs are written beside each other, by several threads.
pub struct LayoutDir {
    path: PathBuf,
    /// It says what it is.
    marked: Mutex<bool>,
}

impl LayoutDir {
    /// Marks the directory, before the first blob.
    fn mark(&self) -> Result<()> {
        let mut marked = lock(&self.marked);
        let marker = self.path.join("oci-layout");
        if !*marked && !marker.exists() {
            statedir::atomic_write(&marker, LAYOUT_FILE, 0o644).map_err(Error::state(&marker))?;
        }
        *marked = true;
        Ok(())
    }

    /// Writes a blob, which is checked as it passes.
    fn blob(&self, descriptor: &Descriptor, from: &mut dyn Read) -> Result<()> {
        let path = self.path.join(blob_path(&descriptor.digest));
        let dir = path.parent().unwrap_or(&self.path);
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        self.mark()?;
        let mut checked = Checked::new(from, &descriptor.digest);
        let file = tempfile::Builder::new().prefix(".pier-").tempfile_in(dir);
        let mut file = file.map_err(Error::io("create a file in", dir))?;
        std::io::copy(&mut checked, &mut file).map_err(Error::io("write", &path))?;
        if checked.size != descriptor.size {
            return Err(size_mismatch(descriptor, checked.size));
        }
        checked.verify(&descriptor.digest)?;
        let open = file.as_file_mut();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let done = open.flush().and_then(|()| open.sync_all()).and_then(|()| open.set_permissions(mode));
        done.map_err(Error::io("write", &path))?;
        file.persist(&path).map(drop).map_err(|e| Error::io("write", &path)(e.error))
    }
}

/// Where a layout is written.
pub enum Out {
    /// A directory, which may have images already.
    Dir(Arc<LayoutDir>),
    /// A tar.
    Tar(Box<TarOut>),
}

impl Out {
    /// Begins or continues a layout directory, which is made when there is something to put into it.
    ///
    /// # Errors
    /// [`Error::ArchiveInvalid`] when the directory is something else; [`Error::Io`].
    pub fn dir(path: &Path) -> Result<Self> {
        let foreign = path.is_dir()
            && !path.join("oci-layout").exists()
            && std::fs::read_dir(path).map_err(Error::io("list", path))?.next().is_some();
        if foreign {
            return Err(Error::archive(path, "it has other things in it"));
        }
        Ok(Self::Dir(Arc::new(LayoutDir { path: path.to_owned(), marked: Mutex::new(false) })))
    }

    /// Begins an archive.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn tar(path: &Path) -> Result<Self> {
        let mut tar = TarOut::create(path)?;
        tar.add("oci-layout", LAYOUT_FILE.len() as u64, LAYOUT_FILE)?;
        Ok(Self::Tar(Box::new(tar)))
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        let name = blob_path(&descriptor.digest);
        match self {
            Self::Dir(dir) => dir.path.join(name).metadata().is_ok_and(|meta| meta.len() == descriptor.size),
            Self::Tar(tar) => tar.has(&name),
        }
    }

    /// Writes a blob, which is checked as it passes.
    fn blob(&mut self, descriptor: &Descriptor, from: &mut dyn Read) -> Result<()> {
        let tar = match self {
            Self::Dir(dir) => return dir.blob(descriptor, from),
            Self::Tar(tar) => tar,
        };
        let mut checked = Checked::new(from, &descriptor.digest);
        let written = tar.add(&blob_path(&descriptor.digest), descriptor.size, &mut checked);
        // A stream that is too short fails the tar; what it had tells why.
        if checked.size != descriptor.size {
            return Err(size_mismatch(descriptor, checked.size));
        }
        written?;
        checked.verify(&descriptor.digest)
    }
}

fn size_mismatch(descriptor: &Descriptor, actual: u64) -> Error {
    Error::SizeMismatch { digest: descriptor.digest.clone(), expected: descriptor.size, actual }
}

/// A layout that is being written; the names come last.
#[derive(Clone)]
pub struct LayoutSink {
    out: Arc<Mutex<State>>,
    /// Held for the length of a layer in a tar: a second one that waited for `out` itself would stop the task that feeds
    /// the first.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct State {
    out: Out,
    entries: Vec<Descriptor>,
    names: Vec<(String, Option<String>)>,
}

impl LayoutSink {
    /// Writes into a directory or tar.
    #[must_use]
    pub fn new(out: Out) -> Self {
        let state = State { out, entries: Vec::new(), names: Vec::new() };
        Self { out: Arc::new(Mutex::new(state)), turn: Arc::default() }
    }

    /// The names of the next image that is finished: tags, each with its full name where there is one.
    pub fn name(&self, names: Vec<(String, Option<String>)>) {
        lock(&self.out).names = names;
    }

    /// Writes `index.json`: now the images are there. Gives the size of an archive.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn close(self) -> Result<u64> {
        blocking(move || {
            let state = Arc::into_inner(self.out).and_then(|state| state.into_inner().ok());
            let Some(state) = state else { return Err(Error::Canceled { what: "writing the layout".into() }) };
            match state.out {
                Out::Dir(dir) => update_index(&dir.path, state.entries).map(|()| 0),
                Out::Tar(mut tar) => {
                    let bytes = index_json(state.entries, tar.path())?;
                    tar.add("index.json", bytes.len() as u64, &bytes[..])?;
                    tar.finish()
                }
            }
        })
        .await
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn index_json(entries: Vec<Descriptor>, path: &Path) -> Result<Vec<u8>> {
    serde_json::to_vec(&Index::new(entries)).map_err(|e| Error::archive(path, e))
}

/// Adds entries to a directory's index; one of the same name is replaced.
fn update_index(path: &Path, entries: Vec<Descriptor>) -> Result<()> {
    let lock_path = path.join(".pier-lock");
    let lock = statedir::Lock::acquire(&lock_path).map_err(Error::state(&lock_path))?;
    let file = path.join("index.json");
    let files = Files::Dir(path.to_owned());
    let mut all = if file.exists() { self::entries(&files)? } else { Vec::new() };
    for entry in entries {
        let name = names(&entry).first().map(|name| (*name).to_owned());
        match &name {
            Some(name) => all.retain(|old| names(old).first() != Some(&name.as_str())),
            // It is listed, perhaps under a name, which it keeps.
            None if all.iter().any(|old| old.digest == entry.digest) => continue,
            None => {}
        }
        all.push(entry);
    }
    let bytes = index_json(all, path)?;
    statedir::atomic_write(&file, &bytes, 0o644).map_err(Error::state(&file))?;
    let _ = std::fs::remove_file(&lock_path);
    drop(lock);
    Ok(())
}

impl Sink for LayoutSink {
    fn small<'a>(&'a self, descriptor: &'a Descriptor, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        let (state, descriptor, bytes) = (self.out.clone(), descriptor.clone(), bytes.to_vec());
        blocking(move || {
            let mut state = lock(&state);
            match state.out.has(&descriptor) {
                true => Ok(()),
                false => state.out.blob(&descriptor, &mut &bytes[..]),
            }
        })
        .boxed()
    }

    fn layer<'a>(&'a self, source: &'a dyn Source, layer: Layer<'a>) -> BoxFuture<'a, Result<()>> {
        async move {
            let turn = self.turn.lock().await;
            if lock(&self.out).out.has(layer.descriptor) {
                layer.track.finish("exists");
                return Ok(());
            }
            use futures::StreamExt as _;
            let track = layer.track.clone();
            let stream = source.open(layer.descriptor, 0).await?;
            let stream = stream
                .inspect(move |chunk| {
                    if let Ok(chunk) = chunk {
                        track.add("copying", chunk.len() as u64);
                    }
                })
                .boxed();
            let (state, descriptor) = (self.out.clone(), layer.descriptor.clone());
            // A directory takes many blobs at once; a tar one after the other.
            let dir = match &lock(&state).out {
                Out::Dir(dir) => Some(dir.clone()),
                Out::Tar(_) => None,
            };
            let _turn = dir.is_none().then_some(turn);
            pump(stream, move |reader| match dir {
                Some(dir) => dir.blob(&descriptor, reader),
                None => lock(&state).out.blob(&descriptor, reader),
            })
            .await?;
            layer.track.finish("done");
            Ok(())
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, manifest: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        async {
            let descriptor = describe(manifest);
            self.small(&descriptor, &manifest.bytes).await
        }
        .boxed()
    }

    fn attach<'a>(&'a self, manifest: &'a RawManifest, tag: Option<&'a str>) -> BoxFuture<'a, Result<bool>> {
        async move {
            let mut entry = describe(manifest);
            self.small(&entry, &manifest.bytes).await?;
            entry.annotations = tag.map(|tag| (REF_NAME.to_owned(), tag.to_owned())).into_iter().collect();
            lock(&self.out).entries.push(entry);
            Ok(true)
        }
        .boxed()
    }

    fn finish<'a>(&'a self, root: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        async {
            let mut state = lock(&self.out);
            let names = std::mem::take(&mut state.names);
            let mut nameless = describe(root);
            nameless.annotations.clear();
            if names.is_empty() {
                state.entries.push(nameless);
                return Ok(());
            }
            for (tag, full) in names {
                let mut entry = nameless.clone();
                entry.annotations.insert(REF_NAME.into(), tag);
                entry.annotations.extend(full.map(|full| (FULL_NAME.to_owned(), full)));
                state.entries.push(entry);
            }
            Ok(())
        }
        .boxed()
    }
}
