//! List: the supervisor's records, joined with the network tool's endpoints. A tool that does not answer costs its
//! columns, not the list.
use super::inspect::{sizes, view};
use super::modes;
use crate::engine::Engine;
use crate::error::Error;
use crate::record::id_of;
use api::engine::v1::{ContainerView, ListContainersRequest, ListContainersResponse};
use api::network::v1::{Endpoint, ListEndpointsRequest};
use api::types::v1::StringList;
use std::collections::HashMap;

/// Newest first.
pub async fn list(engine: &Engine, request: ListContainersRequest) -> Result<ListContainersResponse, Error> {
    let mut filters = request.filters;
    let network = filters.remove("network");
    let volume = filters.remove("volume");
    let wanted = api::supervisor::v1::ListContainersRequest { all: request.all || request.last > 0, filters };
    let (containers, endpoints) = tokio::join!(engine.clients().supervisor_list(wanted), endpoints(engine));
    let answer = containers?;
    let mut warnings = answer.warnings;
    let mut endpoints = endpoints.unwrap_or_else(|e| noted(&mut warnings, &e));
    let sizes = match request.with_size {
        true => sizes(engine).await.unwrap_or_else(|e| noted(&mut warnings, &e)),
        false => HashMap::new(),
    };
    let mut containers: Vec<ContainerView> = answer
        .containers
        .into_iter()
        .map(|container| {
            let id = id_of(&container).to_string();
            view(container, endpoints.remove(&id).unwrap_or_default(), sizes.get(&id).copied().unwrap_or(0))
        })
        .collect();
    let default = engine.settings().default_network;
    containers.retain(|v| matches(&network, || networks(v, &default)) && matches(&volume, || volumes(v)));
    containers.sort_by(|a, b| created(b).cmp(created(a)));
    if request.last > 0 {
        containers.truncate(request.last as usize);
    }
    Ok(ListContainersResponse { containers, warnings })
}

fn noted<T: Default>(warnings: &mut Vec<String>, error: &Error) -> T {
    warnings.push(error.to_string());
    T::default()
}

async fn endpoints(engine: &Engine) -> Result<HashMap<String, Vec<Endpoint>>, Error> {
    let mut by_owner: HashMap<String, Vec<Endpoint>> = HashMap::new();
    for endpoint in engine.clients().endpoint_list(ListEndpointsRequest::default()).await?.endpoints {
        by_owner.entry(endpoint.owner.clone()).or_default().push(endpoint);
    }
    Ok(by_owner)
}

fn created(view: &ContainerView) -> &str {
    view.container.as_ref().map_or("", |c| &c.created_at)
}

// No filter matches all; the values of one are alternatives.
fn matches(filter: &Option<StringList>, have: impl FnOnce() -> Vec<String>) -> bool {
    filter.as_ref().is_none_or(|wanted| {
        let have = have();
        wanted.values.iter().any(|w| have.contains(w))
    })
}

fn networks(view: &ContainerView, default: &str) -> Vec<String> {
    let network = view.config.clone().unwrap_or_default().network.unwrap_or_default();
    let mut names: Vec<String> = modes::attachments(&network, default).into_iter().map(|a| a.network).collect();
    names.extend(view.endpoints.iter().flat_map(|e| [e.network_name.clone(), e.network_id.clone()]));
    names
}

fn volumes(view: &ContainerView) -> Vec<String> {
    view.mounts.iter().flat_map(|m| [&m.name, &m.volume_id, &m.source, &m.target]).cloned().collect()
}
