//! Published ports as `ps` and `port` write them.

use api::network::v1::{Endpoint, PortMapping};

use crate::flags::port::protocol_name;

/// "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp", ranges as "8000-8002->80-82"; then those that are only exposed.
pub fn column(endpoints: &[Endpoint], exposed: &[String]) -> String {
    let mut parts = Vec::new();
    let mut published = Vec::new();
    for port in endpoints.iter().flat_map(|endpoint| &endpoint.ports) {
        let count = port.range.max(1);
        let (host, container) = (span(port.host_port, count), span(port.container_port, count));
        for ip in hosts(port) {
            let part = format!("{ip}:{host}->{container}/{}", protocol_name(port.protocol));
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        published.extend(
            (port.container_port..port.container_port + count).map(|n| format!("{n}/{}", protocol_name(port.protocol))),
        );
    }
    parts.extend(exposed.iter().filter(|port| !published.contains(port)).cloned());
    parts.join(", ")
}

/// Lines of `pier port`: "80/tcp -> 0.0.0.0:8080", each port of a range by itself.
pub fn lines(endpoints: &[Endpoint]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for port in endpoints.iter().flat_map(|endpoint| &endpoint.ports) {
        for offset in 0..port.range.max(1) {
            let container = format!("{}/{}", port.container_port + offset, protocol_name(port.protocol));
            for ip in hosts(port) {
                let line = (container.clone(), format!("{ip}:{}", port.host_port + offset));
                if !found.contains(&line) {
                    found.push(line);
                }
            }
        }
    }
    found
}

/// Host addresses; IPv6 ones in brackets.
pub fn hosts(port: &PortMapping) -> Vec<String> {
    match port.host_ip.as_str() {
        "" => vec!["0.0.0.0".into(), "[::]".into()],
        ip if ip.contains(':') => vec![format!("[{ip}]")],
        ip => vec![ip.into()],
    }
}

fn span(first: u32, count: u32) -> String {
    if count > 1 { format!("{first}-{}", first + count - 1) } else { first.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let port = |ip: &str, host, container, range| PortMapping {
            host_ip: ip.into(),
            host_port: host,
            container_port: container,
            range,
            protocol: 1,
        };
        let endpoint =
            Endpoint { ports: vec![port("", 8080, 80, 1), port("127.0.0.1", 9000, 90, 3)], ..Default::default() };
        assert_eq!(
            column(std::slice::from_ref(&endpoint), &["80/tcp".into(), "443/tcp".into()]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:9000-9002->90-92/tcp, 443/tcp"
        );
        assert_eq!(lines(&[endpoint]).len(), 5);
    }
}
