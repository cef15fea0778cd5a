//! Prune: what nobody uses, kind by kind as asked.
use crate::container::inspect::sizes;
use crate::container::{is_up, remove};
use crate::engine::Engine;
use crate::error::Error;
use crate::record::id_of;
use api::distribution::v1::PruneImagesRequest;
use api::engine::v1::{PruneRequest, PruneResponse};
use api::network::v1::PruneNetworksRequest;
use api::supervisor::v1::ListContainersRequest;
use api::volume::v1::PruneVolumesRequest;
use jiff::Timestamp;
use std::collections::HashMap;

/// Containers first: what they hold is unused then.
pub async fn prune(engine: &Engine, request: PruneRequest) -> Result<PruneResponse, Error> {
    let clients = engine.clients();
    let filters = request.filters.clone();
    let mut out = PruneResponse::default();
    if request.volumes && filters.contains_key("until") {
        return Err(Error::invalid("filter", "until", "it does not go with volumes: their age says nothing"));
    }
    if request.containers {
        containers(engine, &request, &mut out).await?;
    }
    if request.networks {
        let answer = clients.network_prune(PruneNetworksRequest { filters: filters.clone() }).await?;
        out.networks = answer.removed;
    }
    if request.volumes {
        let answer = clients.volume_prune(PruneVolumesRequest { all: false, filters: filters.clone() }).await?;
        out.volumes = answer.removed;
        out.reclaimed_bytes += answer.reclaimed_bytes;
    }
    if request.images || request.all_images {
        let answer = clients.image_prune(PruneImagesRequest { all: request.all_images, filters }).await?;
        out.images = answer.untagged.into_iter().chain(answer.deleted).collect();
        out.reclaimed_bytes += answer.reclaimed_bytes;
    }
    if request.build_cache {
        let answer = clients.builder_prune(api::builder::v1::PruneRequest::default()).await?;
        out.build_cache = answer.removed;
        out.reclaimed_bytes += answer.reclaimed_bytes;
    }
    Ok(out)
}

async fn containers(engine: &Engine, request: &PruneRequest, out: &mut PruneResponse) -> Result<(), Error> {
    let mut filters = request.filters.clone();
    let until = filters.remove("until").and_then(|u| u.values.into_iter().next());
    let until = until.map(|text| moment(&text)).transpose()?;
    let list = engine.clients().supervisor_list(ListContainersRequest { all: true, filters }).await?;
    let sizes: HashMap<String, i64> = sizes(engine).await.unwrap_or_default();
    for container in list.containers.iter().filter(|c| !is_up(c)) {
        let created = container.created_at.parse::<Timestamp>().ok();
        if until.is_some_and(|until| created.is_none_or(|c| c > until)) {
            continue;
        }
        let id = id_of(container);
        match remove::remove(engine, id, false, false).await {
            Ok(_) => {
                out.containers.push(id.to_string());
                out.reclaimed_bytes += sizes.get(id).copied().unwrap_or(0);
            }
            Err(error) => tracing::warn!(container = id, error = %error, "prune"),
        }
    }
    Ok(())
}

// "2026-11-21T10:00:00Z", or how long ago: "24h", "90m", "7d".
fn moment(text: &str) -> Result<Timestamp, Error> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let bad = || Error::invalid("filter until", text, "expected a time (RFC 3339) or an age such as 24h");
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    let number: i64 = text.trim_end_matches(unit).parse().map_err(|_| bad())?;
    Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(number.saturating_mul(seconds))).map_err(|_| bad())
}
