//! Publish and withdraw ports of a container that exists.
use super::network::{self, endpoints_of};
use super::{get, is_up, modes, name_of};
use crate::engine::Engine;
use crate::error::Error;
use crate::ports;
use crate::record::{self, id_of};
use api::engine::v1::{NetworkConfig, UpdatePublishedPortsRequest};
use api::network::v1::{PortMapping, Protocol, UpdatePortsRequest};

/// Changes the published ports: at once when the container runs, and at every start from now on. Returns all of them.
pub async fn update(engine: &Engine, request: UpdatePublishedPortsRequest) -> Result<Vec<PortMapping>, Error> {
    let id = id_of(&get(engine, &request.container).await?).to_string();
    let _hold = engine.hold(&id).await;
    let container = get(engine, &id).await?;
    let record = record::required(&container)?;
    let network = record.config().network.unwrap_or_default();
    let state = |why: String, hint| Error::State { container: name_of(&container), why, hint };
    if modes::NetworkMode::of(&network)? != modes::NetworkMode::Networks {
        let why = format!("has network mode {:?}", network.mode);
        return Err(state(why, "only a container on networks of its own publishes ports"));
    }
    ports::check(&request.add)?;
    let mut wanted = network.ports.clone();
    for gone in &request.remove {
        let before = wanted.len();
        wanted.retain(|port| !is_meant(gone, port));
        if wanted.len() == before {
            let why = format!("does not publish port {}/{}", gone.container_port, protocol_of(gone).as_str_name());
            return Err(state(why, "see its ports with `pier port`"));
        }
    }
    wanted.extend(request.add.iter().cloned());
    let mut now = wanted.clone();
    if is_up(&container) {
        let attachments = modes::attachments(&network, &engine.settings().default_network);
        let first = attachments.first().map(|attachment| attachment.network.clone()).unwrap_or_default();
        let endpoints = endpoints_of(engine, &id).await?;
        let carrier = endpoints.iter().find(|endpoint| !endpoint.ports.is_empty());
        let carrier = carrier.or_else(|| endpoints.iter().find(|endpoint| endpoint.network_name == first));
        let Some(endpoint) = carrier.or(endpoints.first()) else {
            return Err(state("has no endpoint".into(), "restart it"));
        };
        let change = UpdatePortsRequest { endpoint_id: endpoint.id.clone(), add: request.add, remove: request.remove };
        now = engine.clients().endpoint_update_ports(change).await?.endpoint.unwrap_or_default().ports;
    }
    let network = NetworkConfig { ports: wanted, ..network };
    network::record(engine, &container, &record, network).await?;
    Ok(now)
}

/// Whether a withdrawal means this port; host address and port may be left open.
fn is_meant(wish: &PortMapping, port: &PortMapping) -> bool {
    wish.container_port == port.container_port
        && protocol_of(wish) == protocol_of(port)
        && wish.range.max(1) == port.range.max(1)
        && (wish.host_port == 0 || port.host_port == 0 || wish.host_port == port.host_port)
        && (wish.host_ip.is_empty() || wish.host_ip == port.host_ip)
}

fn protocol_of(port: &PortMapping) -> Protocol {
    match port.protocol() {
        Protocol::Unspecified => Protocol::Tcp,
        other => other,
    }
}
