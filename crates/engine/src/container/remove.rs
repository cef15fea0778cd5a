//! Remove: every part of a container, past errors; the record last.
use super::modes::NetworkMode;
use super::{get, is_up, name_of, network, volumes};
use crate::engine::Engine;
use crate::error::Error;
use crate::record::{Record, id_of};
use api::distribution::v1::RemoveSnapshotRequest;
use api::supervisor::v1::{Container, RemoveContainerRequest, StopContainerRequest};
use api::volume::v1::ReleaseVolumeRequest;

/// Removes a container; with `volumes` also those that were made for it alone. Returns what could not be removed: the
/// sweep comes back to it.
///
/// # Errors
/// When it is not there, runs and `force` is not given, cannot be stopped, or its record stays.
pub async fn remove(engine: &Engine, id: &str, force: bool, volumes: bool) -> Result<Vec<String>, Error> {
    let container = get(engine, id).await?;
    let id = id_of(&container).to_string();
    let _hold = engine.hold(&id).await;
    let container = match get(engine, &id).await {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        other => other?,
    };
    if is_up(&container) && !force {
        let why = "is running".to_string();
        return Err(Error::State { container: name_of(&container), why, hint: "stop it first, or force the removal" });
    }
    held(engine, &container, volumes).await
}

/// The same for a caller that holds the container.
pub async fn held(engine: &Engine, container: &Container, volumes: bool) -> Result<Vec<String>, Error> {
    let id = id_of(container).to_string();
    if is_up(container) {
        kill(engine, &id).await?;
    }
    let record = Record::of(container);
    let anonymous = volumes || record.as_ref().is_some_and(|r| r.config().auto_remove);
    let mut warnings = Vec::new();
    let mut note = |step: &str, result: Result<(), Error>| {
        if let Err(error) = result
            && !error.is_not_found()
        {
            tracing::warn!(container = %id, step, error = %error, "removal");
            warnings.push(format!("{step}: {error}"));
        }
    };
    let network = async { if has_network(record.as_ref()) { network::release(engine, &id).await } else { Ok(()) } };
    let volumes =
        async { if has_volumes(record.as_ref()) { all_volumes(engine, &id, anonymous).await } else { Ok(()) } };
    let (network, volumes) = tokio::join!(network, volumes);
    note("network", network);
    note("volumes", volumes);
    let request = RemoveSnapshotRequest { key: id.clone() };
    note("snapshot", engine.clients().snapshot_remove(request).await.map(drop));
    if !warnings.is_empty() {
        engine.sweep_soon();
    }
    let request = RemoveContainerRequest { id, force: true };
    match engine.clients().supervisor_remove(request).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(warnings),
    }
}

async fn all_volumes(engine: &Engine, id: &str, remove_anonymous: bool) -> Result<(), Error> {
    release_volumes(engine, id, remove_anonymous).await?;
    volumes::remove_mounts(engine, id).await
}

/// Gives the references back; anonymous volumes go with the last one when asked for.
pub async fn release_volumes(engine: &Engine, id: &str, remove_anonymous: bool) -> Result<(), Error> {
    let request = ReleaseVolumeRequest { consumer: id.to_string(), remove_anonymous, ..Default::default() };
    engine.clients().volume_release(request).await.map(drop)
}

// A tool that the container has nothing of need not even be there.
fn has_network(record: Option<&Record>) -> bool {
    let network = record.and_then(|r| r.config().network).unwrap_or_default();
    !matches!(NetworkMode::of(&network), Ok(NetworkMode::Host | NetworkMode::Container(_)))
}

fn has_volumes(record: Option<&Record>) -> bool {
    record.is_none_or(|r| !r.anonymous_volumes.is_empty() || r.config().mounts.iter().any(volumes::is_volume))
}

// The snapshot cannot go while a process stands in it; a stop also keeps the restart policy from starting it again.
async fn kill(engine: &Engine, id: &str) -> Result<(), Error> {
    let request = StopContainerRequest { id: id.to_string(), signal: "SIGKILL".into(), timeout_seconds: Some(0) };
    engine.clients().supervisor_stop(request, 30).await.map(drop)
}
