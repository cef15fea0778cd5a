//! Images of the store into files, and files into the store.

use std::path::PathBuf;
use std::sync::Arc;

use oci::{Platform, Reference};

use crate::error::{Error, Result};
use crate::image::{canonical, check_platform, find, variant};
use crate::progress::Reporter;
use crate::pull::{Lease, keep};
use crate::transport::Location;
use crate::transport::archive::Files;
use crate::transport::copy::{Select, copy};
use crate::transport::docker_archive::{self, DockerSink, DockerSource};
use crate::transport::guarded::guard;
use crate::transport::oci_layout::{self, LayoutSink, LayoutSource, Out, names};
use crate::transport::pump::blocking;
use crate::transport::referrers::{no_place, transfer};
use crate::transport::stored::{StoreSink, StoreSource};
use crate::{ImageRecord, Store, trust};

/// Formats of a saved image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A tar of an OCI layout.
    #[default]
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
    /// An OCI layout as a directory.
    OciDir,
}

impl std::str::FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "oci-archive" => Ok(Self::OciArchive),
            "docker-archive" => Ok(Self::DockerArchive),
            "oci-dir" => Ok(Self::OciDir),
            other => {
                let problem = "there are: oci-archive, docker-archive, oci-dir".into();
                Err(Error::NameInvalid { what: "format", name: other.into(), problem })
            }
        }
    }
}

/// What to save, and where.
#[derive(Debug, Clone)]
pub struct Save {
    /// Names or ids; at least one.
    pub references: Vec<String>,
    /// File, pipe, or directory of a layout.
    pub path: PathBuf,
    /// Of the file.
    pub format: Format,
    /// Also what belongs to the images and came with them: signatures, attestations.
    pub referrers: bool,
    /// Only the image for this platform. None: all that are here, in a docker archive the one that the name means.
    pub platform: Option<Platform>,
}

/// Writes images into one file or layout. Gives its bytes (0 for a directory or a pipe).
///
/// # Errors
/// [`Error::ImageNotFound`], [`Error::PlatformMissing`], [`Error::Io`].
pub async fn save(store: &Store, wanted: &Save, reporter: &Reporter) -> Result<u64> {
    let Save { references, path, format, referrers, platform } = wanted;
    let (format, referrers) = (*format, *referrers);
    if referrers && format == Format::DockerArchive {
        return Err(no_place("docker-archive"));
    }
    if references.is_empty() {
        let problem = "at least one image is needed".into();
        return Err(Error::NameInvalid { what: "list of images", name: String::new(), problem });
    }
    let (reader, texts, only) = (store.clone(), references.clone(), platform.clone());
    let one = move |text: &String| {
        let (record, found) = find(&reader, text)?;
        let image = only.as_ref().map(|platform| variant(&reader, &record, platform, text)).transpose()?;
        Ok((image.unwrap_or(record), saved_names(&found)))
    };
    // All are found before the first byte is written.
    let images: Vec<(ImageRecord, Vec<String>)> = blocking(move || texts.iter().map(one).collect()).await?;
    match format {
        Format::DockerArchive => {
            let sink = DockerSink::create(path, store.root())?;
            for (record, names) in images {
                let familiar = |name: &String| name.parse::<Reference>().map_or(name.clone(), |name| name.familiar());
                sink.name(names.iter().map(familiar).collect());
                copy(&StoreSource::new(store, record, false), &sink, &Select::All, reporter).await?;
            }
            sink.close().await
        }
        Format::OciArchive | Format::OciDir => {
            let out = if format == Format::OciDir { Out::dir(path)? } else { Out::tar(path)? };
            let sink = LayoutSink::new(out);
            for (record, names) in images {
                sink.name(names.iter().map(|name| layout_name(name)).collect());
                let source = StoreSource::new(store, record, platform.is_none());
                transfer(&source, &sink, &Select::All, referrers, reporter).await?;
            }
            sink.close().await
        }
    }
}

/// By name: that name. By id: none, as docker does.
fn saved_names(found: &crate::image::Found) -> Vec<String> {
    match found {
        crate::image::Found::Name(name) => vec![name.clone()],
        crate::image::Found::Id => Vec::new(),
    }
}

/// The tag, and the whole name beside it.
fn layout_name(name: &str) -> (String, Option<String>) {
    let tag = name.parse::<Reference>().ok().and_then(|reference| reference.tag().map(str::to_owned));
    (tag.unwrap_or_else(|| name.to_owned()), Some(name.to_owned()))
}

/// What to load.
#[derive(Debug, Clone)]
pub struct Load {
    /// An archive (plain, gzip, zstd) or a layout's directory; which of them is found out.
    pub path: PathBuf,
    /// Also what belongs to the images: signatures, attestations.
    pub referrers: bool,
    /// Only the images for this platform. None: for this host's, else for what is there.
    pub platform: Option<Platform>,
    /// Which images are let in.
    pub trust: trust::Setting,
}

/// Reads all images of an archive or layout into the store.
///
/// # Errors
/// [`Error::ArchiveInvalid`], [`Error::PlatformMissing`] and those of unpacking.
pub async fn load(store: &Store, wanted: &Load, reporter: &Reporter) -> Result<Vec<ImageRecord>> {
    let (input, scratch) = (wanted.path.clone(), store.root().to_owned());
    let files = blocking(move || Files::open(&input, &scratch).map(Arc::new)).await?;
    let lease = Lease::of(store, None).await?;
    let sink = StoreSink::new(store, Some(lease.id()), true);
    let images = if files.has("index.json") && files.has("oci-layout") {
        load_layout(store, &files, wanted, &sink, reporter).await?
    } else if files.has("manifest.json") {
        load_docker(store, &files, wanted, &sink, reporter).await?
    } else {
        return Err(Error::archive(&wanted.path, "neither index.json nor manifest.json is in it"));
    };
    if images.is_empty() {
        return Err(Error::archive(&wanted.path, "there is no image in it"));
    }
    Ok(images)
}

async fn load_layout(
    store: &Store,
    files: &Arc<Files>,
    wanted: &Load,
    sink: &StoreSink,
    reporter: &Reporter,
) -> Result<Vec<ImageRecord>> {
    let mut images = Vec::new();
    for entry in oci_layout::images(files)? {
        let names: Vec<String> = loaded_name(&entry).into_iter().collect();
        let (path, name) = (files.path().to_owned(), names.first().cloned());
        let location = match path.is_dir() {
            true => Location::OciLayout { path, name },
            false => Location::OciArchive { path, name },
        };
        let source = guard(Box::new(LayoutSource::new(files.clone(), entry)), &location, &wanted.trust)?;
        let source = source.as_ref();
        let bring = |select: Select| async move { transfer(source, sink, &select, wanted.referrers, reporter).await };
        let platform = wanted.platform.clone().unwrap_or_else(Platform::host);
        let copied = match bring(Select::Platform(platform)).await {
            // Where not all platforms were saved, the best of what is there is taken.
            Err(Error::ArchiveInvalid { .. } | Error::PlatformMissing { .. }) if wanted.platform.is_none() => {
                bring(Select::All).await?
            }
            other => other?,
        };
        images.push(record(store, &copied, &names, wanted).await?);
    }
    Ok(images)
}

/// The whole name if there is one; a tag alone is no name, unless it is one.
fn loaded_name(entry: &oci::Descriptor) -> Option<String> {
    let full = names(entry).into_iter().find(|name| name.contains(['/', ':']))?;
    full.parse::<Reference>().ok().map(|reference| canonical(&reference))
}

async fn load_docker(
    store: &Store,
    files: &Arc<Files>,
    wanted: &Load,
    sink: &StoreSink,
    reporter: &Reporter,
) -> Result<Vec<ImageRecord>> {
    let mut images = Vec::new();
    for entry in docker_archive::entries(files)? {
        let names: Vec<String> = entry
            .repo_tags
            .iter()
            .flatten()
            .filter_map(|tag| tag.parse::<Reference>().ok())
            .map(|reference| canonical(&reference))
            .collect();
        let archive = files.clone();
        let source = blocking(move || DockerSource::open(archive, &entry)).await?;
        let location = Location::DockerArchive { path: files.path().to_owned(), name: names.first().cloned() };
        let source = guard(Box::new(source), &location, &wanted.trust)?;
        let copied = copy(source.as_ref(), sink, &Select::All, reporter).await?;
        images.push(record(store, &copied, &names, wanted).await?);
    }
    Ok(images)
}

async fn record(
    store: &Store,
    copied: &crate::transport::copy::Copied,
    names: &[String],
    wanted: &Load,
) -> Result<ImageRecord> {
    let path = &wanted.path;
    let what = names.first().cloned().unwrap_or_else(|| path.display().to_string());
    let image = crate::transport::stored::record(copied, &what)?;
    // An index was asked for the platform; an image alone is whatever it is.
    if copied.root.digest == image.manifest.digest {
        check_platform(&image, wanted.platform.as_ref(), &what)?;
    }
    let mut last = None;
    for name in names {
        last = Some(keep(store, copied, name, None).await?.0);
    }
    if let Some(image) = last {
        crate::events::record(store, "load", image.config.as_str(), &names.join(","));
        return Ok(image);
    }
    let (store, path) = (store.clone(), path.clone());
    blocking(move || {
        store.images().put(&image, None, None)?;
        let all = store.images().by_digest(&image.manifest.digest)?;
        all.into_iter().next().ok_or_else(|| Error::archive(path, "its image has gone"))
    })
    .await
}
