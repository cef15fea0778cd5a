//! Prune: what nobody uses, kind by kind as asked.
use crate::container::inspect::sizes;
use crate::container::{is_up, remove};
use crate::engine::Engine;
use crate::error::Error;
use crate::record::id_of;
use api::distribution::v1::PruneImagesRequest;
use api::engine::v1::{PruneRequest, PruneResponse};
use api::network::v1::PruneNetworksRequest;
use api::supervisor::v1::{Container, ListContainersRequest};
use api::types::v1::StringList;
use api::volume::v1::PruneVolumesRequest;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// Containers first: what they hold is unused then.
pub async fn prune(engine: &Engine, mut request: PruneRequest) -> Result<PruneResponse, Error> {
    let clients = engine.clients();
    if request.volumes && request.filters.contains_key("until") {
        return Err(Error::invalid("filter", "until", "it does not go with volumes: their age says nothing"));
    }
    // One moment for every kind, known before anything is removed.
    let until = until(&mut request.filters)?;
    let filters = request.filters.clone();
    let mut out = PruneResponse::default();
    if request.containers {
        containers(engine, &request, until, &mut out).await?;
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

async fn containers(
    engine: &Engine,
    request: &PruneRequest,
    until: Option<Timestamp>,
    out: &mut PruneResponse,
) -> Result<(), Error> {
    let mut filters = request.filters.clone();
    filters.remove("until");
    let without = filters.remove("label!").unwrap_or_default().values;
    let list = engine.clients().supervisor_list(ListContainersRequest { all: true, filters }).await?;
    let sizes: HashMap<String, i64> = sizes(engine).await.unwrap_or_default();
    for container in list.containers.iter().filter(|c| !is_up(c)) {
        let created = container.created_at.parse::<Timestamp>().ok();
        if until.is_some_and(|until| created.is_none_or(|c| c > until)) || labeled(container, &without) {
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

/// Whether a container has one of these labels: "key" or "key=value".
fn labeled(container: &Container, labels: &[String]) -> bool {
    let own = container.spec.as_ref().map(|spec| &spec.labels);
    labels.iter().any(|label| match label.split_once('=') {
        Some((key, value)) => own.and_then(|own| own.get(key)).is_some_and(|is| is == value),
        None => own.is_some_and(|own| own.contains_key(label)),
    })
}

/// The moment that "until" means, which takes its place in the filters.
fn until(filters: &mut HashMap<String, StringList>) -> Result<Option<Timestamp>, Error> {
    let Some(given) = filters.get_mut("until") else { return Ok(None) };
    let [text] = given.values.as_slice() else {
        return Err(Error::invalid("filter until", given.values.join(", "), "one is expected"));
    };
    let moment = moment(text)?;
    given.values = vec![moment.to_string()];
    Ok(Some(moment))
}

/// "2026-11-21T10:00:00Z", the same without a zone (the local one), seconds since the epoch, or how long ago: "24h", "1h30m",
/// "7d".
fn moment(text: &str) -> Result<Timestamp, Error> {
    let seconds = || Timestamp::from_second(text.parse().ok()?).ok();
    let days = || text.strip_suffix('d')?.parse::<i64>().ok()?.checked_mul(24).map(SignedDuration::from_hours);
    let ago = || Timestamp::now().checked_sub(text.parse().ok().or_else(days).filter(|ago| !ago.is_negative())?).ok();
    let local = || {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp())
    };
    let found = seconds().or_else(|| text.parse().ok()).or_else(ago).or_else(local);
    found.ok_or_else(|| Error::invalid("filter until", text, "expected a time (RFC 3339) or an age such as 24h"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn until_is_one_moment() {
        let ask = |text: &str| {
            let mut filters = HashMap::from([("until".to_owned(), StringList { values: vec![text.to_owned()] })]);
            until(&mut filters).map(|moment| (moment.unwrap(), filters["until"].values[0].clone()))
        };
        assert_eq!(ask("1000000000").unwrap().1, "2001-09-09T01:46:40Z");
        assert_eq!(ask("2026-11-21T10:00:00Z").unwrap().1, "2026-11-21T10:00:00Z");
        let age = |text: &str| Timestamp::now().as_second() - ask(text).unwrap().0.as_second();
        assert!((5400..5410).contains(&age("1h30m")) && (604_800..604_810).contains(&age("7d")));
        for bad in ["yesterday", "", "-3h", "9223372036854775807d"] {
            assert!(ask(bad).is_err(), "{bad}");
        }
        assert_eq!(until(&mut HashMap::new()).unwrap(), None);
    }
}
