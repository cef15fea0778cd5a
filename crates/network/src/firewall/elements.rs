//! What networks and endpoints put into the table's sets and maps.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Endpoint, Isolation, Network, PortMapping};
use crate::policy::Compiled;

/// The sets and maps. Keys of the port maps are (protocol, host address, host port), with intervals.
pub(super) const DECLARATIONS: &str = "\
  set bridges { type ifname; }
  set internal { type ifname; }
  set open { type ifname; }
  set strict { type ifname; }
  set same { type ifname . ifname; }
  set own4 { type ifname . ipv4_addr; flags interval; }
  set own6 { type ifname . ipv6_addr; flags interval; }
  set masquerade4 { type ipv4_addr; flags interval; }
  set masquerade6 { type ipv6_addr; flags interval; }
  map outbound4 { type ipv4_addr : ipv4_addr; flags interval; }
  map outbound6 { type ipv6_addr : ipv6_addr; flags interval; }
  map publish4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; }
  map publish6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; flags interval; }
  map range4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr; flags interval; }
  map range6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr; flags interval; }
  map first_publish4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; }
  map first_publish6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; flags interval; }
  map first_range4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr; flags interval; }
  map first_range6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr; flags interval; }
";

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
fn family(set: &str) -> &'static str {
    match set {
        "first4" => "ip",
        "first6" => "ip6",
        _ => "inet",
    }
}

/// Elements, each with the set it belongs to, in the order they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    items: Vec<(&'static str, String)>,
    policies: Vec<Compiled>,
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
        let bridge = format!("\"{}\"", network.bridge);
        self.put("same", format!("{bridge} . {bridge}"));
        if network.internal {
            self.put("internal", bridge.clone());
        }
        match network.isolation() {
            Isolation::Open => self.put("open", bridge.clone()),
            Isolation::Strict => self.put("strict", bridge.clone()),
            Isolation::Closed => {}
        }
        for subnet in &network.subnets {
            let (own, masquerade) = match subnet.subnet {
                IpNet::V4(_) => ("own4", "masquerade4"),
                IpNet::V6(_) => ("own6", "masquerade6"),
            };
            self.put(own, format!("{bridge} . {}", subnet.subnet));
            if network.masquerade() {
                match (network.outbound(subnet.gateway.is_ipv6()), subnet.gateway.is_ipv6()) {
                    (None, _) => self.put(masquerade, subnet.subnet.to_string()),
                    (Some(ip), false) => self.put("outbound4", format!("{} : {ip}", subnet.subnet)),
                    (Some(ip), true) => self.put("outbound6", format!("{} : {ip}", subnet.subnet)),
                }
            }
        }
        self.put("bridges", bridge);
        self
    }

    /// The part that the keeper's guard holds too.
    #[must_use]
    pub(crate) fn guard(&self) -> Self {
        let of_guard = |(set, _): &&(&'static str, String)| matches!(*set, "bridges" | "same" | "open");
        Self { items: self.items.iter().filter(of_guard).cloned().collect(), policies: Vec::new() }
    }

    /// With the policies as they are for today's endpoints.
    #[must_use]
    pub(crate) fn policies(mut self, policies: Vec<Compiled>) -> Self {
        self.policies = policies;
        self
    }

    pub(super) fn compiled(&self) -> &[Compiled] {
        &self.policies
    }

    /// Whether something is published host-first.
    pub(super) fn host_first(&self) -> bool {
        self.items.iter().any(|(set, _)| family(set) != "inet")
    }

    /// What an endpoint with these published ports needs.
    #[must_use]
    pub fn ports(mut self, endpoint: &Endpoint, ports: &[PortMapping]) -> Self {
        for port in ports {
            if let Some(ip) = endpoint.v4().filter(|_| port.listens_v4()) {
                self.publish(port, "0.0.0.0/0", IpAddr::V4(ip), &maps(false, endpoint.host_first));
            }
            if let Some(ip) = endpoint.v6().filter(|_| port.listens_v6()) {
                self.publish(port, "::/0", IpAddr::V6(ip), &maps(true, endpoint.host_first));
            }
        }
        self
    }

    /// Equal ports are one element however many they are; nft cannot shift a range, so others are one each.
    fn publish(&mut self, port: &PortMapping, any: &str, to: IpAddr, maps: &Maps) {
        let host = match port.host_ip {
            Some(ip) if !ip.is_unspecified() => ip.to_string(),
            _ => any.to_owned(),
        };
        let protocol = port.protocol;
        let ports = match port.last_host_port() {
            last if last == port.host_port => last.to_string(),
            last => format!("{}-{last}", port.host_port),
        };
        if let Some(set) = maps.first {
            self.put(set, format!("{protocol} . {host} . {ports}"));
        }
        if port.host_port == port.container_port {
            self.put(maps.range, format!("{protocol} . {host} . {ports} : {to}"));
            return;
        }
        for step in 0..port.range {
            let (from, inside) = (port.host_port + step, port.container_port + step);
            self.put(maps.single, format!("{protocol} . {host} . {from} : {to} . {inside}"));
        }
    }

    fn put(&mut self, set: &'static str, element: String) {
        self.items.push((set, element));
    }

    /// The commands that add or delete the elements, one for each set.
    pub(crate) fn change(&self, table: &str, verb: &str) -> String {
        let mut sets: Vec<&str> = self.items.iter().map(|(set, _)| *set).collect();
        sets.sort_unstable();
        sets.dedup();
        let mut text = String::new();
        for set in sets {
            let elements: Vec<&str> =
                self.items.iter().filter(|(name, _)| *name == set).map(|(_, element)| element.as_str()).collect();
            let _ = writeln!(text, "{verb} element {} {table} {set} {{ {} }}", family(set), elements.join(", "));
        }
        text
    }
}
