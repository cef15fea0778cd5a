//! Docker's protocol for network drivers: JSON over HTTP on a unix socket, one POST for each call
//! (moby, libnetwork/docs/remote.md and docs/extend/plugin_api.md).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::Remote;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Endpoint, Network, Route};
use crate::plan::Change;

/// An answer is at most this long, in bytes.
const LONGEST: usize = 1 << 20;

/// A driver that was found and says that it is one.
pub(super) struct Plugin {
    name: String,
    socket: PathBuf,
    limit: Duration,
}

impl Plugin {
    /// Looks for `<dir>/<name>.sock`, then for a `.spec` (an address) or `.json` (with `Addr`) that names the socket.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none; [`Error::Foreign`] when it is no network driver.
    pub(super) fn find(config: &Config, name: &str, limit: Duration) -> Result<Self> {
        let socket = config.plugins.iter().find_map(|dir| socket_in(dir, name));
        let socket = socket.ok_or_else(|| {
            let dirs: Vec<String> = config.plugins.iter().map(|dir| dir.display().to_string()).collect();
            let known = crate::driver::Driver::NAMES;
            Error::invalid(
                format!("driver {name:?}"),
                format!("known are {known}; no plugin of that name is in {}", dirs.join(", ")),
            )
        })?;
        let plugin = Self { name: name.to_owned(), socket, limit };
        let answer = plugin.call("Plugin.Activate", &json!({}))?;
        let kinds = answer["Implements"].as_array().cloned().unwrap_or_default();
        if kinds.contains(&json!("NetworkDriver")) {
            return Ok(plugin);
        }
        Err(plugin.failed("Plugin.Activate", "it is no network driver".into()))
    }

    /// A driver may choose what it was not given.
    fn take_interface(&self, interface: &Value, endpoint: &mut Endpoint) -> Result<()> {
        for key in ["Address", "AddressIPv6"] {
            let Some(text) = interface[key].as_str().filter(|text| !text.is_empty()) else { continue };
            let address: IpNet = text
                .parse()
                .map_err(|_| self.failed("NetworkDriver.CreateEndpoint", format!("{key} {text:?} is no address")))?;
            endpoint.addresses.retain(|own| own.addr().is_ipv4() != address.addr().is_ipv4());
            endpoint.addresses.push(address);
        }
        if let Some(mac) = interface["MacAddress"].as_str().filter(|text| !text.is_empty()) {
            endpoint.mac_address = mac.to_ascii_lowercase();
        }
        Ok(())
    }

    fn take_routes(&self, joined: &Value, endpoint: &mut Endpoint) -> Result<()> {
        let address = |text: &str| -> Result<IpAddr> {
            text.parse().map_err(|_| self.failed("NetworkDriver.Join", format!("{text:?} is no address")))
        };
        if endpoint.no_default_route {
            endpoint.gateways.clear();
        } else {
            let said = ["Gateway", "GatewayIPv6"].map(|key| joined[key].as_str().unwrap_or_default());
            let gateways = said.into_iter().filter(|text| !text.is_empty()).map(address);
            endpoint.gateways = gateways.collect::<Result<_>>()?;
        }
        for route in joined["StaticRoutes"].as_array().into_iter().flatten() {
            let destination = route["Destination"].as_str().unwrap_or_default();
            let destination = destination
                .parse()
                .map_err(|_| self.failed("NetworkDriver.Join", format!("{destination:?} is no destination")))?;
            let hop = route["NextHop"].as_str().filter(|text| !text.is_empty());
            endpoint.routes.push(Route { destination, gateway: hop.map(address).transpose()?, metric: None });
        }
        Ok(())
    }

    fn failed(&self, step: &str, why: String) -> Error {
        Error::Foreign { driver: self.name.clone(), step: step.to_owned(), why }
    }

    /// One call. A server that does not answer within the limit is left.
    fn call(&self, method: &str, body: &Value) -> Result<Value> {
        let answer = post(&self.socket, method, body, self.limit).map_err(|why| self.failed(method, why))?;
        match answer["Err"].as_str().filter(|text| !text.is_empty()) {
            Some(why) => Err(self.failed(method, why.to_owned())),
            None => Ok(answer),
        }
    }
}

impl Remote for Plugin {
    fn create(&self, network: &Network) -> Result<()> {
        let data = |ipv6: bool| -> Vec<Value> {
            let family = network.subnets.iter().filter(|subnet| subnet.subnet.addr().is_ipv6() == ipv6);
            let one = |subnet: &crate::model::Subnet| {
                let gateway = IpNet::new(subnet.gateway, subnet.subnet.prefix_len());
                let gateway = gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
                json!({ "AddressSpace": "pier", "Pool": subnet.subnet, "Gateway": gateway })
            };
            family.map(one).collect()
        };
        let options = json!({
            "com.docker.network.generic": network.options,
            "com.docker.network.internal": network.internal,
            "com.docker.network.enable_ipv6": network.ipv6,
        });
        let body = json!({
            "NetworkID": network.id, "Options": options, "IPv4Data": data(false), "IPv6Data": data(true),
        });
        self.call("NetworkDriver.CreateNetwork", &body).map(drop)
    }

    fn remove(&self, network: &Network) -> Result<()> {
        self.call("NetworkDriver.DeleteNetwork", &json!({ "NetworkID": network.id })).map(drop)
    }

    fn attach(&self, network: &Network, endpoint: &Endpoint) -> Result<(Endpoint, Vec<Change>)> {
        let of = |ipv6: bool| endpoint.addresses.iter().find(|address| address.addr().is_ipv6() == ipv6);
        let text = |address: Option<&IpNet>| address.map(ToString::to_string).unwrap_or_default();
        let body = json!({
            "NetworkID": network.id, "EndpointID": endpoint.id, "Options": {},
            "Interface": { "Address": text(of(false)), "AddressIPv6": text(of(true)), "MacAddress": endpoint.mac_address },
        });
        let made = self.call("NetworkDriver.CreateEndpoint", &body)?;
        let body = json!({
            "NetworkID": network.id, "EndpointID": endpoint.id, "SandboxKey": endpoint.netns_path, "Options": {},
        });
        let joined = self.call("NetworkDriver.Join", &body)?;
        let mut whole = endpoint.clone();
        self.take_interface(&made["Interface"], &mut whole)?;
        let source = joined["InterfaceName"]["SrcName"].as_str().unwrap_or_default().to_owned();
        if source.is_empty() {
            return Err(self.failed("NetworkDriver.Join", "it names no link (InterfaceName.SrcName)".into()));
        }
        self.take_routes(&joined, &mut whole)?;
        let changes = super::adopt(source, &whole);
        Ok((whole, changes))
    }

    /// Both calls are made, whatever the first comes to.
    fn detach(&self, network: &Network, endpoint: &Endpoint) -> Result<()> {
        let body = json!({ "NetworkID": network.id, "EndpointID": endpoint.id });
        let left = self.call("NetworkDriver.Leave", &body).map(drop);
        self.call("NetworkDriver.DeleteEndpoint", &body).map(drop).and(left)
    }
}

fn socket_in(dir: &Path, name: &str) -> Option<PathBuf> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if name.starts_with('.') || !name.bytes().all(plain) {
        return None;
    }
    for socket in [dir.join(format!("{name}.sock")), dir.join(name).join(format!("{name}.sock"))] {
        if socket.exists() {
            return Some(socket);
        }
    }
    let spec = std::fs::read_to_string(dir.join(format!("{name}.spec"))).ok();
    let json = || -> Option<String> {
        let text = std::fs::read_to_string(dir.join(format!("{name}.json"))).ok()?;
        Some(serde_json::from_str::<Value>(&text).ok()?["Addr"].as_str()?.to_owned())
    };
    let address = spec.or_else(json)?;
    address.trim().strip_prefix("unix://").map(PathBuf::from)
}

fn post(socket: &Path, method: &str, body: &Value, limit: Duration) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let call = async {
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let request = hyper::Request::post(format!("/{method}"))
            .header("Host", "plugin")
            .header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
            .header("Accept", "application/vnd.docker.plugins.v1.2+json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|error| error.to_string())?;
        let text = body.to_bytes();
        let answer: Option<Value> = serde_json::from_slice(&text).ok();
        match (status.is_success(), answer) {
            (true, Some(answer)) => Ok(answer),
            (true, None) if text.is_empty() => Ok(json!({})),
            (_, Some(answer)) if answer["Err"].is_string() => Ok(answer),
            _ => Err(format!("it answered {status}: {}", String::from_utf8_lossy(&text).trim())),
        }
    };
    let late = || format!("it did not answer within {limit:?}");
    runtime.block_on(async { tokio::time::timeout(limit, call).await }).unwrap_or_else(|_| Err(late()))
}
