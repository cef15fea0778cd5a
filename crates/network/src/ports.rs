//! Published ports: what a request means, and whether the host has the ports free.
//!
//! A port is held by a socket for as long as it is published ([`holder`]), so that it is taken from no program of the
//! host, and no program takes it later.

mod bound;
pub(crate) mod holder;
mod listener;
mod shared;

use bound::Refused;
pub(crate) use shared::{Owner, share};

use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::model::{Network, PortMapping};

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
        if matches!(network.driver, Driver::Cni | Driver::Rootless) {
            continue;
        }
        if !network.driver.is_routed() || !network.is_managed() {
            return invalid(port, "packets of this network do not pass the host: it publishes no ports");
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

/// Gives every mapping with host port 0 a free one. `taken` tells what this stack has published.
///
/// # Errors
/// `taken`'s; [`Error::PortTaken`] when there is no free port.
pub(crate) fn settle(
    ports: Vec<PortMapping>,
    taken: &dyn Fn(&[PortMapping]) -> Result<()>,
) -> Result<Vec<PortMapping>> {
    let mut settled: Vec<PortMapping> = ports.iter().filter(|port| port.host_port != 0).cloned().collect();
    taken(&settled)?;
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
        let first = bound::ephemeral(wanted.protocol, wanted.host_ip).map_err(Error::kernel("find a free port"))?;
        if u32::from(first) + u32::from(wanted.range) - 1 > 65535 {
            continue;
        }
        let candidate = PortMapping { host_port: first, ..wanted.clone() };
        if settled.iter().any(|other| other.conflicts(&candidate)) {
            continue;
        }
        match taken(std::slice::from_ref(&candidate)).and_then(|()| free_on_host(&candidate, None)) {
            Ok(()) => return Ok(candidate),
            Err(error @ (Error::PortPublished { .. } | Error::PortTaken { .. })) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Whether all ports of a mapping could be held now, for this owner beside the name server ([`shared`]).
///
/// # Errors
/// [`Error::PortTaken`], [`Error::NoSuchAddress`], [`Error::PortPrivileged`].
pub(crate) fn free_on_host(port: &PortMapping, owner: Option<Owner>) -> Result<()> {
    bound::all(port, owner).map(drop).map_err(|refused| error_of(port.clone(), refused))
}

fn error_of(port: PortMapping, refused: Refused) -> Error {
    match refused {
        Refused::Taken(address) => {
            let by = listener::name(port.protocol, address);
            Error::PortTaken { port, address: address.to_string(), by }
        }
        Refused::NoSuchAddress(address) => Error::NoSuchAddress { port, address },
        Refused::Privileged(address) => Error::PortPrivileged { port, number: address.port() },
        Refused::Failed(why) => Error::invalid(format!("port {port}"), why),
    }
}
