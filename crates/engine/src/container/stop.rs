//! Stop, and what follows an exit however it came.
use super::{get, is_up, network, remove};
use crate::engine::Engine;
use crate::error::Error;
use crate::record::{Record, id_of};
use api::supervisor::v1::{Container, StopContainerRequest};

/// docker's default.
const TIMEOUT_SECONDS: i32 = 10;

/// Stops a container and gives its network back. A container that does not run is no error.
pub async fn stop(engine: &Engine, id: &str, signal: &str, timeout: Option<i32>) -> Result<(), Error> {
    let container = get(engine, id).await?;
    // Not held meanwhile: a forced removal must not wait for a slow stop.
    ask(engine, &container, signal, timeout).await?;
    ended(engine, id_of(&container)).await
}

/// Has the supervisor stop it.
pub async fn ask(engine: &Engine, container: &Container, signal: &str, timeout: Option<i32>) -> Result<(), Error> {
    let own = crate::record::spec_of(container).stop_timeout_seconds;
    let own = if own == 0 { TIMEOUT_SECONDS } else { i32::try_from(own).unwrap_or(i32::MAX) };
    let request =
        StopContainerRequest { id: id_of(container).to_string(), signal: signal.to_string(), timeout_seconds: timeout };
    engine.clients().supervisor_stop(request, timeout.unwrap_or(own)).await.map(drop)
}

/// After an exit: when it is final, the network is given back and an auto-remove container removed. Looks at the
/// record, not at the event: whatever came in between counts.
pub async fn ended(engine: &Engine, id: &str) -> Result<(), Error> {
    let _hold = engine.hold(id).await;
    let container = match get(engine, id).await {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    let Some(record) = Record::of(&container) else { return Ok(()) };
    if is_up(&container) || never_started(&container) {
        return Ok(());
    }
    if record.config().auto_remove {
        return remove::held(engine, &container, true).await.map(drop);
    }
    network::release(engine, id).await
}

/// Made, and waiting for its first start.
pub fn never_started(container: &Container) -> bool {
    super::status(container) == api::supervisor::v1::ContainerStatus::Created
}
