//! Connect and disconnect networks of a container that exists.
use super::modes::{self, NetworkMode};
use super::{get, is_up, name_of, network};
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::Plan;
use crate::record::{self, Record, id_of};
use api::engine::v1::{NetworkAttachment, NetworkConfig};
use api::network::v1::GetNetworkRequest;
use api::supervisor::v1::Container;

/// Adds a network: at once when the container runs, and at every start from now on.
pub async fn connect(engine: &Engine, container: &str, attachment: NetworkAttachment) -> Result<(), Error> {
    let id = id_of(&get(engine, container).await?).to_string();
    let _hold = engine.hold(&id).await;
    let container = get(engine, &id).await?;
    let record = record::required(&container)?;
    let (networks, mut wanted) = networks(engine, &container, &record)?;
    if wanted.iter().any(|a| a.network == attachment.network) {
        let why = format!("is on network {} already", attachment.network);
        return Err(Error::State { container: name_of(&container), why, hint: "disconnect it first" });
    }
    let mut plan = Plan::new(format!("connect container {} to {}", name_of(&container), attachment.network));
    let result = async {
        let name = attachment.network.clone();
        plan.step("resolve network", engine.clients().network_get(GetNetworkRequest { name: name.clone() })).await?;
        if is_up(&container) {
            let path = modes::path_of(engine, &id);
            let request = network::request(&container, &attachment, &path, Vec::new());
            let undone = (engine.clone(), id.clone());
            let undo = move || async move { network::detach(&undone.0, &undone.1, &name).await };
            plan.undoable("attach to network", undo, engine.clients().network_attach(request)).await?;
        }
        wanted.push(attachment);
        plan.step("update record", update(engine, &container, &record, networks, wanted)).await
    }
    .await;
    plan.finish(result).await
}

/// Takes a network away. With `force` a network that is gone or unknown is no error.
pub async fn disconnect(engine: &Engine, container: &str, name: &str, force: bool) -> Result<(), Error> {
    let id = id_of(&get(engine, container).await?).to_string();
    let _hold = engine.hold(&id).await;
    let container = get(engine, &id).await?;
    let record = record::required(&container)?;
    let (networks, mut wanted) = networks(engine, &container, &record)?;
    let before = wanted.len();
    wanted.retain(|a| a.network != name);
    if wanted.len() == before && !force {
        let why = format!("is not on network {name}");
        return Err(Error::State { container: name_of(&container), why, hint: "see its networks with inspect" });
    }
    match network::detach(engine, &id, name).await {
        Err(error) if !(force || error.is_not_found()) => return Err(error),
        _ => {}
    }
    update(engine, &container, &record, networks, wanted).await
}

fn networks(
    engine: &Engine,
    container: &Container,
    record: &Record,
) -> Result<(NetworkConfig, Vec<NetworkAttachment>), Error> {
    let network = record.config().network.unwrap_or_default();
    match NetworkMode::of(&network)? {
        NetworkMode::Networks => {
            let wanted = modes::attachments(&network, &engine.settings().default_network);
            Ok((network, wanted))
        }
        NetworkMode::None => Ok((network, Vec::new())),
        _ => {
            let why = format!("has network mode {}", network.mode);
            Err(Error::State { container: name_of(container), why, hint: "only a network of its own can be changed" })
        }
    }
}

async fn update(
    engine: &Engine,
    container: &Container,
    record: &Record,
    network: NetworkConfig,
    attachments: Vec<NetworkAttachment>,
) -> Result<(), Error> {
    let mode = if attachments.is_empty() { "none".to_string() } else { String::new() };
    let ports = if attachments.is_empty() { Vec::new() } else { network.ports.clone() };
    let network = NetworkConfig { mode, ports, attachments, ..network };
    network::record(engine, container, record, network).await
}
