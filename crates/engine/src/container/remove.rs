//! Remove: every part of a container, past errors; the record last.
use super::{get, is_up, name_of, network};
use crate::engine::Engine;
use crate::error::Error;
use crate::record::id_of;
use api::distribution::v1::RemoveSnapshotRequest;
use api::supervisor::v1::{Container, RemoveContainerRequest, StopContainerRequest};
use api::volume::v1::ReleaseVolumeRequest;

/// Removes a container; with `volumes` also those that were made for it alone. Returns what could not be removed: the
/// sweep comes back to it.
///
/// # Errors
/// When it is not there, or runs and `force` is not given.
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
    let config = crate::record::Record::of(&container).map(|r| r.config()).unwrap_or_default();
    Ok(held(engine, &container, volumes || config.auto_remove).await)
}

/// The same for a caller that holds the container.
pub async fn held(engine: &Engine, container: &Container, volumes: bool) -> Vec<String> {
    let id = id_of(container).to_string();
    let mut warnings = Vec::new();
    let mut note = |step: &str, result: Result<(), Error>| {
        if let Err(error) = result
            && !error.is_not_found()
        {
            tracing::warn!(container = %id, step, error = %error, "removal");
            warnings.push(format!("{step}: {error}"));
        }
    };
    if is_up(container) {
        note("stop", kill(engine, &id).await);
    }
    let (network, volumes) = tokio::join!(network::release(engine, &id), release_volumes(engine, &id, volumes));
    note("network", network);
    note("volumes", volumes);
    let request = RemoveSnapshotRequest { key: id.clone() };
    note("snapshot", engine.clients().snapshot_remove(request).await.map(drop));
    let request = RemoveContainerRequest { id: id.clone(), force: true };
    note("record", engine.clients().supervisor_remove(request).await.map(drop));
    if !warnings.is_empty() {
        engine.sweep_soon();
    }
    warnings
}

/// Gives the references back; anonymous volumes go with the last one when asked for.
pub async fn release_volumes(engine: &Engine, id: &str, remove_anonymous: bool) -> Result<(), Error> {
    let request = ReleaseVolumeRequest { consumer: id.to_string(), remove_anonymous, ..Default::default() };
    engine.clients().volume_release(request).await.map(drop)
}

// The snapshot cannot go while a process stands in it; a stop also keeps the restart policy from starting it again.
async fn kill(engine: &Engine, id: &str) -> Result<(), Error> {
    let request = StopContainerRequest { id: id.to_string(), signal: "SIGKILL".into(), timeout_seconds: Some(0) };
    engine.clients().supervisor_stop(request, 30).await.map(drop)
}
