//! A bridge on each of several hosts, joined by VXLAN (RFC 7348). Frames to where nobody is known go to every peer;
//! answers teach the link who is where.
//!
//! Each host gives addresses of its own part of the subnet (`--ip-range`) and has a gateway of its own (`--gateway`).

use std::net::IpAddr;

use super::{DEFAULT_MTU, bridge, network_mtu};
use crate::error::{Error, Result};
use crate::model::{Endpoint, Network};
use crate::plan::{Change, HostView};

/// UDP port of VXLAN (IANA).
pub const VXLAN_PORT: u16 = 4789;
/// Bytes that VXLAN takes of each packet: outer Ethernet, IP, UDP, VXLAN; with IPv6 outside 20 more.
const OVERHEAD: u32 = 50;
const OVERHEAD_6: u32 = 70;

/// The options of an overlay network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// VXLAN network identifier, 1 to 16777215: `vni`, docker's `...overlay.vxlanid_list`, else from the name.
    pub vni: u32,
    /// UDP port, `port`.
    pub port: u16,
    /// Own address towards the peers, `local`; absent: the kernel's choice.
    pub local: Option<IpAddr>,
}

impl Overlay {
    /// Reads the options.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn of(network: &Network) -> Result<Self> {
        let number = |keys: &[&str], default: u32, max: u32| match network.option(keys) {
            None => Ok(default),
            Some(text) => text.parse().ok().filter(|n| (1..=max).contains(n)).ok_or_else(|| {
                Error::invalid(format!("option {}={text}", keys[0]), format!("a number from 1 to {max} is needed"))
            }),
        };
        if network.option(&["encrypted"]).is_some_and(|value| value != "false") {
            let why = "not supported: this version sets up no IPsec; join the hosts by a tunnel that encrypts";
            return Err(Error::invalid("option encrypted", why));
        }
        let keys = ["vni", "com.docker.network.driver.overlay.vxlanid_list"];
        let local = network
            .option(&["local"])
            .map(|text| text.parse().map_err(|_| Error::invalid(format!("option local={text}"), "not an IP address")));
        Ok(Self {
            vni: number(&keys, vni_of(&network.name), 0xff_ffff)?,
            port: u16::try_from(number(&["port"], VXLAN_PORT.into(), 65535)?).unwrap_or(VXLAN_PORT),
            local: local.transpose()?,
        })
    }
}

/// The same on each host, since the name is.
fn vni_of(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash % 0xff_ffff) + 1
}

/// The VXLAN link of a network.
pub(super) fn link(network: &Network) -> String {
    format!("px-{}", network.id.get(..8).unwrap_or_default())
}

pub(super) fn network(network: &Network, host: &HostView) -> Vec<Change> {
    let Ok(overlay) = Overlay::of(network) else { return Vec::new() };
    let inner = within(network, &overlay, host);
    let mut changes = bridge::network(network, &inner);
    if host.bridge_mtu.is_some() {
        return changes;
    }
    let mtu = network_mtu(network, &inner);
    changes.push(Change::Vxlan { name: link(network), overlay, mtu, bridge: network.bridge.clone() });
    changes.extend(network.peers.iter().map(|peer| add(network, *peer)));
    changes
}

pub(super) fn wire(network: &Network, endpoint: &Endpoint, host: &HostView) -> Vec<Change> {
    let Ok(overlay) = Overlay::of(network) else { return Vec::new() };
    bridge::wire(network, endpoint, &within(network, &overlay, host))
}

/// The host with the room that is left in its packets.
fn within(network: &Network, overlay: &Overlay, host: &HostView) -> HostView {
    let overhead = if network.peers.iter().chain(&overlay.local).any(IpAddr::is_ipv6) { OVERHEAD_6 } else { OVERHEAD };
    let uplink = host.uplink_mtu.unwrap_or(DEFAULT_MTU);
    HostView { uplink_mtu: Some(uplink.saturating_sub(overhead)), ..host.clone() }
}

fn add(network: &Network, peer: IpAddr) -> Change {
    Change::Peer { link: link(network), peer, there: true }
}

/// From one list of peers to another.
#[must_use]
pub(crate) fn peers(network: &Network, wanted: &[IpAddr]) -> Vec<Change> {
    let fresh = wanted.iter().filter(|peer| !network.peers.contains(peer)).map(|peer| add(network, *peer));
    let gone = network.peers.iter().filter(|peer| !wanted.contains(peer));
    fresh.chain(gone.map(|peer| Change::Peer { link: link(network), peer: *peer, there: false })).collect()
}
