//! docker's `--pid`, `--ipc`, `--uts`, `--cgroupns`, `--userns` and `--network` words.
use super::{get, name_of};
use crate::engine::Engine;
use crate::error::Error;
use crate::record::{Joined, Record, id_of};
use crate::spec::Machine;
use crate::spec::namespaces::{Namespace, Namespaces, Uts};
use api::engine::v1::{ContainerConfig, NetworkAttachment, NetworkConfig};

/// What a container's network word means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// Own namespace, wired to networks.
    Networks,
    /// Own namespace, loopback only.
    None,
    /// The host's.
    Host,
    /// Another container's, by id or name.
    Container(String),
}

impl NetworkMode {
    /// Reads the word; whatever is no other word is a network's name.
    pub fn of(network: &NetworkConfig) -> Result<Self, Error> {
        let mode = match network.mode.as_str() {
            "none" => Self::None,
            "host" => Self::Host,
            mode => match mode.strip_prefix("container:") {
                Some("") => return Err(Error::invalid("network mode", mode, "expected container:<id>")),
                Some(id) => Self::Container(id.to_string()),
                None => Self::Networks,
            },
        };
        if mode != Self::Networks && !network.attachments.is_empty() {
            return Err(Error::invalid("network mode", &network.mode, "it cannot go together with networks"));
        }
        let alone = matches!(mode, Self::None | Self::Container(_));
        if alone && (!network.ports.is_empty() || network.publish_all) {
            return Err(Error::invalid(
                "published ports",
                &network.mode,
                "a container in this network mode has no ports",
            ));
        }
        Ok(mode)
    }
}

/// The networks a container is attached to: those it names, else the default one.
pub fn attachments(network: &NetworkConfig, default_network: &str) -> Vec<NetworkAttachment> {
    if !network.attachments.is_empty() {
        return network.attachments.clone();
    }
    let name = match network.mode.as_str() {
        "" | "default" => default_network,
        name => name,
    };
    vec![NetworkAttachment { network: name.to_string(), ..Default::default() }]
}

/// Decides on every namespace; those of other containers must run now.
pub async fn namespaces(
    engine: &Engine,
    id: &str,
    config: &ContainerConfig,
    machine: &Machine,
) -> Result<(Namespaces, Vec<Joined>), Error> {
    let network = config.network.clone().unwrap_or_default();
    let mut joined = Vec::new();
    let network = match NetworkMode::of(&network)? {
        NetworkMode::Host => Namespace::Host,
        NetworkMode::Networks | NetworkMode::None => Namespace::Path(path_of(engine, id)),
        NetworkMode::Container(other) => {
            let (namespace, link) = network_of(engine, &other).await?;
            joined.push(link);
            namespace
        }
    };
    let pid = match config.pid_mode.strip_prefix("container:") {
        Some(other) => {
            let (namespace, link) = running(engine, other, "pid").await?;
            joined.push(link);
            namespace
        }
        None => simple("pid mode", &config.pid_mode)?,
    };
    if config.ipc_mode.starts_with("container:") {
        let hint = "use --ipc host, or a volume on /dev/shm";
        return Err(Error::Unsupported { what: format!("--ipc {}", config.ipc_mode), hint });
    }
    let ipc = match config.ipc_mode.as_str() {
        "none" | "shareable" => Namespace::Private,
        word => simple("ipc mode", word)?,
    };
    let uts = match simple("uts mode", &config.uts_mode)? {
        Namespace::Host => Uts::Host,
        _ => Uts::Private,
    };
    let cgroup = match config.cgroupns_mode.as_str() {
        "" if !machine.cgroup_v2 || config.security.as_ref().is_some_and(|s| s.privileged) => Namespace::Host,
        word => simple("cgroupns mode", word)?,
    };
    let user = super::userns::resolve(engine, id, config).await?;
    Ok((Namespaces { pid, ipc, uts, network, cgroup, user }, joined))
}

/// Where the network tool binds the namespace of a key.
pub fn path_of(engine: &Engine, id: &str) -> String {
    engine.clients().run().join("network/ns").join(id).display().to_string()
}

fn simple(what: &'static str, word: &str) -> Result<Namespace, Error> {
    match word {
        "" | "private" => Ok(Namespace::Private),
        "host" => Ok(Namespace::Host),
        other => Err(Error::invalid(what, other, "it is private or host")),
    }
}

// The path of a namespace that the network tool made outlives the process in it; the host's has none.
async fn network_of(engine: &Engine, other: &str) -> Result<(Namespace, Joined), Error> {
    let target = get(engine, other).await?;
    let link = Joined { container: id_of(&target).to_string(), namespace: "network".into(), pid: 0 };
    let network = Record::of(&target).and_then(|r| r.config().network).unwrap_or_default();
    match NetworkMode::of(&network)? {
        NetworkMode::Host => Ok((Namespace::Host, link)),
        NetworkMode::Container(_) => {
            let why = format!("has the network of another container itself, {}", network.mode);
            Err(Error::State { container: name_of(&target), why, hint: "join that one" })
        }
        _ => Ok((Namespace::Path(path_of(engine, id_of(&target))), link)),
    }
}

async fn running(engine: &Engine, other: &str, kind: &str) -> Result<(Namespace, Joined), Error> {
    let target = get(engine, other).await?;
    let pid = target.state.as_ref().map_or(0, |s| s.pid);
    if pid == 0 {
        let why = format!("does not run, so its {kind} namespace cannot be joined");
        return Err(Error::State { container: name_of(&target), why, hint: "start it first" });
    }
    let link = Joined { container: id_of(&target).to_string(), namespace: kind.into(), pid };
    Ok((Namespace::Path(format!("/proc/{pid}/ns/{kind}")), link))
}

/// Before a start: what was joined must still be what it was.
pub async fn check_joined(engine: &Engine, container: &str, record: &Record) -> Result<(), Error> {
    for link in &record.joined {
        let target = get(engine, &link.container).await?;
        let pid = target.state.as_ref().map_or(0, |s| s.pid);
        let name = name_of(&target);
        if pid == 0 {
            let why = format!("joins the {} namespace of {name}, which does not run", link.namespace);
            return Err(Error::State { container: container.into(), why, hint: "start that one first" });
        }
        if link.pid != 0 && link.pid != pid {
            let why = format!("joined the {} namespace of {name}, which was started again since", link.namespace);
            return Err(Error::State { container: container.into(), why, hint: "create it again" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words() {
        let of = |mode: &str| NetworkMode::of(&NetworkConfig { mode: mode.into(), ..Default::default() });
        assert_eq!(of("").unwrap(), NetworkMode::Networks);
        assert_eq!(of("blue").unwrap(), NetworkMode::Networks);
        assert_eq!(of("none").unwrap(), NetworkMode::None);
        assert_eq!(of("container:web").unwrap(), NetworkMode::Container("web".into()));
        assert!(of("container:").is_err());
        let both = NetworkConfig { mode: "host".into(), attachments: vec![Default::default()], ..Default::default() };
        assert!(NetworkMode::of(&both).is_err());
        let names = |network: &NetworkConfig| attachments(network, "bridge")[0].network.clone();
        assert_eq!(names(&NetworkConfig::default()), "bridge");
        assert_eq!(names(&NetworkConfig { mode: "blue".into(), ..Default::default() }), "blue");
    }
}
