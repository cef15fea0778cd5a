//! gRPC in and out: convert, call, map the error. What blocks runs on threads for that; a stream whose client has gone ends
//! its work.

mod images;
mod locations;
mod snapshots;
mod stream;
mod trusted;
mod upkeep;

use std::path::PathBuf;

use api::distribution::v1 as pb;
use api::distribution::v1::distribution_service_server::DistributionService;
use tonic::{Request, Response, Status};

use crate::error::{Error, Result};
use crate::pull::Lease;
use crate::registry::{Credentials, Registry};
use crate::transport::Location;
use crate::transport::pump::blocking;
use crate::{Store, convert, gc, image, login, trust};
use stream::Streaming;
pub use upkeep::collect_by_itself;

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
        let (ground, from) = (self.ground(), request.into_inner());
        let wanted = ground.read_pull(from).map_err(fail)?;
        reply(Streaming::run(payload!(PullResponse, pull_response), async move |reporter| {
            ground.pull(wanted, reporter).await
        }))
    }

    async fn push(&self, request: Request<pb::PushRequest>) -> Reply<Self::PushStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        let wanted = ground.read_push(from).map_err(fail)?;
        reply(Streaming::run(payload!(PushResponse, push_response), async move |reporter| {
            ground.push(wanted, reporter).await
        }))
    }

    async fn copy(&self, request: Request<pb::CopyRequest>) -> Reply<Self::CopyStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        let wanted = ground.read_copy(from).map_err(fail)?;
        reply(Streaming::run(payload!(CopyResponse, copy_response), async move |reporter| {
            ground.copy(wanted, reporter).await
        }))
    }

    async fn list_images(&self, request: Request<pb::ListImagesRequest>) -> Reply<pb::ListImagesResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| images::list(store, from)).await?)
    }

    async fn get_image(&self, request: Request<pb::GetImageRequest>) -> Reply<pb::GetImageResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| images::get(store, from)).await?)
    }

    async fn tag_image(&self, request: Request<pb::TagImageRequest>) -> Reply<pb::TagImageResponse> {
        let pb::TagImageRequest { source, target } = request.into_inner();
        self.call(move |store| image::tag(store, &source, &target)).await?;
        reply(pb::TagImageResponse {})
    }

    async fn remove_image(&self, request: Request<pb::RemoveImageRequest>) -> Reply<pb::RemoveImageResponse> {
        let pb::RemoveImageRequest { reference, force, platform } = request.into_inner();
        let platform = platform.map(convert::read_platform);
        let removed = self.call(move |store| match &platform {
            Some(platform) => image::remove_platform(store, &reference, platform, force),
            None => image::remove(store, &reference, force),
        });
        let removed = removed.await?;
        self.collect_behind(removed.released);
        reply(pb::RemoveImageResponse { untagged: removed.untagged, deleted: removed.deleted })
    }

    async fn prune_images(&self, request: Request<pb::PruneImagesRequest>) -> Reply<pb::PruneImagesResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| images::prune(store, from)).await?)
    }

    async fn save(&self, request: Request<pb::SaveRequest>) -> Reply<Self::SaveStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::run(payload!(SaveResponse, save_response), async move |reporter| {
            ground.save(from, reporter).await
        }))
    }

    async fn load(&self, request: Request<pb::LoadRequest>) -> Reply<Self::LoadStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::run(payload!(LoadResponse, load_response), async move |reporter| {
            ground.load(from, reporter).await
        }))
    }

    async fn import(&self, request: Request<pb::ImportRequest>) -> Reply<Self::ImportStream> {
        let (ground, from) = (self.ground(), request.into_inner());
        reply(Streaming::run(payload!(ImportResponse, import_response), async move |reporter| {
            ground.import(from, reporter).await
        }))
    }

    async fn export(&self, request: Request<pb::ExportRequest>) -> Reply<pb::ExportResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| images::export(store, from)).await?)
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
        let from = request.into_inner();
        reply(self.call(move |store| upkeep::read_blob(store, &from)).await?)
    }

    async fn write_blob(&self, request: Request<pb::WriteBlobRequest>) -> Reply<pb::WriteBlobResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| upkeep::write_blob(store, from)).await?)
    }

    async fn create_image(&self, request: Request<pb::CreateImageRequest>) -> Reply<pb::CreateImageResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| images::create(store, from)).await?)
    }

    async fn prepare_snapshot(
        &self,
        request: Request<pb::PrepareSnapshotRequest>,
    ) -> Reply<pb::PrepareSnapshotResponse> {
        let from = request.into_inner();
        let lease = Lease::of(&self.store, Some(&from.lease)).await.map_err(fail)?;
        let id = lease.id().to_owned();
        reply(self.call(move |store| snapshots::prepare(store, &from, &id)).await?)
    }

    async fn mount_snapshot(&self, request: Request<pb::MountSnapshotRequest>) -> Reply<pb::MountSnapshotResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| snapshots::mounts(store, &from)).await?)
    }

    async fn list_snapshots(&self, request: Request<pb::ListSnapshotsRequest>) -> Reply<pb::ListSnapshotsResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| snapshots::list(store, from)).await?)
    }

    async fn remove_snapshot(&self, request: Request<pb::RemoveSnapshotRequest>) -> Reply<pb::RemoveSnapshotResponse> {
        let key = request.into_inner().key;
        self.call(move |store| store.snapshots().remove(&key)).await?;
        reply(pb::RemoveSnapshotResponse {})
    }

    async fn commit_snapshot(&self, request: Request<pb::CommitSnapshotRequest>) -> Reply<pb::CommitSnapshotResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| snapshots::commit(store, &from)).await?)
    }

    async fn diff_snapshot(&self, request: Request<pb::DiffSnapshotRequest>) -> Reply<pb::DiffSnapshotResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| snapshots::diff(store, &from)).await?)
    }

    async fn create_lease(&self, request: Request<pb::CreateLeaseRequest>) -> Reply<pb::CreateLeaseResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| upkeep::create_lease(store, from)).await?)
    }

    async fn delete_lease(&self, request: Request<pb::DeleteLeaseRequest>) -> Reply<pb::DeleteLeaseResponse> {
        let id = request.into_inner().id;
        self.call(move |store| store.leases().delete(&id)).await?;
        reply(pb::DeleteLeaseResponse {})
    }

    async fn collect_garbage(&self, request: Request<pb::CollectGarbageRequest>) -> Reply<pb::CollectGarbageResponse> {
        let from = request.into_inner();
        reply(self.call(move |store| upkeep::collect_garbage(store, from)).await?)
    }

    async fn disk_usage(&self, request: Request<pb::DiskUsageRequest>) -> Reply<pb::DiskUsageResponse> {
        let detail = request.into_inner().detail;
        reply(convert::usage(self.call(Store::usage_detail).await?, detail))
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Reply<Self::CheckStream> {
        let (store, repair) = (self.store.clone(), request.into_inner().repair);
        reply(Streaming::items(async move |send| blocking(move || upkeep::check(&store, repair, &send)).await))
    }

    async fn info(&self, _: Request<pb::InfoRequest>) -> Reply<pb::InfoResponse> {
        reply(self.call(upkeep::info).await?)
    }

    async fn stream_events(&self, request: Request<pb::StreamEventsRequest>) -> Reply<Self::StreamEventsStream> {
        let watch = upkeep::Watch::begin(&self.store, request.into_inner()).map_err(fail)?;
        reply(Streaming::items(async move |send| watch.run(send).await))
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

    async fn search_images(&self, request: Request<pb::SearchImagesRequest>) -> Reply<pb::SearchImagesResponse> {
        reply(self.ground().search(request.into_inner()).await.map_err(fail)?)
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
