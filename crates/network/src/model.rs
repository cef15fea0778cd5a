//! The nouns: networks, endpoints, ports. Values only; they are what the database keeps as JSON.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::Error;

pub use crate::driver::Driver;
pub use crate::foreign::ipam::Pool;
pub use port::{PortMapping, Protocol};
pub use range::AddressRange;
pub use route::{Route, RouteKind};

mod port;
mod range;
mod route;

/// Name of the network that a container joins when none is named.
pub const DEFAULT_NETWORK: &str = "bridge";

/// Option that names the host's bridge link.
pub const OPTION_BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Option "false": addresses are not masqueraded on the way out.
pub const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Option: MTU of the links, in bytes. `mtu` is the short form.
pub const OPTION_MTU: &str = "com.docker.network.driver.mtu";

/// Option: the host's address of published ports that name none. `host_binding` is the short form.
pub const OPTION_HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";

/// Options: what IPv4 packets have as their source on the way out.
pub(crate) const OPTIONS_OUTBOUND4: [&str; 2] = ["outbound_addr4", "com.docker.network.host_ipv4"];
/// Options: what IPv6 packets have as their source on the way out.
pub(crate) const OPTIONS_OUTBOUND6: [&str; 2] = ["outbound_addr6", "com.docker.network.host_ipv6"];

/// One subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet, host bits zero.
    pub subnet: IpNet,
    /// The bridge's own address in it.
    pub gateway: IpAddr,
    /// The part that addresses are taken from; all of it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<AddressRange>,
}

/// How a network keeps away from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Talks to other networks that are open too.
    Open,
    /// Reaches other networks through published ports only. The default.
    Closed,
    /// Does not reach other networks' published ports either.
    Strict,
}

/// Who gives addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ipam {
    /// `default` (or empty): this program; `dhcp`: a server on the network; `none`: nobody; else the plugin of that name.
    pub driver: String,
    /// As given.
    pub options: BTreeMap<String, String>,
    /// Addresses that belong to others and are never given, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// What a plugin gave to the network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
}

impl Ipam {
    /// Whether this program chooses the addresses.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self.driver.as_str(), "" | "default" | "host-local")
    }

    /// Whether a plugin chooses the addresses.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        !self.is_own() && !matches!(self.driver.as_str(), "dhcp" | "none")
    }
}

/// A network, as recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hex digits.
    pub id: String,
    /// Unique.
    pub name: String,
    /// What makes it.
    pub driver: Driver,
    /// An endpoint gets an address of one of each family.
    pub subnets: Vec<Subnet>,
    /// No way out, no way in from outside.
    pub internal: bool,
    /// Was IPv6 asked for.
    pub ipv6: bool,
    /// As given.
    pub options: BTreeMap<String, String>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// RFC 3339.
    pub created_at: String,
    /// The host's bridge link; empty for other drivers.
    pub bridge: String,
    /// Names can be looked up at the gateway.
    pub dns_enabled: bool,
    /// Who gives addresses.
    #[serde(default)]
    pub ipam: Ipam,
    /// Routes that every endpoint gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// The other hosts of an overlay network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<IpAddr>,
    /// Only a model that others are made from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub config_only: bool,
    /// The network this one was made from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config_from: String,
    /// What a driver of others has to be told each time: a list of CNI plugins.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub state: serde_json::Value,
    /// Addresses of somebody else's bridge, as the last attach found them: names are served there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<IpAddr>,
    /// Where other names are looked up, and what endpoints get into resolv.conf.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

impl Network {
    /// The option `isolate`.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        match self.options.get("isolate").map(String::as_str) {
            Some("false") => Isolation::Open,
            Some("strict") => Isolation::Strict,
            _ => Isolation::Closed,
        }
    }

    /// Where published ports that name no address are bound; `None`: at all of both families.
    #[must_use]
    pub fn host_binding(&self) -> Option<IpAddr> {
        let value = self.options.get("host_binding").or_else(|| self.options.get(OPTION_HOST_BINDING))?;
        value.parse().ok()
    }

    /// The option `host_first`: the host's own rules for incoming packets decide about published ports too.
    #[must_use]
    pub fn host_first(&self) -> bool {
        self.options.get("host_first").is_some_and(|value| value == "true")
    }

    /// Whether addresses are hidden behind the host's on the way out.
    #[must_use]
    pub fn masquerade(&self) -> bool {
        !self.internal && self.options.get(OPTION_MASQUERADE).is_none_or(|value| value != "false")
    }

    /// The MTU that was asked for, in bytes.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        self.option(&["mtu", OPTION_MTU])?.parse().ok()
    }

    /// The first of these options that was given.
    #[must_use]
    pub fn option(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.options.get(*key)).map(String::as_str)
    }

    /// Where its names are served; nowhere when it serves none.
    #[must_use]
    pub fn name_servers(&self) -> Vec<IpAddr> {
        match (self.dns_enabled, self.is_managed()) {
            (false, _) => Vec::new(),
            (true, true) => self.subnets.iter().map(|subnet| subnet.gateway).collect(),
            (true, false) => self.resolvers.clone(),
        }
    }

    /// Refuses name servers that are this network's own: a query would go round for ever.
    pub(crate) fn check_upstreams(&self, servers: &[IpAddr]) -> Result<(), Error> {
        let own = self.name_servers();
        match servers.iter().find(|server| own.contains(server)) {
            Some(server) => {
                let why = format!("network {:?} answers there itself: it would ask itself", self.name);
                Err(Error::invalid(format!("name server {server}"), why))
            }
            None => Ok(()),
        }
    }

    /// The option `no_default_route`: its endpoints keep away from default routes.
    #[must_use]
    pub fn no_default_route(&self) -> bool {
        self.options.get("no_default_route").is_some_and(|value| value == "true")
    }

    /// The option `metric`: of the default routes of endpoints that name none.
    #[must_use]
    pub fn metric(&self) -> Option<u32> {
        self.options.get("metric")?.parse().ok()
    }

    /// The option `forward_short_names`: names of one label that nobody here has are asked of the upstreams too. Not by
    /// default: they would be told the name of every container that is gone.
    #[must_use]
    pub fn forwards_short_names(&self) -> bool {
        self.options.get("forward_short_names").is_some_and(|value| value == "true")
    }

    /// The VRF of the host that the bridge is in: the option `vrf`; empty: none.
    #[must_use]
    pub fn vrf(&self) -> &str {
        self.option(&["vrf"]).filter(|_| self.driver == Driver::Bridge).unwrap_or_default()
    }

    /// The address that packets of this family have on their way out, in place of the link's: the options
    /// `outbound_addr4` and `outbound_addr6`.
    #[must_use]
    pub fn outbound(&self, ipv6: bool) -> Option<IpAddr> {
        let [short, docker] = if ipv6 { OPTIONS_OUTBOUND6 } else { OPTIONS_OUTBOUND4 };
        self.option(&[short, docker])?.parse().ok().filter(|ip: &IpAddr| ip.is_ipv6() == ipv6)
    }

    /// The link of the host that the endpoints' links are children of; empty for other drivers.
    #[must_use]
    pub fn parent(&self) -> &str {
        if self.driver.has_parent() { self.option(&["parent"]).unwrap_or_default() } else { "" }
    }

    /// Whether the bridge is ours to make, to give addresses, and to guard.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.driver != Driver::Bridge || self.option(&["mode"]) != Some("unmanaged")
    }

    /// Whether its subnets are others' too: those of the network that a parent or somebody's bridge is on.
    #[must_use]
    pub fn shares_subnets(&self) -> bool {
        self.config_only || self.driver.has_parent() || self.driver.is_foreign() || !self.is_managed()
    }

    /// Whether there is a subnet of this family.
    #[must_use]
    pub fn has_family(&self, ipv6: bool) -> bool {
        self.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv6() == ipv6)
    }

    /// Made by Pier, not by a person.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), DEFAULT_NETWORK | "host" | "none")
    }

    /// The gateways that somebody with these addresses reaches, one of each family.
    #[must_use]
    pub fn gateways_of(&self, addresses: &[IpNet]) -> Vec<IpAddr> {
        let mut gateways: Vec<IpAddr> = Vec::new();
        for gateway in addresses.iter().filter_map(|address| self.subnet_of(address.addr())).map(|s| s.gateway) {
            if !gateways.iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
                gateways.push(gateway);
            }
        }
        gateways
    }

    /// The subnet an address lies in.
    #[must_use]
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.subnet.contains(&address))
    }
}

/// How far an endpoint has come. Only whole ones are shown to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// Recorded; the kernel may have none, part or all of it. After a crash: undone.
    Attaching,
    /// Whole.
    Ready,
    /// Being undone. After a crash: undone.
    Detaching,
}

/// A network namespace's place on a network, as recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hex digits.
    pub id: String,
    /// Of the network.
    pub network_id: String,
    /// Of the network.
    pub network_name: String,
    /// Who it is for.
    pub owner: String,
    /// Empty on the networks `host` and `none`.
    pub netns_path: PathBuf,
    /// Inode of the namespace, to know it from a later one at the same path.
    pub netns_inode: u64,
    /// Link inside.
    pub interface: String,
    /// The host's end of the veth pair; empty when there is none.
    pub host_interface: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub mac_address: String,
    /// With prefix length.
    pub addresses: Vec<IpNet>,
    /// Default gateways that were set.
    pub gateways: Vec<IpAddr>,
    /// Published ports.
    pub ports: Vec<PortMapping>,
    /// DNS names.
    pub names: Vec<String>,
    /// For resolv.conf inside.
    pub dns_servers: Vec<IpAddr>,
    /// Static routes, the network's included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Of the default routes; absent: the kernel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Who of a namespace's endpoints is its default route: the highest.
    #[serde(default)]
    pub gateway_priority: i32,
    /// Never the default route.
    #[serde(default)]
    pub no_default_route: bool,
    /// Asked for, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// What a driver of others, or a DHCP client, has to know again.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub state: serde_json::Value,
    /// Servers: where names that are not the networks' are looked up for it. Search and options: for resolv.conf.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
    /// As given; policies choose by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ports that SRV names lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<NamedPort>,
    /// Its names lead to others that share them, while there are any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
    /// The host's own rules decide about its published ports too: its network's option when it was attached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_first: bool,
}

/// How names are looked up. Empty parts leave it to the network, then to the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Upstream name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Search domains and options of this, where there are none, of the other. Servers are this one's.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let or = |own: Vec<String>, other: &Vec<String>| if own.is_empty() { other.clone() } else { own };
        Self {
            servers: self.servers,
            search: or(self.search, &other.search),
            options: or(self.options, &other.options),
        }
    }

    /// What cannot stand in a resolv.conf is refused.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let word = |text: &&String| text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic());
        match self.search.iter().chain(&self.options).find(word) {
            Some(bad) => Err(Error::invalid(format!("search domain or option {bad:?}"), "one word is needed")),
            None => Ok(()),
        }
    }
}

/// A port with the name it is found by: `_http._tcp.web`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPort {
    /// `http`: lower-case letters, digits and dashes (RFC 6335, 5.1).
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Of the endpoint.
    pub port: u16,
}

/// `http=80` or `dns/udp=53`.
impl FromStr for NamedPort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::invalid(format!("service {text:?}"), "NAME[/tcp|udp|sctp]=PORT is needed");
        let (name, port) = text.split_once('=').ok_or_else(bad)?;
        let (name, protocol) = match name.split_once('/') {
            None | Some((_, "tcp")) => (name.split('/').next().unwrap_or_default(), Protocol::Tcp),
            Some((name, "udp")) => (name, Protocol::Udp),
            Some((name, "sctp")) => (name, Protocol::Sctp),
            Some(_) => return Err(bad()),
        };
        let named = Self { name: name.to_owned(), protocol, port: port.parse().map_err(|_| bad())? };
        named.check()?;
        Ok(named)
    }
}

impl NamedPort {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 63 || !self.name.bytes().all(plain) || self.port == 0 {
            let why = "the name is [a-z0-9-]+, the port 1 to 65535";
            return Err(Error::invalid(format!("service {:?} on port {}", self.name, self.port), why));
        }
        Ok(())
    }
}

impl Endpoint {
    /// The link that takes all of the endpoint along when it is removed: the host's end, else the one inside.
    #[must_use]
    pub fn link(&self) -> &str {
        if self.host_interface.is_empty() { &self.interface } else { &self.host_interface }
    }

    /// The IPv4 address.
    #[must_use]
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }

    /// The IPv6 address.
    #[must_use]
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        })
    }
}

/// Wanted: a network.
#[derive(Debug, Clone, Default)]
pub struct NewNetwork {
    /// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
    pub name: String,
    /// Empty: bridge.
    pub driver: String,
    /// Empty: a free one.
    pub subnets: Vec<NewSubnet>,
    /// See [`Network::internal`].
    pub internal: bool,
    /// See [`Network::ipv6`].
    pub ipv6: bool,
    /// See [`Network::options`].
    pub options: BTreeMap<String, String>,
    /// See [`Network::labels`].
    pub labels: BTreeMap<String, String>,
    /// Serve no names.
    pub disable_dns: bool,
    /// See [`Network::dns`].
    pub dns: Dns,
    /// One of that name and driver will do.
    pub exist_ok: bool,
    /// No IPv4.
    pub disable_ipv4: bool,
    /// See [`Network::ipam`].
    pub ipam: Ipam,
    /// See [`Network::routes`].
    pub routes: Vec<Route>,
    /// See [`Network::peers`].
    pub peers: Vec<IpAddr>,
    /// See [`Network::config_only`].
    pub config_only: bool,
    /// Name or id of a model to take driver, subnets and options from.
    pub config_from: String,
}

/// Wanted: a subnet. As text, so that errors can name what was typed.
#[derive(Debug, Clone, Default)]
pub struct NewSubnet {
    /// CIDR.
    pub subnet: String,
    /// Empty: the first usable address.
    pub gateway: String,
    /// CIDR or FIRST-LAST; empty: the whole subnet.
    pub range: String,
}

/// Wanted: an endpoint.
#[derive(Debug, Clone, Default)]
pub struct NewEndpoint {
    /// Name, id or prefix of an id.
    pub network: String,
    /// Absolute.
    pub netns_path: PathBuf,
    /// Required.
    pub owner: String,
    /// DNS names.
    pub names: Vec<String>,
    /// Of the network's subnets. A family without any gets a free one.
    pub addresses: Vec<IpAddr>,
    /// `aa:bb:cc:dd:ee:ff`; empty: from the address.
    pub mac_address: String,
    /// Empty: the next free `eth<N>`.
    pub interface: String,
    /// Host port 0: a free one.
    pub ports: Vec<PortMapping>,
    /// Leave the default route alone.
    pub no_default_route: bool,
    /// See [`Endpoint::gateway_priority`].
    pub gateway_priority: i32,
    /// See [`Endpoint::metric`]; with one the default route is set beside others.
    pub metric: Option<u32>,
    /// Bytes; absent: the network's.
    pub mtu: Option<u32>,
    /// More static routes.
    pub routes: Vec<Route>,
    /// Name of the host's end; empty: `pv<12 hex>`.
    pub host_interface: String,
    /// See [`Endpoint::dns`].
    pub dns: Dns,
    /// See [`Endpoint::labels`].
    pub labels: BTreeMap<String, String>,
    /// See [`Endpoint::services`].
    pub services: Vec<NamedPort>,
}
