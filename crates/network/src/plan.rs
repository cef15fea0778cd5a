//! What has to change for a network or an endpoint to be there: from the wanted and the current, a list of changes.
//! Values only; [`crate::kernel`] applies them, and takes back what it did when a later one fails.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::driver::{self, Overlay};
use crate::firewall::Elements;
use crate::ipsec::Ipsec;
use crate::model::{Endpoint, Network, Route};

/// Where a change happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the network namespace the program runs in.
    Host,
    /// In the endpoint's.
    Inside,
}

/// A link inside that is the child of a link of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Child {
    /// With a MAC address of its own.
    Macvlan {
        /// One of [`crate::driver::MACVLAN_MODES`]; empty: the first.
        mode: String,
        /// Multicast packets a second from which on they are queued, not delivered at once; -1: never, 0: always.
        broadcast_limit: Option<i32>,
    },
    /// With its parent's MAC address.
    Ipvlan {
        /// One of [`crate::driver::IPVLAN_MODES`]; empty: the first.
        mode: String,
    },
    /// Tagged.
    Vlan {
        /// 802.1Q tag.
        id: u16,
    },
}

impl Child {
    /// The kernel's word for the kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Macvlan { .. } => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
            Self::Vlan { .. } => "vlan",
        }
    }
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
        /// Its ports filter by 802.1Q tags.
        vlan: bool,
    },
    /// Makes a VXLAN link, up and on a bridge.
    Vxlan {
        /// Its name.
        name: String,
        /// Identifier, port, own address.
        overlay: Overlay,
        /// Bytes.
        mtu: u32,
        /// The bridge.
        bridge: String,
    },
    /// Encrypts what an overlay network sends and takes, between this host and its peers.
    Encrypt {
        /// How.
        ipsec: Ipsec,
        /// The peers so far; absent: it was not encrypted.
        before: Option<Vec<IpAddr>>,
        /// The peers from now on; what goes to others, or comes from them, is dropped.
        peers: Vec<IpAddr>,
    },
    /// Adds or removes a peer that a VXLAN link floods to.
    Peer {
        /// The VXLAN link.
        link: String,
        /// The peer's address.
        peer: IpAddr,
        /// Whether it is to be one.
        there: bool,
    },
    /// Makes a tagged link on a link of the host, up.
    Subinterface {
        /// Its name.
        name: String,
        /// The link it is made on.
        base: String,
        /// 802.1Q tag.
        id: u16,
        /// What marks it as made for a network.
        alias: String,
    },
    /// Makes a veth pair between the host and the namespace.
    Veth {
        /// Name of the host's end.
        host: String,
        /// Name of the end inside.
        inside: String,
        /// MAC address of the end inside.
        mac: [u8; 6],
        /// Bytes.
        mtu: u32,
        /// The bridge that the host's end joins, if any.
        bridge: Option<String>,
        /// Frames may go back through the port they came from.
        hairpin: bool,
    },
    /// Makes a link inside on a link of the host.
    Child {
        /// What it is.
        kind: Child,
        /// The link of the host.
        parent: String,
        /// Its name inside.
        inside: String,
        /// MAC address; absent: the kernel's choice.
        mac: Option<[u8; 6]>,
        /// Bytes; absent: the parent's.
        mtu: Option<u32>,
    },
    /// Moves a link of the host, which somebody made for it, into the namespace.
    Adopt {
        /// Its name on the host.
        link: String,
        /// Its name inside.
        inside: String,
        /// MAC address; absent: the one it has.
        mac: Option<[u8; 6]>,
    },
    /// Puts a link on a bridge, or a bridge into a VRF.
    Join {
        /// The link.
        link: String,
        /// The bridge, or the VRF.
        bridge: String,
        /// Frames may go back through the port they came from.
        hairpin: bool,
    },
    /// Makes a bridge that is there keep frames apart by their 802.1Q tags. What others have on it stays as it is, in
    /// the bridge's default VLAN.
    FilterVlans {
        /// The bridge.
        bridge: String,
    },
    /// Makes a port of a bridge an untagged member of a VLAN, and of no other.
    PortVlan {
        /// The port.
        link: String,
        /// 802.1Q tag.
        id: u16,
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
    /// Sets the default route inside, in place of another of the same metric.
    DefaultRoute {
        /// The link.
        link: String,
        /// The next hop.
        gateway: IpAddr,
        /// Absent: the kernel's 0 (1024 for IPv6).
        metric: Option<u32>,
    },
    /// Adds a route.
    Route {
        /// Where the link is.
        place: Place,
        /// The link.
        link: String,
        /// Where to, and by whom.
        route: Route,
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
            Self::Sysctl { place, .. } | Self::Address { place, .. } | Self::Route { place, .. } => *place,
            Self::Up { .. } | Self::DefaultRoute { .. } => Place::Inside,
            _ => Place::Host,
        }
    }

    /// The link that this change made, where it is, and that takes everything on it along when it is removed.
    #[must_use]
    pub fn made_link(&self) -> Option<(Place, &str)> {
        match self {
            Self::Bridge { name, .. } | Self::Vxlan { name, .. } | Self::Subinterface { name, .. } => {
                Some((Place::Host, name))
            }
            Self::Veth { host, .. } => Some((Place::Host, host)),
            Self::Child { inside, .. } | Self::Adopt { inside, .. } => Some((Place::Inside, inside)),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { key, value, .. } => write!(f, "set net/{key} to {value}"),
            Self::Bridge { name, .. } => write!(f, "make bridge {name}"),
            Self::Vxlan { name, overlay, bridge, .. } => write!(f, "make vxlan {name} ({}) on {bridge}", overlay.vni),
            Self::Encrypt { ipsec: Ipsec { local, port, key_file, .. }, peers, .. } => {
                let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
                let (peers, key_file) = (peers.join(", "), key_file.display());
                write!(f, "encrypt UDP port {port} between {local} and [{peers}] with {key_file}, block it for others")
            }
            Self::Peer { link, peer, there: true } => write!(f, "add peer {peer} to {link}"),
            Self::Peer { link, peer, there: false } => write!(f, "remove peer {peer} of {link}"),
            Self::Subinterface { name, base, id, .. } => write!(f, "make {name}, VLAN {id} on {base}"),
            Self::Veth { host, inside, .. } => write!(f, "make veth pair {host}, {inside}"),
            Self::Child { kind, parent, inside, .. } => write!(f, "make {} {inside} on {parent}", kind.kind()),
            Self::Adopt { link, inside, .. } => write!(f, "move {link} inside as {inside}"),
            Self::Join { link, bridge, .. } => write!(f, "put {link} on {bridge}"),
            Self::FilterVlans { bridge } => write!(f, "filter VLANs on {bridge}"),
            Self::PortVlan { link, id } => write!(f, "put {link} in VLAN {id}"),
            Self::Address { link, address, .. } => write!(f, "add address {address} to {link}"),
            Self::Up { link } => write!(f, "set {link} up"),
            Self::DefaultRoute { link, gateway, .. } => write!(f, "add default route by {gateway} on {link}"),
            Self::Route { link, route, .. } => write!(f, "add route {route} on {link}"),
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
    /// The parent of the network's links is there.
    pub parent: bool,
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

/// All that an endpoint needs, its network's links included.
#[must_use]
pub fn attach(network: &Network, endpoint: &Endpoint, host: &HostView) -> Vec<Change> {
    let mut changes = driver::network(network, host);
    let fresh = host.bridge_mtu.is_none() || !network.driver.has_bridge();
    let guarded = if fresh { driver::guarded(network, std::slice::from_ref(endpoint)) } else { Vec::new() };
    let elements = guarded.iter().fold(Elements::default(), Elements::network);
    let elements = if fresh { elements.names(network) } else { elements };
    // The firewall first: at no moment is there a link that it does not know.
    changes.extend(firewall(network, elements.ports(endpoint, &endpoint.ports), host));
    changes.extend(driver::wire(network, endpoint, host));
    changes
}

/// The network's links without endpoints, and its place in the firewall.
#[must_use]
pub fn network(network: &Network, host: &HostView) -> Vec<Change> {
    let mut changes = driver::network(network, host);
    if host.bridge_mtu.is_none() {
        let elements = driver::guarded(network, &[]).iter().fold(Elements::default(), Elements::network);
        let elements = elements.names(network);
        changes.extend(firewall(network, elements, host));
    }
    changes
}

fn firewall(network: &Network, elements: Elements, host: &HostView) -> Option<Change> {
    if !network.driver.is_routed() || !network.is_managed() {
        return None;
    }
    match (host.table, elements.is_empty()) {
        (false, _) => Some(Change::Table),
        (true, true) => None,
        (true, false) => Some(Change::Elements(elements)),
    }
}

#[cfg(test)]
mod tests;
