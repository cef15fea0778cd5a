//! Indexes that are put together by hand: created, added to, annotated, and pushed as one name for several platforms.
//!
//! A draft is a small document of the store that says which manifests are in the index and where each was found; their content is
//! read when the index is pushed.
//!
//! ```text
//! <root>/indexes/<sha256 of the name>.json
//!                lock                       held while a draft is changed
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use oci::manifest::{Document, Index};
use oci::{Descriptor, Digest, ImageConfig, Platform, media_type};
use serde::{Deserialize, Serialize};

use crate::Store;
use crate::copy::{Origin, Place, Target, deliver, open};
use crate::error::{Error, Result};
use crate::image::{canonical, parse};
use crate::registry::Options;
use crate::transport::checked::small;
use crate::transport::copy::{Select, describe, fetch, parse as parse_manifest};
use crate::transport::made::{Made, document};
use crate::transport::recast::{Recast, recast};
use crate::transport::{Location, Source};

/// An index that is being put together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// Its name, in full.
    pub name: String,
    /// What will be pushed.
    pub index: Index,
    /// Where each manifest was found, by its digest.
    pub members: BTreeMap<Digest, Member>,
}

/// Where a manifest of a draft was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The place, pinned to a digest where it can be.
    pub location: String,
    /// As it was given.
    pub given: String,
}

/// An entry that is to be added to a draft.
#[derive(Debug, Clone)]
pub struct Addition {
    descriptor: Descriptor,
    member: Member,
}

/// What `annotate` changes; what is not given stays.
#[derive(Debug, Clone, Default)]
pub struct Annotate {
    /// Operating system.
    pub os: Option<String>,
    /// Go's name of the architecture.
    pub architecture: Option<String>,
    /// Of the architecture.
    pub variant: Option<String>,
    /// Windows build number.
    pub os_version: Option<String>,
    /// Required features.
    pub os_features: Vec<String>,
    /// Added to those that are there.
    pub annotations: BTreeMap<String, String>,
}

/// What becomes of a draft that was begun before, when one of its name is to be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It is in the way.
    Refuse,
    /// It goes.
    Replace,
    /// It is gone on with; annotations are added to its own.
    GoOn,
}

/// The drafts of a store.
pub struct Drafts<'a>(pub &'a Store);

impl Drafts<'_> {
    /// Begins a draft, or does with one of that name as is said.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NameInvalid`].
    pub fn create(&self, name: &str, annotations: BTreeMap<String, String>, begun: Begun) -> Result<Draft> {
        let name = canonical(&parse(name)?);
        let index = Index { annotations, ..Index::new(Vec::new()) };
        let mut draft = Draft { name: name.clone(), index, members: BTreeMap::new() };
        let _lock = self.lock()?;
        if self.path(&name).exists() {
            match begun {
                Begun::Refuse => return Err(Error::Exists { what: "index", name }),
                Begun::Replace => {}
                Begun::GoOn => {
                    let known = self.get(&name)?;
                    let added = std::mem::replace(&mut draft, known).index.annotations;
                    draft.index.annotations.extend(added);
                }
            }
        }
        self.write(&draft)?;
        Ok(draft)
    }

    /// Changes a draft.
    ///
    /// # Errors
    /// [`Error::NotFound`] and the change's own.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Draft) -> Result<()>) -> Result<Draft> {
        let _lock = self.lock()?;
        let mut draft = self.get(name)?;
        change(&mut draft)?;
        self.write(&draft)?;
        Ok(draft)
    }

    /// One draft.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Record`] for a damaged one.
    pub fn get(&self, name: &str) -> Result<Draft> {
        let name = canonical(&parse(name)?);
        let path = self.path(&name);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::Record { what: format!("index {name}"), problem: e.to_string() }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::not_found("index", name)),
            Err(e) => Err(Error::io("read", path)(e)),
        }
    }

    /// All drafts that read well, by name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<Draft>> {
        let dir = self.dir();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("list", dir)(e)),
        };
        let mut drafts = Vec::new();
        for entry in entries.flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "json")) {
            let path = entry.path();
            match std::fs::read(&path).map(|bytes| serde_json::from_slice::<Draft>(&bytes)) {
                Ok(Ok(draft)) => drafts.push(draft),
                problem => tracing::warn!(path = %path.display(), ?problem, "left out"),
            }
        }
        drafts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(drafts)
    }

    /// Forgets a draft.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove(&self, name: &str) -> Result<()> {
        let name = canonical(&parse(name)?);
        let path = self.path(&name);
        let _lock = self.lock()?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::not_found("index", name)),
            other => other.map_err(Error::io("remove", path)),
        }
    }

    fn dir(&self) -> PathBuf {
        self.0.root().join("indexes")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir().join(format!("{}.json", Digest::of(name.as_bytes()).hex()))
    }

    fn lock(&self) -> Result<statedir::Lock> {
        let dir = self.dir();
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let path = dir.join("lock");
        statedir::Lock::acquire(&path).map_err(Error::state(path))
    }

    fn write(&self, draft: &Draft) -> Result<()> {
        let path = self.path(&draft.name);
        let bytes = serde_json::to_vec(draft).map_err(|e| Error::manifest(&draft.name, e))?;
        statedir::atomic_write(&path, &bytes, 0o600).map_err(Error::state(&path))
    }
}

impl Draft {
    /// Puts entries in; one of the same digest is replaced.
    pub fn add(&mut self, additions: Vec<Addition>) {
        for Addition { descriptor, member } in additions {
            self.index.manifests.retain(|entry| entry.digest != descriptor.digest);
            self.members.insert(descriptor.digest.clone(), member);
            self.index.manifests.push(descriptor);
        }
    }

    /// The entry that is meant: by digest, the beginning of one, or as it was given.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::IdAmbiguous`] when several fit.
    pub fn find(&self, text: &str) -> Result<Digest> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let fits = |digest: &Digest, member: &Member| {
            digest.as_str() == text
                || (hex.len() >= 4 && digest.hex().starts_with(hex))
                || member.given == text
                || member.location == text
                || member.given.trim_start_matches("docker://") == text.trim_start_matches("docker://")
        };
        let found: Vec<&Digest> = self.members.iter().filter(|(d, m)| fits(d, m)).map(|(digest, _)| digest).collect();
        match found.as_slice() {
            [] => Err(Error::not_found("manifest of the index", text)),
            [one] => Ok((*one).clone()),
            many => Err(Error::IdAmbiguous { prefix: text.into(), count: many.len() }),
        }
    }

    /// Takes an entry out.
    ///
    /// # Errors
    /// Those of [`Draft::find`].
    pub fn remove(&mut self, text: &str) -> Result<()> {
        let digest = self.find(text)?;
        self.index.manifests.retain(|entry| entry.digest != digest);
        self.members.remove(&digest);
        Ok(())
    }

    /// Changes what the index says of an entry; without one, the index's own annotations.
    ///
    /// # Errors
    /// Those of [`Draft::find`]; [`Error::NameInvalid`] for a platform of the index itself.
    pub fn annotate(&mut self, text: Option<&str>, new: Annotate) -> Result<()> {
        let Some(text) = text else {
            let platform = new.os.or(new.architecture).or(new.variant).or(new.os_version);
            if let Some(name) = platform.or(new.os_features.into_iter().next()) {
                let problem = "an index has no platform; name one of its manifests".into();
                return Err(Error::NameInvalid { what: "annotation", name, problem });
            }
            self.index.annotations.extend(new.annotations);
            return Ok(());
        };
        let digest = self.find(text)?;
        for entry in self.index.manifests.iter_mut().filter(|entry| entry.digest == digest) {
            annotate(entry, &new);
        }
        Ok(())
    }
}

fn annotate(entry: &mut Descriptor, new: &Annotate) {
    entry.annotations.extend(new.annotations.clone());
    let unnamed = Platform::new("linux", "", "");
    let mut platform = entry.platform.clone().unwrap_or(unnamed);
    let set = |field: &mut String, value: &Option<String>| {
        if let Some(value) = value {
            field.clone_from(value);
        }
    };
    set(&mut platform.os, &new.os);
    set(&mut platform.architecture, &new.architecture);
    set(&mut platform.variant, &new.variant);
    set(&mut platform.os_version, &new.os_version);
    if !new.os_features.is_empty() {
        platform.os_features.clone_from(&new.os_features);
    }
    if !platform.architecture.is_empty() {
        entry.platform = Some(platform);
    }
}

/// What an image contributes to an index: itself, or each image of an index, if `platforms` has it or is empty.
///
/// # Errors
/// Those of the source; [`Error::PlatformMissing`] when nothing is left.
pub async fn additions(
    origin: &Origin,
    given: &str,
    platforms: &[Platform],
    place: Place<'_>,
) -> Result<Vec<Addition>> {
    let source = open(origin, true, place).await?;
    let what = source.describe();
    let root = source.root().await?;
    let entries = match parse_manifest(&root, &what)? {
        Document::Index(index) => index.manifests,
        Document::Manifest(manifest) => {
            let mut descriptor = describe(&root);
            if media_type::is_config(&manifest.config.media_type) {
                let bytes = small(source.as_ref(), &manifest.config, "config", &what).await?;
                let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|e| Error::manifest(&what, e))?;
                descriptor.platform = Some(config.platform());
            }
            vec![descriptor]
        }
    };
    let wanted = |entry: &Descriptor| {
        let fits = |want: &Platform| entry.platform.as_ref().is_some_and(|have| want.match_rank(have).is_some());
        platforms.is_empty() || platforms.iter().any(fits)
    };
    let additions: Vec<Addition> = entries
        .into_iter()
        .filter(wanted)
        .map(|descriptor| {
            let location = pinned(&origin.location, &root.digest).to_string();
            Addition { descriptor, member: Member { location, given: given.into() } }
        })
        .collect();
    if additions.is_empty() {
        let platform = platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::PlatformMissing { what, platform, available: "others".into() });
    }
    Ok(additions)
}

/// The place of a digest rather than of a name that may be moved, with a path that does not depend on where one stands.
fn pinned(location: &Location, digest: &Digest) -> Location {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    match location {
        Location::Registry(reference) => Location::Registry(reference.with_digest(digest.clone())),
        Location::OciLayout { path, .. } => {
            Location::OciLayout { path: absolute(path), name: Some(digest.to_string()) }
        }
        Location::OciArchive { path, .. } => {
            Location::OciArchive { path: absolute(path), name: Some(digest.to_string()) }
        }
        Location::DockerArchive { path, name } => Location::DockerArchive { path: absolute(path), name: name.clone() },
        Location::Dir { path } => Location::Dir { path: absolute(path) },
        Location::Store(name) => Location::Store(name.clone()),
    }
}

/// The index of a draft as something to be copied: its members are read where they were found.
///
/// # Errors
/// [`Error::NameInvalid`] for an empty draft; those of the members' places.
pub async fn source(draft: &Draft, registry: &Options, place: Place<'_>) -> Result<Made> {
    if draft.index.manifests.is_empty() {
        let problem = "nothing was added to it".into();
        return Err(Error::NameInvalid { what: "index", name: draft.name.clone(), problem });
    }
    let mut made = Made::new(&draft.name, document(&draft.index, media_type::INDEX, &draft.name)?);
    for entry in &draft.index.manifests {
        let member = draft.members.get(&entry.digest).ok_or_else(|| Error::Record {
            what: format!("index {}", draft.name),
            problem: format!("it does not say where {} is", entry.digest),
        })?;
        let origin = Origin { location: member.location.parse()?, registry: registry.clone() };
        let source: Arc<dyn Source> = open(&origin, true, place).await?.into();
        let root = source.root().await?;
        let raw = if root.digest == entry.digest { root } else { fetch(source.as_ref(), entry, &draft.name).await? };
        made.adopt(&source, raw).await?;
    }
    Ok(made)
}

/// Copies all images of a draft, and its index, to a target. Gives the index's digest.
///
/// # Errors
/// Those of [`source`] and of the target.
pub async fn push(draft: &Draft, registry: &Options, to: &Target, how: Recast, place: Place<'_>) -> Result<Digest> {
    how.check()?;
    let made = source(draft, registry, place).await?;
    if how.is_none() {
        return Ok(deliver(&made, to, &Select::All, false, place).await?.root.digest);
    }
    let made = recast(Arc::new(made), &Select::All, how, place.scratch, place.reporter).await?;
    Ok(deliver(&made, to, &Select::All, false, place).await?.root.digest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addition(text: &str) -> Addition {
        Addition {
            descriptor: Descriptor::of(media_type::MANIFEST, text.as_bytes()),
            member: Member { location: format!("oci:/l:{text}"), given: format!("docker://h/{text}") },
        }
    }

    #[test]
    fn a_draft_is_changed_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let drafts = Drafts(&store);
        drafts.create("app:1", BTreeMap::new(), Begun::Refuse).unwrap();
        assert!(matches!(drafts.create("app:1", BTreeMap::new(), Begun::Refuse), Err(Error::Exists { .. })));
        drafts
            .change("app:1", |draft| {
                draft.add(vec![addition("a"), addition("b"), addition("a")]);
                Ok(())
            })
            .unwrap();
        let arm = Annotate { architecture: Some("arm64".into()), ..Annotate::default() };
        drafts.change("app:1", |draft| draft.annotate(Some("h/a"), arm)).unwrap();
        let draft = drafts.change("app:1", |draft| draft.remove("docker://h/b")).unwrap();
        assert_eq!(draft, drafts.get("docker.io/library/app:1").unwrap());
        assert_eq!(draft.index.manifests.len(), 1);
        assert_eq!(draft.index.manifests[0].platform.as_ref().unwrap().to_string(), "linux/arm64");
        assert!(drafts.change("app:1", |draft| draft.remove("b")).is_err(), "it is gone");
        assert_eq!(drafts.list().unwrap().len(), 1);
        drafts.remove("app:1").unwrap();
        assert!(matches!(drafts.remove("app:1"), Err(Error::NotFound { .. })));
    }
}
