//! gRPC in and out: convert, call, map the error. The work blocks, so it runs on threads for that.

use std::pin::Pin;
use std::sync::Arc;

use api::network::v1 as pb;
use api::network::v1::network_service_server::NetworkService;
use futures::Stream;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::diagnose::Question;
use crate::endpoints::{Detach, Detached};
use crate::error::{Error, Result};
use crate::info::Info;
use crate::networks::Networks;
use crate::store::EndpointFilter;

/// The service over a stack's networks.
pub struct Service {
    networks: Arc<Networks>,
    changes: watch::Receiver<()>,
}

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    /// `changes` tells when the records changed; the streams of events follow it.
    #[must_use]
    pub fn new(networks: Arc<Networks>, changes: watch::Receiver<()>) -> Self {
        Self { networks, changes }
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Networks) -> Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let networks = self.networks.clone();
        match spawn_blocking(move || work(&networks)).await {
            Ok(result) => result.map_err(|error| rpc::status(&error)),
            Err(error) => Err(Status::internal(format!("the worker ended: {error}"))),
        }
    }
}

#[tonic::async_trait]
impl NetworkService for Service {
    async fn create_network(&self, request: Request<pb::CreateNetworkRequest>) -> Reply<pb::CreateNetworkResponse> {
        let request = request.into_inner();
        let network = self.call(move |networks| networks.create(request.try_into()?)).await?;
        Ok(Response::new(pb::CreateNetworkResponse { network: Some(network.into()) }))
    }

    async fn get_network(&self, request: Request<pb::GetNetworkRequest>) -> Reply<pb::GetNetworkResponse> {
        let name = request.into_inner().name;
        let (network, endpoints) = self.call(move |networks| networks.get(&name)).await?;
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::GetNetworkResponse { network: Some(network.into()), endpoints }))
    }

    async fn list_networks(&self, request: Request<pb::ListNetworksRequest>) -> Reply<pb::ListNetworksResponse> {
        let filters = convert::filters(request.into_inner().filters);
        let (networks, warnings) = self.call(move |networks| networks.list(&filters)).await?;
        let networks = networks.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListNetworksResponse { networks, warnings }))
    }

    async fn remove_network(&self, request: Request<pb::RemoveNetworkRequest>) -> Reply<pb::RemoveNetworkResponse> {
        let pb::RemoveNetworkRequest { name, force } = request.into_inner();
        self.call(move |networks| networks.remove(&name, force)).await?;
        Ok(Response::new(pb::RemoveNetworkResponse {}))
    }

    async fn prune_networks(&self, request: Request<pb::PruneNetworksRequest>) -> Reply<pb::PruneNetworksResponse> {
        let filters = convert::filters(request.into_inner().filters);
        let removed = self.call(move |networks| networks.prune(&filters)).await?;
        Ok(Response::new(pb::PruneNetworksResponse { removed }))
    }

    async fn create_namespace(
        &self,
        request: Request<pb::CreateNamespaceRequest>,
    ) -> Reply<pb::CreateNamespaceResponse> {
        let pb::CreateNamespaceRequest { key, sysctls } = request.into_inner();
        let sysctls = sysctls.into_iter().collect();
        let path = self.call(move |networks| networks.create_namespace(&key, &sysctls)).await?;
        Ok(Response::new(pb::CreateNamespaceResponse { path: path.to_string_lossy().into_owned() }))
    }

    async fn remove_namespace(
        &self,
        request: Request<pb::RemoveNamespaceRequest>,
    ) -> Reply<pb::RemoveNamespaceResponse> {
        let key = request.into_inner().key;
        for warning in self.call(move |networks| networks.remove_namespace(&key)).await? {
            tracing::warn!("{warning}");
        }
        Ok(Response::new(pb::RemoveNamespaceResponse {}))
    }

    async fn attach(&self, request: Request<pb::AttachRequest>) -> Reply<pb::AttachResponse> {
        let request = request.into_inner();
        if request.dry_run {
            let plan = self.call(move |networks| networks.plan_attach(&request.try_into()?)).await?;
            return Ok(Response::new(pb::AttachResponse { endpoint: None, plan }));
        }
        let endpoint = self.call(move |networks| networks.attach(&request.try_into()?)).await?;
        Ok(Response::new(pb::AttachResponse { endpoint: Some(endpoint.into()), plan: Vec::new() }))
    }

    async fn detach(&self, request: Request<pb::DetachRequest>) -> Reply<pb::DetachResponse> {
        let request = request.into_inner();
        if request.dry_run {
            let plan = self.call(move |networks| networks.plan_detach(&which(request)?)).await?;
            return Ok(Response::new(pb::DetachResponse { plan, ..Default::default() }));
        }
        let detached = self.call(move |networks| networks.detach(&which(request)?)).await?;
        let Detached { ids, warnings, .. } = detached;
        Ok(Response::new(pb::DetachResponse { detached: ids, warnings, plan: Vec::new() }))
    }

    async fn list_endpoints(&self, request: Request<pb::ListEndpointsRequest>) -> Reply<pb::ListEndpointsResponse> {
        let pb::ListEndpointsRequest { network, owner } = request.into_inner();
        let endpoints = self
            .call(move |networks| {
                let network = given(network).map(|name| networks.store().find_network(&name)).transpose()?;
                let network = network.map(|stored| stored.network.id);
                networks.endpoints(&EndpointFilter { network, owner: given(owner), ..EndpointFilter::default() })
            })
            .await?;
        Ok(Response::new(pb::ListEndpointsResponse { endpoints: endpoints.into_iter().map(Into::into).collect() }))
    }

    async fn update_ports(&self, request: Request<pb::UpdatePortsRequest>) -> Reply<pb::UpdatePortsResponse> {
        let pb::UpdatePortsRequest { endpoint_id, add, remove } = request.into_inner();
        let endpoint = self
            .call(move |networks| networks.update_ports(&endpoint_id, &convert::ports(add)?, &convert::ports(remove)?))
            .await?;
        Ok(Response::new(pb::UpdatePortsResponse { endpoint: Some(endpoint.into()) }))
    }

    async fn reconcile(&self, request: Request<pb::ReconcileRequest>) -> Reply<pb::ReconcileResponse> {
        let work = if request.into_inner().dry_run { Networks::check } else { Networks::reconcile };
        let mended = self.call(work).await?;
        Ok(Response::new(pb::ReconcileResponse { mended }))
    }

    async fn set_peers(&self, request: Request<pb::SetPeersRequest>) -> Reply<pb::SetPeersResponse> {
        let pb::SetPeersRequest { network, peers } = request.into_inner();
        let network = self.call(move |networks| networks.set_peers(&network, &convert::peers(&peers)?)).await?;
        Ok(Response::new(pb::SetPeersResponse { network: Some(network.into()) }))
    }

    async fn update_network(&self, request: Request<pb::UpdateNetworkRequest>) -> Reply<pb::UpdateNetworkResponse> {
        let request = request.into_inner();
        let name = request.name.clone();
        let network = self.call(move |networks| networks.update_network(&name, &request.try_into()?)).await?;
        Ok(Response::new(pb::UpdateNetworkResponse { network: Some(network.into()) }))
    }

    async fn set_health(&self, request: Request<pb::SetHealthRequest>) -> Reply<pb::SetHealthResponse> {
        let pb::SetHealthRequest { endpoint_id, owner, network, healthy } = request.into_inner();
        let which = which(pb::DetachRequest { endpoint_id, owner, network, ..Default::default() });
        let endpoints = self.call(move |networks| networks.set_health(&which?, healthy)).await?;
        Ok(Response::new(pb::SetHealthResponse { endpoints: endpoints.into_iter().map(Into::into).collect() }))
    }

    async fn get_statistics(&self, request: Request<pb::GetStatisticsRequest>) -> Reply<pb::GetStatisticsResponse> {
        let filter = EndpointFilter { owner: given(request.into_inner().owner), ..EndpointFilter::default() };
        let statistics = self.call(move |networks| networks.statistics(&filter)).await?;
        Ok(Response::new(pb::GetStatisticsResponse { statistics: statistics.into_iter().map(Into::into).collect() }))
    }

    async fn get_info(&self, _: Request<pb::GetInfoRequest>) -> Reply<pb::GetInfoResponse> {
        let Info { firewall, firewall_table, firewall_lacks } = self.call(|networks| Ok(networks.info())).await?;
        Ok(Response::new(pb::GetInfoResponse { firewall, firewall_table, firewall_lacks }))
    }

    async fn diagnose(&self, request: Request<pb::DiagnoseRequest>) -> Reply<pb::DiagnoseResponse> {
        let pb::DiagnoseRequest { target, name } = request.into_inner();
        let findings = self.call(move |networks| networks.diagnose(&Question { target, name })).await?;
        Ok(Response::new(pb::DiagnoseResponse { findings: findings.into_iter().map(Into::into).collect() }))
    }

    async fn create_policy(&self, request: Request<pb::CreatePolicyRequest>) -> Reply<pb::CreatePolicyResponse> {
        let policy = request.into_inner().policy.unwrap_or_default();
        let policy = self.call(move |networks| networks.create_policy(policy.try_into()?)).await?;
        Ok(Response::new(pb::CreatePolicyResponse { policy: Some(policy.into()) }))
    }

    async fn list_policies(&self, _request: Request<pb::ListPoliciesRequest>) -> Reply<pb::ListPoliciesResponse> {
        let policies = self.call(Networks::policies).await?;
        Ok(Response::new(pb::ListPoliciesResponse { policies: policies.into_iter().map(Into::into).collect() }))
    }

    async fn remove_policy(&self, request: Request<pb::RemovePolicyRequest>) -> Reply<pb::RemovePolicyResponse> {
        let pb::RemovePolicyRequest { name, force } = request.into_inner();
        self.call(move |networks| networks.remove_policy(&name, force)).await?;
        Ok(Response::new(pb::RemovePolicyResponse {}))
    }

    type StreamEventsStream = Pin<Box<dyn Stream<Item = Result<pb::StreamEventsResponse, Status>> + Send>>;

    async fn stream_events(&self, request: Request<pb::StreamEventsRequest>) -> Reply<Self::StreamEventsStream> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let after = match filter.since_unix_nano {
            0 => self.call(|networks| networks.store().last_event()).await?,
            _ => 0,
        };
        let (sender, receiver) = mpsc::channel(64);
        let follower = Follower {
            networks: self.networks.clone(),
            changes: self.changes.clone(),
            sender,
            after,
            since: filter.since_unix_nano,
            until: filter.until_unix_nano,
            filters: convert::filters(filter.filters),
        };
        tokio::spawn(follower.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One client's stream of events. It reads the journal, so a slow client misses nothing that is still kept.
struct Follower {
    networks: Arc<Networks>,
    changes: watch::Receiver<()>,
    sender: mpsc::Sender<Result<pb::StreamEventsResponse, Status>>,
    after: i64,
    since: i64,
    until: i64,
    filters: crate::networks::Filters,
}

impl Follower {
    async fn run(mut self) {
        let end = self.until;
        let follow = async {
            loop {
                self.changes.borrow_and_update();
                if !self.send_new().await {
                    return;
                }
                tokio::select! {
                    changed = self.changes.changed() => if changed.is_err() { return },
                    () = self.sender.closed() => return,
                }
            }
        };
        if end == 0 {
            return follow.await;
        }
        let left = end.saturating_sub(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX));
        let left = std::time::Duration::from_nanos(u64::try_from(left).unwrap_or(0).max(1));
        // In the past, the journal is read once.
        let _ = tokio::time::timeout(left.max(std::time::Duration::from_millis(200)), follow).await;
    }

    /// Sends what is new; false when nobody listens or the stream is over.
    async fn send_new(&mut self) -> bool {
        let (networks, after, since) = (self.networks.clone(), self.after, self.since);
        let read = spawn_blocking(move || networks.store().events(after, since)).await;
        let events = match read {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => {
                let _ = self.sender.send(Err(rpc::status(&error))).await;
                return false;
            }
            Err(_) => return false,
        };
        for event in events {
            self.after = event.sequence;
            if self.until != 0 && event.time > self.until {
                return false;
            }
            if !convert::passes(&event, &self.filters) {
                continue;
            }
            let response = pb::StreamEventsResponse { event: Some(convert::event(event)) };
            if self.sender.send(Ok(response)).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn which(request: pb::DetachRequest) -> Result<Detach> {
    match (given(request.endpoint_id), given(request.owner)) {
        (Some(id), None) => Ok(Detach::Id(id)),
        (None, Some(owner)) => Ok(Detach::Owner { owner, network: given(request.network) }),
        _ => Err(Error::invalid("choice of endpoints", "either an endpoint id or an owner is needed")),
    }
}
