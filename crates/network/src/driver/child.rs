//! macvlan, ipvlan and vlan: the endpoint's link is a child of a link of the host, the parent.

use super::inside;
use crate::error::{Error, Result};
use crate::ipam;
use crate::model::{Endpoint, Network};
use crate::plan::{Change, Child, HostView};

/// Modes of macvlan links (ip-link(8)); the first is the default.
pub const MACVLAN_MODES: [&str; 5] = ["bridge", "private", "vepa", "passthru", "source"];
/// Modes of ipvlan links (ip-link(8)); the first is the default.
pub const IPVLAN_MODES: [&str; 3] = ["l2", "l3", "l3s"];

/// A parent that is itself a tagged link: `eth0.10`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subinterface {
    /// The link it is made on.
    pub base: String,
    /// 802.1Q tag, 1 to 4094.
    pub id: u16,
}

/// Reads `eth0.10`.
#[must_use]
pub fn subinterface(name: &str) -> Option<Subinterface> {
    let (base, id) = name.rsplit_once('.')?;
    let id = id.parse().ok().filter(|id| (1..=4094).contains(id))?;
    (!base.is_empty()).then(|| Subinterface { base: base.to_owned(), id })
}

pub(super) fn check(network: &Network) -> Result<()> {
    let known = |keys: &[&str], modes: &[&str]| match network.option(keys) {
        Some(mode) if !modes.contains(&mode) => {
            Err(Error::invalid(format!("option {}={mode}", keys[0]), format!("known are {}", modes.join(", "))))
        }
        _ => Ok(()),
    };
    if let Some(limit) = network.option(&["bclim"])
        && (network.driver != super::Driver::Macvlan || broadcast_limit(network).is_none())
    {
        let why = "a number of packets a second from 0 is needed, or -1, on a macvlan network";
        return Err(Error::invalid(format!("option bclim={limit}"), why));
    }
    match network.driver {
        super::Driver::Macvlan => known(&["macvlan_mode", "mode"], &MACVLAN_MODES)?,
        super::Driver::Ipvlan => known(&["ipvlan_mode", "mode"], &IPVLAN_MODES)?,
        _ if vlan_id(network).is_none() => {
            return Err(Error::invalid("option id", "a VLAN needs its tag: --opt id=1 to 4094"));
        }
        _ => {}
    }
    match network.option(&["parent"]) {
        None | Some("") => Err(Error::invalid("option parent", "the link of the host is needed: --opt parent=eth0")),
        Some(parent) if parent.len() > 15 || parent.contains('/') => {
            Err(Error::invalid(format!("option parent={parent}"), "not the name of a link"))
        }
        Some(_) => Ok(()),
    }
}

/// IFLA_MACVLAN_BC_CUTOFF (if_link.h); iproute2 calls it bclim.
fn broadcast_limit(network: &Network) -> Option<i32> {
    network.option(&["bclim"])?.parse().ok().filter(|limit| *limit >= -1)
}

fn vlan_id(network: &Network) -> Option<u16> {
    network.option(&["id", "vlan"])?.parse().ok().filter(|id| (1..=4094).contains(id))
}

/// The parent, when it is a tagged link that is not there.
pub(super) fn parent(network: &Network, host: &HostView) -> Vec<Change> {
    let parent = network.parent();
    match subinterface(parent) {
        Some(Subinterface { base, id }) if !host.parent => {
            vec![Change::Subinterface { name: parent.to_owned(), base, id, alias: alias(network) }]
        }
        _ => Vec::new(),
    }
}

/// What marks a parent as made for a network, so that it goes with it.
#[must_use]
pub(crate) fn alias(network: &Network) -> String {
    format!("pier {}", network.id)
}

pub(super) fn wire(network: &Network, endpoint: &Endpoint, _host: &HostView) -> Vec<Change> {
    let mode = network.option(&["macvlan_mode", "ipvlan_mode", "mode"]).unwrap_or_default().to_owned();
    let kind = match network.driver {
        super::Driver::Macvlan => Child::Macvlan { mode, broadcast_limit: broadcast_limit(network) },
        super::Driver::Ipvlan => Child::Ipvlan { mode },
        _ => Child::Vlan { id: vlan_id(network).unwrap_or_default() },
    };
    let mac = match kind {
        // An ipvlan has the address of its parent.
        Child::Ipvlan { .. } => None,
        _ => ipam::parse_mac(&endpoint.mac_address).ok(),
    };
    let mut changes = vec![Change::Child {
        kind,
        parent: network.parent().to_owned(),
        inside: endpoint.interface.clone(),
        mac,
        // Absent: the parent's.
        mtu: endpoint.mtu.or(network.mtu()),
    }];
    changes.extend(inside(endpoint));
    changes
}
