//! A veth pair alone: the host's end holds the gateway's address, and a route leads to each endpoint.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{bridge, inside, mtu_of};
use crate::ipam;
use crate::model::{Endpoint, Network, Route, Subnet};
use crate::plan::{Change, HostView, Place};

pub(super) fn wire(network: &Network, endpoint: &Endpoint, host: &HostView) -> Vec<Change> {
    let link = &endpoint.host_interface;
    let mut changes = vec![Change::Veth {
        host: link.clone(),
        inside: endpoint.interface.clone(),
        mac: ipam::parse_mac(&endpoint.mac_address).unwrap_or_else(|_| ipam::mac_from_id(&endpoint.id)),
        mtu: mtu_of(network, endpoint, host),
        bridge: None,
        hairpin: false,
    }];
    changes.extend(bridge::host_end(network, link));
    for address in &endpoint.addresses {
        if let Some(subnet) = network.subnet_of(address.addr()) {
            changes.push(Change::Address { place: Place::Host, link: link.clone(), address: subnet.gateway.into() });
        }
        let route = Route::new(single(address.addr()), None);
        changes.push(Change::Route { place: Place::Host, link: link.clone(), route });
    }
    let (before, after): (Vec<_>, Vec<_>) = inside(endpoint)
        .into_iter()
        .partition(|change| !matches!(change, Change::DefaultRoute { .. } | Change::Route { .. }));
    changes.extend(before);
    // The gateway is on no subnet of the endpoint's: it is reached by the link alone.
    for gateway in endpoint.addresses.iter().filter_map(|address| network.subnet_of(address.addr())) {
        let route = Route::new(single(gateway.gateway), None);
        changes.push(Change::Route { place: Place::Inside, link: endpoint.interface.clone(), route });
    }
    changes.extend(after);
    changes
}

/// A network as the firewall sees one endpoint of it: alone on its link.
pub(super) fn guarded(network: &Network, endpoint: &Endpoint) -> Network {
    let own = |address: &IpNet| {
        let gateway = network.subnet_of(address.addr())?.gateway;
        Some(Subnet { subnet: single(address.addr()), gateway, range: None })
    };
    Network {
        bridge: endpoint.host_interface.clone(),
        subnets: endpoint.addresses.iter().filter_map(own).collect(),
        ..network.clone()
    }
}

/// The subnet of one address.
fn single(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
