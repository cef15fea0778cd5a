//! gRPC in and out: converts, calls, maps the error. A composed verb runs in a task of its own: a caller that goes away
//! does not leave it half done.
use crate::container::{commit, connect, create, inspect, list, publish, remove, restart, start, stop};
use crate::engine::Engine;
use crate::error::Error;
use crate::events;
use crate::system::{info, prune, usage};
use api::engine::v1::create_container_response::Payload;
use api::engine::v1::engine_service_server::EngineService;
use api::engine::v1::{
    CommitContainerRequest, CommitContainerResponse, ConnectNetworkRequest, ConnectNetworkResponse,
    CreateContainerRequest, CreateContainerResponse, DisconnectNetworkRequest, DisconnectNetworkResponse,
    DiskUsageRequest, DiskUsageResponse, InfoRequest, InfoResponse, InspectContainerRequest, InspectContainerResponse,
    ListContainersRequest, ListContainersResponse, PruneRequest, PruneResponse, RemoveContainerRequest,
    RemoveContainerResponse, RestartContainerRequest, RestartContainerResponse, StartContainerRequest,
    StartContainerResponse, StopContainerRequest, StopContainerResponse, StreamEventsRequest, StreamEventsResponse,
    UpdatePublishedPortsRequest, UpdatePublishedPortsResponse, VersionRequest, VersionResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// `pier.engine.v1.EngineService`.
pub struct Service {
    engine: Engine,
}

impl Service {
    /// Serves this engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    // To its end, whether the caller waits or not.
    async fn whole<T, F, Fut>(&self, verb: F) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: FnOnce(Engine) -> Fut,
        Fut: Future<Output = Result<T, Error>> + Send + 'static,
    {
        match tokio::spawn(verb(self.engine.clone())).await {
            Ok(result) => Ok(Response::new(result?)),
            Err(error) => {
                let failure = rpc::Failure::new(rpc::Code::Internal, "DEFECT", "the engine failed").with_cause(&error);
                Err(failure.into())
            }
        }
    }
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl EngineService for Service {
    type CreateContainerStream = Answers<CreateContainerResponse>;
    type StreamEventsStream = Answers<StreamEventsResponse>;

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<Self::CreateContainerStream>, Status> {
        let config = request.into_inner().config.unwrap_or_default();
        let (sender, receiver) = mpsc::channel(64);
        let engine = self.engine.clone();
        tokio::spawn(async move {
            let answers = sender.clone();
            let progress = move |update| {
                // Progress that nobody takes in time is stale.
                let _ = answers.try_send(Ok(CreateContainerResponse { payload: Some(Payload::Progress(update)) }));
            };
            let answer = match create::create(&engine, config, &progress, sender.closed()).await {
                Ok(result) => {
                    let id = result.id.clone();
                    let message = CreateContainerResponse { payload: Some(Payload::Result(result)) };
                    if sender.send(Ok(message)).await.is_err() {
                        tracing::info!(container = %id, "made for a caller that has gone");
                    }
                    return;
                }
                Err(error) => error,
            };
            let _ = sender.send(Err(answer.into())).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<Response<StartContainerResponse>, Status> {
        let r = request.into_inner();
        let terminal = (r.terminal_width, r.terminal_height);
        self.whole(
            |engine| async move { Ok(StartContainerResponse { pid: start::start(&engine, &r.id, terminal).await? }) },
        )
        .await
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Result<Response<StopContainerResponse>, Status> {
        let r = request.into_inner();
        self.whole(|engine| async move {
            stop::stop(&engine, &r.id, &r.signal, r.timeout_seconds).await?;
            Ok(StopContainerResponse {})
        })
        .await
    }

    async fn restart_container(
        &self,
        request: Request<RestartContainerRequest>,
    ) -> Result<Response<RestartContainerResponse>, Status> {
        let r = request.into_inner();
        self.whole(|engine| async move {
            restart::restart(&engine, &r.id, &r.signal, r.timeout_seconds).await?;
            Ok(RestartContainerResponse {})
        })
        .await
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Result<Response<RemoveContainerResponse>, Status> {
        let r = request.into_inner();
        self.whole(|engine| async move {
            Ok(RemoveContainerResponse { warnings: remove::remove(&engine, &r.id, r.force, r.volumes).await? })
        })
        .await
    }

    async fn inspect_container(
        &self,
        request: Request<InspectContainerRequest>,
    ) -> Result<Response<InspectContainerResponse>, Status> {
        let r = request.into_inner();
        let container = inspect::inspect(&self.engine, &r.id, r.with_size).await?;
        Ok(Response::new(InspectContainerResponse { container: Some(container) }))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        Ok(Response::new(list::list(&self.engine, request.into_inner()).await?))
    }

    async fn commit_container(
        &self,
        request: Request<CommitContainerRequest>,
    ) -> Result<Response<CommitContainerResponse>, Status> {
        let r = request.into_inner();
        self.whole(|engine| async move { Ok(CommitContainerResponse { image_id: commit::commit(&engine, r).await? }) })
            .await
    }

    async fn connect_network(
        &self,
        request: Request<ConnectNetworkRequest>,
    ) -> Result<Response<ConnectNetworkResponse>, Status> {
        let r = request.into_inner();
        self.whole(|engine| async move {
            connect::connect(&engine, &r.container, r.attachment.unwrap_or_default()).await?;
            Ok(ConnectNetworkResponse {})
        })
        .await
    }

    async fn disconnect_network(
        &self,
        request: Request<DisconnectNetworkRequest>,
    ) -> Result<Response<DisconnectNetworkResponse>, Status> {
        let r = request.into_inner();
        self.whole(|engine| async move {
            connect::disconnect(&engine, &r.container, &r.network, r.force).await?;
            Ok(DisconnectNetworkResponse {})
        })
        .await
    }

    async fn update_published_ports(
        &self,
        request: Request<UpdatePublishedPortsRequest>,
    ) -> Result<Response<UpdatePublishedPortsResponse>, Status> {
        let r = request.into_inner();
        self.whole(
            |engine| async move { Ok(UpdatePublishedPortsResponse { ports: publish::update(&engine, r).await? }) },
        )
        .await
    }

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let filter = request.into_inner().filter.unwrap_or_default();
        Ok(Response::new(ReceiverStream::new(events::merged(&self.engine, filter))))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(info::info(&self.engine).await))
    }

    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(info::version()))
    }

    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        Ok(Response::new(usage::usage(&self.engine).await?))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<PruneResponse>, Status> {
        let r = request.into_inner();
        self.whole(|engine| async move { prune::prune(&engine, r).await }).await
    }
}
