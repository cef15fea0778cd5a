//! Endpoints: attached, changed, detached.

use std::net::IpAddr;
use std::path::Path;

use sys::netns::{Netns, NetnsError};

use crate::error::{Error, Result};
use crate::firewall::{Elements, conntrack};
use crate::ipam;
use crate::kernel::{InsideView, Kernel};
use crate::model::{Driver, Endpoint, EndpointState, Network, NewEndpoint, PortMapping};
use crate::networks::Networks;
use crate::plan;
use crate::ports;
use crate::store::EndpointFilter;

/// nft takes seconds to delete thousands of elements one by one, and no time to leave them out of a new table.
const MANY: usize = 512;

/// Which endpoints to detach.
#[derive(Debug, Clone)]
pub enum Detach {
    /// The one with this id.
    Id(String),
    /// All of an owner, or those on one network.
    Owner {
        /// Who they are for.
        owner: String,
        /// Name or id; absent: all.
        network: Option<String>,
    },
}

/// What a detach did.
#[derive(Debug, Clone, Default)]
pub struct Detached {
    /// Ids of the endpoints that are gone.
    pub ids: Vec<String>,
    /// What could not be undone, one line each.
    pub warnings: Vec<String>,
}

impl Networks {
    /// Wires a namespace to a network: all of it, or nothing. The same request again gives the endpoint there is.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::NetnsInvalid`], [`Error::AddressInUse`], [`Error::PortPublished`],
    /// [`Error::PortTaken`], and what the kernel refuses.
    pub fn attach(&self, new: &NewEndpoint) -> Result<Endpoint> {
        check(new)?;
        let network = self.store.find_network(&new.network)?.network;
        let _lock = self.lock()?;
        if network.driver != Driver::Bridge {
            return self.attach_without_link(&network, new);
        }
        check_addresses(&network, new)?;
        ports::check(&network, &new.ports)?;
        let netns = open_netns(&new.netns_path)?;
        let mut kernel = Kernel::open(&self.firewall)?;
        if let Some(endpoint) = self.attached_already(&mut kernel, &network, new, &netns)? {
            return Ok(endpoint);
        }
        let inside = InsideView::of(&netns)?;
        let mut endpoint = blank(&network, new);
        endpoint.netns_inode = netns.inode();
        endpoint.interface = choose_interface(new, &inside)?;
        endpoint.gateways = choose_gateways(&network, new, &inside);
        endpoint.ports = ports::settle(new.ports.clone(), &|ports| self.store.check_ports(ports, ""))?;
        let view = kernel.view(&network)?;
        let endpoint = self.store.insert_endpoint(&network, endpoint, &new.addresses)?;
        let changes = plan::attach(&network, &endpoint, &view);
        if let Err(error) = kernel.apply(&changes, Some(&netns), &|| self.rules()) {
            self.forget(&network, &endpoint, view.bridge_mtu.is_none());
            return Err(error);
        }
        forget_flows(&endpoint.ports);
        self.store.set_endpoint_state(&endpoint.id, EndpointState::Ready)?;
        self.event("connect", &network, &[("container", &endpoint.owner)]);
        Ok(endpoint)
    }

    /// Takes the record of a failed attach back. What remains in a database that fails now is undone by the next
    /// reconcile.
    fn forget(&self, network: &Network, endpoint: &Endpoint, bridge_is_gone: bool) {
        let undone = self
            .store
            .delete_endpoint(&endpoint.id)
            .and_then(|()| if bridge_is_gone { self.store.set_up(&network.id, false) } else { Ok(()) });
        if let Err(error) = undone {
            tracing::error!(endpoint = endpoint.id, %error, "the record of a failed attach stays until reconcile");
        }
    }

    fn attach_without_link(&self, network: &Network, new: &NewEndpoint) -> Result<Endpoint> {
        let filter = EndpointFilter {
            network: Some(network.id.clone()),
            owner: Some(new.owner.clone()),
            ..EndpointFilter::default()
        };
        match self.store.endpoints(&filter)?.pop() {
            Some(stored) if stored.state == EndpointState::Ready => return Ok(stored.endpoint),
            // Half made by a process that died.
            Some(stored) => self.store.delete_endpoint(&stored.endpoint.id)?,
            None => {}
        }
        let endpoint = Endpoint {
            host_interface: String::new(),
            mac_address: String::new(),
            netns_path: Default::default(),
            ports: Vec::new(),
            ..blank(network, new)
        };
        let endpoint = self.store.insert_endpoint(network, endpoint, &[])?;
        self.store.set_endpoint_state(&endpoint.id, EndpointState::Ready)?;
        self.event("connect", network, &[("container", &endpoint.owner)]);
        Ok(endpoint)
    }

    /// The endpoint of an earlier, equal request, if it still is what it was. One that is not is removed.
    fn attached_already(
        &self,
        kernel: &mut Kernel<'_>,
        network: &Network,
        new: &NewEndpoint,
        netns: &Netns,
    ) -> Result<Option<Endpoint>> {
        let filter = EndpointFilter {
            network: Some(network.id.clone()),
            owner: Some(new.owner.clone()),
            netns: Some(new.netns_path.to_string_lossy().into_owned()),
            ..EndpointFilter::default()
        };
        let Some(stored) = self.store.endpoints(&filter)?.pop() else { return Ok(None) };
        let endpoint = stored.endpoint;
        let step = Error::kernel(format!("look at link {}", endpoint.host_interface));
        let wired = kernel.host.link(&endpoint.host_interface).map_err(step)?.is_some();
        if stored.state == EndpointState::Ready && endpoint.netns_inode == netns.inode() && wired {
            return Ok(Some(endpoint));
        }
        self.detach_one(kernel, &endpoint)?;
        Ok(None)
    }

    /// Undoes attaches. What is gone already is fine, and an error does not stop it.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`]; otherwise only what keeps the records from being read.
    pub fn detach(&self, which: &Detach) -> Result<Detached> {
        let _lock = self.lock()?;
        let filter = match which {
            Detach::Id(id) => EndpointFilter { id: Some(id.clone()), ..EndpointFilter::default() },
            Detach::Owner { owner, network } => {
                let network = network.as_deref().map(|name| self.store.find_network(name)).transpose()?;
                let network = network.map(|stored| stored.network.id);
                EndpointFilter { owner: Some(owner.clone()), network, ..EndpointFilter::default() }
            }
        };
        self.detach_all(&filter)
    }

    /// Detaches what matches. The caller holds the lock.
    pub(crate) fn detach_all(&self, filter: &EndpointFilter) -> Result<Detached> {
        let mut detached = Detached::default();
        let endpoints = self.store.endpoints(filter)?;
        if endpoints.is_empty() {
            return Ok(detached);
        }
        let mut kernel = Kernel::open(&self.firewall)?;
        for stored in endpoints {
            let id = stored.endpoint.id.clone();
            match self.detach_one(&mut kernel, &stored.endpoint) {
                Ok(warnings) => {
                    detached.warnings.extend(warnings);
                    detached.ids.push(id);
                }
                Err(error) => detached.warnings.push(format!("endpoint {id}: {error}")),
            }
        }
        Ok(detached)
    }

    /// Detaches one endpoint; returns what the kernel refused to give back.
    pub(crate) fn detach_one(&self, kernel: &mut Kernel<'_>, endpoint: &Endpoint) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        self.store.set_endpoint_state(&endpoint.id, EndpointState::Detaching)?;
        let elements = Elements::default().ports(endpoint, &endpoint.ports);
        if !endpoint.host_interface.is_empty()
            && let Err(error) = kernel.host.delete_link(&endpoint.host_interface)
        {
            warnings.push(format!("link {}: {error}", endpoint.host_interface));
        }
        if !elements.is_empty() {
            // The table is written from the records when that is less work, or when something to be removed is not there.
            let removed = match elements.len() {
                0..=MANY => self.firewall.replace(&elements, &Elements::default()).or_else(|_| self.rewrite_firewall()),
                _ => self.rewrite_firewall(),
            };
            if let Err(error) = removed {
                warnings.push(format!("firewall: {error}"));
            }
            forget_flows(&endpoint.ports);
        }
        self.store.delete_endpoint(&endpoint.id)?;
        if let Ok(stored) = self.store.find_network(&endpoint.network_id) {
            self.event("disconnect", &stored.network, &[("container", &endpoint.owner)]);
        }
        Ok(warnings)
    }

    /// Publishes and withdraws ports of a live endpoint in one step.
    ///
    /// # Errors
    /// [`Error::EndpointNotFound`], [`Error::PortPublished`], [`Error::PortTaken`].
    pub fn update_ports(&self, id: &str, add: &[PortMapping], remove: &[PortMapping]) -> Result<Endpoint> {
        let _lock = self.lock()?;
        let before = self.store.find_endpoint(id)?;
        let network = self.store.find_network(&before.network_id)?.network;
        if network.driver != Driver::Bridge {
            return Err(Error::invalid(format!("network {:?}", network.name), "publishes no ports"));
        }
        ports::check(&network, add)?;
        let (gone, mut kept): (Vec<_>, Vec<_>) =
            before.ports.iter().cloned().partition(|port| remove.iter().any(|wish| withdraws(wish, port)));
        if let Some(wish) = remove.iter().find(|wish| !gone.iter().any(|port| withdraws(wish, port))) {
            return Err(Error::invalid(format!("port {wish}"), "the endpoint does not publish it"));
        }
        let fresh = ports::settle(add.to_vec(), &|ports| {
            let own = |port: &PortMapping| kept.iter().find(|other| other.conflicts(port)).cloned();
            match ports.iter().find_map(own) {
                Some(port) => Err(Error::PortPublished { port, owner: before.owner.clone() }),
                None => self.store.check_ports(ports, &before.id),
            }
        })?;
        kept.extend(fresh.iter().cloned());
        let after = Endpoint { ports: kept, ..before.clone() };
        self.store.update_endpoint(&after)?;
        let (out, new) = (Elements::default().ports(&before, &gone), Elements::default().ports(&after, &fresh));
        let changed = self.firewall.replace(&out, &new).or_else(|error| match error {
            Error::Nft { .. } => self.rewrite_firewall(),
            error => Err(error),
        });
        if let Err(error) = changed {
            self.store.update_endpoint(&before)?;
            return Err(error);
        }
        forget_flows(&gone);
        forget_flows(&fresh);
        self.event("update", &network, &[("container", &after.owner)]);
        Ok(after)
    }
}

/// Flows are only a matter of how soon clients notice: a failure is logged.
fn forget_flows(ports: &[PortMapping]) {
    if let Err(error) = conntrack::forget(ports) {
        tracing::warn!(%error, "UDP flows to changed ports may linger");
    }
}

/// A withdrawal may leave host address and port open.
fn withdraws(wish: &PortMapping, port: &PortMapping) -> bool {
    wish.container_port == port.container_port
        && wish.protocol == port.protocol
        && wish.range == port.range
        && (wish.host_port == 0 || wish.host_port == port.host_port)
        && (wish.host_ip.is_none() || wish.host_ip == port.host_ip)
}

fn check(new: &NewEndpoint) -> Result<()> {
    if new.owner.is_empty() {
        return Err(Error::invalid("owner", "is required"));
    }
    for name in &new.names {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
            return Err(Error::invalid(format!("name {name:?}"), "allowed are up to 253 of [a-zA-Z0-9_.-]"));
        }
    }
    if !new.mac_address.is_empty() {
        ipam::parse_mac(&new.mac_address)?;
    }
    let link = &new.interface;
    let plain = |b: u8| b.is_ascii_graphic() && !b"/:%".contains(&b);
    if !link.is_empty() && (link.len() > 15 || !link.bytes().all(plain) || matches!(link.as_str(), "." | ".." | "lo")) {
        return Err(Error::invalid(format!("interface name {link:?}"), "1 to 15 characters without / : % are needed"));
    }
    Ok(())
}

fn check_addresses(network: &Network, new: &NewEndpoint) -> Result<()> {
    for address in &new.addresses {
        let what = || format!("address {address}");
        let Some(subnet) = network.subnet_of(*address) else {
            return Err(Error::invalid(what(), format!("not in a subnet of network {:?}", network.name)));
        };
        if !ipam::is_usable(&subnet.subnet, *address) || *address == subnet.gateway {
            return Err(Error::invalid(what(), "reserved in its subnet"));
        }
    }
    let ipv6 = new.addresses.iter().filter(|address| address.is_ipv6()).count();
    if ipv6 > 1 || new.addresses.len() - ipv6 > 1 {
        return Err(Error::invalid("addresses", "one of each family can be asked for"));
    }
    Ok(())
}

fn open_netns(path: &Path) -> Result<Netns> {
    let invalid = |why: &str, source| Error::NetnsInvalid { path: path.to_owned(), why: why.to_owned(), source };
    if !path.is_absolute() {
        return Err(invalid("the path of a network namespace has to be absolute", None));
    }
    let netns = Netns::open(path).map_err(|error| match error {
        NetnsError::Open { source, .. } => invalid("cannot be opened", Some(source)),
        NetnsError::NotNetns { .. } => invalid("not a network namespace", None),
    })?;
    if Netns::current().is_ok_and(|current| current.inode() == netns.inode()) {
        return Err(invalid("is the host's own network namespace; use the network \"host\"", None));
    }
    Ok(netns)
}

fn choose_interface(new: &NewEndpoint, inside: &InsideView) -> Result<String> {
    if new.interface.is_empty() {
        return Ok(inside.free_name());
    }
    if inside.links.contains(&new.interface) {
        return Err(Error::invalid(format!("interface name {:?}", new.interface), "the namespace has it already"));
    }
    Ok(new.interface.clone())
}

/// The first network with a way out becomes the default route, in each family.
fn choose_gateways(network: &Network, new: &NewEndpoint, inside: &InsideView) -> Vec<IpAddr> {
    if network.internal || new.no_default_route {
        return Vec::new();
    }
    let free = |gateway: &IpAddr| if gateway.is_ipv4() { !inside.default4 } else { !inside.default6 };
    network.subnets.iter().map(|subnet| subnet.gateway).filter(free).collect()
}

fn blank(network: &Network, new: &NewEndpoint) -> Endpoint {
    let id = oci::name::id_from_random(rand::random());
    let gateways = network.subnets.iter().map(|subnet| subnet.gateway);
    let mac = match new.mac_address.as_str() {
        "" => ipam::mac_text(ipam::mac_from_id(&id)),
        mac => mac.to_ascii_lowercase(),
    };
    let mut names = new.names.clone();
    names.dedup();
    Endpoint {
        network_id: network.id.clone(),
        network_name: network.name.clone(),
        owner: new.owner.clone(),
        netns_path: new.netns_path.clone(),
        netns_inode: 0,
        interface: String::new(),
        host_interface: format!("pv{}", &id[..12]),
        mac_address: mac,
        addresses: Vec::new(),
        gateways: Vec::new(),
        ports: Vec::new(),
        names,
        dns_servers: if network.dns_enabled { gateways.collect() } else { Vec::new() },
        id,
    }
}
