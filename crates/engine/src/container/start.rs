//! Start: network, then the process; all or nothing.
use super::network::{self, Connected};
use super::{get, modes, name_of, remove, status, volumes};
use crate::engine::Engine;
use crate::error::Error;
use crate::files::{self, Connection};
use crate::plan::Plan;
use crate::record::{self, Record, id_of};
use crate::{host, spec};
use api::supervisor::v1::{Container, ContainerStatus, InjectedFile, StartContainerRequest};
use api::volume::v1::RemountVolumesRequest;

/// Starts a container and returns the host pid of its first process; one that runs already is left as it is.
///
/// # Errors
/// [`Error::Step`]; the network is given back then. A container to be removed at its end is removed.
pub async fn start(engine: &Engine, id: &str, terminal: (u32, u32)) -> Result<i32, Error> {
    let id = id_of(&get(engine, id).await?).to_string();
    let _hold = engine.hold(&id).await;
    held(engine, &id, terminal).await
}

/// The same for a caller that holds the container.
pub async fn held(engine: &Engine, id: &str, terminal: (u32, u32)) -> Result<i32, Error> {
    let container = get(engine, id).await?;
    match status(&container) {
        ContainerStatus::Running => return Ok(container.state.map_or(0, |s| s.pid)),
        ContainerStatus::Paused => {
            let why = "is paused".into();
            return Err(Error::State { container: name_of(&container), why, hint: "unpause it" });
        }
        _ => {}
    }
    let record = record::required(&container)?;
    let mut plan = Plan::new(format!("start container {}", name_of(&container)));
    let result = steps(engine, &mut plan, &container, &record, terminal).await;
    let result = plan.finish(result).await;
    if result.is_err()
        && record.config().auto_remove
        && let Err(error) = remove::held(engine, &container, true).await
    {
        tracing::warn!(container = %id, error = %error, "removal after a failed start");
    }
    result
}

async fn steps(
    engine: &Engine,
    plan: &mut Plan,
    container: &Container,
    record: &Record,
    (terminal_width, terminal_height): (u32, u32),
) -> Result<i32, Error> {
    let name = name_of(container);
    plan.step("check joined namespaces", modes::check_joined(engine, &name, record)).await?;
    // After a reboot what has to be mounted is not.
    if record.config().mounts.iter().any(volumes::is_volume) {
        let request = RemountVolumesRequest { consumer: id_of(container).to_string() };
        plan.step("check volumes", engine.clients().volume_remount(request)).await?;
    }
    let connected = network::connect(engine, plan, container, record).await?;
    let files = plan.step("write hosts and resolv.conf", async { injected(container, record, &connected) }).await?;
    let request = StartContainerRequest { id: id_of(container).to_string(), files, terminal_width, terminal_height };
    let answer = plan.step("start process", engine.clients().supervisor_start(request)).await?;
    Ok(answer.pid)
}

/// The files that say who and where the container is.
pub fn injected(container: &Container, record: &Record, connected: &Connected) -> Result<Vec<InjectedFile>, Error> {
    let config = record.config();
    let hostname = spec::default_hostname(&config.hostname, id_of(container));
    let connection = match connected {
        Connected::Host => Connection::Host,
        Connected::Own(endpoints) | Connected::Joined(endpoints) => Connection::Endpoints(endpoints),
    };
    files::injected(&config, &hostname, &connection, &host::files())
}
