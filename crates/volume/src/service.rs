//! gRPC in and out: convert, call, map the error.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::volume::v1::volume_service_server::VolumeService;
use api::volume::v1::*;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{Error, EventFilter, Result, Volumes, convert};

/// How often the events of other processes on the same root are looked for, while somebody listens.
const EVENT_INTERVAL: Duration = Duration::from_millis(200);

/// `pier.volume.v1.VolumeService` on one root.
#[derive(Clone)]
pub struct Service {
    volumes: Arc<Volumes>,
}

impl Service {
    /// Serves these volumes.
    #[must_use]
    pub fn new(volumes: Arc<Volumes>) -> Self {
        Self { volumes }
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Volumes) -> Result<T> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let volumes = Arc::clone(&self.volumes);
        match tokio::task::spawn_blocking(move || work(&volumes)).await {
            Ok(Ok(value)) => Ok(Response::new(value)),
            Ok(Err(error)) => Err(rpc::status(&error)),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}

#[tonic::async_trait]
impl VolumeService for Service {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let (volume, created) = volumes.create(convert::new_volume(request)?)?;
            Ok(CreateVolumeResponse { volume: Some(convert::volume(volume)), created })
        })
        .await
    }

    async fn get_volume(&self, request: Request<GetVolumeRequest>) -> Result<Response<GetVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let volume = volumes.get(&request.name, request.with_size)?;
            Ok(GetVolumeResponse { volume: Some(convert::volume(volume)) })
        })
        .await
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let listing = volumes.list(&convert::filters(&request.filters)?, request.with_size)?;
            let volumes = listing.volumes.into_iter().map(convert::volume).collect();
            Ok(ListVolumesResponse { volumes, warnings: listing.warnings })
        })
        .await
    }

    async fn remove_volume(
        &self,
        request: Request<RemoveVolumeRequest>,
    ) -> Result<Response<RemoveVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            volumes.remove(&request.name, request.force)?;
            Ok(RemoveVolumeResponse {})
        })
        .await
    }

    async fn prune_volumes(
        &self,
        request: Request<PruneVolumesRequest>,
    ) -> Result<Response<PruneVolumesResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let pruned = volumes.prune(request.all, &convert::filters(&request.filters)?)?;
            let reclaimed_bytes = i64::try_from(pruned.reclaimed_bytes).unwrap_or(i64::MAX);
            Ok(PruneVolumesResponse { removed: pruned.removed, reclaimed_bytes })
        })
        .await
    }

    async fn acquire_volume(
        &self,
        request: Request<AcquireVolumeRequest>,
    ) -> Result<Response<AcquireVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let wanted = convert::acquire(request)?;
            let mount = Some(convert::mount(volumes.acquire(&wanted)?));
            let volume = volumes.find(&wanted.name)?;
            Ok(AcquireVolumeResponse { mount, volume_id: volume.id, name: volume.name, driver: volume.driver })
        })
        .await
    }

    async fn release_volume(
        &self,
        request: Request<ReleaseVolumeRequest>,
    ) -> Result<Response<ReleaseVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let name = Some(request.name.as_str()).filter(|name| !name.is_empty());
            let released = volumes.release(&request.consumer, name, request.remove_anonymous)?;
            Ok(ReleaseVolumeResponse { released: released.released, removed: released.removed })
        })
        .await
    }

    async fn remount_volumes(
        &self,
        request: Request<RemountVolumesRequest>,
    ) -> Result<Response<RemountVolumesResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            volumes.remount(&request.consumer)?;
            Ok(RemountVolumesResponse {})
        })
        .await
    }

    async fn update_volume(
        &self,
        request: Request<UpdateVolumeRequest>,
    ) -> Result<Response<UpdateVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let name = request.name.clone();
            let volume = volumes.update(&name, &convert::changes(request)?)?;
            Ok(UpdateVolumeResponse { volume: Some(convert::volume(volume)) })
        })
        .await
    }

    async fn rename_volume(
        &self,
        request: Request<RenameVolumeRequest>,
    ) -> Result<Response<RenameVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let volume = volumes.rename(&request.name, &request.new_name)?;
            Ok(RenameVolumeResponse { volume: Some(convert::volume(volume)) })
        })
        .await
    }

    async fn clone_volume(
        &self,
        request: Request<CloneVolumeRequest>,
    ) -> Result<Response<CloneVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let labels = request.labels.into_iter().collect();
            let volume = volumes.clone_volume(&request.name, &request.new_name, labels)?;
            Ok(CloneVolumeResponse { volume: Some(convert::volume(volume)) })
        })
        .await
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let snapshot = volumes.snapshot(&request.volume, &request.name)?;
            Ok(CreateSnapshotResponse { snapshot: Some(convert::snapshot(snapshot)) })
        })
        .await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let found = volumes.snapshots(&request.volume)?;
            Ok(ListSnapshotsResponse { snapshots: found.into_iter().map(convert::snapshot).collect() })
        })
        .await
    }

    async fn remove_snapshot(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<RemoveSnapshotResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            volumes.remove_snapshot(&request.volume, &request.name)?;
            Ok(RemoveSnapshotResponse {})
        })
        .await
    }

    async fn restore_snapshot(
        &self,
        request: Request<RestoreSnapshotRequest>,
    ) -> Result<Response<RestoreSnapshotResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            volumes.restore(&request.volume, &request.name)?;
            Ok(RestoreSnapshotResponse {})
        })
        .await
    }

    async fn export_volume(
        &self,
        request: Request<ExportVolumeRequest>,
    ) -> Result<Response<ExportVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            match convert::place(request.path, request.artifact)? {
                convert::Place::File(path) => volumes.export_file(&request.name, &path)?,
                convert::Place::Artifact(location) => volumes.export_artifact(&request.name, &location)?,
            }
            Ok(ExportVolumeResponse {})
        })
        .await
    }

    async fn import_volume(
        &self,
        request: Request<ImportVolumeRequest>,
    ) -> Result<Response<ImportVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let volume = match convert::place(request.path, request.artifact)? {
                convert::Place::File(path) => volumes.import_file(&request.name, &path, request.replace)?,
                convert::Place::Artifact(from) => volumes.import_artifact(&request.name, &from, request.replace)?,
            };
            Ok(ImportVolumeResponse { volume: Some(convert::volume(volume)) })
        })
        .await
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let request = request.into_inner();
        self.call(move |volumes| {
            let findings = volumes.check(request.repair)?;
            Ok(CheckResponse { findings: findings.into_iter().map(convert::finding).collect() })
        })
        .await
    }

    async fn list_drivers(&self, _: Request<ListDriversRequest>) -> Result<Response<ListDriversResponse>, Status> {
        self.call(|volumes| {
            Ok(ListDriversResponse { drivers: volumes.drivers().into_iter().map(convert::driver).collect() })
        })
        .await
    }

    type StreamEventsStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<StreamEventsResponse, Status>> + Send>>;

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let filter = convert::event_filter(request.into_inner().filter.unwrap_or_default());
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let start = if filter.since_unix_nano > 0 { 0 } else { self.call(Volumes::last_event).await?.into_inner() };
        tokio::spawn(follow(Arc::clone(&self.volumes), filter, start, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

type Sender = tokio::sync::mpsc::Sender<Result<StreamEventsResponse, Status>>;

/// Sends what matches until the listener leaves or `until` has passed.
async fn follow(volumes: Arc<Volumes>, filter: EventFilter, mut sequence: i64, sender: Sender) {
    loop {
        let source = Arc::clone(&volumes);
        let over = filter.is_over();
        let found = tokio::task::spawn_blocking(move || source.events_after(sequence)).await;
        let events = match found {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return give_up(&sender, &error).await,
            Err(_) => return,
        };
        for event in events {
            sequence = event.sequence;
            if !filter.admit(&event) {
                continue;
            }
            if sender.send(Ok(StreamEventsResponse { event: Some(convert::event(event)) })).await.is_err() {
                return;
            }
        }
        if over {
            return;
        }
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(EVENT_INTERVAL) => {}
        }
    }
}

async fn give_up(sender: &Sender, error: &Error) {
    let _ = sender.send(Err(rpc::status(error))).await;
}
