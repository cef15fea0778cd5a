//! Many images at once: whole repositories, lists and layouts, to a registry, a directory, a layout or the store. What is there
//! already, with the same digest, is not copied again.

mod list;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci::manifest::Document;
use oci::{Digest, Platform, Reference};

use crate::copy::{Copy, Origin, Place, Target, copy, digest, open};
use crate::error::{Error, Result};
use crate::image::parse;
use crate::registry::{Options, Registry};
use crate::transport::archive::Files;
use crate::transport::copy::{choose, parse as parse_manifest};
use crate::transport::oci_layout::{self, REF_NAME};
use crate::transport::{Location, Source};

pub use list::{Filter, Tags, Wanted, from_text, from_yaml};

/// Where images come from.
#[derive(Debug, Clone)]
pub enum From {
    /// Repositories of registries.
    Registries(Vec<Wanted>),
    /// A tree of skopeo's plain directories: each is named by its path, `repository:tag`.
    Dirs(PathBuf),
    /// All named images of a layout.
    Layout(PathBuf),
}

impl From {
    /// Reads `docker://…`, `list:FILE`, `yaml:FILE`, `dir:DIRECTORY`, `oci:DIRECTORY`; `file` gives the text of a list.
    ///
    /// # Errors
    /// [`Error::NameInvalid`], and those of `file`.
    pub fn read(
        text: &str,
        registry: &Options,
        filter: &Filter,
        file: impl FnOnce(&str) -> Result<String>,
    ) -> Result<Self> {
        Ok(match text.split_once(':') {
            Some(("yaml", path)) => Self::Registries(from_yaml(&file(path)?, registry)?),
            Some(("list", path)) => Self::Registries(from_text(&file(path)?, registry, filter)?),
            Some(("dir", path)) => Self::Dirs(path.into()),
            Some(("oci", path)) => Self::Layout(path.into()),
            Some(("docker", rest)) if rest.starts_with("//") => Self::Registries(from_text(text, registry, filter)?),
            _ => {
                let problem = "there are: docker://, list:, yaml:, dir:, oci:".into();
                return Err(Error::NameInvalid { what: "source of a sync", name: text.into(), problem });
            }
        })
    }
}

/// Where images go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Repositories below this name: `registry[/path]`.
    Registry(String),
    /// Directories below this one.
    Dirs(PathBuf),
    /// Names in one layout.
    Layout(PathBuf),
    /// The store, under the names that they have.
    Store,
}

impl std::str::FromStr for To {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once(':') {
            Some(("docker", rest)) => {
                rest.strip_prefix("//").map(|name| Self::Registry(name.trim_end_matches('/').into()))
            }
            Some(("dir", path)) => Some(Self::Dirs(path.into())),
            Some(("oci", path)) => Some(Self::Layout(path.into())),
            Some(("store", "")) => Some(Self::Store),
            _ => None,
        };
        let parsed = parsed.filter(|to| !matches!(to, Self::Registry(name) if parse(&format!("{name}/x")).is_err()));
        parsed.ok_or_else(|| Error::NameInvalid {
            what: "destination of a sync",
            name: text.into(),
            problem: "expected docker://registry[/path], dir:directory, oci:directory or store:".into(),
        })
    }
}

/// How to sync.
#[derive(Debug, Clone)]
pub struct Sync {
    /// Where to.
    pub to: To,
    /// How the destination's registry is reached.
    pub registry: Options,
    /// Keep the registry and the whole path of the source's name below the destination, not only its last part.
    pub scoped: bool,
    /// All platforms.
    pub all_platforms: bool,
    /// None: this host's.
    pub platform: Option<Platform>,
    /// Fail rather than write manifests with other digests.
    pub preserve_digests: bool,
    /// Also what refers to the images.
    pub referrers: bool,
}

/// One image of a sync.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it is.
    pub source: Origin,
    /// Where it goes.
    pub destination: Location,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It arrived, with this digest.
    Copied(Digest),
    /// It was there.
    UpToDate(Digest),
}

/// Finds out which images are meant, and where each one goes; asks registries for tags.
///
/// # Errors
/// Those of the registries; [`Error::NameInvalid`] when two images have the same destination.
pub async fn plan(from: &From, wanted: &Sync) -> Result<Vec<Item>> {
    let named = match from {
        From::Registries(list) => {
            let mut named = Vec::new();
            for entry in list {
                named.extend(references(entry, wanted.all_platforms).await?);
            }
            named
        }
        From::Dirs(path) => dirs(path)?,
        From::Layout(path) => layout(path)?,
    };
    let mut items: BTreeMap<String, Item> = BTreeMap::new();
    for (source, name) in named {
        let destination = destination(&wanted.to, &name, wanted.scoped)?;
        if let Some(other) = items.get(&destination.to_string())
            && other.source.location != source.location
        {
            let problem = format!(
                "{} and {} both go there; keep their paths apart with --scoped",
                other.source.location, source.location
            );
            return Err(Error::NameInvalid { what: "destination of a sync", name: destination.to_string(), problem });
        }
        items.insert(destination.to_string(), Item { source, destination });
    }
    Ok(items.into_values().collect())
}

/// The tag under which clients keep referrers (distribution-spec, "Referrers Tag Schema"): no image for any platform.
fn is_list_of_referrers(tag: &str) -> bool {
    tag.split_once('-').is_some_and(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().is_ok())
}

/// Each wanted image with its name. `whole`: also what is for no platform.
async fn references(wanted: &Wanted, whole: bool) -> Result<Vec<(Origin, Reference)>> {
    let repository = &wanted.repository;
    let tags = match &wanted.tags {
        Tags::These(references) => {
            let origin = |reference: &Reference| Origin {
                location: Location::Registry(reference.clone()),
                registry: wanted.registry.clone(),
            };
            return Ok(references.iter().map(|reference| (origin(reference), reference.clone())).collect());
        }
        Tags::All(filter) => {
            let registry = Registry::open(repository.registry(), &wanted.registry).await?;
            let tags = registry.tags(repository.repository()).await?;
            tags.into_iter()
                .filter(|tag| filter.passes(tag) && (whole || !is_list_of_referrers(tag)))
                .collect::<Vec<_>>()
        }
    };
    let mut found = Vec::new();
    for tag in tags {
        let Ok(reference) = repository.with_tag(&tag) else { continue };
        let location = Location::Registry(reference.clone());
        found.push((Origin { location, registry: wanted.registry.clone() }, reference));
    }
    Ok(found)
}

/// Directories below `root` that hold an image.
fn dirs(root: &Path) -> Result<Vec<(Origin, Reference)>> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let path = entry.map_err(Error::io("list", &dir))?.path();
            if !path.is_dir() || path.is_symlink() {
                continue;
            }
            if !path.join("manifest.json").is_file() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            found.push((Location::Dir { path }.into(), parse(&name)?));
        }
    }
    Ok(found)
}

fn layout(path: &Path) -> Result<Vec<(Origin, Reference)>> {
    let files = Files::Dir(path.to_owned());
    let mut found = Vec::new();
    for entry in oci_layout::entries(&files)? {
        let Some(full) = oci_layout::names(&entry).first().map(ToString::to_string) else { continue };
        let in_layout = entry.annotations.get(REF_NAME).cloned().unwrap_or_else(|| full.clone());
        let location = Location::OciLayout { path: path.to_owned(), name: Some(in_layout) };
        found.push((location.into(), parse(&full)?));
    }
    Ok(found)
}

/// Where an image of this name goes.
fn destination(to: &To, name: &Reference, scoped: bool) -> Result<Location> {
    let path = match scoped {
        true => format!("{}/{}", name.registry(), name.repository()),
        false => name.repository().rsplit('/').next().unwrap_or_default().to_owned(),
    };
    let version = match (name.tag(), name.digest()) {
        (Some(tag), _) => format!(":{tag}"),
        (None, Some(digest)) => format!("@{digest}"),
        (None, None) => ":latest".into(),
    };
    Ok(match to {
        To::Registry(prefix) => {
            // A port is no part of a repository's path.
            let path = if scoped { path.replacen(':', "-", 1) } else { path };
            Location::Registry(parse(&format!("{prefix}/{path}{version}"))?)
        }
        To::Dirs(root) => Location::Dir { path: root.join(format!("{path}{version}")) },
        To::Layout(root) => Location::OciLayout { path: root.clone(), name: Some(format!("{path}{version}")) },
        To::Store => Location::Store(name.to_string()),
    })
}

/// Copies one item, unless it is there.
///
/// # Errors
/// Those of [`copy`].
pub async fn run(item: &Item, wanted: &Sync, place: Place<'_>) -> Result<Done> {
    let target =
        Target { location: item.destination.clone(), registry: wanted.registry.clone(), additional_tags: Vec::new() };
    let there = Origin { location: item.destination.clone(), registry: wanted.registry.clone() };
    if !wanted.referrers
        && let Some(digest) = digest_of(&there, wanted, place).await
        && digest_of(&item.source, wanted, place).await.as_ref() == Some(&digest)
    {
        return Ok(Done::UpToDate(digest));
    }
    if let Location::Dir { path } = &item.destination {
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
    }
    let job = Copy {
        all_platforms: wanted.all_platforms,
        platform: wanted.platform.clone(),
        preserve_digests: wanted.preserve_digests,
        referrers: wanted.referrers,
        ..Copy::new(item.source.clone(), target)
    };
    Ok(Done::Copied(copy(&job, place).await?))
}

/// The digest that a copy from (or to) a place has; none when there is nothing, or nothing that can be read.
async fn digest_of(at: &Origin, wanted: &Sync, place: Place<'_>) -> Option<Digest> {
    if wanted.all_platforms {
        // Asking for the digest alone does not count as a pull.
        return digest(at, None, place).await.ok();
    }
    let source = open(at, wanted.all_platforms, place).await.ok()?;
    chosen(source.as_ref(), wanted).await.ok()
}

async fn chosen(source: &dyn Source, wanted: &Sync) -> Result<Digest> {
    let root = source.root().await?;
    match parse_manifest(&root, &source.describe())? {
        Document::Index(index) if !wanted.all_platforms => {
            let platform = wanted.platform.clone().unwrap_or_else(Platform::host);
            Ok(choose(source, &source.describe(), &index, &platform, &mut Vec::new()).await?.digest)
        }
        _ => Ok(root.digest),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_below_the_destination() {
        let name = parse("quay.io:443/a/b:1").unwrap();
        let at = |to: &str, scoped| destination(&to.parse().unwrap(), &name, scoped).unwrap().to_string();
        assert_eq!(at("docker://localhost:5000/m/", false), "docker://localhost:5000/m/b:1");
        assert_eq!(at("docker://localhost:5000", true), "docker://localhost:5000/quay.io-443/a/b:1");
        assert_eq!(at("dir:/d", false), "dir:/d/b:1");
        assert_eq!(at("dir:/d", true), "dir:/d/quay.io:443/a/b:1");
        assert_eq!(at("oci:/l", false), "oci:/l:b:1");
        assert_eq!(at("store:", false), "store:quay.io:443/a/b:1");
        for bad in ["docker:x", "docker://A", "x", "store:x", "dir"] {
            assert!(bad.parse::<To>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn two_images_do_not_share_a_destination() {
        let list = from_text("h.example/a/x:1\nh.example/b/x:1\n", &Options::default(), &Filter::default()).unwrap();
        let mut wanted = Sync {
            to: To::Store,
            registry: Options::default(),
            scoped: false,
            all_platforms: true,
            platform: None,
            preserve_digests: false,
            referrers: false,
        };
        let from = From::Registries(list);
        assert_eq!(plan(&from, &wanted).await.unwrap().len(), 2);
        wanted.to = To::Dirs("/d".into());
        assert!(plan(&from, &wanted).await.unwrap_err().to_string().contains("--scoped"));
        wanted.scoped = true;
        assert_eq!(plan(&from, &wanted).await.unwrap().len(), 2);
    }
}
