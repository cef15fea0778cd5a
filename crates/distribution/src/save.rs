//! Images of the store into files, and files into the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::{Platform, Reference};

use crate::error::{Error, Result};
use crate::image::{canonical, find};
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

/// Writes images into one file or layout; with `referrers`, also what belongs to them. Gives its bytes (0 for a directory or a pipe).
///
/// # Errors
/// [`Error::ImageNotFound`], [`Error::Io`].
pub async fn save(
    store: &Store,
    references: &[String],
    path: &Path,
    format: Format,
    referrers: bool,
    reporter: &Reporter,
) -> Result<u64> {
    if referrers && format == Format::DockerArchive {
        return Err(no_place("docker-archive"));
    }
    if references.is_empty() {
        let problem = "at least one image is needed".into();
        return Err(Error::NameInvalid { what: "list of images", name: String::new(), problem });
    }
    let (reader, wanted) = (store.clone(), references.to_vec());
    let images: Vec<(ImageRecord, Vec<String>)> = blocking(move || {
        wanted
            .iter()
            .map(|text| find(&reader, text).map(|(record, found)| (record.clone(), saved_names(&record, &found))))
            .collect()
    })
    .await?;
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
                let source = StoreSource::new(store, record, true);
                transfer(&source, &sink, &Select::All, referrers, reporter).await?;
            }
            sink.close().await
        }
    }
}

/// By name: that name. By id: none, as docker does.
fn saved_names(_record: &ImageRecord, found: &crate::image::Found) -> Vec<String> {
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

/// Reads all images of an archive or layout into the store; with `referrers`, also what belongs to them. The format is found
/// out.
///
/// # Errors
/// [`Error::ArchiveInvalid`] and those of unpacking.
pub async fn load(
    store: &Store,
    path: &Path,
    referrers: bool,
    trust: &trust::Setting,
    reporter: &Reporter,
) -> Result<Vec<ImageRecord>> {
    let (input, scratch) = (path.to_owned(), store.root().to_owned());
    let files = blocking(move || Files::open(&input, &scratch).map(Arc::new)).await?;
    let lease = Lease::of(store, None).await?;
    let sink = StoreSink::new(store, Some(lease.id()), true);
    if files.has("index.json") && files.has("oci-layout") {
        return load_layout(store, &files, referrers, trust, &sink, reporter).await;
    }
    if files.has("manifest.json") {
        return load_docker(store, &files, trust, &sink, reporter).await;
    }
    Err(Error::archive(path, "neither index.json nor manifest.json is in it"))
}

async fn load_layout(
    store: &Store,
    files: &Arc<Files>,
    referrers: bool,
    trust: &trust::Setting,
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
        let source = guard(Box::new(LayoutSource::new(files.clone(), entry)), &location, trust)?;
        // Where not all platforms were saved, the best of what is there is taken.
        let source = source.as_ref();
        let bring = |select: Select| async move { transfer(source, sink, &select, referrers, reporter).await };
        let copied = match bring(Select::Platform(Platform::host())).await {
            Err(Error::ArchiveInvalid { .. } | Error::PlatformMissing { .. }) => bring(Select::All).await?,
            other => other?,
        };
        images.push(record(store, &copied, &names, files.path()).await?);
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
    trust: &trust::Setting,
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
        let source = guard(Box::new(source), &location, trust)?;
        let copied = copy(source.as_ref(), sink, &Select::All, reporter).await?;
        images.push(record(store, &copied, &names, files.path()).await?);
    }
    Ok(images)
}

async fn record(
    store: &Store,
    copied: &crate::transport::copy::Copied,
    names: &[String],
    path: &Path,
) -> Result<ImageRecord> {
    let mut last = None;
    for name in names {
        last = Some(keep(store, copied, name, None).await?.0);
    }
    if let Some(image) = last {
        crate::events::record(store, "load", image.config.as_str(), &names.join(","));
        return Ok(image);
    }
    let record = crate::transport::stored::record(copied, &path.display().to_string())?;
    let (store, path): (Store, PathBuf) = (store.clone(), path.to_owned());
    blocking(move || {
        store.images().put(&record, None, None)?;
        let all = store.images().by_digest(&record.manifest.digest)?;
        all.into_iter().next().ok_or_else(|| Error::archive(path, "its image has gone"))
    })
    .await
}
