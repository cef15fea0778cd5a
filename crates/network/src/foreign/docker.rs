//! Docker's protocol for network drivers (moby, libnetwork/docs/remote.md).

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use rpc::plugin::{self, Address};
use serde_json::{Value, json};

use super::Remote;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Endpoint, Network, Route};
use crate::plan::Change;

/// A driver that was found and says that it is one.
pub(super) struct Plugin {
    name: String,
    address: Address,
    limit: Duration,
}

impl Plugin {
    /// Looks through docker's directories.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none; [`Error::Foreign`] when it is no network driver.
    pub(super) fn find(config: &Config, name: &str, limit: Duration) -> Result<Self> {
        let what = || format!("driver {name:?}");
        let address = super::plugin_of(config, name, what, crate::driver::Driver::NAMES)?;
        let plugin = Self { name: name.to_owned(), address, limit };
        let active = plugin::activate(&plugin.address, "NetworkDriver", limit);
        active.map_err(|problem| plugin.failed("Plugin.Activate", problem.to_string()))?;
        Ok(plugin)
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
            endpoint.routes.push(Route::new(destination, hop.map(address).transpose()?));
        }
        Ok(())
    }

    fn failed(&self, step: &str, why: String) -> Error {
        Error::Foreign { driver: self.name.clone(), step: step.to_owned(), why }
    }

    /// One call. A server that does not answer within the limit is left.
    fn call(&self, method: &str, body: &Value) -> Result<Value> {
        let answer = plugin::ask(&self.address, method, body, self.limit);
        answer.map_err(|problem| self.failed(method, problem.to_string()))
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
