//! `-p [[ip:]hostPort[-end]:]containerPort[-end][/protocol]`.

use anyhow::{Context, bail};
use api::network::v1::{PortMapping, Protocol};

/// One `-p`, as mappings: a range stays one mapping, but ports without a host port are one mapping each.
pub fn publish(text: &str) -> anyhow::Result<Vec<PortMapping>> {
    let wrong = || format!("invalid port mapping {text:?}: expected [[IP:]HOST_PORT:]CONTAINER_PORT[/tcp|udp|sctp]");
    let (body, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = self::protocol(protocol).with_context(wrong)? as i32;
    let (host_ip, host, container) = split(body).with_context(wrong)?;
    if !host_ip.is_empty() {
        host_ip.parse::<std::net::IpAddr>().with_context(|| format!("invalid host address in {text:?}"))?;
    }
    let (container_port, count) = range(container).with_context(wrong)?;
    if host.is_empty() {
        let single =
            |port| PortMapping { host_ip: host_ip.into(), host_port: 0, container_port: port, range: 1, protocol };
        return Ok((container_port..container_port + count).map(single).collect());
    }
    let (host_port, host_count) = range(host).with_context(wrong)?;
    if host_count != count {
        bail!("invalid port mapping {text:?}: {host_count} host ports for {count} container ports");
    }
    Ok(vec![PortMapping { host_ip: host_ip.into(), host_port, container_port, range: count, protocol }])
}

/// `--expose port[-end][/protocol]`, as "80/tcp", one for each port.
pub fn expose(text: &str) -> anyhow::Result<Vec<String>> {
    let wrong = || format!("invalid port {text:?}: expected PORT[-END][/tcp|udp|sctp]");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    self::protocol(protocol).with_context(wrong)?;
    let (first, count) = range(ports).with_context(wrong)?;
    Ok((first..first + count).map(|port| format!("{port}/{protocol}")).collect())
}

/// "tcp", "udp", "sctp".
pub fn protocol_name(protocol: i32) -> &'static str {
    match Protocol::try_from(protocol) {
        Ok(Protocol::Udp) => "udp",
        Ok(Protocol::Sctp) => "sctp",
        _ => "tcp",
    }
}

/// A protocol by its name.
pub fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Address, host ports, container ports. An IPv6 address stands in brackets.
fn split(body: &str) -> Option<(&str, &str, &str)> {
    if let Some(rest) = body.strip_prefix('[') {
        let (ip, rest) = rest.split_once("]:")?;
        let (host, container) = rest.split_once(':')?;
        return Some((ip, host, container));
    }
    match body.split(':').collect::<Vec<_>>()[..] {
        [container] => Some(("", "", container)),
        [host, container] => Some(("", host, container)),
        [ip, host, container] => Some((ip, host, container)),
        _ => None,
    }
}

/// First port and number of ports.
fn range(text: &str) -> Option<(u32, u32)> {
    let port = |part: &str| part.parse::<u16>().ok().filter(|port| *port > 0).map(u32::from);
    match text.split_once('-') {
        None => Some((port(text)?, 1)),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then(|| (first, last - first + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn show(text: &str) -> String {
        let one = |m: PortMapping| {
            format!("{}:{}:{}x{}/{}", m.host_ip, m.host_port, m.container_port, m.range, protocol_name(m.protocol))
        };
        publish(text).unwrap().into_iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn published() {
        for (text, want) in [
            ("80", ":0:80x1/tcp"),
            ("8080:80", ":8080:80x1/tcp"),
            ("8080:80/udp", ":8080:80x1/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80x1/tcp"),
            ("127.0.0.1::80", "127.0.0.1:0:80x1/tcp"),
            ("[::1]:8080:80", "::1:8080:80x1/tcp"),
            ("8000-8010:80-90", ":8000:80x11/tcp"),
            ("80-81", ":0:80x1/tcp :0:81x1/tcp"),
        ] {
            assert_eq!(show(text), want, "{text}");
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "x",
            "0:80",
            "80:0",
            "70000",
            "80/icmp",
            "1:2:3:4",
            "nope:1:2",
            "80-70:1-2",
            "8000-8002:80-81",
            "::80:",
        ] {
            assert!(publish(bad).is_err(), "{bad}");
        }
        assert_eq!(expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        assert!(expose("x").is_err());
    }
}
