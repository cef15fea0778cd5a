//! Applies plans to the kernel, and looks at what is there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sys::netns::Netns;

use crate::error::{Error, Result};
use crate::firewall::{Elements, Firewall};
use crate::ipsec;
use crate::model::{Endpoint, Network, Route};
use crate::netlink::{Netlink, Veth};
use crate::plan::{Change, Forwarding6, HostView, Place};

/// The kernel, as one operation sees it.
pub(crate) struct Kernel<'a> {
    pub(crate) host: Netlink,
    firewall: &'a Firewall,
}

impl<'a> Kernel<'a> {
    pub(crate) fn open(firewall: &'a Firewall) -> Result<Self> {
        let host = Netlink::open().map_err(Error::kernel("open a netlink socket"))?;
        Ok(Self { host, firewall })
    }

    /// Looks at the host on behalf of a network.
    pub(crate) fn view(&mut self, network: &Network) -> Result<HostView> {
        let step = || Error::kernel(format!("look at link {}", network.bridge));
        let mut find = |name: &str| if name.is_empty() { Ok(None) } else { self.host.link(name) };
        let bridge = find(&network.bridge).map_err(step())?;
        let parent = find(network.parent()).map_err(step())?.is_some();
        let is_on = |key: &str| read_sysctl(key).is_some_and(|value| value != "0");
        let mut view = HostView {
            bridge_mtu: bridge.as_ref().map(|link| link.mtu),
            parent,
            table: self.firewall.takes_elements()?,
            forwarding4: is_on("ipv4/ip_forward"),
            bridge_filter: is_on("bridge/bridge-nf-call-iptables") || is_on("bridge/bridge-nf-call-ip6tables"),
            ..HostView::default()
        };
        if bridge.is_none() {
            view.uplink_mtu = self.uplink_mtu(network.vrf()).map_err(step())?;
        }
        if network.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv6()) {
            view.forwarding6 = self.forwarding6().map_err(step())?;
        }
        Ok(view)
    }

    /// Whether the link of an endpoint is there.
    pub(crate) fn is_wired(&mut self, endpoint: &Endpoint, netns: Option<&Netns>) -> Result<bool> {
        let step = || Error::kernel(format!("look at link {}", endpoint.link()));
        let found = match netns {
            _ if !endpoint.host_interface.is_empty() => self.host.link(&endpoint.host_interface),
            Some(netns) => netns.within(|| Netlink::open()?.link(&endpoint.interface)).and_then(|found| found),
            None => Ok(None),
        };
        Ok(found.map_err(step())?.is_some())
    }

    /// Starts to take an endpoint's link away, with all that is on it.
    pub(crate) fn begin_unwiring(&mut self, endpoint: &Endpoint, netns: Option<&Netns>) -> io::Result<Option<u32>> {
        match (endpoint.host_interface.as_str(), endpoint.interface.as_str(), netns) {
            ("", "", _) | ("", _, None) => Ok(None),
            ("", link, Some(netns)) => netns.within(|| Netlink::open()?.begin_removal(link))?,
            (link, ..) => self.host.begin_removal(link),
        }
    }

    /// Waits until nobody sees it any more. `going` is what [`Kernel::begin_unwiring`] said.
    pub(crate) fn end_unwiring(
        &mut self,
        endpoint: &Endpoint,
        netns: Option<&Netns>,
        going: Option<u32>,
    ) -> io::Result<()> {
        match (endpoint.host_interface.as_str(), netns) {
            ("", Some(netns)) => netns.within(|| Netlink::open()?.end_removal(&endpoint.interface, going))?,
            ("", None) => Ok(()),
            (link, _) => self.host.end_removal(link, going),
        }
    }

    /// Of the link that the default route of the main table, or of a VRF's, leaves by.
    fn uplink_mtu(&mut self, vrf: &str) -> io::Result<Option<u32>> {
        let routes = match vrf {
            "" => self.host.routes()?,
            vrf => match self.host.vrf_table(vrf)? {
                Some(table) => self.host.routes_in(table)?,
                None => return Ok(None),
            },
        };
        let uplink = routes.iter().filter(|route| route.destination.is_none()).find_map(|route| route.link);
        let Some(uplink) = uplink else { return Ok(None) };
        Ok(self.host.links()?.into_iter().find(|link| link.index == uplink).map(|link| link.mtu))
    }

    fn forwarding6(&mut self) -> io::Result<Forwarding6> {
        if read_sysctl("ipv6/conf/all/forwarding").is_none_or(|value| value != "0") {
            return Ok(Forwarding6::On);
        }
        if let Some(value) = read_sysctl("ipv6/conf/all/force_forwarding") {
            return Ok(if value == "0" { Forwarding6::OffForceable } else { Forwarding6::On });
        }
        if self.host.routes()?.iter().any(|route| route.ipv6 && route.advertised) {
            tracing::warn!(
                "IPv6 forwarding stays off: the host's routes come from router advertisements, which it would ignore; \
                 set accept_ra=2 on the uplink and net.ipv6.conf.all.forwarding=1"
            );
            return Ok(Forwarding6::OffAdvertised);
        }
        Ok(Forwarding6::Off)
    }

    /// Applies changes in order. When one fails, what the earlier ones made is taken back, newest first.
    ///
    /// `rules` gives the whole table's elements, should the table have to be written.
    pub(crate) fn apply(
        &mut self,
        changes: &[Change],
        netns: Option<&Netns>,
        rules: &dyn Fn() -> Result<Elements>,
    ) -> Result<()> {
        let mut done = 0;
        while let Some(change) = changes.get(done) {
            let (step, result) = match change.place() {
                Place::Host => (1, self.apply_on_host(change, netns, rules)),
                Place::Inside => {
                    let inside = changes[done..].iter().take_while(|change| change.place() == Place::Inside).count();
                    (inside, apply_inside(&changes[done..done + inside], netns))
                }
            };
            done += step;
            if let Err(error) = result {
                // Of a run inside, the first ones may be there; what failed on the host made nothing.
                let made = if change.place() == Place::Inside { done } else { done - step };
                self.take_back(&changes[..made], netns);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Undoes what changes made, newest first, then removes routes that went with no link. What cannot be undone is logged.
    fn take_back(&mut self, changes: &[Change], netns: Option<&Netns>) {
        let inside = changes.iter().filter(|change| change.place() == Place::Inside);
        let routes: Vec<Route> = inside
            .filter_map(|change| match change {
                Change::Route { route, .. } => Some(route.clone()),
                _ => None,
            })
            .collect();
        self.take_steps_back(changes, netns);
        if let Some(netns) = netns
            && let Err(error) = remove_routes(netns, &routes)
        {
            tracing::error!(%error, "routes stay in the namespace");
        }
    }

    fn take_steps_back(&mut self, changes: &[Change], netns: Option<&Netns>) {
        for change in changes.iter().rev() {
            let step = || Error::kernel("undo it");
            let undone = match (change, change.made_link(), netns) {
                (Change::Encrypt { ipsec, before, .. }, ..) => ipsec::settle(ipsec, before.as_deref()).map(drop),
                (Change::Peer { link, peer, there }, ..) => self.set_peer(link, *peer, !there).map_err(step()),
                (_, Some((Place::Host, link)), _) => self.host.delete_link(link).map(drop).map_err(step()),
                (_, Some((Place::Inside, link)), Some(netns)) => remove_inside(netns, link).map_err(step()),
                _ => continue,
            };
            if let Err(error) = undone {
                tracing::error!(%change, %error, "cannot be undone");
            }
        }
    }

    fn set_peer(&mut self, link: &str, peer: IpAddr, there: bool) -> io::Result<()> {
        let link = self.index(link)?;
        self.host.set_peer(link, peer, there)
    }

    fn apply_on_host(
        &mut self,
        change: &Change,
        netns: Option<&Netns>,
        rules: &dyn Fn() -> Result<Elements>,
    ) -> Result<()> {
        let step = || Error::kernel(change.to_string());
        match change {
            Change::Elements(elements) => match self.firewall.replace(&Elements::default(), elements) {
                Err(Error::Firewall { message, .. }) => {
                    tracing::warn!(message, "the firewall table differs from the records; it is written anew");
                    self.firewall.rebuild(&rules()?)
                }
                result => result,
            },
            Change::Table => self.firewall.rebuild(&rules()?),
            Change::Encrypt { ipsec, peers, .. } => ipsec::settle(ipsec, Some(peers)).map(drop),
            _ if change.made_link().is_some() => self.make_link(change, netns).map_err(step()),
            _ => self.change_link(change).map_err(step()),
        }
    }

    fn make_link(&mut self, change: &Change, netns: Option<&Netns>) -> io::Result<()> {
        let there = netns;
        let netns = || netns.map(AsFd::as_fd).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        match change {
            Change::Bridge { name, mac, mtu, vlan } => {
                let made = self.host.add_bridge(name, *mac, *mtu, *vlan);
                made.map_err(|error| without_kind("VLANs on bridges", error))
            }
            Change::Vxlan { name, overlay, mtu, bridge } => {
                let bridge = self.index(bridge)?;
                // One that is there lost its bridge: to somebody, or to a crash.
                self.host.delete_link(name)?;
                self.host.add_vxlan(name, overlay, *mtu, bridge)
            }
            Change::Subinterface { name, base, id, alias } => {
                let base = self.index(base)?;
                self.host.add_vlan(name, base, *id, alias).map_err(|error| without_kind("vlan links", error))
            }
            Change::Veth { host, inside, mac, mtu, bridge, hairpin } => {
                let bridge = bridge.as_ref().map(|bridge| self.index(bridge)).transpose()?;
                let veth = Veth { host, inside, mac: *mac, mtu: *mtu, bridge };
                self.host.add_veth(&veth, netns()?)?;
                let hairpinned = if *hairpin { self.set_hairpin(host) } else { Ok(()) };
                hairpinned.inspect_err(|_| self.take_back(std::slice::from_ref(change), None))
            }
            Change::Child { kind, parent, inside, mac, mtu } => {
                let parent = self.index(parent)?;
                // Kernels before 6.13 look for the new name here too, and find it.
                let taken = self.host.link(inside)?.is_some();
                let name = if taken { format!("pc{:012x}", rand::random::<u64>() >> 16) } else { inside.clone() };
                let made = self.host.add_child(kind, parent, &name, *mac, *mtu, netns()?);
                made.map_err(|error| without_kind(&format!("{} links", kind.kind()), error))?;
                match there {
                    Some(netns) if taken => rename_inside(netns, &name, inside),
                    _ => Ok(()),
                }
            }
            Change::Adopt { link, inside, mac } => {
                let link = self.index(link)?;
                self.host.move_link(link, inside, *mac, netns()?)
            }
            _ => Ok(()),
        }
    }

    fn change_link(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Sysctl { key, value, optional, .. } => set_sysctl(key, value, *optional),
            Change::Peer { link, peer, there } => self.set_peer(link, *peer, *there),
            Change::FilterVlans { bridge } => {
                let bridge = self.index(bridge)?;
                self.host.filter_vlans(bridge).map_err(|error| without_kind("VLANs on bridges", error))
            }
            Change::PortVlan { link, id } => {
                let link = self.index(link)?;
                self.host.set_port_vlan(link, *id).map_err(|error| without_kind("VLANs on bridges", error))
            }
            Change::Join { link, bridge, hairpin } => {
                let (index, bridge) = (self.index(link)?, self.index(bridge)?);
                self.host.set_controller(index, bridge)?;
                if *hairpin { self.host.set_hairpin(index) } else { Ok(()) }
            }
            Change::Address { link, address, .. } => {
                let link = self.index(link)?;
                self.host.add_address(link, *address)
            }
            Change::Route { link, route, .. } => {
                let link = self.index(link)?;
                self.host.add_route(link, route)
            }
            // Every other change is of a namespace, of a link that is made, or of the firewall.
            _ => Ok(()),
        }
    }

    fn set_hairpin(&mut self, link: &str) -> io::Result<()> {
        let index = self.index(link)?;
        self.host.set_hairpin(index)
    }

    fn index(&mut self, link: &str) -> io::Result<u32> {
        index_of(&mut self.host, link)
    }
}

/// A kernel that was built without a kind of link says "not supported", which says too little.
fn without_kind(kind: &str, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Unsupported => io::Error::new(error.kind(), format!("this kernel has no {kind}")),
        _ => error,
    }
}

/// Gives a link inside a namespace, which is down, another name; one that cannot have it is removed.
fn rename_inside(netns: &Netns, link: &str, name: &str) -> io::Result<()> {
    netns.within(|| {
        let mut inside = Netlink::open()?;
        let index = index_of(&mut inside, link)?;
        inside.rename(index, name).inspect_err(|_| {
            let _ = inside.delete_link(link);
        })
    })?
}

/// Removes a link inside a namespace; fine when it is gone.
pub(crate) fn remove_inside(netns: &Netns, link: &str) -> io::Result<()> {
    netns.within(|| Netlink::open()?.remove_link(link).map(drop))?
}

/// Removes routes of ours inside a namespace that did not go with a link; fine when there are none.
pub(crate) fn remove_routes(netns: &Netns, routes: &[Route]) -> io::Result<()> {
    if routes.is_empty() {
        return Ok(());
    }
    netns.within(|| {
        let mut inside = Netlink::open()?;
        routes.iter().try_for_each(|route| inside.delete_route(route))
    })?
}

/// Applies a run of changes on one thread inside the namespace.
pub(crate) fn apply_inside(changes: &[Change], netns: Option<&Netns>) -> Result<()> {
    let step = || Error::kernel("enter the network namespace");
    let netns = netns.ok_or_else(|| step()(io::ErrorKind::NotFound.into()))?;
    netns
        .within(|| {
            let mut inside = Netlink::open().map_err(step())?;
            let mut indices = BTreeMap::new();
            changes.iter().try_for_each(|change| {
                apply_one_inside(&mut inside, &mut indices, change).map_err(Error::kernel(change.to_string()))
            })
        })
        .map_err(step())?
}

fn apply_one_inside(inside: &mut Netlink, indices: &mut BTreeMap<String, u32>, change: &Change) -> io::Result<()> {
    let mut index = |inside: &mut Netlink, link: &String| {
        if let Some(index) = indices.get(link) {
            return Ok(*index);
        }
        let index = index_of(inside, link)?;
        indices.insert(link.clone(), index);
        io::Result::Ok(index)
    };
    match change {
        Change::Sysctl { key, value, optional, .. } => set_sysctl(key, value, *optional),
        Change::Address { link, address, .. } => {
            let link = index(inside, link)?;
            inside.add_address(link, *address)
        }
        Change::Up { link } => {
            let link = index(inside, link)?;
            inside.set_up(link)
        }
        Change::DefaultRoute { link, gateway, metric } => {
            let link = index(inside, link)?;
            inside.set_default_route(link, *gateway, *metric)
        }
        Change::Route { link, route, .. } => {
            let link = index(inside, link)?;
            inside.add_route(link, route)
        }
        _ => Ok(()),
    }
}

fn index_of(netlink: &mut Netlink, link: &str) -> io::Result<u32> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no link {link}"));
    netlink.link(link)?.map(|link| link.index).ok_or_else(missing)
}

/// What a namespace has already.
#[derive(Debug, Clone, Default)]
pub(crate) struct InsideView {
    pub(crate) links: Vec<String>,
    pub(crate) default4: bool,
    pub(crate) default6: bool,
}

impl InsideView {
    pub(crate) fn of(netns: &Netns) -> Result<Self> {
        let step = || Error::kernel("look into the network namespace");
        let look = || {
            let mut inside = Netlink::open()?;
            let routes = inside.routes()?;
            let default = |ipv6| routes.iter().any(|route| route.ipv6 == ipv6 && route.destination.is_none());
            let links = inside.links()?.into_iter().map(|link| link.name).collect();
            Ok(Self { links, default4: default(false), default6: default(true) })
        };
        netns.within(look).and_then(|view| view).map_err(step())
    }

    /// The first `eth<N>` that is not taken.
    pub(crate) fn free_name(&self) -> String {
        let taken = |name: &String| self.links.contains(name);
        (0..).map(|n| format!("eth{n}")).find(|name| !taken(name)).unwrap_or_default()
    }
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(key)
}

pub(crate) fn read_sysctl(key: &str) -> Option<String> {
    fs::read_to_string(sysctl_path(key)).ok().map(|value| value.trim().to_owned())
}

fn set_sysctl(key: &str, value: &str, optional: bool) -> io::Result<()> {
    match fs::write(sysctl_path(key), value) {
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => Ok(()),
        // /proc may be read-only: what is so already need not be written.
        Err(_) if read_sysctl(key).as_deref() == Some(value) => Ok(()),
        result => result,
    }
}
