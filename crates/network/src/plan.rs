//! What has to change for a network or an endpoint to be there: from the wanted and the current, a list of changes.
//! Values only; [`crate::kernel`] applies them, and takes back what it did when a later one fails.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::firewall::Elements;
use crate::ipam;
use crate::model::{Endpoint, Network};

/// Where a change happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the network namespace the program runs in.
    Host,
    /// In the endpoint's.
    Inside,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes below /proc/sys/net. Stays when a later change fails: it does no harm.
    Sysctl {
        /// Whose setting.
        place: Place,
        /// Path below /proc/sys/net.
        key: String,
        /// The value.
        value: &'static str,
        /// A kernel without this setting is fine.
        optional: bool,
    },
    /// Makes a bridge, up.
    Bridge {
        /// Its name.
        name: String,
        /// Its MAC address, so that it does not change with the ports.
        mac: [u8; 6],
        /// Bytes.
        mtu: u32,
    },
    /// Makes a veth pair between a bridge and the namespace.
    Veth {
        /// Name of the host's end.
        host: String,
        /// Name of the end inside.
        inside: String,
        /// MAC address of the end inside.
        mac: [u8; 6],
        /// Bytes.
        mtu: u32,
        /// The bridge.
        bridge: String,
        /// Frames may go back through the port they came from.
        hairpin: bool,
    },
    /// Puts a link back on its bridge.
    Join {
        /// The link.
        link: String,
        /// The bridge.
        bridge: String,
        /// Frames may go back through the port they came from.
        hairpin: bool,
    },
    /// Adds an address.
    Address {
        /// Where the link is.
        place: Place,
        /// The link.
        link: String,
        /// With prefix length.
        address: IpNet,
    },
    /// Sets a link inside up.
    Up {
        /// The link.
        link: String,
    },
    /// Adds a default route inside.
    DefaultRoute {
        /// The link.
        link: String,
        /// The next hop.
        gateway: IpAddr,
    },
    /// Adds elements to the firewall's table.
    Elements(Elements),
    /// Writes the whole table from the records.
    Table,
}

impl Change {
    /// Where it happens.
    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            Self::Sysctl { place, .. } | Self::Address { place, .. } => *place,
            Self::Up { .. } | Self::DefaultRoute { .. } => Place::Inside,
            _ => Place::Host,
        }
    }

    /// The host's link that this change made, and that takes everything on it along when it is removed.
    #[must_use]
    pub fn made_link(&self) -> Option<&str> {
        match self {
            Self::Bridge { name, .. } => Some(name),
            Self::Veth { host, .. } => Some(host),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { key, value, .. } => write!(f, "set net/{key} to {value}"),
            Self::Bridge { name, .. } => write!(f, "make bridge {name}"),
            Self::Veth { host, inside, .. } => write!(f, "make veth pair {host}, {inside}"),
            Self::Join { link, bridge, .. } => write!(f, "put {link} on {bridge}"),
            Self::Address { link, address, .. } => write!(f, "add address {address} to {link}"),
            Self::Up { link } => write!(f, "set {link} up"),
            Self::DefaultRoute { link, gateway } => write!(f, "add default route by {gateway} on {link}"),
            Self::Elements(_) => f.write_str("add firewall elements"),
            Self::Table => f.write_str("write the firewall table"),
        }
    }
}

/// The host as it is, as far as plans depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostView {
    /// MTU of the network's bridge, if it is there; in bytes.
    pub bridge_mtu: Option<u32>,
    /// MTU of the link of the default route.
    pub uplink_mtu: Option<u32>,
    /// The firewall's table is there.
    pub table: bool,
    /// net.ipv4.ip_forward.
    pub forwarding4: bool,
    /// How IPv6 forwarding stands.
    pub forwarding6: Forwarding6,
    /// Bridged packets go through the IP rules too (bridge-nf-call-iptables): then a packet that is translated back to
    /// its sender leaves by the port it came from, which the port must allow.
    pub bridge_filter: bool,
}

/// How IPv6 forwarding stands on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forwarding6 {
    /// It is on.
    #[default]
    On,
    /// Off; this kernel can switch it on without touching how router advertisements are taken (Linux 6.17).
    OffForceable,
    /// Off, and switching it on loses no route.
    Off,
    /// Off; switching it on would make the host ignore the router advertisements its default route comes from.
    OffAdvertised,
}

const DEFAULT_MTU: u32 = 1500;

/// All that an endpoint needs, its network's bridge included.
#[must_use]
pub fn attach(network: &Network, endpoint: &Endpoint, host: &HostView) -> Vec<Change> {
    let mut changes = bridge(network, host);
    changes.extend(wire(endpoint, &network.bridge, link_mtu(network, host), host.bridge_filter));
    let elements = if host.bridge_mtu.is_some() { Elements::default() } else { Elements::default().network(network) };
    changes.extend(firewall(elements.ports(endpoint, &endpoint.ports), host));
    changes
}

/// The network's bridge without endpoints, and its place in the firewall.
#[must_use]
pub fn network(network: &Network, host: &HostView) -> Vec<Change> {
    let mut changes = bridge(network, host);
    if host.bridge_mtu.is_none() {
        changes.extend(firewall(Elements::default().network(network), host));
    }
    changes
}

fn firewall(elements: Elements, host: &HostView) -> Option<Change> {
    match (host.table, elements.is_empty()) {
        (false, _) => Some(Change::Table),
        (true, true) => None,
        (true, false) => Some(Change::Elements(elements)),
    }
}

fn link_mtu(network: &Network, host: &HostView) -> u32 {
    host.bridge_mtu.or(network.mtu()).or(host.uplink_mtu).unwrap_or(DEFAULT_MTU)
}

fn bridge(network: &Network, host: &HostView) -> Vec<Change> {
    let mut changes = forwarding(network, host);
    if host.bridge_mtu.is_some() {
        return changes;
    }
    let name = &network.bridge;
    let set = |family: &str, key: &str, value, optional| Change::Sysctl {
        place: Place::Host,
        key: format!("{family}/conf/{name}/{key}"),
        value,
        optional,
    };
    changes.push(Change::Bridge {
        name: name.clone(),
        mac: ipam::mac_from_id(&network.id),
        mtu: link_mtu(network, host),
    });
    changes.push(set("ipv4", "route_localnet", "1", false));
    // What a container advertises must not become the host's route.
    changes.push(set("ipv6", "accept_ra", "0", true));
    for subnet in &network.subnets {
        if subnet.subnet.addr().is_ipv6() {
            changes.push(set("ipv6", "disable_ipv6", "0", false));
            // Neighbours are asked for from the link-local address, which must not be tentative when the first port
            // is wired and the bridge gets its carrier.
            changes.push(set("ipv6", "accept_dad", "0", false));
            if !network.internal {
                // "all" reached only the links that were there.
                changes.push(set("ipv6", "force_forwarding", "1", true));
            }
        }
        changes.extend(IpNet::new(subnet.gateway, subnet.subnet.prefix_len()).ok().map(|address| Change::Address {
            place: Place::Host,
            link: name.clone(),
            address,
        }));
    }
    changes
}

/// Switches forwarding on for the families of a network that has a way out.
fn forwarding(network: &Network, host: &HostView) -> Vec<Change> {
    let set = |key: &str| Change::Sysctl { place: Place::Host, key: key.into(), value: "1", optional: false };
    let has = |ipv6: bool| network.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv6() == ipv6);
    let mut changes = Vec::new();
    if network.internal {
        return changes;
    }
    if has(false) && !host.forwarding4 {
        changes.push(set("ipv4/ip_forward"));
    }
    if has(true) {
        match host.forwarding6 {
            Forwarding6::OffForceable => {
                changes.extend(["ipv6/conf/default/force_forwarding", "ipv6/conf/all/force_forwarding"].map(set));
            }
            Forwarding6::Off => changes.push(set("ipv6/conf/all/forwarding")),
            Forwarding6::On | Forwarding6::OffAdvertised => {}
        }
    }
    changes
}

fn wire(endpoint: &Endpoint, bridge: &str, mtu: u32, hairpin: bool) -> Vec<Change> {
    let link = &endpoint.interface;
    let mac = ipam::parse_mac(&endpoint.mac_address).unwrap_or_else(|_| ipam::mac_from_id(&endpoint.id));
    let mut changes = vec![Change::Veth {
        host: endpoint.host_interface.clone(),
        inside: link.clone(),
        mac,
        mtu,
        bridge: bridge.to_owned(),
        hairpin,
    }];
    if endpoint.v6().is_some() {
        for (key, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")] {
            let key = format!("ipv6/conf/{link}/{key}");
            changes.push(Change::Sysctl { place: Place::Inside, key, value, optional: false });
        }
    }
    let address = |address: &IpNet| Change::Address { place: Place::Inside, link: link.clone(), address: *address };
    changes.extend(endpoint.addresses.iter().map(address));
    changes.push(Change::Up { link: link.clone() });
    let route = |gateway: &IpAddr| Change::DefaultRoute { link: link.clone(), gateway: *gateway };
    changes.extend(endpoint.gateways.iter().map(route));
    changes
}

#[cfg(test)]
mod tests;
