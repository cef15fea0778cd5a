//! What changes how names are answered: a network's upstreams, an endpoint's health.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::endpoints::Detach;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Endpoint, EndpointState, Network};
use crate::networks::Networks;

/// Changes of a network's upstream name servers.
#[derive(Debug, Clone, Default)]
pub struct NetworkUpdate {
    /// Added at the end, those there are already left alone.
    pub dns_add: Vec<IpAddr>,
    /// Taken away; fine when not there.
    pub dns_drop: Vec<IpAddr>,
}

impl Networks {
    /// Changes where a network's names are looked up, at once and for everybody on it.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`]; [`Error::Invalid`] for a network that serves no names, and for
    /// its own server as an upstream.
    pub fn update_network(&self, name: &str, update: &NetworkUpdate) -> Result<Network> {
        let _lock = self.lock()?;
        let mut network = self.store.find_network(name)?.network;
        if !network.dns_enabled {
            return Err(Error::invalid(format!("network {:?}", network.name), "serves no names"));
        }
        network.check_upstreams(&update.dns_add)?;
        let servers = &mut network.dns.servers;
        servers.retain(|server| !update.dns_drop.contains(server));
        for server in &update.dns_add {
            if !servers.contains(server) {
                servers.push(*server);
            }
        }
        self.store.update_network(&network)?;
        self.event("update", &network, &[]);
        Ok(network)
    }

    /// On somebody else's bridge, names are served at the addresses that it has in the network's subnets now.
    pub(crate) fn find_resolvers(&self, kernel: &mut Kernel<'_>, network: Network) -> Result<Network> {
        if network.is_managed() || !network.dns_enabled {
            return Ok(network);
        }
        let step = || Error::kernel(format!("look at link {}", network.bridge));
        // A bridge that is not there is what the attach will fail by.
        let Some(bridge) = kernel.host.link(&network.bridge).map_err(step())? else { return Ok(network) };
        let addresses = kernel.host.addresses(bridge.index).map_err(step())?;
        let own = addresses.iter().map(IpNet::addr).filter(|ip| network.subnet_of(*ip).is_some());
        let resolvers: Vec<IpAddr> = own.collect();
        if resolvers.is_empty() {
            let (name, bridge) = (&network.name, &network.bridge);
            tracing::warn!(network = name, bridge, "names are not served: the bridge has no address in the subnets");
        }
        if resolvers == network.resolvers {
            return Ok(network);
        }
        let network = Network { resolvers, ..network };
        self.store.update_network(&network)?;
        let rules = self.rules()?;
        if !rules.is_empty() {
            self.write_firewall(&rules)?;
        }
        Ok(network)
    }

    /// Says whether endpoints are healthy: the names of one that is not lead to others that share them, while there
    /// are any. Endpoints begin healthy.
    ///
    /// # Errors
    /// [`Error::EndpointNotFound`] when nothing fits.
    pub fn set_health(&self, which: &Detach, healthy: bool) -> Result<Vec<Endpoint>> {
        let _lock = self.lock()?;
        let filter = self.filter_of(which)?;
        let mut changed = Vec::new();
        for stored in self.store.endpoints(&filter)?.into_iter().filter(|s| s.state == EndpointState::Ready) {
            let endpoint = Endpoint { unhealthy: !healthy, ..stored.endpoint };
            self.store.update_endpoint(&endpoint)?;
            changed.push(endpoint);
        }
        if changed.is_empty() {
            let (Detach::Id(id) | Detach::Owner { owner: id, .. }) = which;
            return Err(Error::EndpointNotFound { id: id.clone() });
        }
        Ok(changed)
    }
}
