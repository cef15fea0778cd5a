//! Drivers of others: CNI plugins, and servers that speak `pier.network.driver.v1` or docker's protocol for network
//! drivers.
//!
//! They are asked without the stack's lock, so that one that hangs costs only its own call, up to its time limit
//! (option `timeout`, seconds). Meanwhile the endpoint's record stands as "attaching" or "detaching", and its own lock is
//! held, by which a reconcile knows that somebody is at work.

mod docker;
mod grpc;
pub(crate) mod ipam;
mod rootless;

use std::time::Duration;

use rpc::plugin::{self, Address};
use sys::netns::Netns;

use crate::cni::chain;
use crate::config::Config;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Endpoint, EndpointState, Network, NewEndpoint};
use crate::networks::Networks;
use crate::plan::Change;
use crate::store::EndpointFilter;

/// Time limit of a call when the option `timeout` says nothing else.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The time limit of calls on behalf of a network.
pub(crate) fn limit(network: &Network) -> Duration {
    let seconds = network.option(&["timeout"]).and_then(|text| text.parse().ok());
    seconds.filter(|seconds| *seconds > 0).map_or(TIMEOUT, Duration::from_secs)
}

/// The plugin in docker's protocol with this name. `known` are the names that need none.
fn plugin_of(config: &Config, name: &str, what: impl Fn() -> String, known: &str) -> Result<Address> {
    let failed = |why| Error::Foreign { driver: name.to_owned(), step: "find".into(), why };
    match plugin::find(&config.plugins, name).map_err(|problem| failed(problem.to_string()))? {
        Some(Address::Grpc(socket)) => Err(failed(format!("{} is for volumes", socket.display()))),
        Some(address) => Ok(address),
        None => {
            let dirs: Vec<String> = config.plugins.iter().map(|dir| dir.display().to_string()).collect();
            let why = format!("known are {known}; no plugin of that name is in {}", dirs.join(", "));
            Err(Error::invalid(what(), why))
        }
    }
}

/// A server that makes networks and endpoints.
trait Remote {
    fn create(&self, network: &Network) -> Result<()>;
    fn remove(&self, network: &Network) -> Result<()>;
    /// The endpoint as the driver made it, and what is to be done with the link it left on the host.
    fn attach(&self, network: &Network, endpoint: &Endpoint) -> Result<(Endpoint, Vec<Change>)>;
    fn detach(&self, network: &Network, endpoint: &Endpoint) -> Result<()>;
}

/// What becomes of a link that a driver left on the host.
fn adopt(link: String, endpoint: &Endpoint) -> Vec<Change> {
    let mac = crate::ipam::parse_mac(&endpoint.mac_address).ok();
    let mut changes = vec![Change::Adopt { link, inside: endpoint.interface.clone(), mac }];
    changes.extend(crate::driver::inside(endpoint));
    changes
}

impl Networks {
    fn remote(&self, name: &str, limit: Duration) -> Result<Box<dyn Remote>> {
        match grpc::Plugin::find(&self.config, name, limit)? {
            Some(plugin) => Ok(Box::new(plugin)),
            None => Ok(Box::new(docker::Plugin::find(&self.config, name, limit)?)),
        }
    }

    /// Tells a driver of others that a network is about to be; returns what has to be told again later.
    pub(crate) fn found_foreign(&self, network: &Network) -> Result<serde_json::Value> {
        if let Some(timeout) = network.option(&["timeout"])
            && !timeout.parse::<u64>().is_ok_and(|seconds| (1..=3600).contains(&seconds))
        {
            return Err(Error::invalid(format!("option timeout={timeout}"), "1 to 3600 seconds are possible"));
        }
        match &network.driver {
            Driver::Cni => chain::read(network),
            Driver::Rootless => rootless::program().map(|_| Default::default()),
            Driver::Plugin(name) => self.remote(name, limit(network)).map(|_| Default::default()),
            _ => Ok(Default::default()),
        }
    }

    /// Has a network made by the driver it belongs to, which its record is there for already.
    pub(crate) fn make_foreign(&self, network: &Network) -> Result<()> {
        match &network.driver {
            Driver::Plugin(name) => self.remote(name, limit(network))?.create(network),
            _ => Ok(()),
        }
    }

    /// Has a network removed by the driver it belongs to.
    pub(crate) fn remove_foreign(&self, network: &Network) -> Result<()> {
        match &network.driver {
            Driver::Plugin(name) => self.remote(name, limit(network))?.remove(network),
            _ => Ok(()),
        }
    }

    /// The driver's part of an attach: the record is there, the lock is not held. On failure all is undone.
    pub(crate) fn attach_foreign(
        &self,
        network: &Network,
        new: &NewEndpoint,
        endpoint: &Endpoint,
        netns: &Netns,
    ) -> Result<Endpoint> {
        let made = self.wire_foreign(network, new, endpoint, netns);
        let recorded = made.and_then(|whole| self.store.update_endpoint(&whole).map(|()| whole));
        if recorded.is_err() {
            if let Err(error) = self.unwire_foreign(network, endpoint) {
                tracing::error!(endpoint = endpoint.id, %error, "a failed attach is not undone");
            }
            self.store.delete_endpoint(&endpoint.id, &ipam::debts_of_endpoint(network, endpoint))?;
            if network.ipam.is_remote() {
                self.pay();
            }
        }
        recorded
    }

    fn wire_foreign(
        &self,
        network: &Network,
        new: &NewEndpoint,
        endpoint: &Endpoint,
        netns: &Netns,
    ) -> Result<Endpoint> {
        let limit = limit(network);
        match &network.driver {
            Driver::Plugin(name) => {
                let plugin = self.remote(name, limit)?;
                let (whole, changes) = plugin.attach(network, endpoint)?;
                let _lock = self.lock()?;
                let mut kernel = Kernel::open(&self.firewall)?;
                kernel.apply(&changes, Some(netns), &|| self.rules())?;
                Ok(whole)
            }
            Driver::Rootless => rootless::attach(&self.config, network, endpoint, limit),
            _ => chain::attach(network, new, endpoint, limit),
        }
    }

    fn unwire_foreign(&self, network: &Network, endpoint: &Endpoint) -> Result<()> {
        let limit = limit(network);
        match &network.driver {
            Driver::Plugin(name) => self.remote(name, limit)?.detach(network, endpoint),
            Driver::Rootless => rootless::detach(&self.config, endpoint),
            _ => chain::detach(network, endpoint, limit),
        }
    }

    /// Detaches the endpoints of others' drivers that match, without the lock. What a driver does not undo is a
    /// warning, and the record goes all the same.
    pub(crate) fn detach_foreign(
        &self,
        filter: &EndpointFilter,
        dead_only: bool,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let (mut ids, mut warnings) = (Vec::new(), Vec::new());
        for stored in self.store.endpoints(filter)? {
            let endpoint = stored.endpoint;
            let Ok(network) = self.store.find_network(&endpoint.network_id).map(|stored| stored.network) else {
                continue;
            };
            let dead = stored.state != EndpointState::Ready
                || Netns::open(&endpoint.netns_path).map_or(true, |netns| netns.inode() != endpoint.netns_inode);
            if !network.driver.is_foreign() || (dead_only && (!dead || self.is_busy(&endpoint.id))) {
                continue;
            }
            let _busy = self.busy_with(&endpoint.id)?;
            self.store.set_endpoint_state(&endpoint.id, EndpointState::Detaching)?;
            if let Err(error) = self.unwire_foreign(&network, &endpoint) {
                warnings.push(format!("endpoint {}: {error}", endpoint.id));
            }
            self.store.delete_endpoint(&endpoint.id, &ipam::debts_of_endpoint(&network, &endpoint))?;
            if network.ipam.is_remote() {
                self.pay();
            }
            self.event("disconnect", &network, &[("container", &endpoint.owner)]);
            ids.push(endpoint.id);
        }
        Ok((ids, warnings))
    }
}
