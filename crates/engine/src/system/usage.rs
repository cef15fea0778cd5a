//! Disk usage, in docker's four rows.
use crate::container::inspect::sizes;
use crate::container::is_up;
use crate::engine::Engine;
use crate::error::Error;
use crate::record::{Record, id_of};
use api::engine::v1::{DiskUsageResponse, UsageRow};
use api::supervisor::v1::ListContainersRequest;
use api::volume::v1::ListVolumesRequest;
use std::collections::HashSet;

/// What takes space, and what could be freed.
pub async fn usage(engine: &Engine) -> Result<DiskUsageResponse, Error> {
    let clients = engine.clients();
    let (store, containers, sizes, volumes, cache) = tokio::join!(
        clients.distribution_usage(api::distribution::v1::DiskUsageRequest::default()),
        clients.supervisor_list(ListContainersRequest { all: true, ..Default::default() }),
        sizes(engine),
        clients.volume_list(ListVolumesRequest { with_size: true, ..Default::default() }),
        clients.builder_usage(api::builder::v1::DiskUsageRequest {}),
    );
    let (store, containers, sizes, volumes) = (store?, containers?.containers, sizes?, volumes?.volumes);
    let used: HashSet<String> = containers.iter().filter_map(Record::of).map(|r| r.image_id).collect();
    let images = row(
        "Images",
        (store.images, count(used.len())),
        (store.blobs_bytes + store.layers_bytes, store.reclaimable_bytes),
    );
    let written = |up: Option<bool>| -> i64 {
        let wanted = containers.iter().filter(|c| up.is_none_or(|up| is_up(c) == up));
        wanted.filter_map(|c| sizes.get(id_of(c))).sum()
    };
    let active = containers.iter().filter(|c| is_up(c)).count();
    let containers = row("Containers", (count(containers.len()), count(active)), (written(None), written(Some(false))));
    let size = |unused_only: bool| -> i64 {
        volumes.iter().filter(|v| !unused_only || v.consumers.is_empty()).map(|v| v.size_bytes.max(0)).sum()
    };
    let held = volumes.iter().filter(|v| !v.consumers.is_empty()).count();
    let volumes = row("Local Volumes", (count(volumes.len()), count(held)), (size(false), size(true)));
    // The builder is the one tool that many hosts never use: no row of its own is no failure.
    let cache = cache.unwrap_or_default();
    let in_use = cache.records.iter().filter(|r| r.in_use);
    let (busy, busy_bytes) = in_use.fold((0, 0), |(n, bytes), r| (n + 1, bytes + r.size_bytes));
    let cache =
        row("Build Cache", (count(cache.records.len()), busy), (cache.total_bytes, cache.total_bytes - busy_bytes));
    Ok(DiskUsageResponse { rows: vec![images, containers, volumes, cache] })
}

fn row(kind: &str, (total, active): (i64, i64), (size_bytes, reclaimable_bytes): (i64, i64)) -> UsageRow {
    UsageRow { r#type: kind.into(), total, active, size_bytes, reclaimable_bytes }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
