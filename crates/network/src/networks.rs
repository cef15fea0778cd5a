//! Networks: made, found, listed, removed.

use std::fs;
use std::net::IpAddr;

use statedir::Lock;

use crate::config::Config;
use crate::driver;
use crate::error::{Error, Result};
use crate::filter::Filter;
pub use crate::filter::Filters;
use crate::firewall::{Elements, Firewall};
use crate::foreign::ipam::debts_of_network;
use crate::ipsec;
use crate::kernel::Kernel;
use crate::model::{DEFAULT_NETWORK, Driver, Endpoint, EndpointState, Network, NewNetwork};
use crate::policy;
use crate::store::{EndpointFilter, Store, StoredNetwork};

/// All networks of one stack. Every method may block; several processes may hold one of these on the same root.
pub struct Networks {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) firewall: Firewall,
}

impl Networks {
    /// Opens the records, and makes them with the predefined networks when they are missing.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Database`].
    pub fn open(config: Config) -> Result<Self> {
        fs::create_dir_all(&config.root).map_err(Error::io(&config.root))?;
        let store = Store::open(&config.database())?;
        let firewall = Firewall::new(&config.table, config.firewall, &config.run);
        let networks = Self { config, store, firewall };
        networks.ensure_predefined()?;
        Ok(networks)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The records.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn ensure_predefined(&self) -> Result<()> {
        for (name, driver) in [("host", "host"), ("none", "none"), (DEFAULT_NETWORK, "bridge")] {
            match self.store.find_network(name) {
                Err(Error::NetworkNotFound { .. }) => {}
                found => {
                    found?;
                    continue;
                }
            }
            let new = NewNetwork { name: name.into(), driver: driver.into(), exist_ok: true, ..NewNetwork::default() };
            self.insert(new)?;
        }
        Ok(())
    }

    /// Makes a network. Its bridge is made when the first endpoint is.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NetworkExists`], [`Error::SubnetOverlap`], [`Error::PoolExhausted`].
    pub fn create(&self, new: NewNetwork) -> Result<Network> {
        let network = self.insert(new)?;
        self.event("create", &network, &[]);
        Ok(network)
    }

    /// A network by name, id or the unique beginning of an id, with its endpoints.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::Ambiguous`].
    pub fn get(&self, name: &str) -> Result<(Network, Vec<Endpoint>)> {
        let network = self.store.find_network(name)?.network;
        let endpoints = self.endpoints(&EndpointFilter { network: Some(network.id.clone()), ..Default::default() })?;
        Ok((network, endpoints))
    }

    /// Networks that match, and warnings about records that cannot be read.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter.
    pub fn list(&self, filters: &Filters) -> Result<(Vec<Network>, Vec<String>)> {
        let filter = Filter::read(filters)?;
        let (networks, damaged) = self.store.networks()?;
        let networks = networks.into_iter().filter(|stored| !stored.removing).map(|stored| stored.network);
        let warnings = damaged.into_iter().map(|id| format!("the record of network {id} is damaged")).collect();
        Ok((networks.filter(|network| filter.passes(network)).collect(), warnings))
    }

    /// Whole endpoints.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn endpoints(&self, filter: &EndpointFilter) -> Result<Vec<Endpoint>> {
        let whole = self.store.endpoints(filter)?.into_iter().filter(|stored| stored.state == EndpointState::Ready);
        Ok(whole.map(|stored| stored.endpoint).collect())
    }

    /// Removes a network. `force` detaches what is attached, and is fine with a network that is gone.
    ///
    /// A predefined network is refused; by force, what the host has of it is taken down, and it stands as new.
    ///
    /// # Errors
    /// [`Error::NetworkInUse`], [`Error::Predefined`], [`Error::NetworkNotFound`].
    pub fn remove(&self, name: &str, force: bool) -> Result<()> {
        let stored = match self.store.find_network(name) {
            Err(Error::NetworkNotFound { .. }) if force => return Ok(()),
            found => found?,
        };
        if stored.network.driver.is_foreign() {
            return self.remove_of_others(&stored.network, force);
        }
        let removed = self.remove_own(&stored, force);
        if stored.network.ipam.is_remote() {
            self.pay();
        }
        removed
    }

    fn remove_own(&self, stored: &StoredNetwork, force: bool) -> Result<()> {
        let _lock = self.lock()?;
        let network = &stored.network;
        if network.is_predefined() && !force {
            return Err(Error::Predefined { name: network.name.clone() });
        }
        let filter = EndpointFilter { network: Some(network.id.clone()), ..Default::default() };
        let endpoints = self.store.endpoints(&filter)?;
        if !endpoints.is_empty() && !force {
            let owners: Vec<String> = endpoints.into_iter().map(|stored| stored.endpoint.owner).collect();
            return Err(Error::NetworkInUse { name: network.name.clone(), owners: owners.join(", ") });
        }
        let mut kernel = Kernel::open(&self.firewall)?;
        for warning in self.detach_all(&filter)?.warnings {
            tracing::warn!(network = network.name, warning, "detached by force");
        }
        self.remove_empty(&mut kernel, stored)
    }

    /// Removes a network that a driver of others made. By force it goes whatever that driver says.
    fn remove_of_others(&self, network: &Network, force: bool) -> Result<()> {
        let filter = EndpointFilter { network: Some(network.id.clone()), ..Default::default() };
        if force {
            for warning in self.detach_foreign(&filter, false)?.1 {
                tracing::warn!(network = network.name, warning, "detached by force");
            }
        }
        let endpoints = self.store.endpoints(&filter)?;
        if !endpoints.is_empty() {
            let owners: Vec<String> = endpoints.into_iter().map(|stored| stored.endpoint.owner).collect();
            return Err(Error::NetworkInUse { name: network.name.clone(), owners: owners.join(", ") });
        }
        match self.remove_foreign(network) {
            Err(error) if force => tracing::warn!(network = network.name, %error, "removed by force"),
            result => result?,
        }
        self.store.delete_network(&network.id, &debts_of_network(network))?;
        if network.ipam.is_remote() {
            self.pay();
        }
        self.event("destroy", network, &[]);
        Ok(())
    }

    /// Takes a network without endpoints off the host and forgets it, unless it is predefined.
    pub(crate) fn remove_empty(&self, kernel: &mut Kernel<'_>, stored: &StoredNetwork) -> Result<()> {
        let network = &stored.network;
        if network.is_predefined() {
            return self.take_down(kernel, stored);
        }
        self.store.set_removing(&network.id)?;
        self.take_down(kernel, stored)?;
        self.store.delete_network(&network.id, &debts_of_network(network))?;
        self.event("destroy", network, &[]);
        Ok(())
    }

    /// Removes the host's links, and the firewall's part; with the last network the whole table goes.
    pub(crate) fn take_down(&self, kernel: &mut Kernel<'_>, stored: &StoredNetwork) -> Result<()> {
        let network = &stored.network;
        if !network.driver.has_links() || !stored.up {
            return Ok(());
        }
        for link in driver::links(network) {
            kernel.host.remove_link(&link).map_err(Error::kernel(format!("remove link {link}")))?;
        }
        if let Some(ipsec) = driver::encryption(network) {
            ipsec::settle(&ipsec, None)?;
        }
        let parent = network.parent();
        let step = || Error::kernel(format!("remove link {parent}"));
        if !parent.is_empty() && kernel.host.alias(parent).map_err(step())? == driver::parent_alias(network) {
            kernel.host.remove_link(parent).map_err(step())?;
        }
        self.store.set_up(&network.id, false)?;
        if network.driver.is_routed() { self.rewrite_firewall() } else { Ok(()) }
    }

    /// Replaces the peers of an overlay network; at once where its links are there.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::Invalid`] for another driver, and what the kernel refuses.
    pub fn set_peers(&self, name: &str, peers: &[IpAddr]) -> Result<Network> {
        let _lock = self.lock()?;
        let stored = self.store.find_network(name)?;
        let network = stored.network;
        if network.driver != Driver::Overlay {
            return Err(Error::invalid(format!("network {:?}", network.name), "only an overlay network has peers"));
        }
        let mut wanted = peers.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        if let Some(ipsec) = driver::encryption(&network) {
            ipsec.check_peers(&wanted)?;
        }
        let mut kernel = Kernel::open(&self.firewall)?;
        if stored.up && kernel.view(&network)?.bridge_mtu.is_some() {
            kernel.apply(&driver::change_peers(&network, &wanted), None, &|| self.rules())?;
        }
        let network = Network { peers: wanted, ..network };
        self.store.update_network(&network)?;
        self.event("update", &network, &[]);
        Ok(network)
    }

    /// Removes the networks that nobody is attached to, and takes the bridges of unused predefined ones down.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter; the first error of a removal, after trying all.
    pub fn prune(&self, filters: &Filters) -> Result<Vec<String>> {
        let filter = Filter::read(filters)?;
        let (mut removed, mut failed) = (Vec::new(), None);
        let chosen = self.store.networks()?.0.into_iter().filter(|stored| filter.passes(&stored.network));
        let (foreign, own): (Vec<_>, Vec<_>) = chosen.partition(|stored| stored.network.driver.is_foreign());
        for stored in foreign {
            match self.remove_of_others(&stored.network, false) {
                Ok(()) => removed.push(stored.network.name),
                Err(Error::NetworkInUse { .. }) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let lock = self.lock()?;
        let mut kernel = Kernel::open(&self.firewall)?;
        let mut owing = false;
        for stored in own {
            let filter = EndpointFilter { network: Some(stored.network.id.clone()), ..Default::default() };
            if !self.store.endpoints(&filter)?.is_empty() {
                continue;
            }
            owing |= stored.network.ipam.is_remote();
            match self.remove_empty(&mut kernel, &stored) {
                Ok(()) if stored.network.is_predefined() => {}
                Ok(()) => removed.push(stored.network.name),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        drop(lock);
        if owing {
            self.pay();
        }
        failed.map_or(Ok(removed), Err)
    }

    /// The whole table's elements, as the records want them.
    pub(crate) fn rules(&self) -> Result<Elements> {
        let (networks, _) = self.store.networks()?;
        let (mut elements, mut attached) = (Elements::default(), Vec::new());
        let routed = || networks.iter().filter(|stored| stored.network.driver.is_routed());
        for stored in routed().filter(|stored| stored.up) {
            let filter = EndpointFilter { network: Some(stored.network.id.clone()), ..Default::default() };
            let there = self.store.endpoints(&filter)?.into_iter();
            let endpoints: Vec<Endpoint> =
                there.filter(|stored| stored.state != EndpointState::Detaching).map(|stored| stored.endpoint).collect();
            elements = driver::guarded(&stored.network, &endpoints).iter().fold(elements, Elements::network);
            elements = endpoints.iter().fold(elements, |all, endpoint| all.ports(endpoint, &endpoint.ports));
            attached.extend(endpoints);
        }
        if !elements.is_empty() {
            // Names are asked for on bridges of others too.
            let serving = routed().filter(|stored| stored.up || !stored.network.is_managed());
            elements = serving.fold(elements, |all, stored| all.names(&stored.network));
        }
        Ok(elements.policies(policy::compile(&self.store.policies()?, &attached)))
    }

    /// Writes the table from the records; takes it away when no network is up.
    pub(crate) fn rewrite_firewall(&self) -> Result<()> {
        self.write_firewall(&self.rules()?)
    }

    /// Writes the table with these elements; takes it away when there are none.
    pub(crate) fn write_firewall(&self, elements: &Elements) -> Result<()> {
        if elements.is_empty() { self.firewall.clear() } else { self.firewall.rebuild(elements) }
    }

    /// Held by whoever changes the kernel for this stack; readers never take it.
    pub(crate) fn lock(&self) -> Result<Lock> {
        Lock::acquire(&self.config.lock()).map_err(|source| Error::Lock { source })
    }

    /// Held while an endpoint's attach waits for others without the stack's lock, so that nobody takes it for dead.
    pub(crate) fn busy_with(&self, endpoint: &str) -> Result<Busy> {
        let path = self.config.busy(endpoint);
        let dir = path.parent().unwrap_or(&path).to_owned();
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let lock = Lock::acquire(&path).map_err(|source| Error::Lock { source })?;
        Ok(Busy { path, _lock: lock })
    }

    /// Whether somebody is at work on an endpoint that is neither whole nor gone.
    pub(crate) fn is_busy(&self, endpoint: &str) -> bool {
        let path = self.config.busy(endpoint);
        if !path.exists() {
            return false;
        }
        match Lock::try_acquire(&path) {
            Ok(None) => true,
            _ => {
                // Whoever held it died.
                let _ = fs::remove_file(&path);
                false
            }
        }
    }

    pub(crate) fn event(&self, action: &str, network: &Network, more: &[(&str, &str)]) {
        let driver = network.driver.to_string();
        let mut attributes = vec![("name", network.name.as_str()), ("type", driver.as_str())];
        attributes.extend(more);
        self.store.record_event(action, &network.id, &attributes);
    }
}

/// See [`Networks::busy_with`].
pub(crate) struct Busy {
    path: std::path::PathBuf,
    _lock: Lock,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
