//! The calls on locations: registries, layouts, archives. Each converts and calls what the verb of that name calls.

use api::distribution::v1 as pb;
use oci::Platform;

use super::{location, stream::Send};
use crate::artifact::{self, Input, Referrer};
use crate::convert;
use crate::copy::{Origin, Place, Target, look, open, open_image};
use crate::error::{Error, Result};
use crate::flatten::{Flatten, flatten};
use crate::image::parse;
use crate::index::{self, Annotate, Begun, Draft, Drafts, additions};
use crate::layer::Compression;
use crate::mutate::{Mutate, mutate};
use crate::progress::Reporter;
use crate::rebase::{Rebase, rebase};
use crate::registry::Options;
use crate::search;
use crate::sync::{self, Done, Filter, From, Item, Sync};
use crate::transport::Location;
use crate::transport::copy::describe;
use crate::transport::pump::blocking;
use crate::transport::recast::Recast;
use crate::{Store, sync::To};

/// What the calls stand on.
pub(super) struct Ground {
    pub store: Store,
    pub registry: Options,
}

fn text(given: String) -> Option<String> {
    Some(given).filter(|text| !text.is_empty())
}

/// What the wire says in place of a command line's flags.
pub(super) fn read_recast(from: Option<pb::Recast>) -> Result<Recast> {
    let from = from.unwrap_or_default();
    let recast = Recast {
        compression: text(from.compression).map(|name| Compression::parse(&name)).transpose()?,
        level: from.level,
        format: text(from.format).map(|name| name.parse()).transpose()?,
    };
    recast.check()?;
    Ok(recast)
}

impl Ground {
    pub fn place<'a>(&'a self, reporter: &'a Reporter) -> Place<'a> {
        Place { store: Some(&self.store), scratch: self.store.root(), reporter }
    }

    pub fn options(&self, from: Option<pb::RegistryOptions>) -> Options {
        convert::registry(from, &self.registry)
    }

    fn origin(&self, from: Option<pb::Origin>) -> Result<Origin> {
        let from = from.unwrap_or_default();
        Ok(Origin { location: location(&from.location)?, registry: self.options(from.registry) })
    }

    fn target(&self, from: Option<pb::Target>) -> Result<Target> {
        let from = from.unwrap_or_default();
        Ok(Target {
            location: location(&from.location)?,
            registry: self.options(from.registry),
            additional_tags: from.additional_tags,
        })
    }

    pub async fn inspect(self, from: pb::InspectLocationRequest) -> Result<pb::InspectLocationResponse> {
        let reporter = Reporter::silent();
        let (origin, platform) = (self.origin(from.origin)?, from.platform.map(convert::read_platform));
        if from.digest_only {
            let digest = crate::copy::digest(&origin, platform.as_ref(), self.place(&reporter)).await?;
            return Ok(pb::InspectLocationResponse { digest: digest.to_string(), ..Default::default() });
        }
        let source = match (&origin.location, &platform) {
            (Location::Store(_), Some(_)) => open_image(&origin, platform.as_ref(), self.place(&reporter)).await?,
            _ => open(&origin, true, self.place(&reporter)).await?,
        };
        if from.root_only {
            let root = source.root().await?;
            return Ok(pb::InspectLocationResponse {
                digest: root.digest.to_string(),
                media_type: describe(&root).media_type,
                raw: root.bytes,
                ..Default::default()
            });
        }
        let look = look(source.as_ref(), &platform.unwrap_or_else(Platform::host)).await?;
        Ok(pb::InspectLocationResponse {
            digest: look.root.digest.to_string(),
            media_type: describe(&look.root).media_type,
            raw: look.root.bytes,
            manifest: Some(convert::descriptor(&look.descriptor)),
            raw_manifest: look.raw.bytes,
            config: look.config,
        })
    }

    pub async fn delete(self, from: pb::DeleteRemoteRequest) -> Result<pb::DeleteRemoteResponse> {
        use crate::delete::{Deleted, delete};
        let options = self.options(from.registry);
        Ok(match delete(&parse(&from.reference)?, from.manifest, &options).await? {
            Deleted::Tag(tag) => pb::DeleteRemoteResponse { tag, digest: String::new() },
            Deleted::Manifest(digest) => pb::DeleteRemoteResponse { digest: digest.to_string(), tag: String::new() },
        })
    }

    pub async fn repositories(self, from: pb::ListRepositoriesRequest) -> Result<pb::ListRepositoriesResponse> {
        let registry = crate::registry::Registry::open(&from.registry, &self.options(from.options)).await?;
        Ok(pb::ListRepositoriesResponse { repositories: registry.catalog().await? })
    }

    pub async fn search(self, from: pb::SearchImagesRequest) -> Result<pb::SearchImagesResponse> {
        let limit = match from.limit {
            0 => search::LIMIT,
            given => usize::try_from(given).unwrap_or(0),
        };
        let filters = search::Filters::parse(&convert::filters(from.filters))?;
        let found = search::search(&from.term, limit, &filters, &self.options(from.registry)).await?;
        let repository = |found: search::Found| pb::FoundRepository {
            name: found.name,
            description: found.description,
            stars: i64::try_from(found.stars).unwrap_or(i64::MAX),
            official: found.official,
            automated: found.automated,
        };
        Ok(pb::SearchImagesResponse { repositories: found.into_iter().map(repository).collect() })
    }

    pub async fn sync(self, from: pb::SyncRequest, send: Send<pb::SyncResponse>) -> Result<()> {
        let wanted = Sync {
            to: absolute(from.destination.parse()?)?,
            registry: self.options(from.destination_registry),
            scoped: from.scoped,
            all_platforms: from.all_platforms,
            platform: from.platform.map(convert::read_platform),
            preserve_digests: from.preserve_digests,
            referrers: from.referrers,
        };
        let some = |text: &'_ str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (regex, exclude, range) = (some(&from.tag_regex), some(&from.tag_exclude), some(&from.tag_semver));
        let filter = Filter::new(regex.as_deref(), exclude.as_deref(), range.as_deref())?;
        let registry = self.options(from.source_registry);
        let reports = send.clone();
        let reporter = Reporter::new(move |update| {
            let progress = pb::sync_response::Payload::Progress(convert::progress(update));
            reports(pb::SyncResponse { payload: Some(progress) });
        });
        for source in &from.sources {
            let source = From::read(source, &registry, &filter, |path| {
                let path = convert::path(path)?;
                std::fs::read_to_string(&path).map_err(Error::io("read", path))
            })?;
            for item in sync::plan(&source, &wanted).await? {
                let (state, digest, error) = if from.dry_run {
                    ("would_copy", String::new(), String::new())
                } else {
                    match sync::run(&item, &wanted, self.place(&reporter)).await {
                        Ok(Done::Copied(digest)) => ("copied", digest.to_string(), String::new()),
                        Ok(Done::UpToDate(digest)) => ("up_to_date", digest.to_string(), String::new()),
                        Err(error) if from.keep_going => ("failed", String::new(), error.to_string()),
                        Err(error) => return Err(error),
                    }
                };
                let Item { source, destination } = item;
                let (source, destination) = (source.location.to_string(), destination.to_string());
                let item = pb::SyncItem { source, destination, state: state.into(), digest, error };
                send(pb::SyncResponse { payload: Some(pb::sync_response::Payload::Item(item)) });
            }
        }
        Ok(())
    }

    pub async fn referrers(self, from: pb::ListReferrersRequest) -> Result<pb::ListReferrersResponse> {
        let (reporter, kind) = (Reporter::silent(), text(from.artifact_type));
        let (origin, platform) = (self.origin(from.origin)?, from.platform.map(convert::read_platform));
        let place = self.place(&reporter);
        let (subject, found) = artifact::discover(&origin, kind.as_deref(), platform.as_ref(), place).await?;
        let referrers = found.iter().map(referrer).collect();
        Ok(pb::ListReferrersResponse { subject: Some(convert::descriptor(&subject)), referrers })
    }

    pub async fn push_artifact(
        self,
        from: pb::PushArtifactRequest,
        reporter: Reporter,
    ) -> Result<api::types::v1::Descriptor> {
        let input = |file: pb::ArtifactFile| -> Result<Input> {
            Ok(Input { path: convert::path(&file.path)?, media_type: file.media_type })
        };
        let wanted = artifact::Push {
            files: from.files.into_iter().map(input).collect::<Result<_>>()?,
            artifact_type: from.artifact_type,
            annotations: from.annotations.into_iter().collect(),
            config: from.config.map(input).transpose()?,
            destination: self.target(from.target)?,
            attach: from.attach,
            platform: from.platform.map(convert::read_platform),
        };
        Ok(convert::descriptor(&artifact::push(&wanted, self.place(&reporter)).await?))
    }

    pub async fn pull_artifact(
        self,
        from: pb::PullArtifactRequest,
        reporter: Reporter,
    ) -> Result<pb::PullArtifactResult> {
        let (origin, path) = (self.origin(from.origin)?, convert::path(&from.path)?);
        let pulled = artifact::pull(&origin, &path, from.replace, self.place(&reporter)).await?;
        Ok(pb::PullArtifactResult {
            digest: pulled.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            files: pulled.written.iter().map(|path| path.display().to_string()).collect(),
            skipped: pulled.skipped.iter().map(ToString::to_string).collect(),
        })
    }

    pub async fn edit_index(self, from: pb::EditIndexRequest) -> Result<pb::EditIndexResponse> {
        let (reporter, platforms) = (Reporter::silent(), from.platforms.into_iter().map(convert::read_platform));
        let platforms: Vec<Platform> = platforms.collect();
        let mut added = Vec::new();
        // Everything is found before anything is changed.
        for origin in from.add {
            let given = origin.location.clone();
            let origin = self.origin(Some(origin))?;
            added.extend(additions(&origin, &given, &platforms, self.place(&reporter)).await?);
        }
        let draft = blocking(move || {
            let drafts = Drafts(&self.store);
            if from.create {
                let begun = match (from.amend, from.replace) {
                    (true, _) => Begun::GoOn,
                    (_, true) => Begun::Replace,
                    _ => Begun::Refuse,
                };
                drafts.create(&from.name, Default::default(), begun)?;
            }
            drafts.change(&from.name, |draft| {
                draft.add(added);
                for annotation in from.annotate {
                    let image = text(annotation.image.clone());
                    draft.annotate(image.as_deref(), read_annotation(annotation))?;
                }
                from.remove.iter().try_for_each(|image| draft.remove(image))
            })
        });
        Ok(pb::EditIndexResponse { index: Some(image_index(draft.await?)) })
    }

    pub async fn list_indexes(self) -> Result<pb::ListIndexesResponse> {
        let drafts = blocking(move || Drafts(&self.store).list()).await?;
        Ok(pb::ListIndexesResponse { indexes: drafts.into_iter().map(image_index).collect() })
    }

    pub async fn delete_index(self, name: String) -> Result<pb::DeleteIndexResponse> {
        blocking(move || Drafts(&self.store).remove(&name)).await?;
        Ok(pb::DeleteIndexResponse {})
    }

    pub async fn push_index(self, from: pb::PushIndexRequest, reporter: Reporter) -> Result<pb::CopyResult> {
        let draft = Drafts(&self.store).get(&from.name)?;
        let mut target = from.target.unwrap_or_default();
        if target.location.is_empty() {
            target.location = Location::Registry(parse(&draft.name)?).to_string();
        }
        let (target, recast) = (self.target(Some(target))?, read_recast(from.recast)?);
        let registry = self.options(from.source_registry);
        let digest = index::push(&draft, &registry, &target, recast, self.place(&reporter)).await?;
        Ok(pb::CopyResult { digest: digest.to_string() })
    }

    pub async fn flatten(self, from: pb::FlattenImageRequest, reporter: Reporter) -> Result<pb::CopyResult> {
        let wanted = Flatten {
            source: self.origin(from.origin)?,
            destination: self.target(from.target)?,
            platform: from.platform.map(convert::read_platform),
            compression: Compression::parse(&from.compression)?,
        };
        let digest = flatten(&wanted, &self.store, self.place(&reporter)).await?;
        Ok(pb::CopyResult { digest: digest.to_string() })
    }

    pub async fn rebase(self, from: pb::RebaseImageRequest, reporter: Reporter) -> Result<pb::CopyResult> {
        let base = |from: Option<pb::Origin>| from.map(|origin| self.origin(Some(origin))).transpose();
        let wanted = Rebase {
            source: self.origin(from.origin)?,
            old_base: base(from.old_base)?,
            new_base: base(from.new_base)?,
            destination: self.target(from.target)?,
            platform: from.platform.map(convert::read_platform),
        };
        Ok(pb::CopyResult { digest: rebase(&wanted, self.place(&reporter)).await?.to_string() })
    }

    pub async fn mutate(self, from: pb::MutateImageRequest, reporter: Reporter) -> Result<pb::CopyResult> {
        let wanted = Mutate {
            source: self.origin(from.origin)?,
            destination: self.target(from.target)?,
            platform: from.platform.map(convert::read_platform),
            changes: from.changes,
            annotations: from.annotations.into_iter().collect(),
            append: from.append.iter().map(|path| convert::path(path)).collect::<Result<_>>()?,
            created: text(from.created),
        };
        Ok(pb::CopyResult { digest: mutate(&wanted, self.place(&reporter)).await?.to_string() })
    }

    pub async fn diff(self, from: pb::DiffImagesRequest) -> Result<pb::DiffImagesResponse> {
        let changes = crate::difference::difference(&self.store, &from.old, &from.new).await?;
        Ok(pb::DiffImagesResponse { changes: changes.into_iter().map(convert::change).collect() })
    }
}

fn absolute(to: To) -> Result<To> {
    if let To::Dirs(path) | To::Layout(path) = &to {
        convert::path(&path.display().to_string())?;
    }
    Ok(to)
}

fn referrer(from: &Referrer) -> pb::Referrer {
    pb::Referrer {
        descriptor: Some(convert::descriptor(&from.descriptor)),
        referrers: from.referrers.iter().map(referrer).collect(),
    }
}

fn image_index(draft: Draft) -> pb::ImageIndex {
    pb::ImageIndex {
        name: draft.name,
        manifests: draft.index.manifests.iter().map(convert::descriptor).collect(),
        annotations: draft.index.annotations.into_iter().collect(),
    }
}

fn read_annotation(from: pb::IndexAnnotation) -> Annotate {
    let platform = from.platform.unwrap_or_default();
    Annotate {
        os: text(platform.os),
        architecture: text(platform.architecture),
        variant: text(platform.variant),
        os_version: text(platform.os_version),
        os_features: platform.os_features,
        annotations: from.annotations.into_iter().collect(),
    }
}
