//! How a network begins: what is asked for is checked, completed, and recorded.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::driver;
use crate::error::{Error, Result};
use crate::foreign::ipam::debts_of_network;
use crate::ipam;
use crate::model::{Driver, Ipam, Network, NewNetwork, NewSubnet, OPTION_BRIDGE_NAME, Subnet};
use crate::netlink::Netlink;
use crate::networks::Networks;
use crate::options;

impl Networks {
    pub(crate) fn insert(&self, new: NewNetwork) -> Result<Network> {
        let new = self.filled_in(new)?;
        let mut network = blank(&new)?;
        let subnets = new.subnets.iter().map(ipam::check).collect::<Result<Vec<Subnet>>>()?;
        check_subnets(&new, &network, &subnets)?;
        network.subnets = subnets;
        check_ipam(&new, &network)?;
        driver::check(&network)?;
        network.state = self.found_foreign(&network)?;
        if !network.ipam.is_remote() || network.config_only {
            return self.record(&new, network);
        }
        self.request_pools(&new, &mut network)?;
        let recorded = self.record(&new, network.clone());
        if !recorded.as_ref().is_ok_and(|found| found.id == network.id) {
            self.store.owe(&debts_of_network(&network))?;
            self.pay();
        }
        recorded
    }

    /// Records a network, unless something is in its way, and has it made by its driver.
    fn record(&self, new: &NewNetwork, network: Network) -> Result<Network> {
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
            let own = |other: &&Network| !network.bridge.is_empty() && other.bridge == network.bridge;
            if let Some(other) = others.iter().find(own).filter(|other| other.is_managed() && network.is_managed()) {
                let why = format!("network {:?} has it", other.name);
                return Err(Error::invalid(format!("bridge name {:?}", network.bridge), why));
            }
            driver::check_port(&network, others)?;
            let subnets = self.choose_subnets(new, &network, others, busy)?;
            let network = Network { subnets, ..network };
            network.check_upstreams(&network.dns.servers)?;
            Ok(network)
        });
        if let Ok(network) = &inserted
            && let Err(error) = self.make_foreign(network)
        {
            self.store.delete_network(&network.id, &[])?;
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
    if new.disable_ipv4 && !network.ipv6 && (network.ipam.is_own() || network.ipam.is_remote()) {
        return Err(Error::invalid(format!("network {:?}", new.name), "neither IPv4 nor IPv6 is wanted"));
    }
    Ok(())
}

fn check_ipam(new: &NewNetwork, network: &Network) -> Result<()> {
    let usable = |address| network.subnets.iter().any(|subnet| ipam::is_usable(&subnet.subnet, address));
    if !network.ipam.is_remote()
        && let Some((name, address)) = network.ipam.auxiliary.iter().find(|(_, address)| !usable(**address))
    {
        let what = format!("auxiliary address {name}={address}");
        return Err(Error::invalid(what, "not a usable address of a subnet of the network"));
    }
    match network.ipam.driver.as_str() {
        "dhcp" | "none" => {
            let driver = &network.ipam.driver;
            if let Some(first) = new.subnets.first() {
                let what = format!("subnet {:?}", first.subnet);
                return Err(Error::invalid(what, format!("with the IPAM driver {driver} others know the subnets")));
            }
            let own = network.driver.is_routed() && network.is_managed();
            let why = match network.driver {
                // A switch without a host: whoever is on it agrees on addresses.
                Driver::Bridge | Driver::Overlay if own && driver == "none" => return Ok(()),
                _ if own => "is for links on a network of others",
                Driver::Ipvlan if driver == "dhcp" => "cannot tell links apart that have one MAC address",
                _ => return Ok(()),
            };
            Err(Error::invalid(format!("driver {}", network.driver), format!("the IPAM driver {driver} {why}")))
        }
        // A plugin is looked for when it is asked.
        _ => Ok(()),
    }
}

fn blank(new: &NewNetwork) -> Result<Network> {
    let driver = driver_of(new)?;
    options::check(new)?;
    new.dns.check()?;
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
    let serves = network.driver.is_routed() && !matches!(network.ipam.driver.as_str(), "none" | "dhcp");
    network.dns_enabled = serves && !new.disable_dns;
    Ok(network)
}
