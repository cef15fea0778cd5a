//! Endpoints: attached, changed, detached.

mod check;
mod gateway;

use sys::netns::Netns;

use crate::dhcp;
use crate::driver::{self, Driver};
use crate::error::{Error, Result};
use crate::firewall::{Elements, conntrack};
use crate::foreign::ipam::debts_of_endpoint;
use crate::keeper::Start;
use crate::kernel::{self, InsideView, Kernel};
use crate::model::{Endpoint, EndpointState, Network, NewEndpoint, PortMapping};
use crate::networks::Networks;
use crate::plan::{self, HostView};
use crate::ports::{self, holder::Holder};
use crate::store::EndpointFilter;

use check::{blank, check, check_addresses, choose_interface, mac_of_parent, open_netns};

/// nft takes seconds to delete thousands of elements one by one, and no time to leave them out of a new table.
const MANY: usize = 512;
/// From here on several endpoints leave the table by one change.
const FEW: usize = 4;

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
    /// A plugin is to get addresses back.
    pub(crate) owing: bool,
}

/// What the end of one endpoint left.
struct Unwired {
    warnings: Vec<String>,
    owing: bool,
}

impl Networks {
    /// Wires a namespace to a network: all of it, or nothing. The same request again gives the endpoint there is.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::NetnsInvalid`], [`Error::AddressInUse`], [`Error::PortPublished`],
    /// [`Error::PortTaken`], and what the kernel refuses.
    pub fn attach(&self, new: &NewEndpoint) -> Result<Endpoint> {
        check(new)?;
        let network = self.joinable(&new.network)?;
        if !network.driver.has_links() {
            let _lock = self.lock()?;
            return self.attach_without_link(&network, new);
        }
        check_addresses(&network, new)?;
        ports::check(&network, &new.ports)?;
        let netns = open_netns(&new.netns_path)?;
        if network.driver.is_foreign() {
            return self.attach_by_others(&network, new, &netns);
        }
        let mut lock = self.lock()?;
        if network.driver.is_routed() && network.is_managed() {
            // Before the keeper starts, which follows.
            self.firewall.settle()?;
        }
        let mut kernel = Kernel::open(&self.firewall)?;
        let network = self.find_resolvers(&mut kernel, network)?;
        if let Some(endpoint) = self.attached_already(&mut kernel, &network, new, &netns)? {
            return Ok(endpoint);
        }
        let endpoint = self.design(&network, new, &netns)?;
        let mut view = self.view(&mut kernel, &network)?;
        let mut endpoint = self.store.insert_endpoint(&network, endpoint, &new.addresses, true)?;
        let keeper = Start::begin(&self.config);
        let others_give = dhcp::wanted(&network) || network.ipam.is_remote();
        let _busy = others_give.then(|| self.busy_with(&endpoint.id)).transpose()?;
        if network.ipam.is_remote() {
            // Waiting for a plugin is nobody else's trouble.
            drop(lock);
            endpoint = self.request_addresses(&network, endpoint, &new.addresses)?;
            lock = self.lock()?;
            let seen = self.still_wanted(&endpoint).and_then(|()| self.view(&mut kernel, &network));
            view = seen.inspect_err(|_| self.forget(&network, &endpoint, false))?;
        }
        let made = self
            .hold_ports(&endpoint.id, &endpoint.ports)
            .and_then(|()| kernel.apply(&plan::attach(&network, &endpoint, &view), Some(&netns), &|| self.rules()));
        if let Err(error) = made {
            self.forget(&network, &endpoint, view.bridge_mtu.is_none());
            // The table may know it already.
            if let Err(error) = self.rewrite_firewall() {
                tracing::error!(%error, "the firewall keeps ports of a failed attach until reconcile");
            }
            drop(lock);
            if network.ipam.is_remote() {
                self.pay();
            }
            return Err(error);
        }
        let endpoint = if dhcp::wanted(&network) {
            // Waiting for a server is nobody else's trouble.
            drop(lock);
            self.lease(&network, &endpoint, &netns)?
        } else {
            endpoint
        };
        forget_flows(&endpoint.ports);
        self.store.set_endpoint_state(&endpoint.id, EndpointState::Ready)?;
        self.give_way(&endpoint);
        self.event("connect", &network, &[("container", &endpoint.owner)]);
        if let Err(error) = keeper.and_then(|keeper| keeper.finish(&self.config, view.bridge_mtu.is_none())) {
            tracing::warn!(%error, "names are not served");
        }
        Ok(endpoint)
    }

    fn view(&self, kernel: &mut Kernel<'_>, network: &Network) -> Result<HostView> {
        let mut view = kernel.view(network)?;
        // Sets of policies are written with the whole table.
        view.table &= self.store.policies()?.is_empty();
        Ok(view)
    }

    /// An attach by a driver of others: recorded under the lock, done without it.
    fn attach_by_others(&self, network: &Network, new: &NewEndpoint, netns: &Netns) -> Result<Endpoint> {
        let filter = EndpointFilter {
            network: Some(network.id.clone()),
            owner: Some(new.owner.clone()),
            netns: Some(new.netns_path.to_string_lossy().into_owned()),
            ..EndpointFilter::default()
        };
        if let Some(stored) = self.store.endpoints(&filter)?.pop() {
            if stored.state == EndpointState::Ready && stored.endpoint.netns_inode == netns.inode() {
                return Ok(stored.endpoint);
            }
            self.detach_foreign(&filter, true)?;
        }
        let (endpoint, _busy) = {
            let _lock = self.lock()?;
            let endpoint = self.design(network, new, netns)?;
            let endpoint = self.store.insert_endpoint(network, endpoint, &new.addresses, true)?;
            let busy = self.busy_with(&endpoint.id)?;
            (endpoint, busy)
        };
        let endpoint = if network.ipam.is_remote() {
            self.request_addresses(network, endpoint, &new.addresses)?
        } else {
            endpoint
        };
        let endpoint = self.attach_foreign(network, new, &endpoint, netns)?;
        self.store.set_endpoint_state(&endpoint.id, EndpointState::Ready)?;
        self.event("connect", network, &[("container", &endpoint.owner)]);
        Ok(endpoint)
    }

    /// What an attach would do, one line for each change. Nothing is changed.
    ///
    /// # Errors
    /// As [`Networks::attach`], as far as it can be known.
    pub fn plan_attach(&self, new: &NewEndpoint) -> Result<Vec<String>> {
        check(new)?;
        let network = self.joinable(&new.network)?;
        if !network.driver.has_links() {
            return Ok(vec![format!("record an endpoint of {} on network {:?}", new.owner, network.name)]);
        }
        check_addresses(&network, new)?;
        ports::check(&network, &new.ports)?;
        let netns = open_netns(&new.netns_path)?;
        let endpoint = self.design(&network, new, &netns)?;
        self.ports_are_free(&endpoint.ports)?;
        let view = Kernel::open(&self.firewall)?.view(&network)?;
        let endpoint = self.store.insert_endpoint(&network, endpoint, &new.addresses, false)?;
        if network.driver.is_foreign() {
            return Ok(vec![format!("ask the driver {} to attach {}", network.driver, endpoint.interface)]);
        }
        let mut lines: Vec<String> = endpoint.ports.iter().map(|port| format!("hold port {port}")).collect();
        lines.extend(plan::attach(&network, &endpoint, &view).iter().map(ToString::to_string));
        if dhcp::wanted(&network) {
            lines.push(format!("ask a DHCP server for the address of {}", endpoint.interface));
        }
        Ok(lines)
    }

    fn joinable(&self, name: &str) -> Result<Network> {
        let network = self.store.find_network(name)?.network;
        if network.config_only {
            let what = format!("network {:?}", network.name);
            return Err(Error::invalid(what, "is only a model that others are made from"));
        }
        Ok(network)
    }

    /// The endpoint that is to be, without its addresses.
    fn design(&self, network: &Network, new: &NewEndpoint, netns: &Netns) -> Result<Endpoint> {
        // Of another user namespace: it cannot be entered, only handed on.
        let inside = match network.driver {
            Driver::Rootless => InsideView::default(),
            _ => InsideView::of(netns)?,
        };
        let mut endpoint = blank(network, new);
        if network.driver == Driver::Ipvlan {
            endpoint.mac_address = mac_of_parent(network)?;
        }
        endpoint.netns_inode = netns.inode();
        endpoint.interface = choose_interface(new, &inside)?;
        endpoint.gateways = gateway::choose(network, &endpoint, &inside, &self.neighbours(&endpoint)?);
        endpoint.ports = ports::settle(bound(network, &new.ports), &|ports| self.store.check_ports(ports, ""))?;
        Ok(endpoint)
    }

    /// Has the ports held from now on, in place of what the endpoint had.
    fn hold_ports(&self, id: &str, ports: &[PortMapping]) -> Result<()> {
        match Holder::of(&self.config) {
            _ if ports.is_empty() => Ok(()),
            Some(holder) => holder.hold(id, ports),
            None => self.ports_are_free(ports),
        }
    }

    fn ports_are_free(&self, ports: &[PortMapping]) -> Result<()> {
        let owner = Some(self.config.port_owner());
        ports.iter().try_for_each(|port| ports::free_on_host(port, owner))
    }

    fn release_ports(&self, endpoint: &Endpoint) {
        if let Some(holder) = Holder::of(&self.config).filter(|_| !endpoint.ports.is_empty()) {
            holder.release(&endpoint.id);
        }
    }

    /// Gets an address from a DHCP server, sets it, and records it. On failure the endpoint is undone.
    fn lease(&self, network: &Network, endpoint: &Endpoint, netns: &Netns) -> Result<Endpoint> {
        let leased = dhcp::obtain(network, endpoint, netns);
        let _lock = self.lock()?;
        let set = leased.and_then(|leased| {
            kernel::apply_inside(&dhcp::changes(&leased), Some(netns))?;
            self.store.update_endpoint(&leased)?;
            Ok(leased)
        });
        if set.is_err() {
            let mut kernel = Kernel::open(&self.firewall)?;
            self.detach_one(&mut kernel, endpoint)?;
        }
        set
    }

    /// The record of an endpoint whose addresses were waited for may be gone: its network was removed by force.
    fn still_wanted(&self, endpoint: &Endpoint) -> Result<()> {
        let filter = EndpointFilter { id: Some(endpoint.id.clone()), ..EndpointFilter::default() };
        match self.store.endpoints(&filter)?.pop() {
            Some(_) => Ok(()),
            None => Err(Error::NetworkNotFound { name: endpoint.network_name.clone() }),
        }
    }

    /// Takes the record of a failed attach back. What remains in a database that fails now is undone by the next
    /// reconcile.
    fn forget(&self, network: &Network, endpoint: &Endpoint, bridge_is_gone: bool) {
        self.release_ports(endpoint);
        let alone = bridge_is_gone && network.driver.has_bridge();
        let undone = self
            .store
            .delete_endpoint(&endpoint.id, &debts_of_endpoint(network, endpoint))
            .and_then(|()| if alone { self.store.set_up(&network.id, false) } else { Ok(()) });
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
            Some(stored) => self.store.delete_endpoint(&stored.endpoint.id, &[])?,
            None => {}
        }
        let endpoint = Endpoint {
            host_interface: String::new(),
            mac_address: String::new(),
            netns_path: Default::default(),
            ports: Vec::new(),
            ..blank(network, new)
        };
        let endpoint = self.store.insert_endpoint(network, endpoint, &[], true)?;
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
        let wired = kernel.is_wired(&endpoint, Some(netns))?;
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
        let filter = self.filter_of(which)?;
        let (ids, warnings) = self.detach_foreign(&filter, false)?;
        let lock = self.lock()?;
        let mut detached = self.detach_all(&filter)?;
        drop(lock);
        if detached.owing {
            self.pay();
        }
        detached.ids.extend(ids);
        detached.warnings.extend(warnings);
        Ok(detached)
    }

    /// The filter of a choice.
    pub(crate) fn filter_of(&self, which: &Detach) -> Result<EndpointFilter> {
        Ok(match which {
            Detach::Id(id) => EndpointFilter { id: Some(id.clone()), ..EndpointFilter::default() },
            Detach::Owner { owner, network } => {
                let network = network.as_deref().map(|name| self.store.find_network(name)).transpose()?;
                let network = network.map(|stored| stored.network.id);
                EndpointFilter { owner: Some(owner.clone()), network, ..EndpointFilter::default() }
            }
        })
    }

    /// Detaches what matches. The caller holds the lock.
    pub(crate) fn detach_all(&self, filter: &EndpointFilter) -> Result<Detached> {
        let mut detached = Detached::default();
        let endpoints = self.store.endpoints(filter)?;
        if endpoints.is_empty() {
            return Ok(detached);
        }
        let mut kernel = Kernel::open(&self.firewall)?;
        let together = endpoints.len() > FEW;
        if together {
            for stored in &endpoints {
                self.store.set_endpoint_state(&stored.endpoint.id, EndpointState::Detaching)?;
            }
            // Without those that are going.
            self.rewrite_firewall()?;
        }
        for stored in endpoints {
            let id = stored.endpoint.id.clone();
            match self.unwire(&mut kernel, &stored.endpoint, !together) {
                Ok(unwired) => {
                    detached.warnings.extend(unwired.warnings);
                    detached.owing |= unwired.owing;
                    detached.ids.push(id);
                }
                Err(error) => detached.warnings.push(format!("endpoint {id}: {error}")),
            }
        }
        Ok(detached)
    }

    /// Detaches one endpoint; returns what the kernel refused to give back. The caller holds the lock.
    pub(crate) fn detach_one(&self, kernel: &mut Kernel<'_>, endpoint: &Endpoint) -> Result<Vec<String>> {
        self.unwire(kernel, endpoint, true).map(|unwired| unwired.warnings)
    }

    /// `guarded`: the firewall's table still has it.
    fn unwire(&self, kernel: &mut Kernel<'_>, endpoint: &Endpoint, guarded: bool) -> Result<Unwired> {
        let mut warnings = Vec::new();
        self.store.set_endpoint_state(&endpoint.id, EndpointState::Detaching)?;
        let network = self.store.find_network(&endpoint.network_id).ok().map(|stored| stored.network);
        let netns = Netns::open(&endpoint.netns_path).ok().filter(|netns| netns.inode() == endpoint.netns_inode);
        if let (Some(network), Some(netns)) = (&network, &netns)
            && dhcp::wanted(network)
        {
            dhcp::release(endpoint, netns);
        }
        let going = kernel.begin_unwiring(endpoint, netns.as_ref());
        if guarded && let Err(error) = self.unguard(network.as_ref(), endpoint) {
            warnings.push(format!("firewall: {error}"));
        }
        if !guarded {
            forget_flows(&endpoint.ports);
        }
        self.release_ports(endpoint);
        if let Err(error) = going.and_then(|going| kernel.end_unwiring(endpoint, netns.as_ref(), going)) {
            warnings.push(format!("link {}: {error}", endpoint.link()));
        }
        if let Some(netns) = &netns {
            warnings.extend(self.remove_routes(endpoint, netns).err().map(|error| error.to_string()));
        }
        let debts = network.as_ref().map(|network| debts_of_endpoint(network, endpoint)).unwrap_or_default();
        self.store.delete_endpoint(&endpoint.id, &debts)?;
        if let Some(netns) = &netns {
            self.inherit_gateways(endpoint, netns);
        }
        if let Some(network) = &network {
            self.event("disconnect", network, &[("container", &endpoint.owner)]);
        }
        Ok(Unwired { warnings, owing: !debts.is_empty() })
    }

    /// Static routes that did not go with the link, but for those that another endpoint of the namespace has too.
    fn remove_routes(&self, endpoint: &Endpoint, netns: &Netns) -> Result<()> {
        if endpoint.routes.is_empty() {
            return Ok(());
        }
        let neighbours = self.neighbours(endpoint)?;
        let mut routes = endpoint.routes.clone();
        routes.retain(|route| !neighbours.iter().any(|other| other.routes.contains(route)));
        kernel::remove_routes(netns, &routes).map_err(Error::kernel("remove static routes"))
    }

    /// Takes an endpoint out of the firewall's table.
    fn unguard(&self, network: Option<&Network>, endpoint: &Endpoint) -> Result<()> {
        let own = match network {
            Some(network) if !network.driver.has_bridge() => driver::guarded(network, std::slice::from_ref(endpoint)),
            _ => Vec::new(),
        };
        let elements = own.iter().fold(Elements::default(), Elements::network).ports(endpoint, &endpoint.ports);
        if !self.store.policies()?.is_empty() {
            self.rewrite_firewall()?;
            forget_flows(&endpoint.ports);
            return Ok(());
        }
        if elements.is_empty() {
            return Ok(());
        }
        self.change_elements(&elements, &Elements::default())?;
        forget_flows(&endpoint.ports);
        Ok(())
    }

    /// Takes elements out and puts others in. All rules are written from the records when that is less work, or when
    /// something to be removed is not there.
    fn change_elements(&self, out: &Elements, new: &Elements) -> Result<()> {
        if out.len() > MANY || !self.firewall.takes_elements()? {
            return self.rewrite_firewall();
        }
        self.firewall.replace(out, new).or_else(|_| self.rewrite_firewall())
    }

    /// What a detach would do, one line for each change. Nothing is changed.
    ///
    /// # Errors
    /// As [`Networks::detach`].
    pub fn plan_detach(&self, which: &Detach) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for stored in self.store.endpoints(&self.filter_of(which)?)? {
            let endpoint = stored.endpoint;
            lines.extend(endpoint.ports.iter().map(|port| format!("release port {port}")));
            if !endpoint.link().is_empty() {
                lines.push(format!("remove link {}", endpoint.link()));
            }
            lines.push(format!("forget endpoint {} of {}", endpoint.id, endpoint.owner));
        }
        Ok(lines)
    }

    /// Publishes and withdraws ports of a live endpoint in one step.
    ///
    /// # Errors
    /// [`Error::EndpointNotFound`], [`Error::PortPublished`], [`Error::PortTaken`].
    pub fn update_ports(&self, id: &str, add: &[PortMapping], remove: &[PortMapping]) -> Result<Endpoint> {
        let _lock = self.lock()?;
        let before = self.store.find_endpoint(id)?;
        let network = self.store.find_network(&before.network_id)?.network;
        if network.driver.is_foreign() {
            let what = format!("network {:?}", network.name);
            return Err(Error::invalid(what, "its driver publishes ports at the attach only"));
        }
        ports::check(&network, add)?;
        let (gone, mut kept): (Vec<_>, Vec<_>) =
            before.ports.iter().cloned().partition(|port| remove.iter().any(|wish| withdraws(wish, port)));
        if let Some(wish) = remove.iter().find(|wish| !gone.iter().any(|port| withdraws(wish, port))) {
            return Err(Error::invalid(format!("port {wish}"), "the endpoint does not publish it"));
        }
        let fresh = ports::settle(bound(&network, add), &|ports| {
            let own = |port: &PortMapping| kept.iter().find(|other| other.conflicts(port)).cloned();
            match ports.iter().find_map(own) {
                Some(port) => Err(Error::PortPublished { port, owner: before.owner.clone() }),
                None => self.store.check_ports(ports, &before.id),
            }
        })?;
        kept.extend(fresh.iter().cloned());
        let after = Endpoint { ports: kept, ..before.clone() };
        self.hold_ports(&after.id, &after.ports)?;
        if after.ports.is_empty() {
            self.release_ports(&before);
        }
        let recorded = self.store.update_endpoint(&after);
        self.held_again(&before, recorded)?;
        let (out, new) = (Elements::default().ports(&before, &gone), Elements::default().ports(&after, &fresh));
        let changed = self.change_elements(&out, &new);
        if changed.is_err() {
            self.store.update_endpoint(&before)?;
        }
        self.held_again(&before, changed)?;
        forget_flows(&gone);
        forget_flows(&fresh);
        self.event("update", &network, &[("container", &after.owner)]);
        Ok(after)
    }

    /// After a failed change the ports from before are held; they were all along.
    fn held_again(&self, before: &Endpoint, result: Result<()>) -> Result<()> {
        if result.is_err() {
            match before.ports.as_slice() {
                [] => self.release_ports(before),
                ports => self.hold_ports(&before.id, ports)?,
            }
        }
        result
    }
}

/// With the network's own address of the host where a port names none.
fn bound(network: &Network, ports: &[PortMapping]) -> Vec<PortMapping> {
    let one = |port: &PortMapping| PortMapping { host_ip: port.host_ip.or(network.host_binding()), ..port.clone() };
    ports.iter().map(one).collect()
}

/// Flows are only a matter of how soon clients notice: a failure is logged.
pub(crate) fn forget_flows(ports: &[PortMapping]) {
    if let Err(error) = conntrack::forget(ports) {
        tracing::warn!(%error, "UDP and SCTP flows to changed ports may linger");
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
