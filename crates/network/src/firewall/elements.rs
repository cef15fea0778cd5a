//! What networks and endpoints put into the table's sets and maps.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Endpoint, Isolation, Network, PortMapping};

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
  map publish4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; }
  map publish6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; flags interval; }
  map range4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr; flags interval; }
  map range6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr; flags interval; }
";

/// Elements, each with the set it belongs to, in the order they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements(Vec<(&'static str, String)>);

impl Elements {
    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
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
                self.put(masquerade, subnet.subnet.to_string());
            }
        }
        self.put("bridges", bridge);
        self
    }

    /// What an endpoint with these published ports needs.
    #[must_use]
    pub fn ports(mut self, endpoint: &Endpoint, ports: &[PortMapping]) -> Self {
        for port in ports {
            if let Some(ip) = endpoint.v4().filter(|_| port.listens_v4()) {
                self.publish(port, "0.0.0.0/0", IpAddr::V4(ip), ("publish4", "range4"));
            }
            if let Some(ip) = endpoint.v6().filter(|_| port.listens_v6()) {
                self.publish(port, "::/0", IpAddr::V6(ip), ("publish6", "range6"));
            }
        }
        self
    }

    /// Equal ports are one element however many they are; nft cannot shift a range, so others are one each.
    fn publish(&mut self, port: &PortMapping, any: &str, to: IpAddr, (single, range): (&'static str, &'static str)) {
        let host = match port.host_ip {
            Some(ip) if !ip.is_unspecified() => ip.to_string(),
            _ => any.to_owned(),
        };
        let protocol = port.protocol;
        if port.host_port == port.container_port {
            let ports = match port.last_host_port() {
                last if last == port.host_port => last.to_string(),
                last => format!("{}-{last}", port.host_port),
            };
            self.put(range, format!("{protocol} . {host} . {ports} : {to}"));
            return;
        }
        for step in 0..port.range {
            let (from, inside) = (port.host_port + step, port.container_port + step);
            self.put(single, format!("{protocol} . {host} . {from} : {to} . {inside}"));
        }
    }

    fn put(&mut self, set: &'static str, element: String) {
        self.0.push((set, element));
    }

    /// The commands that add or delete the elements, one for each set.
    pub(super) fn change(&self, table: &str, verb: &str) -> String {
        let mut sets: Vec<&str> = self.0.iter().map(|(set, _)| *set).collect();
        sets.sort_unstable();
        sets.dedup();
        let mut text = String::new();
        for set in sets {
            let elements: Vec<&str> =
                self.0.iter().filter(|(name, _)| *name == set).map(|(_, element)| element.as_str()).collect();
            let _ = writeln!(text, "{verb} element inet {table} {set} {{ {} }}", elements.join(", "));
        }
        text
    }
}
