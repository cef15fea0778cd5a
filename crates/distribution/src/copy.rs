//! From any transport to any other, without the store unless it is one of them.

use std::path::Path;
use std::sync::Arc;

use oci::manifest::{Document, Manifest};
use oci::{Descriptor, Digest, Platform, Reference};

use crate::Store;
use crate::error::{Error, Result};
use crate::image::{canonical, find, parse, variant};
use crate::progress::Reporter;
use crate::pull::{Lease, keep};
use crate::registry::{self, RawManifest, Registry};
use crate::transport::archive::Files;
use crate::transport::checked::small;
use crate::transport::copy::{Copied, Select, describe, image_of, parse as parse_manifest};
use crate::transport::dir::Dir;
use crate::transport::docker_archive::{DockerSink, DockerSource};
use crate::transport::guarded::guard;
use crate::transport::oci_layout::{LayoutSink, LayoutSource, Out};
use crate::transport::pump::blocking;
use crate::transport::recast::{Recast, recast};
use crate::transport::referrers::{no_place, transfer};
use crate::transport::remote::Remote;
use crate::transport::stored::{StoreSink, StoreSource};
use crate::transport::{Location, Sink, Source};

/// Where things are: what every verb that reads or writes a [`Location`] needs.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// For `store:`; none: it cannot be used.
    pub store: Option<&'a Store>,
    /// Takes archives that have to be decompressed, and layers that are made anew.
    pub scratch: &'a Path,
    /// Where progress goes.
    pub reporter: &'a Reporter,
}

/// Where something is read.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The image.
    pub location: Location,
    /// How its registry is reached.
    pub registry: registry::Options,
}

/// Where something is written.
#[derive(Debug, Clone)]
pub struct Target {
    /// The image.
    pub location: Location,
    /// How its registry is reached.
    pub registry: registry::Options,
    /// More names: tags, or references of the same repository.
    pub additional_tags: Vec<String>,
}

impl From<Location> for Origin {
    fn from(location: Location) -> Self {
        Self { location, registry: registry::Options::default() }
    }
}

impl From<Location> for Target {
    fn from(location: Location) -> Self {
        Self { location, registry: registry::Options::default(), additional_tags: Vec::new() }
    }
}

/// What to copy, and where.
#[derive(Debug, Clone)]
pub struct Copy {
    /// From here.
    pub source: Origin,
    /// To here.
    pub destination: Target,
    /// Everything that the name stands for.
    pub all_platforms: bool,
    /// None: this host's.
    pub platform: Option<Platform>,
    /// The same image in another form.
    pub recast: Recast,
    /// Fail rather than write manifests with other digests.
    pub preserve_digests: bool,
    /// Also what names the images as its subject: signatures, attestations.
    pub referrers: bool,
}

impl Copy {
    /// The image for this host, as it is.
    #[must_use]
    pub fn new(source: impl Into<Origin>, destination: impl Into<Target>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            all_platforms: false,
            platform: None,
            recast: Recast::default(),
            preserve_digests: false,
            referrers: false,
        }
    }

    /// Which images are meant.
    #[must_use]
    pub fn select(&self) -> Select {
        match self.all_platforms {
            true => Select::All,
            false => Select::Platform(self.platform.clone().unwrap_or_else(Platform::host)),
        }
    }

    /// Refuses what would change digests that are to be preserved.
    fn check(&self) -> Result<()> {
        self.recast.check()?;
        let archive = |location: &Location| matches!(location, Location::DockerArchive { .. });
        let problem = match self {
            _ if !self.preserve_digests => return Ok(()),
            _ if !self.recast.is_none() => "another compression or format changes digests",
            _ if archive(&self.source.location) || archive(&self.destination.location) => {
                "a docker archive keeps no manifests"
            }
            _ => return Ok(()),
        };
        Err(self.changes_digests(problem))
    }

    fn changes_digests(&self, problem: &str) -> Error {
        let problem = format!("digests are to be preserved, but {problem}");
        Error::NameInvalid { what: "destination", name: self.destination.location.to_string(), problem }
    }
}

/// Copies an image. Gives the digest of what arrived.
///
/// # Errors
/// Those of the two sides; [`Error::NameInvalid`] when the store is needed and not given, or when digests would change that
/// are to be preserved.
pub async fn copy(wanted: &Copy, place: Place<'_>) -> Result<Digest> {
    wanted.check()?;
    let whole = wanted.all_platforms;
    let source: Arc<dyn Source> = match whole {
        true => open(&wanted.source, true, place).await?.into(),
        false => open_image(&wanted.source, wanted.platform.as_ref(), place).await?.into(),
    };
    if wanted.preserve_digests
        && let (Location::Store(name), Some(store), true) = (&wanted.source.location, place.store, whole)
        && find(store, name)?.0.target.digest != source.root().await?.digest
    {
        return Err(wanted.changes_digests("not all platforms of the index are in the store"));
    }
    if wanted.recast.is_none() {
        let copied = deliver(source.as_ref(), &wanted.destination, &wanted.select(), wanted.referrers, place).await?;
        return Ok(copied.root.digest);
    }
    if wanted.referrers {
        let problem = "what refers to an image does not refer to its other form".into();
        return Err(Error::NameInvalid {
            what: "copy of referrers",
            name: wanted.source.location.to_string(),
            problem,
        });
    }
    let made = recast(source, &wanted.select(), wanted.recast, place.scratch, place.reporter).await?;
    Ok(deliver(&made, &wanted.destination, &Select::All, false, place).await?.root.digest)
}

/// Writes what a source has to a target, under its names; with `referrers`, what belongs to it, too.
///
/// # Errors
/// Those of the two sides.
pub async fn deliver(
    source: &dyn Source,
    to: &Target,
    select: &Select,
    referrers: bool,
    place: Place<'_>,
) -> Result<Copied> {
    let Place { reporter, scratch, .. } = place;
    match &to.location {
        Location::Registry(reference) => {
            let more = tags_of(reference, &to.additional_tags)?;
            let sink = Remote::open(reference, &to.registry).await?;
            let copied = transfer(source, &sink, select, referrers, reporter).await?;
            for tag in more {
                sink.attach(&copied.root, Some(&tag)).await?;
            }
            Ok(copied)
        }
        Location::Dir { .. } | Location::DockerArchive { .. } if referrers => Err(no_place(&to.location.to_string())),
        Location::Dir { path } => transfer(source, &Dir::create(path), select, referrers, reporter).await,
        Location::OciLayout { path, name } | Location::OciArchive { path, name } => {
            let names = layout_names(name.as_deref(), &to.additional_tags)?;
            let directory = matches!(to.location, Location::OciLayout { .. });
            let sink = LayoutSink::new(if directory { Out::dir(path)? } else { Out::tar(path)? });
            sink.name(names);
            let copied = transfer(source, &sink, select, referrers, reporter).await?;
            sink.close().await?;
            Ok(copied)
        }
        Location::DockerArchive { path, name } => {
            let names = name.iter().chain(&to.additional_tags);
            let names = names.map(|name| Ok(parse(name)?.familiar())).collect::<Result<_>>()?;
            let sink = DockerSink::create(path, scratch)?;
            sink.name(names);
            let copied = transfer(source, &sink, select, referrers, reporter).await?;
            sink.close().await?;
            Ok(copied)
        }
        Location::Store(name) => {
            let store = place.store.ok_or_else(|| no_store(name))?;
            let reference = parse(name)?;
            let more = tags_of(&reference, &to.additional_tags)?;
            let lease = Lease::of(store, None).await?;
            let sink = StoreSink::new(store, Some(lease.id()), true);
            let copied = transfer(source, &sink, select, referrers, reporter).await?;
            keep(store, &copied, &canonical(&reference), None).await?;
            for tag in more {
                keep(store, &copied, &format!("{}:{tag}", reference.name()), None).await?;
            }
            Ok(copied)
        }
    }
}

/// Tags of a reference's own repository, given as tags or as references.
fn tags_of(reference: &Reference, given: &[String]) -> Result<Vec<String>> {
    let invalid = |name: &str, problem: &str| Error::NameInvalid {
        what: "additional tag",
        name: name.into(),
        problem: problem.into(),
    };
    let tag = |text: &String| match reference.with_tag(text) {
        Ok(_) => Ok(text.clone()),
        Err(_) => {
            let other = parse(text)?;
            match other.tag() {
                Some(tag) if other.name() == reference.name() => Ok(tag.to_owned()),
                Some(_) => Err(invalid(text, "it names another repository")),
                None => Err(invalid(text, "it has no tag")),
            }
        }
    };
    given.iter().map(tag).collect()
}

fn layout_names(name: Option<&str>, more: &[String]) -> Result<Vec<(String, Option<String>)>> {
    let invalid = |name: &str| name.starts_with('@') || name.parse::<Digest>().is_ok();
    if let Some(name) = name.filter(|name| invalid(name)) {
        let problem = "a destination has a name; digest and place follow from the content".into();
        return Err(Error::NameInvalid { what: "name in a layout", name: name.into(), problem });
    }
    Ok(name.into_iter().chain(more.iter().map(String::as_str)).map(|name| (name.to_owned(), None)).collect())
}

async fn files(path: &Path, scratch: &Path) -> Result<Arc<Files>> {
    let (path, scratch) = (path.to_owned(), scratch.to_owned());
    blocking(move || Files::open(&path, &scratch).map(Arc::new)).await
}

fn no_store(name: &str) -> Error {
    Error::NameInvalid { what: "image location", name: name.into(), problem: "there is no store".into() }
}

/// Opens a location to read from it, behind the trust policy. `whole`: all platforms of an image of the store.
///
/// # Errors
/// Those of the transport.
pub async fn open(from: &Origin, whole: bool, place: Place<'_>) -> Result<Box<dyn Source>> {
    guard(unguarded(from, whole, place).await?, &from.location, &from.registry.trust)
}

/// [`open`] for the image of a platform: of an image of the store that one, which need not be what the name means. Elsewhere
/// the platform is chosen from the index.
///
/// # Errors
/// Those of the transport; [`Error::PlatformMissing`].
pub async fn open_image(from: &Origin, platform: Option<&Platform>, place: Place<'_>) -> Result<Box<dyn Source>> {
    let (Location::Store(name), Some(platform), Some(store)) = (&from.location, platform, place.store) else {
        return open(from, false, place).await;
    };
    let image = variant(store, &find(store, name)?.0, platform, name)?;
    Ok(Box::new(StoreSource::new(store, image, false)))
}

/// [`open`] without the policy: to look at what vouches for an image.
///
/// # Errors
/// Those of the transport.
pub(crate) async fn unguarded(from: &Origin, whole: bool, place: Place<'_>) -> Result<Box<dyn Source>> {
    let scratch = place.scratch;
    Ok(match &from.location {
        Location::Registry(reference) => Box::new(Remote::open(reference, &from.registry).await?),
        Location::OciLayout { path, name } | Location::OciArchive { path, name } => {
            Box::new(LayoutSource::named(files(path, scratch).await?, name.as_deref())?)
        }
        Location::DockerArchive { path, name } => {
            let (files, name) = (files(path, scratch).await?, name.clone());
            Box::new(blocking(move || DockerSource::named(files, name.as_deref())).await?)
        }
        Location::Dir { path } => Box::new(Dir::open(path)?),
        Location::Store(name) => {
            let store = place.store.ok_or_else(|| no_store(name))?;
            let (record, _) = find(store, name)?;
            Box::new(StoreSource::new(store, record, whole))
        }
    })
}

/// The digest of what a location stands for; with a platform, of the image for it. A registry is asked for no more than that.
///
/// # Errors
/// Those of the transport; [`Error::PlatformMissing`].
pub async fn digest(from: &Origin, platform: Option<&Platform>, place: Place<'_>) -> Result<Digest> {
    if let (Location::Registry(reference), None) = (&from.location, platform) {
        let registry = Registry::open(reference.registry(), &from.registry).await?;
        let version = reference.digest().map(Digest::as_str).or(reference.tag()).unwrap_or("latest");
        let known = registry.manifest_digest(reference.repository(), version).await?;
        if let Some(digest) = known.and_then(|text| text.parse().ok()) {
            return Ok(digest);
        }
    }
    match platform {
        None => Ok(open(from, true, place).await?.root().await?.digest),
        Some(wanted) => Ok(look(open_image(from, platform, place).await?.as_ref(), wanted).await?.descriptor.digest),
    }
}

/// What a source has, without copying it.
#[derive(Debug, Clone)]
pub struct Look {
    /// What the name stands for.
    pub root: RawManifest,
    /// The manifest for the platform.
    pub descriptor: Descriptor,
    /// The same, byte for byte.
    pub raw: RawManifest,
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
        Document::Index(index) => image_of(source, &what, &index, platform).await?,
    };
    let config = small(source, &manifest.config, "config", &what).await?;
    Ok(Look { descriptor: describe(&raw), root, raw, manifest, config })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn preserved_digests_forbid_what_would_change_them() {
        let copy = |source: &str, destination: &str| Copy {
            preserve_digests: true,
            ..Copy::new(source.parse::<Location>().unwrap(), destination.parse::<Location>().unwrap())
        };
        assert!(copy("docker://a", "oci:b").check().is_ok());
        assert!(copy("docker://a", "docker-archive:b").check().unwrap_err().to_string().contains("preserved"));
        let zstd = Recast { compression: Some(crate::layer::Compression::Zstd), ..Recast::default() };
        assert!(Copy { recast: zstd, ..copy("docker://a", "oci:b") }.check().is_err());
    }

    #[test]
    fn additional_tags_stay_in_the_repository() {
        let reference = parse("localhost:5000/a:1").unwrap();
        let tags = |given: &[&str]| tags_of(&reference, &given.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(tags(&["2", "localhost:5000/a:3"]).unwrap(), ["2", "3"]);
        assert!(tags(&["localhost:5000/b:3"]).is_err() && tags(&["?"]).is_err());
    }
}
