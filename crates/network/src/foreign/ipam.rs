//! Docker's protocol for address management (moby, libnetwork/docs/ipam.md): a plugin has the pools, and gives each
//! address of them.
//!
//! It is asked without the stack's lock, within its network's time limit. What it is to get back stands in the database
//! from the moment the record that needed it is gone, until the plugin has taken it: see [`Networks::pay`]. So does what
//! it gives when nobody waits for it any more.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use rpc::plugin::{self, Address, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{limit, plugin_of};
use crate::config::Config;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::model::{Endpoint, Network, NewNetwork, NewSubnet, Subnet};
use crate::networks::Networks;

/// A pool that a plugin gave to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The plugin's name for it.
    pub id: String,
    /// All its addresses.
    pub subnet: IpNet,
}

/// A call that gives something back to a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Debt {
    /// The plugin.
    pub(crate) driver: String,
    /// Its time limit.
    pub(crate) seconds: u64,
    /// `ReleaseAddress`, `ReleasePool`.
    call: String,
    body: Value,
}

struct Manager {
    name: String,
    address: Address,
    limit: Duration,
    config: Config,
}

impl Manager {
    fn find(networks: &Networks, name: &str, limit: Duration) -> Result<Self> {
        let what = || format!("IPAM driver {name:?}");
        let address = plugin_of(&networks.config, name, what, "default, dhcp and none")?;
        Ok(Self { name: name.to_owned(), address, limit, config: networks.config.clone() })
    }

    fn failed(&self, step: &str, why: impl ToString) -> Error {
        Error::Foreign { driver: self.name.clone(), step: step.to_owned(), why: why.to_string() }
    }

    fn call(&self, method: &str, body: &Value) -> Result<Value> {
        self.try_call(method, body).map_err(|problem| self.failed(&format!("IpamDriver.{method}"), problem))
    }

    fn try_call(&self, method: &str, body: &Value) -> Result<Value, Problem> {
        plugin::ask(&self.address, &format!("IpamDriver.{method}"), body, self.limit)
    }

    /// A call that gives something; `back` is what returns it.
    fn request(
        &self,
        method: &str,
        body: &Value,
        back: impl FnOnce(&Value) -> Option<Debt> + Send + 'static,
    ) -> Result<Value> {
        let config = self.config.clone();
        let late = move |answer: &Value| {
            tracing::warn!(%answer, "came when nobody waited any more; given back");
            let Some(debt) = back(answer) else { return };
            let returned = Networks::open(config).and_then(|networks| {
                networks.store.owe(&[debt])?;
                networks.pay();
                Ok(())
            });
            if let Err(error) = returned {
                tracing::error!(%error, %answer, "stays given");
            }
        };
        let called = format!("IpamDriver.{method}");
        plugin::ask_or_late(&self.address, &called, body, self.limit, late)
            .map_err(|problem| self.failed(&called, problem))
    }

    /// A pool: the wanted one, or one of the plugin's choice.
    fn pool(&self, space: &str, wanted: &NewSubnet, network: &Network, ipv6: bool) -> Result<(Pool, Value)> {
        let body = json!({
            "AddressSpace": space, "Pool": wanted.subnet, "SubPool": wanted.range, "Options": network.ipam.options, "V6": ipv6,
        });
        let owing = debt_maker(network);
        let back = move |answer: &Value| Some(owing("ReleasePool", json!({ "PoolID": answer["PoolID"] })));
        let answer = self.request("RequestPool", &body, back)?;
        let text = answer["Pool"].as_str().unwrap_or_default();
        let bad = || self.failed("IpamDriver.RequestPool", format!("its pool {text:?} is no subnet"));
        let subnet: IpNet = text.parse().map_err(|_| bad())?;
        let id = answer["PoolID"].as_str().unwrap_or_default().to_owned();
        Ok((Pool { id, subnet: subnet.trunc() }, answer["Data"].clone()))
    }

    fn address(&self, network: &Network, pool: &Pool, wanted: Option<IpAddr>, options: Value) -> Result<IpNet> {
        let wanted = wanted.map(|ip| ip.to_string()).unwrap_or_default();
        let body = json!({ "PoolID": pool.id, "Address": wanted, "Options": options });
        let (owing, id) = (debt_maker(network), pool.id.clone());
        let back = move |answer: &Value| {
            let given: IpNet = answer["Address"].as_str()?.parse().ok()?;
            Some(owing("ReleaseAddress", json!({ "PoolID": id, "Address": given.addr() })))
        };
        let answer = self.request("RequestAddress", &body, back)?;
        let text = answer["Address"].as_str().unwrap_or_default();
        let given: Option<IpNet> = text.parse().ok().filter(|net: &IpNet| pool.subnet.contains(&net.addr()));
        given.ok_or_else(|| {
            self.failed("IpamDriver.RequestAddress", format!("its answer {text:?} is no address of {}", pool.subnet))
        })
    }
}

fn debt(network: &Network, call: &str, body: Value) -> Debt {
    debt_maker(network)(call, body)
}

/// Makes what the network's plugin is owed.
fn debt_maker(network: &Network) -> impl Fn(&str, Value) -> Debt + Send + use<> {
    let (driver, seconds) = (network.ipam.driver.clone(), limit(network).as_secs());
    move |call, body| Debt { driver: driver.clone(), seconds, call: call.to_owned(), body }
}

fn release(network: &Network, address: IpAddr) -> Option<Debt> {
    let pool = network.ipam.pools.iter().find(|pool| pool.subnet.contains(&address))?;
    Some(debt(network, "ReleaseAddress", json!({ "PoolID": pool.id, "Address": address })))
}

/// What an endpoint's plugin is owed once it is gone.
pub(crate) fn debts_of_endpoint(network: &Network, endpoint: &Endpoint) -> Vec<Debt> {
    endpoint.addresses.iter().filter_map(|address| release(network, address.addr())).collect()
}

/// What a network's plugin is owed once it is gone: addresses first.
pub(crate) fn debts_of_network(network: &Network) -> Vec<Debt> {
    let gateways = network.subnets.iter().map(|subnet| subnet.gateway);
    let addresses = gateways.chain(network.ipam.auxiliary.values().copied());
    let addresses = addresses.filter_map(|address| release(network, address));
    let pools = network.ipam.pools.iter();
    addresses.chain(pools.map(|pool| debt(network, "ReleasePool", json!({ "PoolID": pool.id })))).collect()
}

impl Networks {
    /// Gets the pools of a new network, with its gateways and auxiliary addresses. On failure all is given back.
    pub(crate) fn request_pools(&self, new: &NewNetwork, network: &mut Network) -> Result<()> {
        let manager = Manager::find(self, &network.ipam.driver, limit(network))?;
        let active = plugin::activate(&manager.address, "IpamDriver", manager.limit);
        active.map_err(|problem| manager.failed("Plugin.Activate", problem))?;
        let requested = fill(&manager, new, network);
        if requested.is_err() {
            self.store.owe(&debts_of_network(network))?;
            self.pay();
        }
        requested
    }

    /// Gets the addresses of an endpoint that is recorded. On failure the record is gone, and all is given back.
    pub(crate) fn request_addresses(
        &self,
        network: &Network,
        mut endpoint: Endpoint,
        wanted: &[IpAddr],
    ) -> Result<Endpoint> {
        let asked = Manager::find(self, &network.ipam.driver, limit(network))
            .and_then(|manager| give(&manager, network, &mut endpoint, wanted))
            .and_then(|()| self.store.update_endpoint(&endpoint));
        if let Err(error) = asked {
            // The record may be gone by now: its network was removed by force.
            self.store.delete_endpoint(&endpoint.id, &[])?;
            self.store.owe(&debts_of_endpoint(network, &endpoint))?;
            self.pay();
            return Err(error);
        }
        Ok(endpoint)
    }

    /// Gives back what plugins are owed. What one does not take within its time stays owed, and is tried again by the
    /// next one who gives something back and by the next reconcile; a refusal is final.
    pub(crate) fn pay(&self) {
        let debts = self.store.debts().unwrap_or_else(|error| {
            tracing::error!(%error, "what plugins are owed cannot be read");
            Vec::new()
        });
        let mut silent: Vec<String> = Vec::new();
        for (number, debt) in debts {
            if silent.contains(&debt.driver) {
                continue;
            }
            let asked = Manager::find(self, &debt.driver, Duration::from_secs(debt.seconds.max(1)));
            let paid = match asked.map(|manager| manager.try_call(&debt.call, &debt.body)) {
                Ok(Ok(_)) => true,
                Ok(Err(Problem::Said(why))) => {
                    tracing::warn!(driver = debt.driver, call = debt.call, why, "refused, and left at that");
                    true
                }
                Ok(Err(problem)) => {
                    tracing::warn!(driver = debt.driver, call = debt.call, %problem, "owed until it answers");
                    false
                }
                Err(error) => {
                    tracing::warn!(driver = debt.driver, %error, "owed until it is there");
                    false
                }
            };
            if !paid {
                silent.push(debt.driver);
            } else if let Err(error) = self.store.forget_debt(number) {
                tracing::error!(%error, "what a plugin got back will be given again");
            }
        }
    }
}

/// Each subnet that was named, else one of each family that is wanted.
fn fill(manager: &Manager, new: &NewNetwork, network: &mut Network) -> Result<()> {
    let spaces = manager.call("GetDefaultAddressSpaces", &json!({}))?;
    let space = spaces["LocalDefaultAddressSpace"].as_str().unwrap_or_default().to_owned();
    let mut wanted = new.subnets.clone();
    if !wanted.iter().any(|subnet| !subnet.subnet.contains(':')) && !new.disable_ipv4 {
        wanted.push(NewSubnet::default());
    }
    let six = wanted.iter().any(|subnet| subnet.subnet.contains(':'));
    let named = wanted.len();
    if network.ipv6 && !six {
        wanted.push(NewSubnet::default());
    }
    network.subnets.clear();
    for (position, subnet) in wanted.iter().enumerate() {
        let ipv6 = subnet.subnet.contains(':') || position >= named;
        let (pool, data) = manager.pool(&space, subnet, network, ipv6)?;
        network.ipam.pools.push(pool.clone());
        // A plugin may say which address is the gateway's; then it is nobody else's.
        let said = data["com.docker.network.gateway"].as_str().and_then(|text| text.parse::<IpNet>().ok());
        let gateway = match (said, subnet.gateway.parse().ok()) {
            (Some(said), None) => said.addr(),
            (_, wanted) => {
                let options = json!({ "RequestAddressType": "com.docker.network.gateway" });
                manager.address(network, &pool, wanted, options)?.addr()
            }
        };
        network.subnets.push(Subnet { subnet: pool.subnet, gateway, range: None });
    }
    for (name, address) in &network.ipam.auxiliary {
        let pool = network.ipam.pools.iter().find(|pool| pool.subnet.contains(address));
        let what = || format!("auxiliary address {name}={address}");
        let pool = pool.ok_or_else(|| Error::invalid(what(), "in no pool of the network"))?;
        manager.address(network, pool, Some(*address), json!({}))?;
    }
    Ok(())
}

/// The wanted addresses, and one of each family that has none yet.
fn give(manager: &Manager, network: &Network, endpoint: &mut Endpoint, wanted: &[IpAddr]) -> Result<()> {
    let options = json!({ "com.docker.network.endpoint.macaddress": endpoint.mac_address });
    let mut add = |pool: &Pool, wanted: Option<IpAddr>| -> Result<()> {
        let given = manager.address(network, pool, wanted, options.clone())?;
        // Routed pairs have nobody beside them.
        let given = if network.driver == Driver::Veth { IpNet::from(given.addr()) } else { given };
        endpoint.addresses.push(given);
        Ok(())
    };
    for address in wanted {
        let pool = network.ipam.pools.iter().find(|pool| pool.subnet.contains(address));
        if let Some(pool) = pool {
            add(pool, Some(*address))?;
        }
    }
    for ipv6 in [false, true] {
        let of_family = |pool: &&Pool| pool.subnet.addr().is_ipv6() == ipv6;
        let named = wanted.iter().any(|address| address.is_ipv6() == ipv6);
        if let Some(pool) = network.ipam.pools.iter().find(of_family).filter(|_| !named) {
            add(pool, None)?;
        }
    }
    let reached = network.gateways_of(&endpoint.addresses);
    endpoint.gateways.retain(|gateway| reached.contains(gateway));
    Ok(())
}
