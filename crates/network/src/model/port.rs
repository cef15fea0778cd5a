//! Published ports, and how docker writes them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Ports of the host that lead to ports of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Address of the host; absent: all, of both families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// First port of the host; 0 in a request: a free one.
    pub host_port: u16,
    /// First port of the endpoint.
    pub container_port: u16,
    /// Number of consecutive ports, at least 1.
    pub range: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl PortMapping {
    /// Last port of the host.
    #[must_use]
    pub fn last_host_port(&self) -> u16 {
        self.host_port.saturating_add(self.range.saturating_sub(1))
    }

    /// Whether two mappings want the same port of the same address.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port <= other.last_host_port()
            && other.host_port <= self.last_host_port()
            && same_address(self.host_ip, other.host_ip)
    }

    /// Whether the mapping is reachable at addresses of this family.
    #[must_use]
    pub fn listens_v4(&self) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_ipv4())
    }

    /// Whether the mapping is reachable at addresses of this family.
    #[must_use]
    pub fn listens_v6(&self) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_ipv6())
    }
}

fn same_address(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (None, _) | (_, None) => true,
        (Some(a), Some(b)) if a.is_ipv4() != b.is_ipv4() => false,
        (Some(a), Some(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        let more = self.range.saturating_sub(1);
        write!(f, "{}", self.host_port)?;
        if more > 0 {
            write!(f, "-{}", self.last_host_port())?;
        }
        write!(f, "->{}", self.container_port)?;
        if more > 0 {
            write!(f, "-{}", self.container_port.saturating_add(more))?;
        }
        write!(f, "/{}", self.protocol)
    }
}

/// Docker's notation: `[ip:][host[-last]:]container[-last][/protocol]`.
impl FromStr for PortMapping {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::Invalid { what: format!("port {text:?}"), why: why.into() };
        let (rest, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((rest, "sctp")) => (rest, Protocol::Sctp),
            Some(_) => return Err(bad("the protocol is tcp, udp or sctp")),
        };
        let (head, container) = rest.rsplit_once(':').map_or((None, rest), |(head, last)| (Some(head), last));
        let (host_ip, host) = split_host(head).ok_or_else(|| bad("the host address is not an IP address"))?;
        let (container_port, count) = span(container).ok_or_else(|| bad("ports are 1 to 65535, a range ascends"))?;
        let (host_port, host_count) = match host {
            "" => (0, count),
            host => span(host).ok_or_else(|| bad("ports are 1 to 65535, a range ascends"))?,
        };
        if host_count != count {
            return Err(bad("both ranges need the same length"));
        }
        Ok(Self { host_ip, host_port, container_port, range: count, protocol })
    }
}

fn split_host(head: Option<&str>) -> Option<(Option<IpAddr>, &str)> {
    let Some(head) = head else { return Some((None, "")) };
    match head.rsplit_once(':') {
        None => Some((None, head)),
        Some((ip, host)) => {
            let ip = ip.trim_start_matches('[').trim_end_matches(']');
            ip.parse().ok().map(|ip| (Some(ip), host))
        }
    }
}

fn span(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && last >= first).then(|| (first, (last - first).saturating_add(1)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_are_read_as_docker_writes_them() {
        let cases = [
            ("8080:80", "8080->80/tcp"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1:8080->80/udp"),
            ("[::1]:53:53/udp", "[::1]:53->53/udp"),
            ("9000-9010:7000-7010", "9000-9010->7000-7010/tcp"),
            ("80", "0->80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:0->80/tcp"),
        ];
        for (text, shown) in cases {
            assert_eq!(text.parse::<PortMapping>().unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "0", "70000", "1-2:3", "9-3", "x:80", "1:2:3:4", "80/icmp", "a.b:1:2"] {
            assert!(bad.parse::<PortMapping>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_conflict_needs_protocol_port_and_address() {
        let port = |text: &str| text.parse::<PortMapping>().unwrap();
        assert!(port("80:80").conflicts(&port("127.0.0.1:80:1")));
        assert!(port("70-90:70-90").conflicts(&port("90:1")));
        assert!(port("0.0.0.0:80:80").conflicts(&port("10.0.0.1:80:80")));
        assert!(!port("80:80").conflicts(&port("80:80/udp")));
        assert!(!port("127.0.0.1:80:80").conflicts(&port("127.0.0.2:80:80")));
        assert!(!port("0.0.0.0:80:80").conflicts(&port("[::]:80:80")));
    }
}
