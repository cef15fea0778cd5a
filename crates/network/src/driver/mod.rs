//! Drivers: what makes a network, and the links of its endpoints.
//!
//! A driver of ours is a handful of pure functions: from the records and from what the kernel has to a list of
//! [`Change`]s. [`wire`] and [`network`] choose among them. Drivers of others ([`Driver::is_foreign`]) do their own work
//! and are asked by `crate::foreign`.

mod bridge;
mod child;
mod overlay;
mod veth;

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Endpoint, Network};
use crate::plan::{Change, HostView, Place};

pub(crate) use child::alias as parent_alias;
pub use child::{IPVLAN_MODES, MACVLAN_MODES, Subinterface, subinterface};
pub use overlay::{Overlay, VXLAN_PORT};
pub(crate) use overlay::{check_port, encryption, link as vxlan_link, peers as change_peers, peers_of_link, tunnel};

/// MTU of links when nothing says otherwise, in bytes.
const DEFAULT_MTU: u32 = 1500;

/// What makes a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Driver {
    /// A bridge on the host, a veth pair for each endpoint.
    #[default]
    Bridge,
    /// A veth pair for each endpoint, its host's end routed: endpoints talk with the host and the world, not with each
    /// other.
    Veth,
    /// Links with MAC addresses of their own on a link of the host.
    Macvlan,
    /// Links that share the MAC address of a link of the host.
    Ipvlan,
    /// Tagged (802.1Q) links on a link of the host.
    Vlan,
    /// A bridge on each of several hosts, joined by VXLAN (RFC 7348).
    Overlay,
    /// The host's own network: no link is made.
    Host,
    /// No network at all.
    None,
    /// A chain of CNI plugins.
    Cni,
    /// A program of an unprivileged user carries the packets: pasta or slirp4netns.
    Rootless,
    /// A driver somebody else wrote, by the name it is found under.
    Plugin(String),
}

impl Driver {
    /// The names of our own, as `create --driver` takes them.
    pub const NAMES: &'static str = "bridge, veth, macvlan, ipvlan, vlan, overlay, cni and rootless";

    /// Whether its endpoints sit on a bridge of ours.
    #[must_use]
    pub fn has_bridge(&self) -> bool {
        matches!(self, Self::Bridge | Self::Overlay)
    }

    /// Whether its endpoints' links are children of a link of the host.
    #[must_use]
    pub fn has_parent(&self) -> bool {
        matches!(self, Self::Macvlan | Self::Ipvlan | Self::Vlan)
    }

    /// Whether packets of its endpoints pass the host's rules: only then can ports be published and networks be kept
    /// apart.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.has_bridge() || *self == Self::Veth
    }

    /// Whether somebody else does the work.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Cni | Self::Rootless | Self::Plugin(_))
    }

    /// Whether endpoints get a link.
    #[must_use]
    pub fn has_links(&self) -> bool {
        !matches!(self, Self::Host | Self::None)
    }
}

impl From<String> for Driver {
    fn from(name: String) -> Self {
        match name.as_str() {
            "" | "bridge" => Self::Bridge,
            "veth" | "ptp" => Self::Veth,
            "macvlan" => Self::Macvlan,
            "ipvlan" => Self::Ipvlan,
            "vlan" => Self::Vlan,
            "overlay" | "vxlan" => Self::Overlay,
            "host" => Self::Host,
            "none" | "null" => Self::None,
            "cni" => Self::Cni,
            "rootless" => Self::Rootless,
            _ => Self::Plugin(name),
        }
    }
}

impl From<Driver> for String {
    fn from(driver: Driver) -> Self {
        driver.to_string()
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Veth => "veth",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Vlan => "vlan",
            Self::Overlay => "overlay",
            Self::Host => "host",
            Self::None => "none",
            Self::Cni => "cni",
            Self::Rootless => "rootless",
            Self::Plugin(name) => name,
        })
    }
}

/// The host's links of a network without endpoints, in the order they are made; none that is there already.
#[must_use]
pub fn network(network: &Network, host: &HostView) -> Vec<Change> {
    match network.driver {
        Driver::Bridge => bridge::network(network, host),
        Driver::Overlay => overlay::network(network, host),
        Driver::Veth => bridge::forwarding(network, host),
        Driver::Macvlan | Driver::Ipvlan | Driver::Vlan => child::parent(network, host),
        Driver::Host | Driver::None | Driver::Cni | Driver::Rootless | Driver::Plugin(_) => Vec::new(),
    }
}

/// The link of an endpoint, with all that belongs to it.
#[must_use]
pub fn wire(network: &Network, endpoint: &Endpoint, host: &HostView) -> Vec<Change> {
    match network.driver {
        Driver::Bridge => bridge::wire(network, endpoint, host),
        Driver::Overlay => overlay::wire(network, endpoint, host),
        Driver::Veth => veth::wire(network, endpoint, host),
        Driver::Macvlan | Driver::Ipvlan | Driver::Vlan => child::wire(network, endpoint, host),
        Driver::Host | Driver::None | Driver::Cni | Driver::Rootless | Driver::Plugin(_) => Vec::new(),
    }
}

/// Names of the host's links that a network without endpoints has, the newest first.
#[must_use]
pub fn links(network: &Network) -> Vec<String> {
    match network.driver {
        Driver::Bridge if network.is_managed() => vec![network.bridge.clone()],
        Driver::Overlay => vec![overlay::link(network), network.bridge.clone()],
        _ => Vec::new(),
    }
}

/// What the firewall has to know of a network: one entry for each link of the host that its packets pass.
#[must_use]
pub fn guarded(network: &Network, endpoints: &[Endpoint]) -> Vec<Network> {
    match network.driver {
        Driver::Bridge if !network.is_managed() => Vec::new(),
        Driver::Bridge | Driver::Overlay => vec![network.clone()],
        Driver::Veth => endpoints.iter().map(|endpoint| veth::guarded(network, endpoint)).collect(),
        _ => Vec::new(),
    }
}

/// Checks a new network's options against its driver.
///
/// # Errors
/// [`Error::Invalid`] names the option.
pub fn check(network: &Network) -> Result<()> {
    check_mtu(network)?;
    if network.driver != Driver::Bridge && network.option(&["vrf"]).is_some() {
        return Err(Error::invalid(
            "option vrf",
            format!("the driver {} has no bridge to put into one", network.driver),
        ));
    }
    match network.driver {
        Driver::Bridge => bridge::check(network),
        Driver::Overlay => overlay::check(network),
        Driver::Macvlan | Driver::Ipvlan | Driver::Vlan => child::check(network),
        _ => Ok(()),
    }
}

fn check_mtu(network: &Network) -> Result<()> {
    let Some(mtu) = network.option(&["mtu", crate::model::OPTION_MTU]) else { return Ok(()) };
    match mtu.parse::<u32>() {
        Ok(68..=65535) => Ok(()),
        _ => Err(Error::invalid(format!("option mtu={mtu}"), "a number of bytes from 68 to 65535 is needed")),
    }
}

/// The MTU of an endpoint's link: its own wish, else its network's, in bytes.
fn mtu_of(network: &Network, endpoint: &Endpoint, host: &HostView) -> u32 {
    endpoint.mtu.unwrap_or_else(|| network_mtu(network, host))
}

fn network_mtu(network: &Network, host: &HostView) -> u32 {
    network.mtu().or(host.bridge_mtu).or(host.uplink_mtu).unwrap_or(DEFAULT_MTU)
}

/// Everything inside the namespace: settings, addresses, up, routes.
pub(crate) fn inside(endpoint: &Endpoint) -> Vec<Change> {
    let link = &endpoint.interface;
    let set = |key: &str, value, optional| {
        let key = format!("ipv6/conf/{link}/{key}");
        Change::Sysctl { place: Place::Inside, key, value, optional }
    };
    let mut changes = Vec::new();
    if !endpoint.addresses.is_empty() {
        // Who was given addresses takes no others, and no routes, from whoever advertises some.
        changes.push(set("accept_ra", "0", endpoint.v6().is_none()));
    }
    if endpoint.v6().is_some() {
        changes.extend([set("disable_ipv6", "0", false), set("accept_dad", "0", false)]);
    }
    let address = |address: &IpNet| Change::Address { place: Place::Inside, link: link.clone(), address: *address };
    changes.extend(endpoint.addresses.iter().map(address));
    changes.push(Change::Up { link: link.clone() });
    changes.extend(routes(endpoint));
    changes
}

/// The routes of an endpoint: default ones and static ones.
#[must_use]
pub fn routes(endpoint: &Endpoint) -> Vec<Change> {
    let link = &endpoint.interface;
    let default = |gateway: &std::net::IpAddr| Change::DefaultRoute {
        link: link.clone(),
        gateway: *gateway,
        metric: endpoint.metric,
    };
    let fixed =
        |route: &crate::model::Route| Change::Route { place: Place::Inside, link: link.clone(), route: route.clone() };
    endpoint.gateways.iter().map(default).chain(endpoint.routes.iter().map(fixed)).collect()
}

#[cfg(test)]
mod tests;
