//! What an attach asks for, checked; and the endpoint it begins with.

use std::path::Path;

use sys::netns::{Netns, NetnsError};

use crate::driver::subinterface;
use crate::error::{Error, Result};
use crate::ipam;
use crate::kernel::InsideView;
use crate::model::{Driver, Endpoint, NamedPort, Network, NewEndpoint};
use crate::netlink::Netlink;

pub(super) fn check(new: &NewEndpoint) -> Result<()> {
    if new.owner.is_empty() {
        return Err(Error::invalid("owner", "is required"));
    }
    for name in &new.names {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
            return Err(Error::invalid(format!("name {name:?}"), "allowed are up to 253 of [a-zA-Z0-9_.-]"));
        }
    }
    new.dns.check()?;
    new.services.iter().try_for_each(NamedPort::check)?;
    if !new.mac_address.is_empty() {
        ipam::parse_mac(&new.mac_address)?;
    }
    check_link_name(&new.interface)?;
    check_link_name(&new.host_interface)?;
    if new.mtu.is_some_and(|mtu| !(68..=65535).contains(&mtu)) {
        return Err(Error::invalid("MTU", "a number of bytes from 68 to 65535 is needed"));
    }
    Ok(())
}

fn check_link_name(link: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"/:%".contains(&b);
    if !link.is_empty() && (link.len() > 15 || !link.bytes().all(plain) || matches!(link, "." | ".." | "lo")) {
        return Err(Error::invalid(format!("interface name {link:?}"), "1 to 15 characters without / : % are needed"));
    }
    Ok(())
}

pub(super) fn check_addresses(network: &Network, new: &NewEndpoint) -> Result<()> {
    if network.driver == Driver::Ipvlan && !new.mac_address.is_empty() {
        return Err(Error::invalid(
            format!("MAC address {}", new.mac_address),
            "an ipvlan has the MAC address of its parent",
        ));
    }
    match (&network.driver, new.addresses.first()) {
        // The plugins know their subnets.
        (Driver::Cni, _) => return Ok(()),
        (Driver::Rootless, Some(address)) => {
            return Err(Error::invalid(format!("address {address}"), "it has the host's; no other can be asked for"));
        }
        _ => {}
    }
    for address in &new.addresses {
        let what = || format!("address {address}");
        let Some(subnet) = network.subnet_of(*address) else {
            return Err(Error::invalid(what(), format!("not in a subnet of network {:?}", network.name)));
        };
        if !ipam::is_usable(&subnet.subnet, *address) || *address == subnet.gateway {
            return Err(Error::invalid(what(), "reserved in its subnet"));
        }
        if let Some((name, _)) = network.ipam.auxiliary.iter().find(|(_, other)| *other == address) {
            return Err(Error::invalid(what(), format!("set aside as {name:?}")));
        }
    }
    network.check_upstreams(&new.dns.servers)?;
    let mut seen = std::collections::BTreeSet::new();
    match new.addresses.iter().find(|address| !seen.insert(**address)) {
        Some(twice) => Err(Error::invalid(format!("address {twice}"), "asked for twice")),
        None => Ok(()),
    }
}

pub(super) fn open_netns(path: &Path) -> Result<Netns> {
    let invalid = |why: &str, source| Error::NetnsInvalid { path: path.to_owned(), why: why.to_owned(), source };
    if !path.is_absolute() {
        return Err(invalid("the path of a network namespace has to be absolute", None));
    }
    let netns = Netns::open(path).map_err(|error| match error {
        NetnsError::Open { source, .. } => invalid("cannot be opened", Some(source)),
        NetnsError::NotNetns { .. } => invalid("not a network namespace", None),
    })?;
    if Netns::current().is_ok_and(|current| current.inode() == netns.inode()) {
        return Err(invalid("is the host's own network namespace; use the network \"host\"", None));
    }
    Ok(netns)
}

pub(super) fn choose_interface(new: &NewEndpoint, inside: &InsideView) -> Result<String> {
    if new.interface.is_empty() {
        return Ok(inside.free_name());
    }
    if inside.links.contains(&new.interface) {
        return Err(Error::invalid(format!("interface name {:?}", new.interface), "the namespace has it already"));
    }
    Ok(new.interface.clone())
}

/// The MAC address that an ipvlan shares with its parent, or with the link that a tagged parent is made on; empty when
/// there is none.
pub(super) fn mac_of_parent(network: &Network) -> Result<String> {
    let parent = network.parent();
    let step = || Error::kernel(format!("look at link {parent}"));
    let mut host = Netlink::open().map_err(step())?;
    let base = subinterface(parent).map(|tagged| tagged.base);
    for name in [Some(parent), base.as_deref()].into_iter().flatten() {
        if let Some(link) = host.link(name).map_err(step())? {
            return Ok(<[u8; 6]>::try_from(link.mac).map(ipam::mac_text).unwrap_or_default());
        }
    }
    Ok(String::new())
}

pub(super) fn blank(network: &Network, new: &NewEndpoint) -> Endpoint {
    let id = oci::name::id_from_random(rand::random());
    let servers = network.name_servers();
    let mac = match new.mac_address.as_str() {
        "" => ipam::mac_text(ipam::mac_from_id(&id)),
        mac => mac.to_ascii_lowercase(),
    };
    let mut names = new.names.clone();
    names.dedup();
    Endpoint {
        network_id: network.id.clone(),
        network_name: network.name.clone(),
        owner: new.owner.clone(),
        netns_path: new.netns_path.clone(),
        netns_inode: 0,
        interface: String::new(),
        host_interface: match new.host_interface.as_str() {
            _ if network.driver.has_parent() || network.driver.is_foreign() => String::new(),
            "" => format!("pv{}", &id[..12]),
            name => name.to_owned(),
        },
        mac_address: mac,
        addresses: Vec::new(),
        gateways: Vec::new(),
        ports: Vec::new(),
        names,
        dns_servers: match (servers.is_empty(), &new.dns.servers) {
            (false, _) => servers,
            (true, own) if own.is_empty() => network.dns.servers.clone(),
            (true, own) => own.clone(),
        },
        dns: new.dns.clone().or(&network.dns),
        labels: new.labels.clone(),
        services: new.services.clone(),
        unhealthy: false,
        host_first: network.host_first(),
        routes: network.routes.iter().chain(&new.routes).cloned().collect(),
        metric: new.metric.or(network.metric()),
        gateway_priority: new.gateway_priority,
        no_default_route: new.no_default_route || network.no_default_route(),
        mtu: new.mtu,
        id,
        ..Endpoint::default()
    }
}
