//! gRPC in and out: convert, call, map the error. What blocks runs on threads for that; a stream whose client has gone ends
//! its work.

mod local;
mod stream;

use std::path::PathBuf;

use api::distribution::v1 as pb;
use api::distribution::v1::distribution_service_server::DistributionService;
use oci::Digest;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::error::{Error, Result};
use crate::layer::Compression;
use crate::pull::Lease;
use crate::registry::{Credentials, MANIFEST_MAX, Registry};
use crate::snapshot::Commit;
use crate::transport::Location;
use crate::transport::pump::blocking;
use crate::{Store, check, copy, create, events, gc, image, import, login, pull, push, save, trust};
use local::{check_platform, prepare};
use stream::Streaming;

type Reply<T> = Result<Response<T>, Status>;

/// The service over one store.
pub struct Service {
    store: Store,
    registry: crate::registry::Options,
}

fn fail(error: Error) -> Status {
    rpc::status(&error)
}

fn reply<T>(message: T) -> Reply<T> {
    Ok(Response::new(message))
}

/// A stream's message that carries progress or the result.
macro_rules! payload {
    ($response:ident, $module:ident) => {
        (
            |progress| pb::$response { payload: Some(pb::$module::Payload::Progress(progress)) },
            |result| pb::$response { payload: Some(pb::$module::Payload::Result(result)) },
        )
    };
}

mod locations;
mod trusted;

impl Service {
    /// `registry`: configuration of registries, and credentials for callers that name none.
    #[must_use]
    pub fn new(store: Store, registry: crate::registry::Options) -> Self {
        Self { store, registry }
    }

    /// The policy that says which images are let in.
    #[must_use]
    pub fn trusting(self, trust: trust::Setting) -> Self {
        Self { registry: crate::registry::Options { trust, ..self.registry }, ..self }
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.store.clone();
        blocking(move || work(&store)).await.map_err(fail)
    }

    fn ground(&self) -> locations::Ground {
        locations::Ground { store: self.store.clone(), registry: self.registry.clone() }
    }

    fn registry(&self, options: Option<pb::RegistryOptions>) -> crate::registry::Options {
        convert::registry(options, &self.registry)
    }
}

impl Service {
    /// Collects what a removal gave up, without its caller waiting.
    fn collect_behind(&self, released: gc::Reached) {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = gc::automatic::after_removal(&store, released) {
                tracing::warn!(%error, "what was removed stays until the next collection");
            }
        });
    }
}

/// Collects garbage by itself, as long as this is polled.
pub async fn collect_by_itself(store: Store, how: gc::automatic::Automatic) {
    let mut last = std::time::Instant::now();
    loop {
        tokio::time::sleep(gc::automatic::LOOK.min(how.interval)).await;
        let (store, since) = (store.clone(), last.elapsed());
        match blocking(move || gc::automatic::turn(&store, &how, since)).await {
            Ok(None) => {}
            Ok(Some(report)) => {
                last = std::time::Instant::now();
                tracing::debug!(bytes = report.reclaimed_bytes, "collected garbage");
            }
            Err(error) => tracing::warn!(%error, "cannot collect garbage"),
        }
    }
}

async fn image_message(store: &Store, record: crate::ImageRecord) -> Result<pb::Image> {
    let store = store.clone();
    blocking(move || convert::image(&store, &record)).await
}

fn removed_result(removed: image::Removed) -> pb::RemoveImageResponse {
    pb::RemoveImageResponse { untagged: removed.untagged, deleted: removed.deleted }
}

/// A location whose path does not depend on where the service was started.
fn location(text: &str) -> Result<Location> {
    grounded(text.parse()?)
}

fn grounded(location: Location) -> Result<Location> {
    match &location {
        Location::OciLayout { path, .. }
        | Location::OciArchive { path, .. }
        | Location::DockerArchive { path, .. }
        | Location::Dir { path } => convert::path(&path.display().to_string()).map(|_| location),
        Location::Registry(_) | Location::Store(_) => Ok(location),
    }
}

#[tonic::async_trait]
impl DistributionService for Service {
    type PullStream = Streaming<pb::PullResponse>;
    type PushStream = Streaming<pb::PushResponse>;
    type CopyStream = Streaming<pb::CopyResponse>;
    type SaveStream = Streaming<pb::SaveResponse>;
    type LoadStream = Streaming<pb::LoadResponse>;
    type ImportStream = Streaming<pb::ImportResponse>;
    type CheckStream = Streaming<pb::CheckResponse>;
    type StreamEventsStream = Streaming<pb::StreamEventsResponse>;
    type SyncStream = Streaming<pb::SyncResponse>;
    type PushArtifactStream = Streaming<pb::PushArtifactResponse>;
    type PullArtifactStream = Streaming<pb::PullArtifactResponse>;
    type PushIndexStream = Streaming<pb::PushIndexResponse>;
    type FlattenImageStream = Streaming<pb::FlattenImageResponse>;
    type RebaseImageStream = Streaming<pb::RebaseImageResponse>;
    type MutateImageStream = Streaming<pb::MutateImageResponse>;

    async fn pull(&self, request: Request<pb::PullRequest>) -> Reply<Self::PullStream> {
        let from = request.into_inner();
        let wanted = pull::Pull {
            reference: image::parse(&from.reference).map_err(fail)?,
            platform: from.platform.map(convert::read_platform),
            registry: self.registry(from.registry),
            all_platforms: from.all_platforms,
            no_unpack: from.no_unpack,
            policy: from.policy.parse().map_err(fail)?,
            lease: Some(from.lease).filter(|lease| !lease.is_empty()),
        };
        let store = self.store.clone();
        reply(Streaming::run(payload!(PullResponse, pull_response), async move |reporter| {
            let pulled = pull::pull(&store, &wanted, &reporter).await?;
            let image = Some(image_message(&store, pulled.image).await?);
            Ok(pb::PullResult { image, digest: pulled.digest.to_string(), changed: pulled.changed })
        }))
    }

    async fn push(&self, request: Request<pb::PushRequest>) -> Reply<Self::PushStream> {
        let from = request.into_inner();
        let destination = Some(from.destination).filter(|name| !name.is_empty());
        let wanted = push::Push {
            reference: from.reference,
            destination: destination.as_deref().map(image::parse).transpose().map_err(fail)?,
            registry: self.registry(from.registry),
            all_platforms: from.all_platforms,
        };
        let store = self.store.clone();
        reply(Streaming::run(payload!(PushResponse, push_response), async move |reporter| {
            let pushed = push::push(&store, &wanted, &reporter).await?;
            let size_bytes = i64::try_from(pushed.size_bytes).unwrap_or(i64::MAX);
            Ok(pb::PushResult { digest: pushed.digest.to_string(), size_bytes })
        }))
    }

    async fn copy(&self, request: Request<pb::CopyRequest>) -> Reply<Self::CopyStream> {
        let from = request.into_inner();
        let source = copy::Origin {
            location: location(&from.source).map_err(fail)?,
            registry: self.registry(from.source_registry),
        };
        let destination = copy::Target {
            location: location(&from.destination).map_err(fail)?,
            registry: self.registry(from.destination_registry),
            additional_tags: from.additional_tags,
        };
        let wanted = copy::Copy {
            all_platforms: from.all_platforms,
            platform: from.platform.map(convert::read_platform),
            preserve_digests: from.preserve_digests,
            referrers: from.referrers,
            recast: locations::read_recast(from.recast).map_err(fail)?,
            ..copy::Copy::new(source, destination)
        };
        let store = self.store.clone();
        reply(Streaming::run(payload!(CopyResponse, copy_response), async move |reporter| {
            let place = copy::Place { store: Some(&store), scratch: store.root(), reporter: &reporter };
            let digest = copy::copy(&wanted, place).await?;
            Ok(pb::CopyResult { digest: digest.to_string() })
        }))
    }

    async fn list_images(&self, request: Request<pb::ListImagesRequest>) -> Reply<pb::ListImagesResponse> {
        let filters = convert::filters(request.into_inner().filters);
        let response = self.call(move |store| {
            let mut response = pb::ListImagesResponse::default();
            for record in image::list(store, &filters)? {
                // One damaged image does not hide the others.
                match convert::image(store, &record) {
                    Ok(image) => response.images.push(image),
                    Err(error) => response.warnings.push(format!("{}: {error}", record.config)),
                }
            }
            Ok(response)
        });
        reply(response.await?)
    }

    async fn get_image(&self, request: Request<pb::GetImageRequest>) -> Reply<pb::GetImageResponse> {
        let pb::GetImageRequest { reference, platform } = request.into_inner();
        let wanted = platform.map(convert::read_platform);
        let response = self.call(move |store| {
            let (record, _) = image::find(store, &reference)?;
            check_platform(&record, wanted.as_ref(), &reference)?;
            let raw_manifest = store.content().read(&record.target.digest, MANIFEST_MAX)?;
            Ok(pb::GetImageResponse { image: Some(convert::image(store, &record)?), raw_manifest })
        });
        reply(response.await?)
    }

    async fn tag_image(&self, request: Request<pb::TagImageRequest>) -> Reply<pb::TagImageResponse> {
        let pb::TagImageRequest { source, target } = request.into_inner();
        self.call(move |store| image::tag(store, &source, &target)).await?;
        reply(pb::TagImageResponse {})
    }

    async fn remove_image(&self, request: Request<pb::RemoveImageRequest>) -> Reply<pb::RemoveImageResponse> {
        let pb::RemoveImageRequest { reference, force } = request.into_inner();
        let removed = self.call(move |store| image::remove(store, &reference, force)).await?;
        self.collect_behind(removed.released.clone());
        reply(removed_result(removed))
    }

    async fn prune_images(&self, request: Request<pb::PruneImagesRequest>) -> Reply<pb::PruneImagesResponse> {
        let pb::PruneImagesRequest { all, filters } = request.into_inner();
        let filters = convert::filters(filters);
        let (removed, report) =
            self.call(move |store| Ok((image::prune(store, all, &filters)?, gc::collect(store, false)?))).await?;
        let reclaimed_bytes = i64::try_from(report.reclaimed_bytes).unwrap_or(i64::MAX);
        reply(pb::PruneImagesResponse { untagged: removed.untagged, deleted: removed.deleted, reclaimed_bytes })
    }

    async fn save(&self, request: Request<pb::SaveRequest>) -> Reply<Self::SaveStream> {
        let from = request.into_inner();
        let path = convert::path(&from.path).map_err(fail)?;
        let format = from.format.parse().map_err(fail)?;
        let store = self.store.clone();
        reply(Streaming::run(payload!(SaveResponse, save_response), async move |reporter| {
            let size = save::save(&store, &from.references, &path, format, &reporter).await?;
            Ok(pb::SaveResult { size_bytes: i64::try_from(size).unwrap_or(i64::MAX) })
        }))
    }

    async fn load(&self, request: Request<pb::LoadRequest>) -> Reply<Self::LoadStream> {
        let path = convert::path(&request.into_inner().path).map_err(fail)?;
        let (store, trust) = (self.store.clone(), self.registry.trust.clone());
        reply(Streaming::run(payload!(LoadResponse, load_response), async move |reporter| {
            let mut images = Vec::new();
            for record in save::load(&store, &path, &trust, &reporter).await? {
                images.push(image_message(&store, record).await?);
            }
            Ok(pb::LoadResult { images })
        }))
    }

    async fn import(&self, request: Request<pb::ImportRequest>) -> Reply<Self::ImportStream> {
        let from = request.into_inner();
        let wanted = import::Import {
            path: convert::path(&from.path).map_err(fail)?,
            reference: from.reference,
            changes: from.changes,
            message: from.message,
            platform: from.platform.map(convert::read_platform),
            lease: String::new(),
        };
        let store = self.store.clone();
        reply(Streaming::run(payload!(ImportResponse, import_response), async move |reporter| {
            let lease = Lease::of(&store, None).await?;
            let (writer, id) = (store.clone(), lease.id().to_owned());
            let record = blocking(move || import::import(&writer, &wanted, &id, &reporter)).await?;
            Ok(pb::ImportResult { image: Some(image_message(&store, record).await?) })
        }))
    }

    async fn export(&self, request: Request<pb::ExportRequest>) -> Reply<pb::ExportResponse> {
        let from = request.into_inner();
        let path = convert::path(&from.path).map_err(fail)?;
        let size = self.call(move |store| match from.snapshot.as_str() {
            "" => import::export_image(store, &from.reference, &path),
            key => import::export_snapshot(store, key, &path),
        });
        reply(pb::ExportResponse { size_bytes: i64::try_from(size.await?).unwrap_or(i64::MAX) })
    }

    async fn list_tags(&self, request: Request<pb::ListTagsRequest>) -> Reply<pb::ListTagsResponse> {
        let from = request.into_inner();
        let reference = image::parse(&from.repository).map_err(fail)?;
        let options = self.registry(from.registry);
        let registry = Registry::open(reference.registry(), &options).await.map_err(|e| fail(e.into()))?;
        let tags = registry.tags(reference.repository()).await.map_err(|e| fail(e.into()))?;
        reply(pb::ListTagsResponse { tags })
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Reply<pb::LoginResponse> {
        let pb::LoginRequest { registry, options } = request.into_inner();
        let mut options = self.registry(options);
        let missing = |what: &'static str| {
            let problem = "it is needed for a login".into();
            fail(Error::NameInvalid { what, name: String::new(), problem })
        };
        let given: Credentials = options.credentials.take().ok_or_else(|| missing("user name"))?;
        let file = options.auth_file.take().or_else(crate::registry::credentials::docker_file);
        let file = file.ok_or_else(|| missing("credentials file"))?;
        login::login(&registry, &options, &file, &given).await.map_err(fail)?;
        reply(pb::LoginResponse {})
    }

    async fn logout(&self, request: Request<pb::LogoutRequest>) -> Reply<pb::LogoutResponse> {
        let pb::LogoutRequest { registry, auth_file } = request.into_inner();
        let given = Some(auth_file).filter(|file| !file.is_empty()).map(PathBuf::from);
        if let Some(file) =
            given.or_else(|| self.registry.auth_file.clone()).or_else(crate::registry::credentials::docker_file)
        {
            crate::registry::credentials::erase(&file, &registry).await.map_err(|e| fail(e.into()))?;
        }
        reply(pb::LogoutResponse {})
    }

    async fn read_blob(&self, request: Request<pb::ReadBlobRequest>) -> Reply<pb::ReadBlobResponse> {
        let digest = convert::digest(&request.into_inner().digest).map_err(fail)?;
        let data = self.call(move |store| store.content().read(&digest, MANIFEST_MAX)).await?;
        reply(pb::ReadBlobResponse { data })
    }

    async fn write_blob(&self, request: Request<pb::WriteBlobRequest>) -> Reply<pb::WriteBlobResponse> {
        let from = request.into_inner();
        if from.data.len() as u64 > MANIFEST_MAX {
            let problem = format!("{} bytes, at most {MANIFEST_MAX} are taken", from.data.len());
            return Err(fail(Error::NameInvalid { what: "blob", name: from.media_type, problem }));
        }
        let descriptor = self
            .call(move |store| {
                let lease = Some(from.lease.as_str()).filter(|lease| !lease.is_empty());
                store.content().write(&from.data, &from.media_type, lease)
            })
            .await?;
        reply(pb::WriteBlobResponse { descriptor: Some(convert::descriptor(&descriptor)) })
    }

    async fn create_image(&self, request: Request<pb::CreateImageRequest>) -> Reply<pb::CreateImageResponse> {
        let from = request.into_inner();
        let layers = from.layers.into_iter().map(convert::read_descriptor).collect::<Result<_>>().map_err(fail)?;
        let wanted = create::Create {
            reference: from.reference,
            tags: from.tags,
            config: from.config,
            layers,
            annotations: from.annotations.into_iter().collect(),
            lease: from.lease,
        };
        let image = self.call(move |store| convert::image(store, &create::create(store, &wanted)?)).await?;
        reply(pb::CreateImageResponse { image: Some(image) })
    }

    async fn prepare_snapshot(
        &self,
        request: Request<pb::PrepareSnapshotRequest>,
    ) -> Reply<pb::PrepareSnapshotResponse> {
        let from = request.into_inner();
        let lease = Lease::of(&self.store, Some(&from.lease)).await.map_err(fail)?;
        let id = lease.id().to_owned();
        let response = self.call(move |store| prepare(store, &from, &id));
        reply(response.await?)
    }

    async fn mount_snapshot(&self, request: Request<pb::MountSnapshotRequest>) -> Reply<pb::MountSnapshotResponse> {
        let key = request.into_inner().key;
        let (snapshot, mounts) = self.call(move |store| store.snapshots().mounts(&key)).await?;
        let mounts = mounts.into_iter().map(convert::mount).collect();
        reply(pb::MountSnapshotResponse { snapshot: Some(convert::snapshot(snapshot)), mounts })
    }

    async fn list_snapshots(&self, request: Request<pb::ListSnapshotsRequest>) -> Reply<pb::ListSnapshotsResponse> {
        let with_size = request.into_inner().with_size;
        let snapshots = self.call(move |store| store.snapshots().list(with_size)).await?;
        reply(pb::ListSnapshotsResponse { snapshots: snapshots.into_iter().map(convert::snapshot).collect() })
    }

    async fn remove_snapshot(&self, request: Request<pb::RemoveSnapshotRequest>) -> Reply<pb::RemoveSnapshotResponse> {
        let key = request.into_inner().key;
        self.call(move |store| store.snapshots().remove(&key)).await?;
        reply(pb::RemoveSnapshotResponse {})
    }

    async fn commit_snapshot(&self, request: Request<pb::CommitSnapshotRequest>) -> Reply<pb::CommitSnapshotResponse> {
        let from = request.into_inner();
        let committed = self
            .call(move |store| {
                let compression = match from.compression.as_str() {
                    "" => Compression::default(),
                    text => Compression::parse(text)?,
                };
                let lease = Some(from.lease.as_str()).filter(|lease| !lease.is_empty());
                let source_date_epoch = from.source_date_epoch;
                store.snapshots().commit(&from.key, Commit { compression, keep: from.keep, source_date_epoch, lease })
            })
            .await?;
        reply(committed.map_or_else(pb::CommitSnapshotResponse::default, |layer| pb::CommitSnapshotResponse {
            layer: Some(convert::descriptor(&layer.descriptor)),
            diff_id: layer.diff_id.to_string(),
            changed: true,
        }))
    }

    async fn diff_snapshot(&self, request: Request<pb::DiffSnapshotRequest>) -> Reply<pb::DiffSnapshotResponse> {
        let key = request.into_inner().key;
        let changes = self.call(move |store| store.snapshots().diff(&key)).await?;
        reply(pb::DiffSnapshotResponse { changes: changes.into_iter().map(convert::change).collect() })
    }

    async fn create_lease(&self, request: Request<pb::CreateLeaseRequest>) -> Reply<pb::CreateLeaseResponse> {
        let from = request.into_inner();
        let lease = self.call(move |store| {
            let ttl = u64::try_from(from.ttl_seconds).unwrap_or(0);
            let id = Some(from.id.as_str()).filter(|id| !id.is_empty());
            store.leases().create(id, ttl, &from.labels.into_iter().collect())
        });
        reply(pb::CreateLeaseResponse { id: lease.await?.id })
    }

    async fn delete_lease(&self, request: Request<pb::DeleteLeaseRequest>) -> Reply<pb::DeleteLeaseResponse> {
        let id = request.into_inner().id;
        self.call(move |store| store.leases().delete(&id)).await?;
        reply(pb::DeleteLeaseResponse {})
    }

    async fn collect_garbage(&self, request: Request<pb::CollectGarbageRequest>) -> Reply<pb::CollectGarbageResponse> {
        let pb::CollectGarbageRequest { dry_run, abandoned } = request.into_inner();
        let policy = gc::Policy { dry_run, abandoned, ..gc::Policy::default() };
        let report = self.call(move |store| gc::run(store, &policy)).await?;
        let texts = |digests: Vec<Digest>| digests.into_iter().map(String::from).collect();
        reply(pb::CollectGarbageResponse {
            removed_blobs: texts(report.removed_blobs),
            removed_layers: texts(report.removed_layers),
            reclaimed_bytes: i64::try_from(report.reclaimed_bytes).unwrap_or(i64::MAX),
        })
    }

    async fn disk_usage(&self, request: Request<pb::DiskUsageRequest>) -> Reply<pb::DiskUsageResponse> {
        let detail = request.into_inner().detail;
        reply(convert::usage(self.call(Store::usage_detail).await?, detail))
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Reply<Self::CheckStream> {
        let repair = request.into_inner().repair;
        let store = self.store.clone();
        reply(Streaming::items(async move |send| {
            blocking(move || {
                check::run(&store, repair, |finding| {
                    send(pb::CheckResponse {
                        object: finding.object,
                        ok: finding.problem.is_none(),
                        problem: finding.problem.unwrap_or_default(),
                        repaired: finding.repaired,
                    });
                })
            })
            .await
        }))
    }

    async fn info(&self, _: Request<pb::InfoRequest>) -> Reply<pb::InfoResponse> {
        let response = self.call(|store| {
            let (snapshotter, notes) = store.snapshotter()?;
            Ok(pb::InfoResponse {
                version: env!("CARGO_PKG_VERSION").into(),
                root: store.root().display().to_string(),
                snapshotter: snapshotter.into(),
                notes,
            })
        });
        reply(response.await?)
    }

    async fn stream_events(&self, request: Request<pb::StreamEventsRequest>) -> Reply<Self::StreamEventsStream> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let filters = convert::filters(filter.filters);
        let since = if filter.since_unix_nano == 0 { events::now() } else { filter.since_unix_nano };
        let until = filter.until_unix_nano;
        let mut follow = events::Journal::open(self.store.root()).follow(since).map_err(fail)?;
        reply(Streaming::items(async move |send| {
            loop {
                for event in follow.read()? {
                    let in_time = until == 0 || event.time_unix_nano <= until;
                    if in_time && convert::event_passes(&event, &filters) {
                        send(pb::StreamEventsResponse { event: Some(convert::event(event)) });
                    }
                }
                let left = u64::try_from(until - events::now()).ok();
                match (until, left) {
                    (0, _) => follow.changed().await?,
                    (_, None) => return Ok(()),
                    (_, Some(nanos)) => {
                        let _ = tokio::time::timeout(std::time::Duration::from_nanos(nanos), follow.changed()).await;
                    }
                }
            }
        }))
    }

    async fn inspect_location(
        &self,
        request: Request<pb::InspectLocationRequest>,
    ) -> Reply<pb::InspectLocationResponse> {
        reply(self.ground().inspect(request.into_inner()).await.map_err(fail)?)
    }

    async fn delete_remote(&self, request: Request<pb::DeleteRemoteRequest>) -> Reply<pb::DeleteRemoteResponse> {
        reply(self.ground().delete(request.into_inner()).await.map_err(fail)?)
    }

    async fn list_repositories(
        &self,
        request: Request<pb::ListRepositoriesRequest>,
    ) -> Reply<pb::ListRepositoriesResponse> {
        reply(self.ground().repositories(request.into_inner()).await.map_err(fail)?)
    }

    async fn sync(&self, request: Request<pb::SyncRequest>) -> Reply<Self::SyncStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::items(async move |send| ground.sync(from, send).await))
    }

    async fn list_referrers(&self, request: Request<pb::ListReferrersRequest>) -> Reply<pb::ListReferrersResponse> {
        reply(self.ground().referrers(request.into_inner()).await.map_err(fail)?)
    }

    async fn push_artifact(&self, request: Request<pb::PushArtifactRequest>) -> Reply<Self::PushArtifactStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::run(payload!(PushArtifactResponse, push_artifact_response), async move |reporter| {
            ground.push_artifact(from, reporter).await
        }))
    }

    async fn pull_artifact(&self, request: Request<pb::PullArtifactRequest>) -> Reply<Self::PullArtifactStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::run(payload!(PullArtifactResponse, pull_artifact_response), async move |reporter| {
            ground.pull_artifact(from, reporter).await
        }))
    }

    async fn edit_index(&self, request: Request<pb::EditIndexRequest>) -> Reply<pb::EditIndexResponse> {
        reply(self.ground().edit_index(request.into_inner()).await.map_err(fail)?)
    }

    async fn list_indexes(&self, _: Request<pb::ListIndexesRequest>) -> Reply<pb::ListIndexesResponse> {
        reply(self.ground().list_indexes().await.map_err(fail)?)
    }

    async fn delete_index(&self, request: Request<pb::DeleteIndexRequest>) -> Reply<pb::DeleteIndexResponse> {
        reply(self.ground().delete_index(request.into_inner().name).await.map_err(fail)?)
    }

    async fn push_index(&self, request: Request<pb::PushIndexRequest>) -> Reply<Self::PushIndexStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::run(payload!(PushIndexResponse, push_index_response), async move |reporter| {
            ground.push_index(from, reporter).await
        }))
    }

    async fn flatten_image(&self, request: Request<pb::FlattenImageRequest>) -> Reply<Self::FlattenImageStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::run(payload!(FlattenImageResponse, flatten_image_response), async move |reporter| {
            ground.flatten(from, reporter).await
        }))
    }

    async fn rebase_image(&self, request: Request<pb::RebaseImageRequest>) -> Reply<Self::RebaseImageStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::run(payload!(RebaseImageResponse, rebase_image_response), async move |reporter| {
            ground.rebase(from, reporter).await
        }))
    }

    async fn mutate_image(&self, request: Request<pb::MutateImageRequest>) -> Reply<Self::MutateImageStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::run(payload!(MutateImageResponse, mutate_image_response), async move |reporter| {
            ground.mutate(from, reporter).await
        }))
    }

    async fn sign_image(&self, request: Request<pb::SignImageRequest>) -> Reply<pb::SignImageResponse> {
        reply(self.ground().sign(request.into_inner()).await.map_err(fail)?)
    }

    async fn verify_image(&self, request: Request<pb::VerifyImageRequest>) -> Reply<pb::VerifyImageResponse> {
        reply(self.ground().verify(request.into_inner()).await.map_err(fail)?)
    }

    async fn list_attestations(
        &self,
        request: Request<pb::ListAttestationsRequest>,
    ) -> Reply<pb::ListAttestationsResponse> {
        reply(self.ground().attestations(request.into_inner()).await.map_err(fail)?)
    }

    async fn diff_images(&self, request: Request<pb::DiffImagesRequest>) -> Reply<pb::DiffImagesResponse> {
        reply(self.ground().diff(request.into_inner()).await.map_err(fail)?)
    }
}
