//! This program as a CNI plugin: the configuration comes on stdin, the rest in the environment, the answer is JSON.
//!
//! ```json
//! {"cniVersion": "1.0.0", "name": "blue", "type": "pier-network", "root": "/var/lib/pier", "run": "/run/pier"}
//! ```
//!
//! The network of that name is joined; when there is none it is made, with `driver`, `subnets`, `internal`, `ipv6` and
//! `options` as `create` takes them. The endpoint's owner is `cni:<container>:<interface>`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use sys::netns::Netns;

use super::{Dns, Interface, Ip, PortMap, Route, Success, VERSIONS};
use crate::config::Config;
use crate::endpoints::Detach;
use crate::error::Error;
use crate::model::{Endpoint, Network, NewEndpoint, NewNetwork, NewSubnet, PortMapping};
use crate::netlink::Netlink;
use crate::networks::Networks;
use crate::store::EndpointFilter;

/// What went wrong, in the protocol's numbers (spec, "Error").
#[derive(Debug)]
struct Failure {
    code: u32,
    message: String,
}

const INCOMPATIBLE: u32 = 1;
const BAD_ENVIRONMENT: u32 = 4;
const UNDECODABLE: u32 = 6;
const BAD_CONFIGURATION: u32 = 7;
const NOT_AVAILABLE: u32 = 50;
/// The first number of our own.
const FAILED: u32 = 100;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if matches!(error, Error::Invalid { .. }) { BAD_CONFIGURATION } else { FAILED };
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self { code, message }
    }
}

/// A network configuration: what we read of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conf {
    cni_version: String,
    name: String,
    root: Option<PathBuf>,
    run: Option<PathBuf>,
    driver: String,
    subnets: Vec<ConfSubnet>,
    internal: bool,
    ipv6: bool,
    options: BTreeMap<String, String>,
    runtime_config: RuntimeConfig,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<Attachment>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfSubnet {
    subnet: String,
    gateway: String,
    range: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Vec<PortMap>,
    ips: Vec<String>,
    mac: String,
    aliases: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// The environment of a call.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`: `K=V;K=V`.
    pub args: String,
}

impl Call {
    /// The environment of this process, when it was called as a plugin.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        let text = |name: &str| std::env::var(name).unwrap_or_default();
        let call = Self {
            command: std::env::var("CNI_COMMAND").ok()?,
            container: text("CNI_CONTAINERID"),
            netns: text("CNI_NETNS"),
            interface: text("CNI_IFNAME"),
            args: text("CNI_ARGS"),
        };
        Some(call)
    }

    fn owner(&self) -> String {
        owner(&self.container, &self.interface)
    }

    fn arg(&self, key: &str) -> Option<&str> {
        self.args.split(';').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key).map(|pair| pair.1)
    }
}

fn owner(container: &str, interface: &str) -> String {
    format!("cni:{container}:{interface}")
}

/// Answers a call. `config` makes the stack's configuration from `root` and `run`, where the network's has them.
/// Returns what goes to stdout, and whether it succeeded.
pub fn answer(
    call: &Call,
    stdin: &str,
    config: impl FnOnce(Option<PathBuf>, Option<PathBuf>) -> Config,
) -> (String, bool) {
    let version = serde_json::from_str::<Value>(stdin).ok();
    let version = version.as_ref().and_then(|conf| conf["cniVersion"].as_str()).unwrap_or("0.3.1").to_owned();
    match act(call, stdin, &version, config) {
        Ok(None) => (String::new(), true),
        Ok(Some(value)) => (value.to_string(), true),
        Err(Failure { code, message }) => {
            (json!({ "cniVersion": version, "code": code, "msg": message, "details": "" }).to_string(), false)
        }
    }
}

fn act(
    call: &Call,
    stdin: &str,
    version: &str,
    config: impl FnOnce(Option<PathBuf>, Option<PathBuf>) -> Config,
) -> Result<Option<Value>, Failure> {
    if call.command == "VERSION" {
        return Ok(Some(json!({ "cniVersion": VERSIONS[VERSIONS.len() - 1], "supportedVersions": VERSIONS })));
    }
    if !VERSIONS.contains(&version) {
        let message = format!("version {version} is not spoken; spoken are {}", VERSIONS.join(", "));
        return Err(Failure { code: INCOMPATIBLE, message });
    }
    let mut conf: Conf =
        serde_json::from_str(stdin).map_err(|error| Failure { code: UNDECODABLE, message: error.to_string() })?;
    if conf.name.is_empty() {
        return Err(Failure { code: BAD_CONFIGURATION, message: "the network has no name".into() });
    }
    let networks = Networks::open(config(conf.root.take(), conf.run.take()));
    let networks = match call.command.as_str() {
        "STATUS" => networks.map_err(|error| Failure { code: NOT_AVAILABLE, ..Failure::from(error) })?,
        _ => networks?,
    };
    match call.command.as_str() {
        "ADD" => add(&networks, call, &conf, version).map(Some),
        "DEL" => remove(&networks, call, &conf).map(|()| None),
        "CHECK" => check(&networks, call, &conf).map(|()| None),
        "STATUS" => Ok(None),
        "GC" => collect(&networks, &conf).map(|()| None),
        other => {
            let message = format!("CNI_COMMAND {other:?}: known are ADD, DEL, CHECK, STATUS, GC and VERSION");
            Err(Failure { code: BAD_ENVIRONMENT, message })
        }
    }
}

fn required<'a>(name: &str, value: &'a str) -> Result<&'a str, Failure> {
    match value {
        "" => Err(Failure { code: BAD_ENVIRONMENT, message: format!("{name} is not set") }),
        value => Ok(value),
    }
}

fn add(networks: &Networks, call: &Call, conf: &Conf, version: &str) -> Result<Value, Failure> {
    required("CNI_CONTAINERID", &call.container)?;
    if conf.prev_result.is_some() {
        let message = "it makes the link, so it has to be the first plugin of the list".into();
        return Err(Failure { code: BAD_CONFIGURATION, message });
    }
    let network = network(networks, conf)?;
    let new = endpoint(call, conf)?;
    let endpoint = networks.attach(&new)?;
    serde_json::to_value(success(&network, &endpoint, version))
        .map_err(|error| Failure { code: FAILED, message: error.to_string() })
}

fn network(networks: &Networks, conf: &Conf) -> Result<Network, Error> {
    match networks.get(&conf.name) {
        Err(Error::NetworkNotFound { .. }) => {}
        found => return found.map(|(network, _)| network),
    }
    let subnet = |subnet: &ConfSubnet| NewSubnet {
        subnet: subnet.subnet.clone(),
        gateway: subnet.gateway.clone(),
        range: subnet.range.clone(),
    };
    networks.create(NewNetwork {
        name: conf.name.clone(),
        driver: conf.driver.clone(),
        subnets: conf.subnets.iter().map(subnet).collect(),
        internal: conf.internal,
        ipv6: conf.ipv6,
        options: conf.options.clone(),
        exist_ok: true,
        ..NewNetwork::default()
    })
}

fn endpoint(call: &Call, conf: &Conf) -> Result<NewEndpoint, Failure> {
    let runtime = &conf.runtime_config;
    let bare = |text: &str| text.split('/').next().unwrap_or_default().parse::<IpAddr>();
    let ips = runtime.ips.iter().map(String::as_str).chain(call.arg("IP"));
    let addresses = ips.map(bare).collect::<Result<Vec<_>, _>>();
    let mut names = vec![call.container.chars().take(12).collect::<String>()];
    names.extend(call.arg("K8S_POD_NAME").map(str::to_owned));
    names.extend(runtime.aliases.get(&conf.name).into_iter().flatten().cloned());
    Ok(NewEndpoint {
        network: conf.name.clone(),
        netns_path: required("CNI_NETNS", &call.netns)?.into(),
        owner: call.owner(),
        names,
        addresses: addresses.map_err(|error| Failure { code: BAD_CONFIGURATION, message: error.to_string() })?,
        mac_address: if runtime.mac.is_empty() {
            call.arg("MAC").unwrap_or_default().into()
        } else {
            runtime.mac.clone()
        },
        interface: required("CNI_IFNAME", &call.interface)?.to_owned(),
        ports: runtime.port_mappings.iter().map(port).collect::<Result<_, _>>()?,
        ..NewEndpoint::default()
    })
}

fn port(port: &PortMap) -> Result<PortMapping, Error> {
    let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
    let host = match port.host_ip.as_str() {
        "" => String::new(),
        ip if ip.contains(':') => format!("[{ip}]:"),
        ip => format!("{ip}:"),
    };
    format!("{host}{}:{}/{}", port.host_port, port.container_port, protocol.to_ascii_lowercase()).parse()
}

fn success(network: &Network, endpoint: &Endpoint, version: &str) -> Success {
    let inside = Interface {
        name: endpoint.interface.clone(),
        mac: endpoint.mac_address.clone(),
        sandbox: endpoint.netns_path.display().to_string(),
    };
    let host = Interface { name: endpoint.host_interface.clone(), ..Interface::default() };
    let interfaces: Vec<Interface> = [host, inside].into_iter().filter(|link| !link.name.is_empty()).collect();
    let position = interfaces.len().saturating_sub(1);
    let family = |address: &IpNet| if address.addr().is_ipv4() { "4" } else { "6" };
    let ip = |address: &IpNet| Ip {
        version: version.starts_with("0.").then(|| family(address).to_owned()),
        address: *address,
        gateway: network.subnet_of(address.addr()).map(|subnet| subnet.gateway),
        interface: Some(position),
    };
    let default = |gateway: &IpAddr| Route { dst: everywhere(*gateway), gw: Some(*gateway) };
    let fixed = |route: &crate::model::Route| Route { dst: route.destination, gw: route.gateway };
    Success {
        cni_version: version.to_owned(),
        ips: endpoint.addresses.iter().map(ip).collect(),
        routes: endpoint.gateways.iter().map(default).chain(endpoint.routes.iter().map(fixed)).collect(),
        dns: Dns { nameservers: endpoint.dns_servers.iter().map(ToString::to_string).collect() },
        interfaces,
    }
}

/// All addresses of a family.
fn everywhere(like: IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// Fine with what is gone, the network included.
fn remove(networks: &Networks, call: &Call, conf: &Conf) -> Result<(), Failure> {
    required("CNI_CONTAINERID", &call.container)?;
    match networks.detach(&Detach::Owner { owner: call.owner(), network: Some(conf.name.clone()) }) {
        Ok(_) | Err(Error::NetworkNotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn check(networks: &Networks, call: &Call, conf: &Conf) -> Result<(), Failure> {
    let failed = |message: String| Failure { code: FAILED, message };
    let owner = call.owner();
    let (_, endpoints) = networks.get(&conf.name)?;
    let endpoint = endpoints.into_iter().find(|endpoint| endpoint.owner == owner);
    let endpoint = endpoint.ok_or_else(|| failed(format!("{owner} is not on network {:?}", conf.name)))?;
    let netns = Netns::open(&endpoint.netns_path).map_err(|error| failed(error.to_string()))?;
    let look = || {
        let mut inside = Netlink::open()?;
        inside.link(&endpoint.interface)?.map(|link| inside.addresses(link.index)).transpose()
    };
    let found = netns.within(look).and_then(|found| found).map_err(|error| failed(error.to_string()))?;
    let Some(found) = found else { return Err(failed(format!("link {} is gone", endpoint.interface))) };
    match endpoint.addresses.iter().find(|address| !found.contains(address)) {
        Some(address) => Err(failed(format!("address {address} is gone from {}", endpoint.interface))),
        None => Ok(()),
    }
}

/// Detaches what this protocol attached and the runtime no longer knows.
fn collect(networks: &Networks, conf: &Conf) -> Result<(), Failure> {
    let Some(valid) = &conf.valid else {
        return Err(Failure { code: BAD_CONFIGURATION, message: "cni.dev/valid-attachments is missing".into() });
    };
    let valid: BTreeSet<String> = valid.iter().map(|one| owner(&one.container, &one.ifname)).collect();
    let network = match networks.get(&conf.name) {
        Err(Error::NetworkNotFound { .. }) => return Ok(()),
        found => found?.0,
    };
    let filter = EndpointFilter { network: Some(network.id), ..EndpointFilter::default() };
    let mut warnings = Vec::new();
    for endpoint in networks.endpoints(&filter)? {
        if endpoint.owner.starts_with("cni:") && !valid.contains(&endpoint.owner) {
            warnings.extend(networks.detach(&Detach::Id(endpoint.id))?.warnings);
        }
    }
    match warnings.is_empty() {
        true => Ok(()),
        false => Err(Failure { code: FAILED, message: warnings.join("; ") }),
    }
}
