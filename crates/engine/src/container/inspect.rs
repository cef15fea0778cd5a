//! Inspect: one container as the tools together know it.
use super::{get, network};
use crate::engine::Engine;
use crate::error::Error;
use crate::record::{Record, id_of};
use api::distribution::v1::ListSnapshotsRequest;
use api::engine::v1::ContainerView;
use api::network::v1::Endpoint;
use api::supervisor::v1::Container;
use std::collections::HashMap;

/// By id, unique prefix or name.
pub async fn inspect(engine: &Engine, id: &str, with_size: bool) -> Result<ContainerView, Error> {
    let container = get(engine, id).await?;
    let id = id_of(&container).to_string();
    let endpoints = network::endpoints_of(engine, &id).await?;
    let size = if with_size { sizes(engine).await?.get(&id).copied().unwrap_or(0) } else { 0 };
    Ok(view(container, endpoints, size))
}

/// Puts the parts together.
pub fn view(container: Container, endpoints: Vec<Endpoint>, size_rw_bytes: i64) -> ContainerView {
    let record = Record::of(&container).unwrap_or_default();
    ContainerView {
        container: Some(container),
        config: record.config,
        image_id: record.image_id,
        mounts: record.mounts,
        endpoints,
        size_rw_bytes,
    }
}

/// Bytes written in each snapshot, by its key.
pub async fn sizes(engine: &Engine) -> Result<HashMap<String, i64>, Error> {
    let answer = engine.clients().snapshot_list(ListSnapshotsRequest { with_size: true }).await?;
    Ok(answer.snapshots.into_iter().map(|s| (s.key, s.size_bytes)).collect())
}
