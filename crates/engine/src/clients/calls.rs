//! Every call the engine makes of a tool, with its deadline in seconds. A call that could not be sent because the tool
//! had just gone is sent once more to the one that takes its place.
use super::Clients;
use crate::error::Error;
use crate::tools::Tool;
use api::builder::v1 as builder;
use api::distribution::v1 as distribution;
use api::network::v1 as network;
use api::supervisor::v1 as supervisor;
use api::volume::v1 as volume;
use std::error::Error as _;
use std::time::Duration;
use tonic::transport::Channel;

/// Lists of images with their configurations are large.
const LARGEST_ANSWER: usize = 64 << 20;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $tool:ident $package:ident::$client:ident::$kind:ident . $rpc:ident
        ($request:ident) -> $response:ident in $seconds:literal;)*) => {
        impl Clients {
            $($(#[$doc])*
            pub async fn $name(&self, request: $package::$request) -> Result<$package::$response, Error> {
                let call = stringify!($rpc);
                self.unary(Tool::$tool, call, $seconds, |channel| {
                    let request = request.clone();
                    async move {
                        $package::$client::$kind::new(channel)
                            .max_decoding_message_size(LARGEST_ANSWER)
                            .$rpc(request)
                            .await
                    }
                })
                .await
            })*
        }
    };
}

macro_rules! streams {
    ($($(#[$doc:meta])* $name:ident = $tool:ident $package:ident::$client:ident::$kind:ident . $rpc:ident
        ($request:ident) -> $response:ident;)*) => {
        impl Clients {
            $($(#[$doc])*
            pub async fn $name(
                &self,
                request: $package::$request,
            ) -> Result<tonic::Streaming<$package::$response>, Error> {
                let open = |channel: Channel| {
                    let request = request.clone();
                    async move { $package::$client::$kind::new(channel).$rpc(request).await }
                };
                // The first answer's headers come at once; the stream itself has no deadline.
                self.unary(Tool::$tool, stringify!($rpc), 60, open).await
            })*
        }
    };
}

calls! {
    /// Records a container.
    supervisor_create = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .create_container(CreateContainerRequest) -> CreateContainerResponse in 30;
    /// Starts its first process.
    supervisor_start = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .start_container(StartContainerRequest) -> StartContainerResponse in 120;
    /// Removes the record.
    supervisor_remove = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .remove_container(RemoveContainerRequest) -> RemoveContainerResponse in 60;
    /// One container.
    supervisor_get = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .get_container(GetContainerRequest) -> GetContainerResponse in 10;
    /// All containers.
    supervisor_list = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .list_containers(ListContainersRequest) -> ListContainersResponse in 20;
    /// Changes the extension.
    supervisor_update = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .update_container(UpdateContainerRequest) -> UpdateContainerResponse in 20;
    /// Freezes.
    supervisor_pause = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .pause_container(PauseContainerRequest) -> PauseContainerResponse in 20;
    /// Thaws.
    supervisor_unpause = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .unpause_container(UnpauseContainerRequest) -> UnpauseContainerResponse in 20;
    /// About the supervisor.
    supervisor_info = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .info(InfoRequest) -> InfoResponse in 10;

    /// One image.
    image_get = Distribution distribution::distribution_service_client::DistributionServiceClient
        .get_image(GetImageRequest) -> GetImageResponse in 20;
    /// All images.
    image_list = Distribution distribution::distribution_service_client::DistributionServiceClient
        .list_images(ListImagesRequest) -> ListImagesResponse in 30;
    /// Removes unused images.
    image_prune = Distribution distribution::distribution_service_client::DistributionServiceClient
        .prune_images(PruneImagesRequest) -> PruneImagesResponse in 600;
    /// A new image of existing layers.
    image_create = Distribution distribution::distribution_service_client::DistributionServiceClient
        .create_image(CreateImageRequest) -> CreateImageResponse in 60;
    /// A writable filesystem.
    snapshot_prepare = Distribution distribution::distribution_service_client::DistributionServiceClient
        .prepare_snapshot(PrepareSnapshotRequest) -> PrepareSnapshotResponse in 300;
    /// All snapshots.
    snapshot_list = Distribution distribution::distribution_service_client::DistributionServiceClient
        .list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse in 120;
    /// Gone after this.
    snapshot_remove = Distribution distribution::distribution_service_client::DistributionServiceClient
        .remove_snapshot(RemoveSnapshotRequest) -> RemoveSnapshotResponse in 120;
    /// A layer of what was written.
    snapshot_commit = Distribution distribution::distribution_service_client::DistributionServiceClient
        .commit_snapshot(CommitSnapshotRequest) -> CommitSnapshotResponse in 1800;
    /// Holds content from garbage collection.
    lease_create = Distribution distribution::distribution_service_client::DistributionServiceClient
        .create_lease(CreateLeaseRequest) -> CreateLeaseResponse in 10;
    /// Lets it go.
    lease_delete = Distribution distribution::distribution_service_client::DistributionServiceClient
        .delete_lease(DeleteLeaseRequest) -> DeleteLeaseResponse in 10;
    /// Space of images.
    distribution_usage = Distribution distribution::distribution_service_client::DistributionServiceClient
        .disk_usage(DiskUsageRequest) -> DiskUsageResponse in 120;
    /// About the store.
    distribution_info = Distribution distribution::distribution_service_client::DistributionServiceClient
        .info(InfoRequest) -> InfoResponse in 10;

    /// Makes a network.
    network_create = Network network::network_service_client::NetworkServiceClient
        .create_network(CreateNetworkRequest) -> CreateNetworkResponse in 30;
    /// One network.
    network_get = Network network::network_service_client::NetworkServiceClient
        .get_network(GetNetworkRequest) -> GetNetworkResponse in 10;
    /// Removes unused networks.
    network_prune = Network network::network_service_client::NetworkServiceClient
        .prune_networks(PruneNetworksRequest) -> PruneNetworksResponse in 120;
    /// A network namespace.
    namespace_create = Network network::network_service_client::NetworkServiceClient
        .create_namespace(CreateNamespaceRequest) -> CreateNamespaceResponse in 30;
    /// Gone after this, with its endpoints.
    namespace_remove = Network network::network_service_client::NetworkServiceClient
        .remove_namespace(RemoveNamespaceRequest) -> RemoveNamespaceResponse in 60;
    /// Wires a namespace to a network.
    network_attach = Network network::network_service_client::NetworkServiceClient
        .attach(AttachRequest) -> AttachResponse in 60;
    /// Undoes it.
    network_detach = Network network::network_service_client::NetworkServiceClient
        .detach(DetachRequest) -> DetachResponse in 60;
    /// Publishes and withdraws ports of an endpoint.
    endpoint_update_ports = Network network::network_service_client::NetworkServiceClient
        .update_ports(UpdatePortsRequest) -> UpdatePortsResponse in 60;
    /// Whether names lead to endpoints.
    network_health = Network network::network_service_client::NetworkServiceClient
        .set_health(SetHealthRequest) -> SetHealthResponse in 30;
    /// Endpoints of a network or an owner.
    endpoint_list = Network network::network_service_client::NetworkServiceClient
        .list_endpoints(ListEndpointsRequest) -> ListEndpointsResponse in 10;

    /// Makes a volume when it is missing.
    volume_create = Volume volume::volume_service_client::VolumeServiceClient
        .create_volume(CreateVolumeRequest) -> CreateVolumeResponse in 60;
    /// Removes a volume.
    volume_remove = Volume volume::volume_service_client::VolumeServiceClient
        .remove_volume(RemoveVolumeRequest) -> RemoveVolumeResponse in 120;
    /// All volumes.
    volume_list = Volume volume::volume_service_client::VolumeServiceClient
        .list_volumes(ListVolumesRequest) -> ListVolumesResponse in 120;
    /// Removes unused volumes.
    volume_prune = Volume volume::volume_service_client::VolumeServiceClient
        .prune_volumes(PruneVolumesRequest) -> PruneVolumesResponse in 600;
    /// Takes a reference, copies the image's content in.
    volume_acquire = Volume volume::volume_service_client::VolumeServiceClient
        .acquire_volume(AcquireVolumeRequest) -> AcquireVolumeResponse in 600;
    /// Mounts what a container holds, should it not be.
    volume_remount = Volume volume::volume_service_client::VolumeServiceClient
        .remount_volumes(RemountVolumesRequest) -> RemountVolumesResponse in 120;
    /// Gives references back.
    volume_release = Volume volume::volume_service_client::VolumeServiceClient
        .release_volume(ReleaseVolumeRequest) -> ReleaseVolumeResponse in 120;

    /// Space of the build cache.
    builder_usage = Builder builder::builder_service_client::BuilderServiceClient
        .disk_usage(DiskUsageRequest) -> DiskUsageResponse in 60;
    /// Empties the build cache.
    builder_prune = Builder builder::builder_service_client::BuilderServiceClient
        .prune(PruneRequest) -> PruneResponse in 600;
}

streams! {
    /// Brings an image into the store.
    image_pull = Distribution distribution::distribution_service_client::DistributionServiceClient
        .pull(PullRequest) -> PullResponse;
    /// What happens to containers.
    supervisor_events = Supervisor supervisor::supervisor_service_client::SupervisorServiceClient
        .stream_events(StreamEventsRequest) -> StreamEventsResponse;
    /// What happens to images.
    distribution_events = Distribution distribution::distribution_service_client::DistributionServiceClient
        .stream_events(StreamEventsRequest) -> StreamEventsResponse;
    /// What happens to networks.
    network_events = Network network::network_service_client::NetworkServiceClient
        .stream_events(StreamEventsRequest) -> StreamEventsResponse;
    /// What happens to volumes.
    volume_events = Volume volume::volume_service_client::VolumeServiceClient
        .stream_events(StreamEventsRequest) -> StreamEventsResponse;
}

impl Clients {
    /// Stops a container; waits as long as its own timeout says, and a little for the answer. Negative: for ever.
    pub async fn supervisor_stop(
        &self,
        request: supervisor::StopContainerRequest,
        timeout_seconds: i32,
    ) -> Result<supervisor::StopContainerResponse, Error> {
        const FOREVER: u64 = 365 * 24 * 3600;
        let seconds = u64::try_from(timeout_seconds).map_or(FOREVER, |s| s + 30);
        self.unary(Tool::Supervisor, "stop_container", seconds, |channel| {
            let request = request.clone();
            async move {
                supervisor::supervisor_service_client::SupervisorServiceClient::new(channel)
                    .stop_container(request)
                    .await
            }
        })
        .await
    }

    async fn unary<T, F, Fut>(&self, tool: Tool, call: &'static str, seconds: u64, send: F) -> Result<T, Error>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let attempt = async {
            let channel = self.channel(tool).await?;
            match send(channel).await {
                Err(status) if never_sent(&status) => {
                    self.remember(tool, None);
                    send(self.channel(tool).await?).await.map_err(|s| self.answered(tool, s))
                }
                answer => answer.map_err(|s| self.answered(tool, s)),
            }
        };
        match tokio::time::timeout(Duration::from_secs(seconds), attempt).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Error::Timeout { tool, call, seconds }),
        }
    }

    // A status without a reason is the transport's, not the tool's.
    fn answered(&self, tool: Tool, status: tonic::Status) -> Error {
        let failure = rpc::Failure::from(status);
        if failure.reason.is_empty() && failure.code == rpc::Code::Unavailable {
            return self.down(tool, failure);
        }
        Error::Tool { tool, failure }
    }
}

// The connection was refused: the request never left.
fn never_sent(status: &tonic::Status) -> bool {
    use std::io::ErrorKind;
    let mut next = status.source();
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound);
        }
        next = error.source();
    }
    false
}
