//! gRPC in and out: convert, call, map the error.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::volume::v1::volume_service_server::VolumeService;
use api::volume::v1::{
    AcquireVolumeRequest, AcquireVolumeResponse, CreateVolumeRequest, CreateVolumeResponse, GetVolumeRequest,
    GetVolumeResponse, ListVolumesRequest, ListVolumesResponse, PruneVolumesRequest, PruneVolumesResponse,
    ReleaseVolumeRequest, ReleaseVolumeResponse, RemoveVolumeRequest, RemoveVolumeResponse, StreamEventsRequest,
    StreamEventsResponse,
};
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
        let wanted = convert::new_volume(request.into_inner());
        self.call(move |volumes| {
            let (volume, created) = volumes.create(wanted)?;
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
            let mount = volumes.acquire(&convert::acquire(request)?)?;
            Ok(AcquireVolumeResponse { mount: Some(convert::mount(mount)) })
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
        let now =
            i64::try_from(std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos())).unwrap_or(i64::MAX);
        let found = tokio::task::spawn_blocking(move || source.events_after(sequence)).await;
        let events = match found {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return give_up(&sender, &error).await,
            Err(_) => return,
        };
        for event in events {
            sequence = event.sequence;
            let late = filter.until_unix_nano > 0 && event.time_unix_nano > filter.until_unix_nano;
            if late || event.time_unix_nano < filter.since_unix_nano || !filter.admit(&event) {
                continue;
            }
            if sender.send(Ok(StreamEventsResponse { event: Some(convert::event(event)) })).await.is_err() {
                return;
            }
        }
        if filter.until_unix_nano > 0 && now > filter.until_unix_nano {
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
