//! A container's place on its networks: checked at create, taken at start, given back when it is done.
use super::modes::{self, NetworkMode};
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::Plan;
use crate::record::{Record, id_of, spec_of};
use crate::{host, ports};
use api::engine::v1::{ContainerConfig, NetworkAttachment, NetworkConfig};
use api::network::v1::{
    AttachRequest, CreateNamespaceRequest, CreateNetworkRequest, DetachRequest, Endpoint, GetNetworkRequest,
    ListEndpointsRequest, PortMapping, RemoveNamespaceRequest, SetHealthRequest,
};
use api::supervisor::v1::{Container, UpdateContainerRequest};
use std::collections::HashMap;

/// Every network that the container names exists; the default one is made when it is missing.
pub async fn check(engine: &Engine, config: &ContainerConfig) -> Result<(), Error> {
    let network = config.network.clone().unwrap_or_default();
    if NetworkMode::of(&network)? != NetworkMode::Networks {
        return Ok(());
    }
    for attachment in modes::attachments(&network, &engine.settings().default_network) {
        exists(engine, &attachment.network).await?;
    }
    Ok(())
}

async fn exists(engine: &Engine, name: &str) -> Result<(), Error> {
    let found = engine.clients().network_get(GetNetworkRequest { name: name.to_string() }).await;
    match found {
        Err(error) if error.is_not_found() && name == engine.settings().default_network => {
            let request = CreateNetworkRequest { name: name.to_string(), exist_ok: true, ..Default::default() };
            engine.clients().network_create(request).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// How the container is connected now.
pub enum Connected {
    /// The host's network.
    Host,
    /// These endpoints; none for mode none.
    Own(Vec<Endpoint>),
    /// Another container's network, with that one's endpoints.
    Joined(Vec<Endpoint>),
}

/// Takes the container's place: its namespace and an endpoint on each network, as undoable steps of `plan`.
pub async fn connect(
    engine: &Engine,
    plan: &mut Plan,
    container: &Container,
    record: &Record,
) -> Result<Connected, Error> {
    let config = record.config();
    let network = config.network.clone().unwrap_or_default();
    let id = spec_of(container).id.clone();
    match NetworkMode::of(&network)? {
        NetworkMode::Host => return Ok(Connected::Host),
        NetworkMode::Container(_) => {
            let other = record.joined.iter().find(|j| j.namespace == "network").map(|j| j.container.clone());
            return Ok(Connected::Joined(endpoints_of(engine, &other.unwrap_or_default()).await?));
        }
        NetworkMode::None | NetworkMode::Networks => {}
    }
    let undone = (engine.clone(), id.clone());
    let undo = move || async move { release(&undone.0, &undone.1).await };
    let made = plan.undoable("make network namespace", undo, namespace(engine, &id, record)).await?;
    if NetworkMode::of(&network)? == NetworkMode::None {
        return Ok(Connected::Own(Vec::new()));
    }
    let exposed = record.exposed_ports.iter().cloned().collect();
    let mut ports = ports::published(&network, &exposed);
    let mut endpoints = Vec::new();
    for attachment in modes::attachments(&network, &engine.settings().default_network) {
        // Published ports go with the first network: unless priorities say otherwise it is the default route.
        let ports = std::mem::take(&mut ports);
        let request = request(container, &attachment, &made, ports);
        let undone = (engine.clone(), id.clone(), attachment.network.clone());
        let undo = move || async move { detach(&undone.0, &undone.1, &undone.2).await };
        let attach = async {
            exists(engine, &attachment.network).await?;
            engine.clients().network_attach(request).await
        };
        let answer = plan.undoable("attach to network", undo, attach).await?;
        endpoints.extend(answer.endpoint);
    }
    Ok(Connected::Own(endpoints))
}

async fn namespace(engine: &Engine, id: &str, record: &Record) -> Result<String, Error> {
    let request = CreateNamespaceRequest { key: id.to_string(), sysctls: sysctls(record) };
    let path = engine.clients().namespace_create(request).await?.path;
    let expected = modes::path_of(engine, id);
    if path != expected {
        let why = format!("was made for the namespace {expected}, but the network tool made {path}");
        return Err(Error::State { container: id.into(), why, hint: "run engine and network tool on one --run" });
    }
    Ok(path)
}

/// docker's defaults of a network that is a container's own: ports below 1024 and ping need no privilege. In a user
/// namespace the container could change none of them: the network belongs to the machine's root.
fn sysctls(record: &Record) -> HashMap<String, String> {
    let mut all = HashMap::from([("net.ipv4.ip_unprivileged_port_start".to_string(), "0".to_string())]);
    if host::has_all_ids() {
        all.insert("net.ipv4.ping_group_range".to_string(), format!("0 {}", oci::user::MAX_ID));
    }
    if !record.idmap.is_empty() {
        all.extend(record.config().sysctls.into_iter().filter(|(key, _)| key.starts_with("net.")));
    }
    all
}

/// What is asked of the network tool for one attachment.
pub fn request(
    container: &Container,
    attachment: &NetworkAttachment,
    netns_path: &str,
    ports: Vec<PortMapping>,
) -> AttachRequest {
    let spec = spec_of(container);
    let mut names = vec![spec.name.clone(), spec.id.chars().take(12).collect()];
    for alias in &attachment.aliases {
        if !names.contains(alias) {
            names.push(alias.clone());
        }
    }
    let own = Record::of(container).map(|record| record.config()).and_then(|config| config.network).unwrap_or_default();
    AttachRequest {
        network: attachment.network.clone(),
        netns_path: netns_path.to_string(),
        owner: spec.id.clone(),
        names,
        addresses: attachment.addresses.clone(),
        mac_address: attachment.mac_address.clone(),
        interface_name: attachment.interface_name.clone(),
        ports,
        no_default_route: false,
        gateway_priority: attachment.gateway_priority,
        dns_servers: own.dns,
        dns_search: own.dns_search,
        dns_options: own.dns_options,
        labels: spec.labels.clone(),
        ..Default::default()
    }
}

/// Names of the container lead to others that share them while it is not healthy.
pub async fn set_health(engine: &Engine, id: &str, healthy: bool) -> Result<(), Error> {
    let request = SetHealthRequest { owner: id.to_string(), healthy, ..Default::default() };
    match engine.clients().network_health(request).await {
        // On the host's network, or on none.
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}

/// Gives everything back: endpoints and namespace. Fine when there is nothing.
pub async fn release(engine: &Engine, id: &str) -> Result<(), Error> {
    engine.clients().namespace_remove(RemoveNamespaceRequest { key: id.to_string() }).await.map(drop)
}

/// Gives one endpoint back.
pub async fn detach(engine: &Engine, id: &str, network: &str) -> Result<(), Error> {
    let request = DetachRequest { owner: id.to_string(), network: network.to_string(), ..Default::default() };
    engine.clients().network_detach(request).await.map(drop)
}

/// The endpoints that the network tool holds for a container.
pub async fn endpoints_of(engine: &Engine, id: &str) -> Result<Vec<Endpoint>, Error> {
    let request = ListEndpointsRequest { owner: id.to_string(), ..Default::default() };
    Ok(engine.clients().endpoint_list(request).await?.endpoints)
}

/// Keeps what a container's network is to be from now on. Compare-and-set: another engine's change in between is not lost.
pub(super) async fn record(
    engine: &Engine,
    container: &Container,
    before: &Record,
    network: NetworkConfig,
) -> Result<(), Error> {
    let mut changed = before.clone();
    changed.config.get_or_insert_default().network = Some(network);
    let request = UpdateContainerRequest {
        id: id_of(container).to_string(),
        extension: Some(changed.extension()),
        expected_extension_value: Some(before.extension().value),
        ..Default::default()
    };
    engine.clients().supervisor_update(request).await.map(drop)
}
