//! From any transport to any other, without the store unless it is one of them.

use std::path::Path;
use std::sync::Arc;

use oci::manifest::{Document, Manifest};
use oci::{Descriptor, Digest, Platform};

use crate::Store;
use crate::error::{Error, Result};
use crate::image::{canonical, find, parse};
use crate::progress::Reporter;
use crate::pull::{Lease, keep};
use crate::registry::{self, MANIFEST_MAX, RawManifest};
use crate::transport::archive::Files;
use crate::transport::copy::{Select, best, copy as transfer, describe, parse as parse_manifest};
use crate::transport::dir::Dir;
use crate::transport::docker_archive::{DockerSink, DockerSource};
use crate::transport::oci_layout::{LayoutSink, LayoutSource, Out};
use crate::transport::pump::{blocking, collect};
use crate::transport::remote::Remote;
use crate::transport::stored::{StoreSink, StoreSource};
use crate::transport::{Location, Source};

/// What to copy, and where.
#[derive(Debug, Clone)]
pub struct Copy {
    /// From here.
    pub source: Location,
    /// To here.
    pub destination: Location,
    /// How the source's registry is reached.
    pub source_registry: registry::Options,
    /// How the destination's registry is reached.
    pub destination_registry: registry::Options,
    /// Everything that the name stands for.
    pub all_platforms: bool,
    /// None: this host's.
    pub platform: Option<Platform>,
}

impl Copy {
    /// Whether the store is needed at all.
    #[must_use]
    pub fn needs_store(&self) -> bool {
        matches!(self.source, Location::Store(_)) || matches!(self.destination, Location::Store(_))
    }
}

/// Copies an image. Gives the digest of what arrived. `scratch` takes archives that have to be decompressed first.
///
/// # Errors
/// Those of the two sides; [`Error::NameInvalid`] when the store is needed and not given.
pub async fn copy(wanted: &Copy, store: Option<&Store>, scratch: &Path, reporter: &Reporter) -> Result<Digest> {
    let source = source(wanted, store, scratch).await?;
    let select = match wanted.all_platforms {
        true => Select::All,
        false => Select::Platform(wanted.platform.clone().unwrap_or_else(Platform::host)),
    };
    let source = source.as_ref();
    let copied = match &wanted.destination {
        Location::Registry(reference) => {
            let sink = Remote::open(reference, &wanted.destination_registry).await?;
            transfer(source, &sink, &select, reporter).await?
        }
        Location::Dir { path } => transfer(source, &Dir::create(path)?, &select, reporter).await?,
        Location::OciLayout { path, name } | Location::OciArchive { path, name } => {
            let directory = matches!(wanted.destination, Location::OciLayout { .. });
            let sink = LayoutSink::new(if directory { Out::dir(path)? } else { Out::tar(path)? });
            sink.name(name.iter().map(|name| (name.clone(), None)).collect());
            let copied = transfer(source, &sink, &select, reporter).await?;
            sink.close().await?;
            copied
        }
        Location::DockerArchive { path, name } => {
            let sink = DockerSink::create(path, scratch)?;
            sink.name(name.iter().map(|name| Ok(parse(name)?.familiar())).collect::<Result<_>>()?);
            let copied = transfer(source, &sink, &select, reporter).await?;
            sink.close().await?;
            copied
        }
        Location::Store(name) => {
            let store = store.ok_or_else(|| no_store(name))?;
            let name = canonical(&parse(name)?);
            let lease = Lease::of(store, None).await?;
            let sink = StoreSink::new(store, Some(lease.id()), true);
            let copied = transfer(source, &sink, &select, reporter).await?;
            keep(store, &copied, &name, None).await?;
            copied
        }
    };
    Ok(copied.root.digest)
}

async fn files(path: &Path, scratch: &Path) -> Result<Arc<Files>> {
    let (path, scratch) = (path.to_owned(), scratch.to_owned());
    blocking(move || Files::open(&path, &scratch).map(Arc::new)).await
}

fn no_store(name: &str) -> Error {
    Error::NameInvalid { what: "image location", name: name.into(), problem: "there is no store".into() }
}

/// Opens the source of a copy; also what `inspect` reads.
///
/// # Errors
/// Those of the transport.
pub async fn source(wanted: &Copy, store: Option<&Store>, scratch: &Path) -> Result<Box<dyn Source>> {
    Ok(match &wanted.source {
        Location::Registry(reference) => Box::new(Remote::open(reference, &wanted.source_registry).await?),
        Location::OciLayout { path, name } | Location::OciArchive { path, name } => {
            Box::new(LayoutSource::named(files(path, scratch).await?, name.as_deref())?)
        }
        Location::DockerArchive { path, name } => {
            let (files, name) = (files(path, scratch).await?, name.clone());
            Box::new(blocking(move || DockerSource::named(files, name.as_deref())).await?)
        }
        Location::Dir { path } => Box::new(Dir::open(path)?),
        Location::Store(name) => {
            let store = store.ok_or_else(|| no_store(name))?;
            let (record, _) = find(store, name)?;
            Box::new(StoreSource::new(store, record, wanted.all_platforms))
        }
    })
}

/// What a source has, without copying it.
#[derive(Debug, Clone)]
pub struct Look {
    /// What the name stands for.
    pub root: RawManifest,
    /// The manifest for the platform.
    pub descriptor: Descriptor,
    /// The same, read.
    pub manifest: Manifest,
    /// The config, byte for byte.
    pub config: Vec<u8>,
}

/// Reads manifest and config of an image, for people to look at.
///
/// # Errors
/// Those of the source; [`Error::PlatformMissing`].
pub async fn look(source: &dyn Source, platform: &Platform) -> Result<Look> {
    let what = source.describe();
    let root = source.root().await?;
    let (raw, manifest) = match parse_manifest(&root, &what)? {
        Document::Manifest(manifest) => (root.clone(), manifest),
        Document::Index(index) => {
            let entry = best(&index, platform).ok_or_else(|| Error::PlatformMissing {
                what: what.clone(),
                platform: platform.to_string(),
                available: index
                    .manifests
                    .iter()
                    .filter_map(|m| Some(m.platform.as_ref()?.to_string()))
                    .collect::<Vec<_>>()
                    .join(", "),
            })?;
            let raw = source.manifest(entry).await?;
            match parse_manifest(&raw, &what)? {
                Document::Manifest(manifest) => (raw, manifest),
                Document::Index(_) => return Err(Error::manifest(what, "an index where a manifest is expected")),
            }
        }
    };
    if manifest.config.size > MANIFEST_MAX {
        return Err(Error::manifest(what, format!("a config of {} bytes", manifest.config.size)));
    }
    let config = collect(source.open(&manifest.config, 0).await?, &what, manifest.config.size).await?;
    Ok(Look { descriptor: describe(&raw), root, manifest, config })
}
