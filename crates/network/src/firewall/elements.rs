//! What networks and endpoints put into the firewall.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::element::{Element, Field};
use crate::model::{Endpoint, Isolation, Network, PortMapping};
use crate::policy::Compiled;

/// Maps of one kind of publishing: single ports and ranges, and, for host-first, the set of what is published.
struct Maps {
    single: &'static str,
    range: &'static str,
    first: Option<&'static str>,
}

const fn maps(ipv6: bool, host_first: bool) -> Maps {
    match (ipv6, host_first) {
        (false, false) => Maps { single: "publish4", range: "range4", first: None },
        (true, false) => Maps { single: "publish6", range: "range6", first: None },
        (false, true) => Maps { single: "first_publish4", range: "first_range4", first: Some("first4") },
        (true, true) => Maps { single: "first_publish6", range: "first_range6", first: Some("first6") },
    }
}

/// The family of the table that a set lies in.
pub(super) fn family(set: &str) -> &'static str {
    match set {
        "first4" | "first_names4" => "ip",
        "first6" | "first_names6" => "ip6",
        _ => "inet",
    }
}

/// Elements, in the order they were added, and the policies of the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    items: Vec<Element>,
    policies: Vec<Compiled>,
    /// A network is in a VRF: its packets come by the VRF's link.
    in_vrf: bool,
}

impl Elements {
    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// What a network needs.
    #[must_use]
    pub fn network(mut self, network: &Network) -> Self {
        let bridge = || Field::Link(network.bridge.clone());
        self.put("same", [bridge(), bridge()]);
        if network.internal {
            self.put("internal", [bridge()]);
        }
        match network.isolation() {
            Isolation::Open => self.put("open", [bridge()]),
            Isolation::Strict => self.put("strict", [bridge()]),
            Isolation::Closed => {}
        }
        for subnet in &network.subnets {
            let (own, masquerade, outbound) = match subnet.subnet {
                IpNet::V4(_) => ("own4", "masquerade4", "outbound4"),
                IpNet::V6(_) => ("own6", "masquerade6", "outbound6"),
            };
            self.put(own, [bridge(), Field::Subnet(subnet.subnet)]);
            if network.masquerade() {
                let source = [Field::Subnet(subnet.subnet)];
                match network.outbound(subnet.gateway.is_ipv6()) {
                    Some(ip) => self.map(outbound, source, [Field::Address(ip)]),
                    None => self.put(masquerade, source),
                }
            }
        }
        self.put("bridges", [bridge()]);
        self.in_vrf |= !network.vrf().is_empty();
        self
    }

    /// Where a network's names are asked for: publishing the port of names takes it nowhere else.
    #[must_use]
    pub fn names(mut self, network: &Network) -> Self {
        for ip in network.name_servers() {
            self.put(if ip.is_ipv4() { "names4" } else { "names6" }, [Field::Address(ip)]);
        }
        self
    }

    pub(super) fn has_names(&self) -> bool {
        self.items.iter().any(|element| matches!(element.set, "names4" | "names6"))
    }

    /// With the copies that the tables of host-first publishing need, where there are such.
    pub(super) fn copied(&self, host_first: bool) -> Cow<'_, Self> {
        let copy = |element: &Element| {
            let set = match element.set {
                "names4" => "first_names4",
                "names6" => "first_names6",
                _ => return None,
            };
            Some(Element { set, ..element.clone() })
        };
        let copies: Vec<Element> = self.items.iter().filter(|_| host_first).filter_map(copy).collect();
        if copies.is_empty() {
            return Cow::Borrowed(self);
        }
        let items = self.items.iter().cloned().chain(copies).collect();
        Cow::Owned(Self { items, ..self.clone() })
    }

    /// The part that the keeper's guard holds too.
    #[must_use]
    pub(crate) fn guard(&self) -> Self {
        let of_guard = |element: &&Element| matches!(element.set, "bridges" | "same" | "open");
        Self { items: self.items.iter().filter(of_guard).cloned().collect(), ..Self::default() }
    }

    /// With the policies as they are for today's endpoints.
    #[must_use]
    pub(crate) fn policies(mut self, policies: Vec<Compiled>) -> Self {
        self.policies = policies;
        self
    }

    pub(super) fn in_vrf(&self) -> bool {
        self.in_vrf
    }

    pub(super) fn compiled(&self) -> &[Compiled] {
        &self.policies
    }

    /// Whether something is published host-first.
    pub(super) fn host_first(&self) -> bool {
        self.items.iter().any(|element| family(element.set) != "inet")
    }

    /// What an endpoint with these published ports needs.
    #[must_use]
    pub fn ports(mut self, endpoint: &Endpoint, ports: &[PortMapping]) -> Self {
        for port in ports {
            if let Some(ip) = endpoint.v4().filter(|_| port.listens_v4()) {
                self.publish(port, IpAddr::V4(ip), &maps(false, endpoint.host_first));
            }
            if let Some(ip) = endpoint.v6().filter(|_| port.listens_v6()) {
                self.publish(port, IpAddr::V6(ip), &maps(true, endpoint.host_first));
            }
        }
        self
    }

    /// Equal ports are one element however many they are; the kernel cannot shift a range, so others are one each.
    fn publish(&mut self, port: &PortMapping, to: IpAddr, maps: &Maps) {
        let host = match port.host_ip {
            Some(ip) if !ip.is_unspecified() => Field::Address(ip),
            _ => Field::Subnet(everything(to)),
        };
        let key = |first, last| [Field::Protocol(port.protocol), host.clone(), Field::Ports(first, last)];
        let whole = key(port.host_port, port.last_host_port());
        if let Some(set) = maps.first {
            self.put(set, whole.clone());
        }
        if port.host_port == port.container_port {
            self.map(maps.range, whole, [Field::Address(to)]);
            return;
        }
        for step in 0..port.range {
            let (from, inside) = (port.host_port + step, port.container_port + step);
            self.map(maps.single, key(from, from), [Field::Address(to), Field::Ports(inside, inside)]);
        }
    }

    fn put(&mut self, set: &'static str, key: impl Into<Vec<Field>>) {
        self.map(set, key, Vec::new());
    }

    fn map(&mut self, set: &'static str, key: impl Into<Vec<Field>>, value: impl Into<Vec<Field>>) {
        self.items.push(Element { set, key: key.into(), value: value.into() });
    }

    /// Whether any of it is of IPv6.
    pub(super) fn has_ipv6(&self) -> bool {
        self.items.iter().any(|element| element.set.ends_with('6'))
    }

    /// Names of links.
    pub(super) fn links(&self) -> impl Iterator<Item = &str> {
        self.items.iter().flat_map(|element| &element.key).filter_map(|field| match field {
            Field::Link(link) => Some(link.as_str()),
            _ => None,
        })
    }

    /// The elements of one set.
    pub(super) fn of(&self, set: &str) -> impl Iterator<Item = &Element> {
        self.items.iter().filter(move |element| element.set == set)
    }

    /// The names of the sets that have elements, sorted.
    pub(super) fn sets(&self) -> Vec<&'static str> {
        let mut sets: Vec<&str> = self.items.iter().map(|element| element.set).collect();
        sets.sort_unstable();
        sets.dedup();
        sets
    }

    /// nft's commands that add or delete the elements, one for each set.
    pub(crate) fn change(&self, table: &str, verb: &str) -> String {
        let mut text = String::new();
        for set in self.sets() {
            let elements: Vec<String> = self.of(set).map(ToString::to_string).collect();
            let _ = writeln!(text, "{verb} element {} {table} {set} {{ {} }}", family(set), elements.join(", "));
        }
        text
    }
}

/// All addresses of the family.
fn everything(of: IpAddr) -> IpNet {
    match of {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}
