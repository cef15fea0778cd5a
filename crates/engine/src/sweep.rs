//! What a crash left half made is removed, what it left undone is done. Looks at what the tools hold, remembers nothing,
//! and changes nothing of a container that is as it should be.
use crate::container::volumes::{MOUNT_LABEL, remove_mounts};
use crate::container::{LABEL, is_up, modes, network, remove, start, status, stop};
use crate::engine::Engine;
use crate::error::Error;
use crate::record::{Record, id_of};
use api::distribution::v1::{ListSnapshotsRequest, RemoveSnapshotRequest};
use api::network::v1::{DetachRequest, ListEndpointsRequest};
use api::supervisor::v1::{Container, ContainerStatus, ListContainersRequest};
use api::volume::v1::ListVolumesRequest;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Events on their way are given a moment, and several wishes become one sweep.
const SETTLE: Duration = Duration::from_millis(300);
/// After one that failed: a tool was not there.
const RETRY: Duration = Duration::from_secs(10);
/// For what no event tells.
const PERIOD: Duration = Duration::from_secs(300);

/// Runs for as long as the engine does.
pub async fn run(engine: Engine) {
    let mut reconnected = engine.clients().reconnections();
    loop {
        // The first one comes at once: what a crash left should not outlast the start.
        let wait = match once(&engine).await {
            Ok(()) => PERIOD,
            Err(error) => {
                tracing::warn!(error = %error, "sweep");
                RETRY
            }
        };
        engine.sweeping(false);
        tokio::select! {
            () = engine.sweep_wanted() => {}
            _ = reconnected.recv() => {}
            () = tokio::time::sleep(wait) => {}
        }
        engine.sweeping(true);
        tokio::time::sleep(SETTLE).await;
        // What was wished meanwhile is this sweep.
        reconnected = reconnected.resubscribe();
    }
}

/// One sweep.
///
/// # Errors
/// The first; what could be done was done.
pub async fn once(engine: &Engine) -> Result<(), Error> {
    let containers = containers(engine).await?;
    let results = [
        snapshots(engine).await,
        volumes(engine).await,
        endpoints(engine).await,
        ended(engine, &containers).await,
        uprooted(engine, &containers).await,
    ];
    results.into_iter().collect()
}

async fn containers(engine: &Engine) -> Result<Vec<Container>, Error> {
    let request = ListContainersRequest { all: true, ..Default::default() };
    Ok(engine.clients().supervisor_list(request).await?.containers)
}

/// Those of the ids, all of which hold something, that are no container's. Looked at in this order: what is there and
/// is not being made any more has a record by now, if its container came to be.
async fn lost(engine: &Engine, ids: impl Iterator<Item = String>) -> Result<BTreeSet<String>, Error> {
    let mut lost: BTreeSet<String> = ids.filter(|id| oci::name::is_id(id) && !engine.is_making(id)).collect();
    if !lost.is_empty() {
        for container in containers(engine).await? {
            lost.remove(id_of(&container));
        }
    }
    Ok(lost)
}

// A labelled snapshot without a record: its container never came to be, or is removed but for this.
async fn snapshots(engine: &Engine) -> Result<(), Error> {
    let list = engine.clients().snapshot_list(ListSnapshotsRequest::default()).await?.snapshots;
    let ours = list.into_iter().filter(|s| s.labels.contains_key(LABEL));
    for key in lost(engine, ours.map(|s| s.key)).await? {
        tracing::info!(snapshot = %key, "removing what is left of a container");
        network::release(engine, &key).await?;
        remove::release_volumes(engine, &key, true).await?;
        engine.clients().snapshot_remove(RemoveSnapshotRequest { key }).await?;
    }
    Ok(())
}

async fn volumes(engine: &Engine) -> Result<(), Error> {
    let list = engine.clients().volume_list(ListVolumesRequest::default()).await?.volumes;
    // Those that stand for one mount go with it, held or not.
    let of_mounts = lost(engine, list.iter().filter_map(|v| v.labels.get(MOUNT_LABEL)).cloned()).await?;
    for consumer in lost(engine, list.into_iter().flat_map(|v| v.consumers)).await? {
        tracing::info!(consumer, "giving volumes back");
        remove::release_volumes(engine, &consumer, false).await?;
    }
    for id in of_mounts {
        remove_mounts(engine, &id).await?;
    }
    Ok(())
}

async fn endpoints(engine: &Engine) -> Result<(), Error> {
    let list = engine.clients().endpoint_list(ListEndpointsRequest::default()).await?.endpoints;
    for owner in lost(engine, list.into_iter().map(|e| e.owner)).await? {
        tracing::info!(owner, "giving endpoints back");
        network::release(engine, &owner).await?;
        engine.clients().network_detach(DetachRequest { owner, ..Default::default() }).await?;
    }
    Ok(())
}

// Containers that ended while no engine listened.
async fn ended(engine: &Engine, containers: &[Container]) -> Result<(), Error> {
    let mut result = Ok(());
    for container in containers.iter().filter(|c| !is_up(c) && Record::of(c).is_some()) {
        let done = if stop::never_started(container) {
            // A start that broke off leaves its network; looked at again while holding it.
            unstarted(engine, id_of(container)).await
        } else {
            stop::ended(engine, id_of(container)).await
        };
        result = result.and(done);
    }
    result
}

// After a reboot the restart policy tries in vain: the network namespace is gone, and only a start makes a new one.
async fn uprooted(engine: &Engine, containers: &[Container]) -> Result<(), Error> {
    let mut result = Ok(());
    for container in containers.iter().filter(|c| status(c) == ContainerStatus::Restarting) {
        let Some(record) = Record::of(container) else { continue };
        let network = record.config().network.unwrap_or_default();
        let own =
            matches!(modes::NetworkMode::of(&network), Ok(modes::NetworkMode::Networks | modes::NetworkMode::None));
        if own && !Path::new(&modes::path_of(engine, id_of(container))).exists() {
            tracing::info!(container = id_of(container), "starting again on a new network namespace");
            result = result.and(start::start(engine, id_of(container), (0, 0)).await.map(drop));
        }
    }
    result
}

async fn unstarted(engine: &Engine, id: &str) -> Result<(), Error> {
    let _hold = engine.hold(id).await;
    match crate::container::get(engine, id).await {
        Ok(container) if stop::never_started(&container) => network::release(engine, id).await,
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
