//! A bridge on the host, a veth pair for each endpoint.

use ipnet::IpNet;

use super::{inside, mtu_of, network_mtu};
use crate::error::{Error, Result};
use crate::ipam;
use crate::model::{Endpoint, Network, OPTION_BRIDGE_NAME};
use crate::plan::{Change, Forwarding6, HostView, Place};

pub(super) fn network(network: &Network, host: &HostView) -> Vec<Change> {
    if !network.is_managed() {
        return Vec::new();
    }
    let mut changes = forwarding(network, host);
    if host.bridge_mtu.is_some() {
        return changes;
    }
    let name = &network.bridge;
    changes.push(Change::Bridge {
        name: name.clone(),
        mac: ipam::mac_from_id(&network.id),
        mtu: network_mtu(network, host),
        vlan: vlan_of(network).is_some(),
    });
    // Addresses later: joining moves the routes of those that are there.
    if !network.vrf().is_empty() {
        changes.push(Change::Join { link: name.clone(), bridge: network.vrf().to_owned(), hairpin: false });
    }
    changes.extend(host_end(network, name));
    for subnet in &network.subnets {
        changes.extend(IpNet::new(subnet.gateway, subnet.subnet.prefix_len()).ok().map(|address| Change::Address {
            place: Place::Host,
            link: name.clone(),
            address,
        }));
    }
    changes
}

/// The settings of a link of the host that endpoints' packets arrive by.
pub(super) fn host_end(network: &Network, link: &str) -> Vec<Change> {
    let set = |family: &str, key: &str, value, optional| Change::Sysctl {
        place: Place::Host,
        key: format!("{family}/conf/{link}/{key}"),
        value,
        optional,
    };
    let mut changes = vec![set("ipv4", "route_localnet", "1", false)];
    // Of an endpoint on two networks, answers come by its default route, whichever way the question came (2: loose).
    changes.push(set("ipv4", "rp_filter", "2", false));
    // What a container advertises must not become the host's route.
    changes.push(set("ipv6", "accept_ra", "0", true));
    if network.has_family(true) {
        changes.push(set("ipv6", "disable_ipv6", "0", false));
        // Neighbours are asked for from the link-local address, which must not be tentative when the first port
        // is wired and the bridge gets its carrier.
        changes.push(set("ipv6", "accept_dad", "0", false));
        if !network.internal {
            // "all" reached only the links that were there.
            changes.push(set("ipv6", "force_forwarding", "1", true));
        }
    }
    changes
}

/// Switches forwarding on for the families of a network that has a way out.
pub(super) fn forwarding(network: &Network, host: &HostView) -> Vec<Change> {
    let set = |key: &str| Change::Sysctl { place: Place::Host, key: key.into(), value: "1", optional: false };
    let mut changes = Vec::new();
    if network.internal {
        return changes;
    }
    if network.has_family(false) && !host.forwarding4 {
        changes.push(set("ipv4/ip_forward"));
    }
    if network.has_family(true) {
        match host.forwarding6 {
            Forwarding6::OffForceable => {
                changes.extend(["ipv6/conf/default/force_forwarding", "ipv6/conf/all/force_forwarding"].map(set));
            }
            Forwarding6::Off => changes.push(set("ipv6/conf/all/forwarding")),
            Forwarding6::On | Forwarding6::OffAdvertised => {}
        }
    }
    changes
}

pub(super) fn wire(network: &Network, endpoint: &Endpoint, host: &HostView) -> Vec<Change> {
    let mut changes = vec![Change::Veth {
        host: endpoint.host_interface.clone(),
        inside: endpoint.interface.clone(),
        mac: ipam::parse_mac(&endpoint.mac_address).unwrap_or_else(|_| ipam::mac_from_id(&endpoint.id)),
        mtu: mtu_of(network, endpoint, host),
        bridge: Some(network.bridge.clone()),
        hairpin: host.bridge_filter,
    }];
    if let Some(id) = vlan_of(network) {
        // One of our own was made so.
        let others = (!network.is_managed()).then(|| Change::FilterVlans { bridge: network.bridge.clone() });
        changes.extend(others);
        changes.push(Change::PortVlan { link: endpoint.host_interface.clone(), id });
    }
    changes.extend(inside(endpoint));
    changes
}

/// The tag that endpoints' frames carry on a bridge that filters by it.
fn vlan_of(network: &Network) -> Option<u16> {
    network.option(&["vlan"])?.parse().ok()
}

pub(super) fn check(network: &Network) -> Result<()> {
    if let Some(name) = network.option(&[OPTION_BRIDGE_NAME]) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.is_empty() || name.len() > 15 || !name.bytes().all(plain) || matches!(name, "." | "..") {
            return Err(Error::invalid(format!("bridge name {name:?}"), "1 to 15 of [a-zA-Z0-9_.-] are needed"));
        }
    }
    if let Some(mode) = network.option(&["mode"])
        && !matches!(mode, "managed" | "unmanaged")
    {
        return Err(Error::invalid(format!("option mode={mode}"), "known are managed and unmanaged"));
    }
    if !network.is_managed() && network.option(&[OPTION_BRIDGE_NAME]).is_none() {
        let why = format!("it needs the bridge's name: --opt {OPTION_BRIDGE_NAME}=NAME");
        return Err(Error::invalid("option mode=unmanaged", why));
    }
    if network.vrf().len() > 15 || network.vrf().contains('/') || (!network.vrf().is_empty() && !network.is_managed()) {
        let why = "the name of a VRF link of the host is needed, and a bridge of our own";
        return Err(Error::invalid(format!("option vrf={}", network.vrf()), why));
    }
    match network.option(&["vlan"]).map(str::parse::<u16>) {
        None | Some(Ok(1..=4094)) => Ok(()),
        Some(_) => Err(Error::invalid("option vlan", "a number from 1 to 4094 is needed")),
    }
}
