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
pub mod publish;
pub mod remove;
pub mod restart;
pub mod start;
pub mod stop;
mod user;
pub mod userns;
pub mod volumes;

use crate::engine::Engine;
use crate::error::Error;
use api::supervisor::v1::{Container, ContainerStatus, GetContainerRequest, RestartMode};

/// Label of the snapshots that are containers' roots (its value is the container's name) and of anonymous volumes (the
/// container's id).
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
    match status(container) {
        ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting => true,
        // Between the exit and the supervisor's decision on it: the same decision, made here.
        ContainerStatus::Exited => will_restart(container),
        _ => false,
    }
}

fn will_restart(container: &Container) -> bool {
    let state = container.state.clone().unwrap_or_default();
    let policy = crate::record::spec_of(container).restart.unwrap_or_default();
    let again = match policy.mode() {
        RestartMode::Always | RestartMode::UnlessStopped => true,
        RestartMode::OnFailure => {
            state.exit_code != 0 && (policy.max_retries == 0 || state.restart_count < policy.max_retries)
        }
        RestartMode::No | RestartMode::Unspecified => false,
    };
    again && !state.stopped_by_user
}

/// For messages: its name, else its short id.
pub(crate) fn name_of(container: &Container) -> String {
    let spec = crate::record::spec_of(container);
    if spec.name.is_empty() { spec.id.chars().take(12).collect() } else { spec.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::supervisor::v1::{ContainerSpec, ContainerState, RestartPolicy};

    #[test]
    fn the_network_stays_while_the_policy_will_run_it_again() {
        let up = |mode: RestartMode, exit_code, restart_count, stopped_by_user| {
            let restart = Some(RestartPolicy { mode: mode.into(), max_retries: 2 });
            let status = ContainerStatus::Exited.into();
            let state = ContainerState { status, exit_code, restart_count, stopped_by_user, ..Default::default() };
            let spec = ContainerSpec { restart, ..Default::default() };
            is_up(&Container { spec: Some(spec), state: Some(state), ..Default::default() })
        };
        assert!(up(RestartMode::Always, 0, 9, false));
        assert!(!up(RestartMode::Always, 0, 9, true));
        assert!(!up(RestartMode::No, 1, 0, false));
        assert!(up(RestartMode::OnFailure, 1, 1, false));
        assert!(!up(RestartMode::OnFailure, 1, 2, false));
        assert!(!up(RestartMode::OnFailure, 0, 0, false));
    }
}
