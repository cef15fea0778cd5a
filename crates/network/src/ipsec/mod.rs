//! Encryption of an overlay network by the kernel's IPsec: ESP (RFC 4303) in transport mode around what VXLAN sends
//! between this host and each peer.
//!
//! The key is a secret of the user's, the same file on each host. So every key is a static one, and AES-GCM is out
//! (RFC 4106, section 2): it is AES-CBC with 256 bits (RFC 3602) and HMAC-SHA-256-128 (RFC 4868). Sequence numbers start
//! anew with each restart of a host, so replays are not noticed (RFC 4303, section 3.3.3).
//!
//! | policy | from | to UDP port | what passes |
//! |---|---|---|---|
//! | out | own address | of a peer | with the first secret's association |
//! | in | a peer | of the own address | what came by an association of this network |
//! | out | own address | of anybody else | nothing |
//! | in | anybody else | of any address | nothing |
//!
//! A policy cannot tell VXLAN networks apart, and the kernel takes VXLAN at every address it has: so an encrypted network
//! has its port for itself, and `create` refuses another there. Not kept out are programs of the host itself: what they send over
//! loopback passes by IPsec (`disable_policy` of ip-sysctl).
//!
//! Without associations nothing is sent or taken. Whoever flushes the policies opens the network, until it is reconciled.
//!
//! All of it is found again by its request id, which is of the network and of this host. The key file is read when
//! associations are made or compared; nothing of it is recorded.
//!
//! # Another secret
//!
//! The first secret of the file sends, all are taken. So none is lost when each of these is done on every host before
//! the next, each followed by `pier-network check --repair`: append the new secret; make it the first; remove the old.

mod keys;
mod settle;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::error::{Error, Result};
use crate::model::Network;

pub use keys::Keys;
pub(crate) use keys::Secret;
pub(crate) use settle::{differences, settle};
pub(crate) use steps::Step;

/// Bytes around the payload of ESP: header 8, initialization vector 16, integrity check value 16.
const AROUND: u32 = 8 + 16 + 16;
/// Bytes of a block of AES, which payload and trailer fill.
const BLOCK: u32 = 16;
/// Bytes of ESP's trailer, after the padding.
const TRAILER: u32 = 2;

/// How an overlay network is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipsec {
    /// Own address towards the peers.
    pub local: IpAddr,
    /// UDP port of the network.
    pub port: u16,
    /// VXLAN network identifier: each has keys of its own.
    pub vni: u32,
    /// Where the secrets are.
    pub key_file: PathBuf,
    /// Marks its associations and policies (`reqid` of ip-xfrm(8)).
    pub reqid: u32,
}

/// A security association: the key for one direction between two hosts (RFC 4301, section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// Who sends.
    pub from: IpAddr,
    /// Who receives.
    pub to: IpAddr,
    /// Security parameters index, from 256 on.
    pub spi: u32,
}

/// Which packets a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// That arrive.
    In,
    /// That leave.
    Out,
}

/// What a policy lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing.
    Block,
    /// What is protected by this security parameters index; 0: by any of the network's.
    Protected(u32),
}

/// A policy about packets to the network's UDP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which packets.
    pub direction: Direction,
    /// Sources.
    pub from: IpNet,
    /// Destinations.
    pub to: IpNet,
    /// What passes.
    pub rule: Rule,
}

impl Ipsec {
    /// Reads the options `encrypted`, `key-file` and `local` of an overlay network; `None` when it is not encrypted.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub(crate) fn of(network: &Network, local: Option<IpAddr>, port: u16, vni: u32) -> Result<Option<Self>> {
        let key_file = network.option(&["key-file"]).map(PathBuf::from);
        match network.option(&["encrypted"]) {
            Some("" | "true") => {}
            None | Some("false") if key_file.is_some() => {
                return Err(Error::invalid("option key-file", "is for networks with -o encrypted"));
            }
            None | Some("false") => return Ok(None),
            Some(other) => {
                return Err(Error::invalid(format!("option encrypted={other}"), "known are true and false"));
            }
        }
        let needs = |what: &str| Error::invalid("option encrypted", format!("it needs {what}"));
        let key_file = key_file.ok_or_else(|| needs("the file of the secret: -o key-file=/PATH"))?;
        if !key_file.is_absolute() {
            let what = format!("option key-file={}", key_file.display());
            return Err(Error::invalid(what, "an absolute path is needed"));
        }
        let local = local.ok_or_else(|| needs("this host's address towards the peers: -o local=ADDRESS"))?;
        if !is_of_one_host(local) {
            return Err(Error::invalid(format!("option local={local}"), "the address of one host is needed"));
        }
        let reqid = network.id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
        // 0 is no mark.
        Ok(Some(Self { local, port, vni, key_file, reqid: reqid | 1 }))
    }

    /// Checks that keys can be made for these peers.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the peer.
    pub(crate) fn check_peers(&self, peers: &[IpAddr]) -> Result<()> {
        for peer in peers {
            let why = match peer {
                peer if peer.is_ipv4() != self.local.is_ipv4() => {
                    format!("is not of the family of local={}", self.local)
                }
                peer if *peer == self.local => "is this host's own".to_owned(),
                peer if !is_of_one_host(*peer) => "the address of one host is needed".to_owned(),
                _ => continue,
            };
            return Err(Error::invalid(format!("peer {peer} of an encrypted network"), why));
        }
        Ok(())
    }

    /// Reads the secrets, to see that they are there.
    ///
    /// # Errors
    /// [`Error::KeyFile`].
    pub(crate) fn check_key_file(&self) -> Result<()> {
        keys::read(&self.key_file).map(drop)
    }

    /// Bytes of an Ethernet frame's payload that fit into one packet of `link` bytes: what is left by IP, ESP with its
    /// padding, UDP and VXLAN (8 each) and the frame's header (14).
    #[must_use]
    pub fn room(&self, link: u32) -> u32 {
        let ip = if self.local.is_ipv4() { 20 } else { 40 };
        let blocks = link.saturating_sub(ip + AROUND) / BLOCK * BLOCK;
        blocks.saturating_sub(TRAILER + 8 + 8 + 14)
    }

    /// All policies for these peers, those that let nothing pass first.
    pub(crate) fn policies(&self, peers: &BTreeSet<IpAddr>, first: &Secret) -> Vec<Policy> {
        let (own, anybody) = (IpNet::from(self.local), everybody(self.local));
        let policy = |direction, from, to, rule| Policy { direction, from, to, rule };
        let mut policies = vec![
            policy(Direction::In, anybody, anybody, Rule::Block),
            policy(Direction::Out, own, anybody, Rule::Block),
        ];
        for peer in peers {
            let out = Rule::Protected(first.association(self, self.local, *peer).0.spi);
            policies.push(policy(Direction::In, IpNet::from(*peer), own, Rule::Protected(0)));
            policies.push(policy(Direction::Out, own, IpNet::from(*peer), out));
        }
        policies
    }

    /// All associations with these peers: the first secret's to send by, everyone's to receive by.
    pub(crate) fn associations(&self, peers: &BTreeSet<IpAddr>, secrets: &[Secret]) -> Vec<(Association, Keys)> {
        let with = |peer: &IpAddr| {
            let peer = *peer;
            let sending = secrets.iter().take(1).map(move |secret| secret.association(self, self.local, peer));
            sending.chain(secrets.iter().map(move |secret| secret.association(self, peer, self.local)))
        };
        peers.iter().flat_map(with).collect()
    }
}

impl fmt::Display for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IPsec association from {} to {} (SPI {:#010x})", self.from, self.to, self.spi)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::In => "in",
            Direction::Out => "out",
        };
        write!(f, "IPsec policy {direction} from {} to {}", self.from, self.to)
    }
}

fn is_of_one_host(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback() && ip != IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}

/// All addresses of the family.
fn everybody(of: IpAddr) -> IpNet {
    match of {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}
