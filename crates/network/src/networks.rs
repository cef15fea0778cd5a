//! Networks: made, found, listed, removed.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;
use statedir::Lock;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::firewall::{Elements, Firewall};
use crate::ipam;
use crate::kernel::Kernel;
use crate::model::{
    DEFAULT_NETWORK, Driver, Endpoint, EndpointState, Network, NewNetwork, NewSubnet, OPTION_BRIDGE_NAME, OPTION_MTU,
    Subnet,
};
use crate::netlink::Netlink;
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
        let firewall = Firewall::new(&config.table);
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
        let driver = check(&new)?;
        let subnets = new.subnets.iter().map(ipam::check).collect::<Result<Vec<Subnet>>>()?;
        check_subnets(&new, driver, &subnets)?;
        let busy = if driver == Driver::Bridge { self.busy(&new)? } else { Vec::new() };
        for subnet in &subnets {
            if let Some(route) = busy.iter().find(|route| ipam::overlaps(route, &subnet.subnet)) {
                let with = format!("{route}, which this host has a route to");
                return Err(Error::SubnetOverlap { subnet: subnet.subnet.to_string(), with });
            }
        }
        let exist_ok = new.exist_ok;
        let name = new.name.clone();
        let inserted = self.store.insert_network(|others| {
            if let Some(error) = others
                .iter()
                .find(|other| other.name == new.name)
                .map(|_| Error::NetworkExists { name: new.name.clone() })
            {
                return Err(error);
            }
            let mut network = blank(new, driver);
            network.subnets = self.choose_subnets(subnets, &network, others, busy)?;
            Ok(network)
        });
        match inserted {
            Err(Error::NetworkExists { .. }) if exist_ok => {
                let found = self.store.find_network(&name)?.network;
                if found.driver == driver { Ok(found) } else { Err(Error::NetworkExists { name }) }
            }
            result => result,
        }
    }

    /// Adds a subnet of the pool, and one of IPv6, where they are wanted and were not named.
    fn choose_subnets(
        &self,
        mut subnets: Vec<Subnet>,
        network: &Network,
        others: &[Network],
        mut busy: Vec<IpNet>,
    ) -> Result<Vec<Subnet>> {
        if network.driver != Driver::Bridge {
            return Ok(subnets);
        }
        busy.extend(others.iter().flat_map(|other| other.subnets.iter().map(|subnet| subnet.subnet)));
        let take = |subnet: IpNet| Subnet { gateway: ipam::first_usable(&subnet), subnet, range: None };
        if subnets.is_empty() {
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
    fn busy(&self, new: &NewNetwork) -> Result<Vec<IpNet>> {
        let step = || Error::kernel("list the host's routes");
        let mut netlink = Netlink::open().map_err(step())?;
        let routes = netlink.routes().map_err(step())?;
        if let Some(name) = new.options.get(OPTION_BRIDGE_NAME)
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
        let _lock = self.lock()?;
        let stored = match self.store.find_network(name) {
            Err(Error::NetworkNotFound { .. }) if force => return Ok(()),
            found => found?,
        };
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
        for stored in &endpoints {
            self.detach_one(&mut kernel, &stored.endpoint)?;
        }
        self.remove_empty(&mut kernel, &stored)
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

    /// Removes the bridge, and the firewall's part; with the last network the whole table goes.
    pub(crate) fn take_down(&self, kernel: &mut Kernel<'_>, stored: &StoredNetwork) -> Result<()> {
        let network = &stored.network;
        if network.driver != Driver::Bridge || !stored.up {
            return Ok(());
        }
        let step = Error::kernel(format!("remove bridge {}", network.bridge));
        kernel.host.delete_link(&network.bridge).map_err(step)?;
        self.store.set_up(&network.id, false)?;
        self.rewrite_firewall()
    }

    /// Removes the networks that nobody is attached to, and takes the bridges of unused predefined ones down.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter; the first error of a removal, after trying all.
    pub fn prune(&self, filters: &Filters) -> Result<Vec<String>> {
        check_filters(filters)?;
        let _lock = self.lock()?;
        let mut kernel = Kernel::open(&self.firewall)?;
        let (mut removed, mut failed) = (Vec::new(), None);
        for stored in self.store.networks()?.0.into_iter().filter(|stored| matches(&stored.network, filters)) {
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
        let mut elements = Elements::default();
        for stored in networks.iter().filter(|stored| stored.up && stored.network.driver == Driver::Bridge) {
            elements = elements.network(&stored.network);
            let filter = EndpointFilter { network: Some(stored.network.id.clone()), ..Default::default() };
            for endpoint in self.store.endpoints(&filter)? {
                if endpoint.state != EndpointState::Detaching {
                    elements = elements.ports(&endpoint.endpoint, &endpoint.endpoint.ports);
                }
            }
        }
        Ok(elements)
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

    pub(crate) fn event(&self, action: &str, network: &Network, more: &[(&str, &str)]) {
        let driver = network.driver.to_string();
        let mut attributes = vec![("name", network.name.as_str()), ("type", driver.as_str())];
        attributes.extend(more);
        self.store.record_event(action, &network.id, &attributes);
    }
}

fn check(new: &NewNetwork) -> Result<Driver> {
    if !oci::name::is_valid(&new.name) {
        return Err(Error::invalid(format!("network name {:?}", new.name), "allowed is [a-zA-Z0-9][a-zA-Z0-9_.-]*"));
    }
    let driver = match (new.driver.as_str(), new.name.as_str()) {
        ("host", "host") => Driver::Host,
        ("none" | "null", "none") => Driver::None,
        ("" | "bridge", name) if name != "host" && name != "none" => Driver::Bridge,
        (driver @ ("host" | "none"), _) => {
            return Err(Error::invalid(format!("driver {driver:?}"), "only the predefined network has it"));
        }
        (_, name @ ("host" | "none")) => return Err(Error::Predefined { name: name.into() }),
        (driver, _) => return Err(Error::invalid(format!("driver {driver:?}"), "known is bridge")),
    };
    let mtu = new.options.get("mtu").or_else(|| new.options.get(OPTION_MTU));
    if let Some(mtu) = mtu
        && !mtu.parse::<u32>().is_ok_and(|mtu| (68..=65535).contains(&mtu))
    {
        return Err(Error::invalid(format!("option mtu={mtu}"), "a number of bytes from 68 to 65535 is needed"));
    }
    if let Some(value) = new.options.get("isolate")
        && !matches!(value.as_str(), "true" | "false" | "strict")
    {
        return Err(Error::invalid(format!("option isolate={value}"), "known are true, false and strict"));
    }
    if let Some(name) = new.options.get(OPTION_BRIDGE_NAME) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.is_empty() || name.len() > 15 || !name.bytes().all(plain) || matches!(name.as_str(), "." | "..") {
            return Err(Error::invalid(format!("bridge name {name:?}"), "1 to 15 of [a-zA-Z0-9_.-] are needed"));
        }
    }
    Ok(driver)
}

fn check_subnets(new: &NewNetwork, driver: Driver, subnets: &[Subnet]) -> Result<()> {
    let named = |subnet: &NewSubnet| format!("subnet {:?}", subnet.subnet);
    if let Some(first) = new.subnets.first()
        && driver != Driver::Bridge
    {
        return Err(Error::invalid(named(first), format!("the driver {driver} takes none")));
    }
    for ipv6 in [false, true] {
        let mut family = subnets.iter().zip(&new.subnets).filter(|(subnet, _)| subnet.subnet.addr().is_ipv6() == ipv6);
        if let (Some(_), Some((_, second))) = (family.next(), family.next()) {
            return Err(Error::invalid(named(second), "a network has one subnet of each family"));
        }
    }
    Ok(())
}

fn blank(new: NewNetwork, driver: Driver) -> Network {
    let id = oci::name::id_from_random(rand::random());
    let bridge = match driver {
        Driver::Bridge => new.options.get(OPTION_BRIDGE_NAME).cloned().unwrap_or_else(|| format!("pier-{}", &id[..8])),
        Driver::Host | Driver::None => String::new(),
    };
    let has_ipv6 = new.subnets.iter().any(|subnet| subnet.subnet.contains(':'));
    Network {
        dns_enabled: driver == Driver::Bridge && !new.disable_dns,
        id,
        name: new.name,
        driver,
        subnets: Vec::new(),
        internal: new.internal,
        ipv6: new.ipv6 || has_ipv6,
        options: new.options,
        labels: new.labels,
        created_at: jiff::Timestamp::now().to_string(),
        bridge,
    }
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
