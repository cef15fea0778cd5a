//! A bridge on each of several hosts, joined by VXLAN (RFC 7348). Frames to where nobody is known go to every peer;
//! answers teach the link who is where.
//!
//! With `-o encrypted` the kernel encrypts what goes between the hosts ([`crate::ipsec`]): it does so before the VXLAN link
//! is there and until it is gone, and what cannot be encrypted is not sent.
//!
//! Each host gives addresses of its own part of the subnet (`--ip-range`) and has a gateway of its own (`--gateway`).

use std::net::IpAddr;

use super::{DEFAULT_MTU, Driver, bridge, network_mtu};
use crate::error::{Error, Result};
use crate::ipsec::Ipsec;
use crate::model::{Endpoint, Network};
use crate::plan::{Change, HostView};

/// UDP port of VXLAN (IANA).
pub const VXLAN_PORT: u16 = 4789;
/// Bytes that VXLAN takes of each packet: IP, UDP, VXLAN, the Ethernet header inside; with IPv6 outside 20 more.
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
    /// How it is encrypted: `encrypted`, `key-file`.
    pub encryption: Option<Ipsec>,
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
        let keys = ["vni", "com.docker.network.driver.overlay.vxlanid_list"];
        let local = network
            .option(&["local"])
            .map(|text| text.parse().map_err(|_| Error::invalid(format!("option local={text}"), "not an IP address")))
            .transpose()?;
        let vni = number(&keys, vni_of(&network.name), 0xff_ffff)?;
        let port = u16::try_from(number(&["port"], VXLAN_PORT.into(), 65535)?).unwrap_or(VXLAN_PORT);
        Ok(Self { vni, port, local, encryption: Ipsec::of(network, local, port, vni)? })
    }
}

/// Checks the options, the peers, and that the secret is there.
pub(super) fn check(network: &Network) -> Result<()> {
    let Some(ipsec) = Overlay::of(network)?.encryption else { return Ok(()) };
    ipsec.check_peers(&network.peers)?;
    // A model's may come later.
    if network.config_only { Ok(()) } else { ipsec.check_key_file() }
}

/// Checks that a new network can be on one host with the others.
///
/// # Errors
/// [`Error::OverlayPort`].
pub(crate) fn check_port(network: &Network, others: &[Network]) -> Result<()> {
    let of = |network: &Network| {
        let overlay = (network.driver == Driver::Overlay && !network.config_only).then(|| Overlay::of(network));
        overlay.and_then(Result::ok)
    };
    let Some(own) = of(network) else { return Ok(()) };
    let clashes = |other: &&Network| {
        of(other).is_some_and(|o| o.port == own.port && (o.encryption.is_some() || own.encryption.is_some()))
    };
    match others.iter().find(clashes) {
        Some(other) => Err(Error::OverlayPort { port: own.port, other: other.name.clone() }),
        None => Ok(()),
    }
}

/// How a network is encrypted, if it is.
pub(crate) fn encryption(network: &Network) -> Option<Ipsec> {
    (network.driver == Driver::Overlay).then(|| Overlay::of(network).ok()?.encryption).flatten()
}

/// The same on each host, since the name is.
fn vni_of(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash % 0xff_ffff) + 1
}

/// The VXLAN link of a network.
pub(crate) fn link(network: &Network) -> String {
    format!("px-{}", network.id.get(..8).unwrap_or_default())
}

pub(super) fn network(network: &Network, host: &HostView) -> Vec<Change> {
    let Ok(overlay) = Overlay::of(network) else { return Vec::new() };
    let mut changes = bridge::network(network, &within(network, &overlay, host));
    if host.bridge_mtu.is_none() {
        changes.extend(tunnel(network, host));
    }
    changes
}

/// What joins the bridge to the peers.
pub(crate) fn tunnel(network: &Network, host: &HostView) -> Vec<Change> {
    let Ok(overlay) = Overlay::of(network) else { return Vec::new() };
    let mtu = network_mtu(network, &within(network, &overlay, host));
    let mut changes = Vec::new();
    if let Some(ipsec) = &overlay.encryption {
        changes.push(Change::Encrypt { ipsec: ipsec.clone(), before: None, peers: network.peers.clone() });
    }
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
    let room = overlay.encryption.as_ref().map_or(uplink.saturating_sub(overhead), |ipsec| ipsec.room(uplink));
    HostView { uplink_mtu: Some(room), ..host.clone() }
}

fn add(network: &Network, peer: IpAddr) -> Change {
    Change::Peer { link: link(network), peer, there: true }
}

/// From one list of peers to another. Nothing is sent to a peer that is not encrypted.
#[must_use]
pub(crate) fn peers(network: &Network, wanted: &[IpAddr]) -> Vec<Change> {
    let links = peers_of_link(network, wanted);
    let Some(ipsec) = encryption(network) else { return links };
    let fresh = wanted.iter().filter(|peer| !network.peers.contains(peer));
    let both: Vec<IpAddr> = network.peers.iter().chain(fresh).copied().collect();
    let encrypt = |before: &[IpAddr], peers: &[IpAddr]| Change::Encrypt {
        ipsec: ipsec.clone(),
        before: Some(before.to_vec()),
        peers: peers.to_vec(),
    };
    let (first, last) = (encrypt(&network.peers, &both), encrypt(&both, wanted));
    [vec![first], links, vec![last]].concat()
}

/// The same of the VXLAN link alone.
pub(crate) fn peers_of_link(network: &Network, wanted: &[IpAddr]) -> Vec<Change> {
    let fresh = wanted.iter().filter(|peer| !network.peers.contains(peer)).map(|peer| add(network, *peer));
    let gone = network.peers.iter().filter(|peer| !wanted.contains(peer));
    fresh.chain(gone.map(|peer| Change::Peer { link: link(network), peer: *peer, there: false })).collect()
}
