//! Artifacts: files with media types in a registry or layout, as ORAS lays them out (image-spec, manifest.md, "Guidelines for
//! Artifact Usage"): the title annotation is the file's name, a directory is one gzip tar, the config is empty. An artifact may
//! have a subject, and is then found as one of its referrers.
//!
//! The same files give the same digest: nothing of the time or the machine goes in.

mod pack;
mod unpack;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oci::manifest::{Document, Manifest};
use oci::{Descriptor, Digest, Platform, media_type};

use crate::copy::{Origin, Place, Target, deliver, open};
use crate::error::{Error, Result};
use crate::registry::RawManifest;
use crate::transport::copy::{DEPTH_MAX, Select, choose, describe, fetch, parse};
use crate::transport::made::{Made, Part, document};
use crate::transport::pump::{blocking, pump};
use crate::transport::referrers::no_place;
use crate::transport::{Location, Source};

/// The file's name (image-spec, annotations.md).
pub const TITLE: &str = "org.opencontainers.image.title";
/// ORAS: the blob is a tar of a directory.
const UNPACK: &str = "io.deis.oras.content.unpack";
/// ORAS: the digest of that tar before compression.
const UNPACKED: &str = "io.deis.oras.content.digest";
/// What stands where a descriptor is required and nothing is meant (image-spec 1.1).
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const EMPTY_BYTES: &[u8] = b"{}";
/// ORAS's type of files that have none.
const FILE_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// ORAS's type of artifacts that have none.
const ARTIFACT_TYPE: &str = "application/vnd.unknown.artifact.v1";

/// A file that goes into an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The file or directory.
    pub path: PathBuf,
    /// Empty: ORAS's default.
    pub media_type: String,
}

impl Input {
    /// Reads `PATH[:MEDIA/TYPE]`.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text.rsplit_once(':') {
            Some((path, kind)) if kind.contains('/') && !kind.starts_with('/') && !path.is_empty() => {
                Self { path: path.into(), media_type: kind.into() }
            }
            _ => Self { path: text.into(), media_type: String::new() },
        }
    }
}

/// An artifact to be made.
#[derive(Debug, Clone)]
pub struct Push {
    /// Its files, in this order.
    pub files: Vec<Input>,
    /// Empty: ORAS's default.
    pub artifact_type: String,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// A config that is not empty.
    pub config: Option<Input>,
    /// Where it goes; with a subject its name does not count.
    pub destination: Target,
    /// It is about the manifest that lies at the destination under its name.
    pub attach: bool,
    /// For `attach`: the image for this platform of an index, not the index.
    pub platform: Option<Platform>,
}

/// Makes an artifact, and gives the descriptor of its manifest.
///
/// # Errors
/// [`Error::Io`] for the files; those of the destination.
pub async fn push(wanted: &Push, place: Place<'_>) -> Result<Descriptor> {
    let what = wanted.destination.location.to_string();
    let subject = match wanted.attach {
        true => Some(subject(&wanted.destination, wanted.platform.as_ref(), place).await?),
        false => None,
    };
    let (inputs, scratch, config) = (wanted.files.clone(), place.scratch.to_owned(), wanted.config.clone());
    let (config, mut files) = blocking(move || {
        let config = config.map(|config| pack::file(&config)).transpose()?;
        let files = inputs.iter().map(|input| pack::input(input, &scratch)).collect::<Result<Vec<_>>>()?;
        Ok((config, files))
    })
    .await?;
    let empty = || (Descriptor::of(EMPTY, EMPTY_BYTES), Part::Bytes(EMPTY_BYTES.to_vec()));
    if files.is_empty() {
        files.push(empty());
    }
    let (mut config, config_part) = config.unwrap_or_else(empty);
    config.annotations.clear();
    let kind = Some(wanted.artifact_type.as_str()).filter(|kind| !kind.is_empty()).unwrap_or(ARTIFACT_TYPE);
    let manifest = Manifest {
        artifact_type: Some(kind.into()),
        subject,
        annotations: wanted.annotations.clone(),
        ..Manifest::new(config, files.iter().map(|(descriptor, _)| descriptor.clone()).collect())
    };
    let root = document(&manifest, media_type::MANIFEST, &what)?;
    let descriptor = describe(&root);
    let to = match wanted.attach {
        true => nameless(&wanted.destination, &root.digest)?,
        false => wanted.destination.clone(),
    };
    let mut made = Made::new(what, root);
    made.part(&manifest.config.digest, config_part);
    files.into_iter().for_each(|(descriptor, part)| made.part(&descriptor.digest, part));
    deliver(&made, &to, &Select::All, false, place).await?;
    Ok(descriptor)
}

/// The target for something that has no name of its own there.
///
/// # Errors
/// [`Error::NameInvalid`] where such things are not kept.
fn nameless(to: &Target, digest: &Digest) -> Result<Target> {
    let location = match &to.location {
        Location::Registry(reference) => Location::Registry(reference.with_digest(digest.clone())),
        Location::OciLayout { path, .. } => Location::OciLayout { path: path.clone(), name: None },
        other => {
            let problem = "artifacts are attached at docker:// and oci: only".into();
            return Err(Error::NameInvalid { what: "place of referrers", name: other.to_string(), problem });
        }
    };
    Ok(Target { location, registry: to.registry.clone(), additional_tags: Vec::new() })
}

/// The descriptor of what an artifact is attached to.
async fn subject(to: &Target, platform: Option<&Platform>, place: Place<'_>) -> Result<Descriptor> {
    let origin = Origin { location: to.location.clone(), registry: to.registry.clone() };
    let source = open(&origin, true, place).await?;
    Ok(describe(&manifest(source.as_ref(), platform).await?))
}

/// What a source's name stands for, or the manifest for a platform.
async fn manifest(source: &dyn Source, platform: Option<&Platform>) -> Result<RawManifest> {
    let root = source.root().await?;
    let Some(platform) = platform else { return Ok(root) };
    let what = source.describe();
    match parse(&root, &what)? {
        Document::Manifest(_) => Ok(root),
        Document::Index(index) => {
            let entry = choose(source, &what, &index, platform, &mut Vec::new()).await?;
            fetch(source, &entry, &what).await
        }
    }
}

/// Reads an artifact's manifest: its files are the layers that have a title.
///
/// # Errors
/// Those of the source; [`Error::ManifestInvalid`] for an index.
pub async fn show(origin: &Origin, place: Place<'_>) -> Result<(RawManifest, Manifest)> {
    let source = open(origin, false, place).await?;
    read(source.as_ref()).await
}

async fn read(source: &dyn Source) -> Result<(RawManifest, Manifest)> {
    let raw = manifest(source, Some(&Platform::host())).await?;
    match parse(&raw, &source.describe())? {
        Document::Manifest(manifest) => Ok((raw, manifest)),
        Document::Index(_) => Err(Error::manifest(source.describe(), "an index where an artifact is expected")),
    }
}

/// What a pull wrote.
#[derive(Debug, Clone, Default)]
pub struct Pulled {
    /// Of the manifest.
    pub digest: Option<Digest>,
    /// Files and directories that were written.
    pub written: Vec<PathBuf>,
    /// Blobs without a title, which are no files.
    pub skipped: Vec<Digest>,
}

/// Writes the files of an artifact into a directory. Each appears when it is whole and verified.
///
/// # Errors
/// [`Error::NameInvalid`] for a title that leads out of the directory; [`Error::Exists`] when a file is there and may not be
/// replaced; those of the source.
pub async fn pull(origin: &Origin, into: &Path, replace: bool, place: Place<'_>) -> Result<Pulled> {
    let source = open(origin, false, place).await?;
    let (raw, manifest) = read(source.as_ref()).await?;
    let mut pulled = Pulled { digest: Some(raw.digest), ..Pulled::default() };
    let titled = |layer: &Descriptor| layer.annotations.get(TITLE).cloned();
    // All names are looked at before the first file is written.
    for title in manifest.layers.iter().filter_map(titled) {
        unpack::check(into, &title, replace)?;
    }
    for layer in &manifest.layers {
        let Some(title) = titled(layer) else {
            if layer.media_type != EMPTY {
                pulled.skipped.push(layer.digest.clone());
            }
            continue;
        };
        let track = place.reporter.track(layer.digest.short(), layer.size);
        let (counted, stream) = (track.clone(), source.open(layer, 0).await?);
        let stream = futures::StreamExt::inspect(stream, move |chunk| {
            if let Ok(chunk) = chunk {
                counted.add("downloading", chunk.len() as u64);
            }
        });
        let job = unpack::Job { into: into.to_owned(), title, layer: layer.clone() };
        pulled.written.push(pump(futures::StreamExt::boxed(stream), move |reader| job.run(reader)).await?);
        track.finish("done");
    }
    Ok(pulled)
}

/// A manifest that refers to another, and what refers to it in turn.
#[derive(Debug, Clone)]
pub struct Referrer {
    /// Its descriptor, with type and annotations.
    pub descriptor: Descriptor,
    /// What refers to it.
    pub referrers: Vec<Referrer>,
}

/// Finds what refers to an image or artifact.
///
/// # Errors
/// Those of the source.
pub async fn discover(
    origin: &Origin,
    artifact_type: Option<&str>,
    platform: Option<&Platform>,
    place: Place<'_>,
) -> Result<(Descriptor, Vec<Referrer>)> {
    if let Location::Dir { .. } | Location::DockerArchive { .. } = origin.location {
        return Err(no_place(&origin.location.to_string()));
    }
    let source: Arc<dyn Source> = open(origin, true, place).await?.into();
    let root = describe(&manifest(source.as_ref(), platform).await?);
    let found = referrers(&source, &root.digest, artifact_type, 1).await?;
    Ok((root, found))
}

fn referrers<'a>(
    source: &'a Arc<dyn Source>,
    digest: &'a Digest,
    artifact_type: Option<&'a str>,
    depth: usize,
) -> BoxFuture<'a, Result<Vec<Referrer>>> {
    async move {
        let mut found = Vec::new();
        for descriptor in source.referrers(digest).await? {
            if artifact_type.is_some_and(|wanted| descriptor.artifact_type.as_deref() != Some(wanted)) {
                continue;
            }
            let referrers = match depth < DEPTH_MAX {
                true => referrers(source, &descriptor.digest, None, depth + 1).await?,
                false => Vec::new(),
            };
            found.push(Referrer { descriptor, referrers });
        }
        Ok(found)
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::progress::Reporter;

    #[test]
    fn types_follow_the_last_colon() {
        let read = |text: &str| {
            let input = Input::read(text);
            (input.path.display().to_string(), input.media_type)
        };
        assert_eq!(read("a/b.txt:text/plain"), ("a/b.txt".into(), "text/plain".into()));
        assert_eq!(read("a:b"), ("a:b".into(), String::new()));
        assert_eq!(read("a:/etc/x"), ("a:/etc/x".into(), String::new()));
    }

    #[tokio::test]
    async fn files_and_directories_come_back_and_referrers_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("in/tree/deep")).unwrap();
        std::fs::write(path("in/a.txt"), b"a").unwrap();
        std::fs::write(path("in/tree/deep/b"), b"b").unwrap();
        std::os::unix::fs::symlink("deep/b", path("in/tree/link")).unwrap();
        let reporter = Reporter::silent();
        let place = Place { store: None, scratch: dir.path(), reporter: &reporter };
        let layout = format!("oci:{}:art", path("layout").display()).parse::<Location>().unwrap();
        let input = |name: &str, kind: &str| Input { path: path(name), media_type: kind.into() };
        let mut wanted = Push {
            files: vec![input("in/a.txt", "text/plain"), input("in/tree", "")],
            artifact_type: "test/art".into(),
            annotations: BTreeMap::from([("k".into(), "v".into())]),
            config: None,
            destination: layout.clone().into(),
            attach: false,
            platform: None,
        };
        let first = push(&wanted, place).await.unwrap();
        assert_eq!(push(&wanted, place).await.unwrap().digest, first.digest, "the same files, the same digest");
        let pulled = pull(&layout.clone().into(), &path("out"), false, place).await.unwrap();
        assert_eq!((pulled.written.len(), pulled.skipped.len()), (2, 0));
        assert_eq!(std::fs::read(path("out/a.txt")).unwrap(), b"a");
        assert_eq!(std::fs::read(path("out/tree/link")).unwrap(), b"b");
        assert!(matches!(pull(&layout.clone().into(), &path("out"), false, place).await, Err(Error::Exists { .. })));
        pull(&layout.clone().into(), &path("out"), true, place).await.unwrap();
        (wanted.files, wanted.attach, wanted.artifact_type) = (Vec::new(), true, "test/about".into());
        let about = push(&wanted, place).await.unwrap();
        let (root, found) = discover(&layout.into(), Some("test/about"), None, place).await.unwrap();
        assert_eq!((root.digest, &found[0].descriptor.digest), (first.digest, &about.digest));
        assert_eq!(found[0].descriptor.annotations["k"], "v");
    }
}
