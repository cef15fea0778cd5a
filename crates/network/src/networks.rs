//! Networks: made, found, listed, removed.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;
use statedir::Lock;

use crate::config::Config;
use crate::driver;
use crate::error::{Error, Result};
use crate::firewall::{Elements, Firewall};
use crate::ipam;
use crate::kernel::Kernel;
use crate::model::{
    DEFAULT_NETWORK, Driver, Endpoint, EndpointState, Ipam, Network, NewNetwork, NewSubnet, OPTION_BRIDGE_NAME,
    OPTION_HOST_BINDING, Subnet,
};
use crate::netlink::Netlink;
use crate::policy;
use crate::store::{EndpointFilter, Store, StoredNetwork};

/// All networks of one stack. Every method may block; several processes may hold one of these on the same root.
pub struct Networks {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) firewall: Firewall,
}

/// Docker's filters: values of one key are alternatives, keys must all match.
pub type Filters = BTreeMap<String, Vec<String>>;

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

    fn insert(&self, new: NewNetwork) -> Result<Network> {
        let new = self.filled_in(new)?;
        let mut network = blank(&new)?;
        let subnets = new.subnets.iter().map(ipam::check).collect::<Result<Vec<Subnet>>>()?;
        check_subnets(&new, &network, &subnets)?;
        network.subnets = subnets;
        check_ipam(&new, &network)?;
        driver::check(&network)?;
        network.state = self.found_foreign(&network)?;
        let shared = network.shares_subnets();
        let busy = if shared || !network.driver.has_links() { Vec::new() } else { self.busy(&network)? };
        for subnet in &network.subnets {
            if let Some(route) = busy.iter().find(|route| ipam::overlaps(route, &subnet.subnet)) {
                let with = format!("{route}, which this host has a route to");
                return Err(Error::SubnetOverlap { subnet: subnet.subnet.to_string(), with });
            }
        }
        let (exist_ok, name, driver) = (new.exist_ok, new.name.clone(), network.driver.clone());
        let inserted = self.store.insert_network(|others| {
            if others.iter().any(|other| other.name == new.name) {
                return Err(Error::NetworkExists { name: new.name.clone() });
            }
            let subnets = self.choose_subnets(&new, &network, others, busy)?;
            Ok(Network { subnets, ..network })
        });
        if let Ok(network) = &inserted
            && let Err(error) = self.make_foreign(network)
        {
            self.store.delete_network(&network.id)?;
            return Err(error);
        }
        match inserted {
            Err(Error::NetworkExists { .. }) if exist_ok => {
                let found = self.store.find_network(&name)?.network;
                if found.driver == driver { Ok(found) } else { Err(Error::NetworkExists { name }) }
            }
            result => result,
        }
    }

    /// Fills in what a network takes from the model it names.
    fn filled_in(&self, new: NewNetwork) -> Result<NewNetwork> {
        if new.config_from.is_empty() {
            return Ok(new);
        }
        let what = || format!("model {:?}", new.config_from);
        let model = self.store.find_network(&new.config_from)?.network;
        if !model.config_only {
            return Err(Error::invalid(what(), "is a network; a model is made with --config-only"));
        }
        if !new.subnets.is_empty() || new.config_only {
            return Err(Error::invalid(what(), "a network from a model has no subnets of its own, and is no model"));
        }
        let subnet = |subnet: &Subnet| NewSubnet {
            subnet: subnet.subnet.to_string(),
            gateway: subnet.gateway.to_string(),
            range: subnet.range.map(|range| range.to_string()).unwrap_or_default(),
        };
        let mut options = model.options;
        options.extend(new.options);
        Ok(NewNetwork {
            driver: if new.driver.is_empty() { model.driver.to_string() } else { new.driver },
            subnets: model.subnets.iter().map(subnet).collect(),
            ipv6: new.ipv6 || model.ipv6,
            internal: new.internal || model.internal,
            routes: [model.routes, new.routes].concat(),
            ipam: if new.ipam == Ipam::default() { model.ipam } else { new.ipam },
            config_from: model.name,
            options,
            ..new
        })
    }

    /// Adds a subnet of the pool, and one of IPv6, where they are wanted and were not named.
    fn choose_subnets(
        &self,
        new: &NewNetwork,
        network: &Network,
        others: &[Network],
        mut busy: Vec<IpNet>,
    ) -> Result<Vec<Subnet>> {
        let mut subnets = network.subnets.clone();
        let others_give = matches!(network.driver, Driver::Cni | Driver::Rootless) || !network.ipam.is_own();
        if !network.driver.has_links() || network.config_only || others_give {
            return Ok(subnets);
        }
        busy.extend(others.iter().flat_map(|other| other.subnets.iter().map(|subnet| subnet.subnet)));
        let take = |subnet: IpNet| Subnet { gateway: ipam::first_usable(&subnet), subnet, range: None };
        if subnets.is_empty() && !new.disable_ipv4 {
            let free = ipam::free_subnet(&self.config.pools, &busy).ok_or_else(|| {
                let pools: Vec<String> = self.config.pools.iter().map(ToString::to_string).collect();
                Error::PoolExhausted { pools: pools.join(", ") }
            })?;
            subnets.push(take(IpNet::V4(free)));
        }
        if network.ipv6 && !subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv6()) {
            subnets.push(take(IpNet::V6(ipam::unique_local(rand::random()))));
        }
        Ok(subnets)
    }

    /// Destinations that the host reaches by other links, and its name servers.
    fn busy(&self, network: &Network) -> Result<Vec<IpNet>> {
        let step = || Error::kernel("list the host's routes");
        let mut netlink = Netlink::open().map_err(step())?;
        let routes = netlink.routes().map_err(step())?;
        if let Some(name) = network.option(&[OPTION_BRIDGE_NAME])
            && netlink.link(name).map_err(step())?.is_some()
        {
            return Err(Error::invalid(format!("bridge name {name:?}"), "the host has a link of that name"));
        }
        let link_local = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().segments()[0] & 0xffc0 == 0xfe80);
        let mut busy: Vec<IpNet> =
            routes.into_iter().filter_map(|route| route.destination).filter(|net| !link_local(net)).collect();
        let resolvers = crate::dns::upstream::read_resolv_conf(&self.config.resolv_conf);
        busy.extend(resolvers.into_iter().filter(IpAddr::is_ipv4).map(IpNet::from));
        Ok(busy)
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
        check_filters(filters)?;
        let (networks, damaged) = self.store.networks()?;
        let networks = networks.into_iter().filter(|stored| !stored.removing).map(|stored| stored.network);
        let warnings = damaged.into_iter().map(|id| format!("the record of network {id} is damaged")).collect();
        Ok((networks.filter(|network| matches(network, filters)).collect(), warnings))
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
        self.remove_empty(&mut kernel, &stored)
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
        self.store.delete_network(&network.id)?;
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
        self.store.delete_network(&network.id)?;
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
        check_filters(filters)?;
        let (mut removed, mut failed) = (Vec::new(), None);
        let chosen = self.store.networks()?.0.into_iter().filter(|stored| matches(&stored.network, filters));
        let (foreign, own): (Vec<_>, Vec<_>) = chosen.partition(|stored| stored.network.driver.is_foreign());
        for stored in foreign {
            match self.remove_of_others(&stored.network, false) {
                Ok(()) => removed.push(stored.network.name),
                Err(Error::NetworkInUse { .. }) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let _lock = self.lock()?;
        let mut kernel = Kernel::open(&self.firewall)?;
        for stored in own {
            let filter = EndpointFilter { network: Some(stored.network.id.clone()), ..Default::default() };
            if !self.store.endpoints(&filter)?.is_empty() {
                continue;
            }
            match self.remove_empty(&mut kernel, &stored) {
                Ok(()) if stored.network.is_predefined() => {}
                Ok(()) => removed.push(stored.network.name),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    /// The whole table's elements, as the records want them.
    pub(crate) fn rules(&self) -> Result<Elements> {
        let (networks, _) = self.store.networks()?;
        let (mut elements, mut attached) = (Elements::default(), Vec::new());
        for stored in networks.iter().filter(|stored| stored.up && stored.network.driver.is_routed()) {
            let filter = EndpointFilter { network: Some(stored.network.id.clone()), ..Default::default() };
            let there = self.store.endpoints(&filter)?.into_iter();
            let endpoints: Vec<Endpoint> =
                there.filter(|stored| stored.state != EndpointState::Detaching).map(|stored| stored.endpoint).collect();
            elements = driver::guarded(&stored.network, &endpoints).iter().fold(elements, Elements::network);
            elements = endpoints.iter().fold(elements, |all, endpoint| all.ports(endpoint, &endpoint.ports));
            attached.extend(endpoints);
        }
        Ok(elements.policies(policy::compile(&self.store.policies()?, &attached)))
    }

    /// Writes the table from the records; takes it away when no network is up.
    pub(crate) fn rewrite_firewall(&self) -> Result<()> {
        let elements = self.rules()?;
        if elements.is_empty() { self.firewall.clear() } else { self.firewall.rebuild(&elements) }
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

fn driver_of(new: &NewNetwork) -> Result<Driver> {
    if !oci::name::is_valid(&new.name) {
        return Err(Error::invalid(format!("network name {:?}", new.name), "allowed is [a-zA-Z0-9][a-zA-Z0-9_.-]*"));
    }
    let driver = Driver::from(new.driver.clone());
    match (&driver, new.name.as_str()) {
        (Driver::Host, "host") | (Driver::None, "none") => Ok(driver),
        (Driver::Host | Driver::None, _) => {
            Err(Error::invalid(format!("driver {:?}", driver.to_string()), "only the predefined network has it"))
        }
        (_, name @ ("host" | "none")) => Err(Error::Predefined { name: name.into() }),
        _ => Ok(driver),
    }
}

fn check_subnets(new: &NewNetwork, network: &Network, subnets: &[Subnet]) -> Result<()> {
    let named = |subnet: &NewSubnet| format!("subnet {:?}", subnet.subnet);
    if let Some(first) = new.subnets.first()
        && !network.driver.has_links()
    {
        return Err(Error::invalid(named(first), format!("the driver {} takes none", network.driver)));
    }
    for (position, (subnet, typed)) in subnets.iter().zip(&new.subnets).enumerate() {
        if new.disable_ipv4 && subnet.subnet.addr().is_ipv4() {
            return Err(Error::invalid(named(typed), "the network is to have no IPv4"));
        }
        if let Some(other) = subnets[..position].iter().find(|other| ipam::overlaps(&other.subnet, &subnet.subnet)) {
            return Err(Error::SubnetOverlap {
                subnet: subnet.subnet.to_string(),
                with: format!("{} of the same network", other.subnet),
            });
        }
    }
    if new.disable_ipv4 && !network.ipv6 && network.ipam.is_own() {
        return Err(Error::invalid(format!("network {:?}", new.name), "neither IPv4 nor IPv6 is wanted"));
    }
    Ok(())
}

fn check_ipam(new: &NewNetwork, network: &Network) -> Result<()> {
    for (name, address) in &network.ipam.auxiliary {
        if !network.subnets.iter().any(|subnet| ipam::is_usable(&subnet.subnet, *address)) {
            let what = format!("auxiliary address {name}={address}");
            return Err(Error::invalid(what, "not a usable address of a subnet of the network"));
        }
    }
    match network.ipam.driver.as_str() {
        "dhcp" | "none" => {
            let driver = &network.ipam.driver;
            if let Some(first) = new.subnets.first() {
                let what = format!("subnet {:?}", first.subnet);
                return Err(Error::invalid(what, format!("with the IPAM driver {driver} others know the subnets")));
            }
            if network.driver.is_routed() && network.is_managed() {
                let why = format!("the IPAM driver {driver} is for links on a network of others");
                return Err(Error::invalid(format!("driver {}", network.driver), why));
            }
            Ok(())
        }
        _ if network.ipam.is_own() => Ok(()),
        other => Err(Error::invalid(format!("IPAM driver {other:?}"), "known are default, dhcp and none")),
    }
}

fn blank(new: &NewNetwork) -> Result<Network> {
    let driver = driver_of(new)?;
    if let Some(value) = new.options.get("isolate")
        && !matches!(value.as_str(), "true" | "false" | "strict")
    {
        return Err(Error::invalid(format!("option isolate={value}"), "known are true, false and strict"));
    }
    new.dns.check()?;
    if let Some(value) = new.options.get("host_binding").or_else(|| new.options.get(OPTION_HOST_BINDING))
        && value.parse::<IpAddr>().is_err()
    {
        return Err(Error::invalid(format!("option host_binding={value}"), "an IP address is needed"));
    }
    if let Some(value) = new.options.get("host_first")
        && !matches!(value.as_str(), "true" | "false")
    {
        return Err(Error::invalid(format!("option host_first={value}"), "known are true and false"));
    }
    if !new.peers.is_empty() && driver != Driver::Overlay {
        return Err(Error::invalid("peers", format!("the driver {driver} has none")));
    }
    let id = oci::name::id_from_random(rand::random());
    let bridge = match new.options.get(OPTION_BRIDGE_NAME) {
        Some(name) if driver.has_bridge() => name.clone(),
        _ if driver.has_bridge() => format!("pier-{}", &id[..8]),
        _ => String::new(),
    };
    let has_ipv6 = new.subnets.iter().any(|subnet| subnet.subnet.contains(':'));
    let mut network = Network {
        id,
        name: new.name.clone(),
        driver,
        internal: new.internal,
        ipv6: new.ipv6 || has_ipv6,
        options: new.options.clone(),
        labels: new.labels.clone(),
        created_at: jiff::Timestamp::now().to_string(),
        bridge,
        ipam: new.ipam.clone(),
        routes: new.routes.clone(),
        peers: new.peers.clone(),
        config_only: new.config_only,
        config_from: new.config_from.clone(),
        dns: new.dns.clone(),
        ..Network::default()
    };
    network.dns_enabled = network.driver.is_routed() && network.is_managed() && !new.disable_dns;
    Ok(network)
}

fn check_filters(filters: &Filters) -> Result<()> {
    match filters.keys().find(|key| !matches!(key.as_str(), "name" | "id" | "driver" | "label")) {
        Some(key) => Err(Error::invalid(format!("filter {key:?}"), "known are name, id, driver and label")),
        None => Ok(()),
    }
}

fn matches(network: &Network, filters: &Filters) -> bool {
    let one = |key: &str, value: &str| match key {
        "name" => network.name.contains(value),
        "id" => network.id.starts_with(value),
        "driver" => network.driver.to_string() == value,
        _ => match value.split_once('=') {
            Some((label, wanted)) => network.labels.get(label).is_some_and(|is| is == wanted),
            None => network.labels.contains_key(value),
        },
    };
    filters.iter().all(|(key, values)| values.iter().any(|value| one(key, value)))
}
