//! `dir:`: skopeo's plain directory: `manifest.json`, `version`, and blobs named by the hex digits of their digest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::{Descriptor, Digest};

use super::archive::Files;
use super::pump::{blocking, pump};
use super::{ByteStream, Layer, Sink, Source};
use crate::error::{Error, Result};
use crate::registry::RawManifest;

const VERSION: &[u8] = b"Directory Transport Version: 1.1\n";

/// A directory with one image.
pub struct Dir {
    files: Arc<Files>,
}

impl Dir {
    /// A directory that exists.
    ///
    /// # Errors
    /// [`Error::ArchiveInvalid`].
    pub fn open(path: &Path) -> Result<Self> {
        let files = Files::Dir(path.to_owned());
        if !files.has("manifest.json") {
            return Err(Error::archive(path, "manifest.json is missing"));
        }
        Ok(Self { files: Arc::new(files) })
    }

    /// A directory to be written; made when there is something to put into it.
    #[must_use]
    pub fn create(path: &Path) -> Self {
        Self { files: Arc::new(Files::Dir(path.to_owned())) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        make(self.files.path())?;
        statedir::atomic_write(&path, bytes, 0o644).map_err(Error::state(&path))
    }

    fn read(&self, name: &str, media_type: &str) -> Result<RawManifest> {
        let bytes = self.files.read(name)?;
        Ok(RawManifest::of(media_type, bytes))
    }
}

fn make(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))
}

fn child(digest: &Digest) -> String {
    format!("{}.manifest.json", digest.hex())
}

impl Source for Dir {
    fn describe(&self) -> String {
        self.files.path().display().to_string()
    }

    fn root(&self) -> BoxFuture<'_, Result<RawManifest>> {
        async { self.read("manifest.json", "") }.boxed()
    }

    fn manifest<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<RawManifest>> {
        async {
            let raw = self.read(&child(&descriptor.digest), &descriptor.media_type)?;
            if raw.digest != descriptor.digest {
                let expected = descriptor.digest.clone();
                return Err(Error::DigestMismatch { what: "manifest", expected, actual: raw.digest });
            }
            Ok(raw)
        }
        .boxed()
    }

    fn open<'a>(&'a self, descriptor: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<ByteStream>> {
        async move { self.files.stream(descriptor.digest.hex(), offset) }.boxed()
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        self.files.has(&child(&descriptor.digest))
    }
}

impl Sink for Dir {
    fn small<'a>(&'a self, descriptor: &'a Descriptor, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        async { self.write(descriptor.digest.hex(), bytes) }.boxed()
    }

    fn layer<'a>(&'a self, source: &'a dyn Source, layer: Layer<'a>) -> BoxFuture<'a, Result<()>> {
        async move {
            let stream = source.open(layer.descriptor, 0).await?;
            let (path, descriptor) = (self.path(layer.descriptor.digest.hex()), layer.descriptor.clone());
            pump(stream, move |reader| {
                let dir = path.parent().unwrap_or(Path::new("."));
                make(dir)?;
                let mut file = tempfile::NamedTempFile::new_in(dir).map_err(Error::io("create a file in", dir))?;
                let mut hasher = oci::digest::Hasher::like(&descriptor.digest);
                let mut buffer = vec![0; 256 << 10];
                loop {
                    match std::io::Read::read(reader, &mut buffer).map_err(Error::io("receive", &path))? {
                        0 => break,
                        read => {
                            hasher.update(&buffer[..read]);
                            std::io::Write::write_all(&mut file, &buffer[..read]).map_err(Error::io("write", &path))?;
                        }
                    }
                }
                let actual = hasher.finish();
                if actual != descriptor.digest {
                    return Err(Error::DigestMismatch { what: "blob", expected: descriptor.digest, actual });
                }
                file.persist(&path).map_err(|e| Error::io("write", &path)(e.error))?;
                Ok(())
            })
            .await?;
            layer.track.finish("done");
            Ok(())
        }
        .boxed()
    }

    fn manifest<'a>(&'a self, manifest: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        async { self.write(&child(&manifest.digest), &manifest.bytes) }.boxed()
    }

    fn finish<'a>(&'a self, root: &'a RawManifest) -> BoxFuture<'a, Result<()>> {
        async {
            self.write("version", VERSION)?;
            self.write("manifest.json", &root.bytes)?;
            // The root stands under its own name; skopeo knows no second copy of it.
            let path = self.path(&child(&root.digest));
            blocking(move || match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
                _ => Ok(()),
            })
            .await
        }
        .boxed()
    }
}
