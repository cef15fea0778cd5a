//! Exposed ports ("80/tcp") and published ones.
use crate::error::Error;
use api::engine::v1::NetworkConfig;
use api::network::v1::{PortMapping, Protocol};
use std::collections::BTreeSet;

/// "80", "80/TCP", "8000-8005/udp" in one form: "80/tcp".
pub fn normal_exposed(text: &str) -> Result<String, Error> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if protocol_of(&protocol).is_none() {
        return Err(Error::invalid("exposed port", text, "the protocol is tcp, udp or sctp"));
    }
    range_of(ports).ok_or_else(|| Error::invalid("exposed port", text, "expected PORT[-PORT][/PROTOCOL]"))?;
    Ok(format!("{ports}/{protocol}"))
}

/// The mappings to publish: those asked for, and with `publish_all` one on a free host port for each exposed port
/// that has none yet.
pub fn published(network: &NetworkConfig, exposed: &BTreeSet<String>) -> Vec<PortMapping> {
    let mut ports = network.ports.clone();
    if !network.publish_all {
        return ports;
    }
    for text in exposed {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (Some((first, count)), Some(protocol)) = (range_of(range), protocol_of(protocol)) else { continue };
        for port in first..first + count {
            if !ports.iter().any(|p| covers(p, port, protocol)) {
                ports.push(PortMapping { container_port: port, protocol: protocol.into(), ..Default::default() });
            }
        }
    }
    ports
}

/// Refuses what the network tool would refuse later, when an image has been pulled already.
pub fn check(ports: &[PortMapping]) -> Result<(), Error> {
    for port in ports {
        let count = port.range.max(1);
        let bad = |why: &str| Err(Error::invalid("published port", port.container_port, why));
        if port.container_port == 0 || port.container_port + count - 1 > 65_535 {
            return bad("container ports go from 1 to 65535");
        }
        if port.host_port != 0 && port.host_port + count - 1 > 65_535 {
            return bad("host ports go from 1 to 65535");
        }
        if !port.host_ip.is_empty() && port.host_ip.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid("host address of a published port", &port.host_ip, "not an IP address"));
        }
    }
    Ok(())
}

fn covers(mapping: &PortMapping, port: u32, protocol: Protocol) -> bool {
    let own = match mapping.protocol() {
        Protocol::Unspecified => Protocol::Tcp,
        other => other,
    };
    own == protocol && (mapping.container_port..mapping.container_port + mapping.range.max(1)).contains(&port)
}

fn protocol_of(name: &str) -> Option<Protocol> {
    match name {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

// First port and how many.
fn range_of(text: &str) -> Option<(u32, u32)> {
    let port = |s: &str| s.parse::<u16>().ok().filter(|p| *p > 0).map(u32::from);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then(|| (first, last - first + 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exposed_ports_have_one_form() {
        assert_eq!(normal_exposed("80").unwrap(), "80/tcp");
        assert_eq!(normal_exposed("53/UDP").unwrap(), "53/udp");
        assert_eq!(normal_exposed("8000-8002/tcp").unwrap(), "8000-8002/tcp");
        for bad in ["", "x", "0/tcp", "80/icmp", "70000", "9-8"] {
            assert!(normal_exposed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn publish_all_adds_what_is_missing() {
        let own = PortMapping { host_port: 8080, container_port: 80, ..Default::default() };
        let network = NetworkConfig { ports: vec![own], publish_all: true, ..Default::default() };
        let exposed = ["80/tcp", "53/udp", "81-82/tcp"].map(String::from).into();
        let all: Vec<_> = published(&network, &exposed).iter().map(|p| (p.host_port, p.container_port)).collect();
        assert_eq!(all, [(8080, 80), (0, 53), (0, 81), (0, 82)]);
    }
}
