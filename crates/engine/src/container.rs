//! Containers: each verb a plan of steps over the tools.
//!
//! ```text
//!   create   resolve image (pull) ─ prepare snapshot ─ acquire volumes ─ record
//!   start    network namespace ─ attach to each network ─ start process
//!   exit     give the network back (when the restart policy is done)
//!   remove   stop ─ network, volumes ─ snapshot ─ record
//! ```
//! The snapshot is made before everything else and carries [`LABEL`]: with no record beside it, it is what a crash left.
//! The record goes last: whoever waits for a removal finds nothing left.
pub mod changes;
pub mod commit;
pub mod connect;
pub mod create;
mod image;
pub mod inspect;
pub mod list;
pub mod modes;
pub mod network;
pub mod remove;
pub mod restart;
pub mod start;
pub mod stop;
mod volumes;

use crate::engine::Engine;
use crate::error::Error;
use api::supervisor::v1::{Container, ContainerStatus, GetContainerRequest};

/// Label of the snapshots that are containers' roots; the value is the container's name.
pub const LABEL: &str = "pier.engine.container";

/// A container by id, unique prefix or name.
pub(crate) async fn get(engine: &Engine, id: &str) -> Result<Container, Error> {
    if id.is_empty() {
        return Err(Error::invalid("container", "", "give an id or a name"));
    }
    let answer = engine.clients().supervisor_get(GetContainerRequest { id: id.to_string() }).await?;
    answer.container.ok_or_else(|| Error::State {
        container: id.to_string(),
        why: "came back empty from the supervisor".into(),
        hint: "",
    })
}

/// Its status.
pub(crate) fn status(container: &Container) -> ContainerStatus {
    container.state.as_ref().map_or(ContainerStatus::Unspecified, |s| s.status())
}

/// True when its network must stay: it runs, or the restart policy will run it again.
pub(crate) fn is_up(container: &Container) -> bool {
    matches!(status(container), ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting)
}

/// For messages: its name, else its short id.
pub(crate) fn name_of(container: &Container) -> String {
    let spec = crate::record::spec_of(container);
    if spec.name.is_empty() { spec.id.chars().take(12).collect() } else { spec.name.clone() }
}
