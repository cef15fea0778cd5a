//! Published ports: what a request means, and whether the host has the ports free.
//!
//! A port is checked against the host's programs when it is published, by binding it for a moment. It is not held
//! afterwards: a program of the host that binds it later is shadowed by the published port.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use crate::error::{Error, Result};
use crate::model::{Network, PortMapping, Protocol};

/// How often a free port is looked for.
const TRIES: usize = 64;

/// Checks ports as requested. Nothing is touched.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn check(network: &Network, ports: &[PortMapping]) -> Result<()> {
    let invalid = |port: &PortMapping, why: &str| Err(Error::invalid(format!("port {port}"), why));
    for (position, port) in ports.iter().enumerate() {
        if port.container_port == 0 || port.range == 0 {
            return invalid(port, "container ports are 1 to 65535");
        }
        let room = u32::from(port.range) - 1;
        if u32::from(port.container_port) + room > 65535 || u32::from(port.host_port) + room > 65535 {
            return invalid(port, "the range ends above 65535");
        }
        if network.internal {
            return invalid(port, "an internal network publishes no ports");
        }
        let has = |ipv6| network.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv6() == ipv6);
        if port.host_ip.is_some_and(|ip| !has(ip.is_ipv6())) {
            return invalid(port, "the network has no addresses of that family");
        }
        if port.host_port != 0 && ports[..position].iter().any(|other| other.host_port != 0 && other.conflicts(port)) {
            return invalid(port, "published twice in one request");
        }
    }
    Ok(())
}

/// Gives every mapping with host port 0 a free one and makes sure that no program of the host has one of the others.
/// `taken` tells what this stack has published.
///
/// # Errors
/// [`Error::PortTaken`], [`Error::NoSuchAddress`], or `taken`'s.
pub(crate) fn settle(
    ports: Vec<PortMapping>,
    taken: &dyn Fn(&[PortMapping]) -> Result<()>,
) -> Result<Vec<PortMapping>> {
    let mut settled: Vec<PortMapping> = ports.iter().filter(|port| port.host_port != 0).cloned().collect();
    taken(&settled)?;
    settled.iter().try_for_each(free_on_host)?;
    let mut whole = Vec::new();
    for port in ports {
        if port.host_port == 0 {
            let chosen = choose(&port, &settled, taken)?;
            settled.push(chosen.clone());
            whole.push(chosen);
        } else {
            whole.push(port);
        }
    }
    Ok(whole)
}

fn choose(
    wanted: &PortMapping,
    settled: &[PortMapping],
    taken: &dyn Fn(&[PortMapping]) -> Result<()>,
) -> Result<PortMapping> {
    let mut last = Error::invalid(format!("port {wanted}"), "no free port was found");
    for _ in 0..TRIES {
        let first = ephemeral(wanted).map_err(Error::kernel("find a free port"))?;
        if u32::from(first) + u32::from(wanted.range) - 1 > 65535 {
            continue;
        }
        let candidate = PortMapping { host_port: first, ..wanted.clone() };
        if settled.iter().any(|other| other.conflicts(&candidate)) {
            continue;
        }
        match taken(std::slice::from_ref(&candidate)).and_then(|()| free_on_host(&candidate)) {
            Ok(()) => return Ok(candidate),
            Err(error @ (Error::PortPublished { .. } | Error::PortTaken { .. })) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// A port that the kernel calls free.
fn ephemeral(wanted: &PortMapping) -> io::Result<u16> {
    let ip = wanted.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let socket = bound(wanted.protocol, SocketAddr::new(ip, 0))?;
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok(address.port())
}

fn free_on_host(port: &PortMapping) -> Result<()> {
    let addresses: HashSet<IpAddr> = match port.host_ip {
        Some(ip) => HashSet::from([ip]),
        None => HashSet::from([Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
    };
    for ip in addresses {
        for number in port.host_port..=port.last_host_port() {
            let address = SocketAddr::new(ip, number);
            match bound(port.protocol, address) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(Error::PortTaken { port: port.clone(), address: address.to_string() });
                }
                // A host without IPv6 has no IPv6 port that could be taken.
                Err(_) if port.host_ip.is_none() && ip.is_ipv6() => break,
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    return Err(Error::NoSuchAddress { port: port.clone(), address: ip });
                }
                Err(source) => return Err(Error::kernel(format!("try port {address}"))(source)),
            }
        }
    }
    Ok(())
}

/// A bound socket. With SO_REUSEADDR connections that linger do not count, listeners do.
fn bound(protocol: Protocol, address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        // Few kernels speak SCTP themselves; a TCP port stands in for "is this address ours".
        Protocol::Tcp | Protocol::Sctp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    let address = if protocol == Protocol::Sctp { SocketAddr::new(address.ip(), 0) } else { address };
    bind(&socket, &address)?;
    Ok(socket)
}
