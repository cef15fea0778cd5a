//! Associations and policies of the kernel's IPsec, over netlink (xfrm; ip-xfrm(8)).
//!
//! netlink-packet-xfrm, of the same people as rtnetlink, makes the messages. So no key is ever on a command line, and
//! iproute2 need not be there.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_xfrm::constants::{
    AF_INET, AF_INET6, IPPROTO_ESP, IPPROTO_UDP, XFRM_MODE_TRANSPORT, XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK,
    XFRM_POLICY_IN, XFRM_POLICY_OUT, XFRM_SA_XFLAG_OSEQ_MAY_WRAP,
};
use netlink_packet_xfrm::policy::{DelGetMessage as PolicyId, ModifyMessage as PolicyMessage};
use netlink_packet_xfrm::state::{DelGetMessage as StateId, GetDumpMessage, ModifyMessage as StateMessage};
use netlink_packet_xfrm::{
    Address, Alg, AlgAuth, Id, Selector, UserPolicyId, UserPolicyInfo, UserSaId, UserSaInfo, UserTemplate, XfrmAttrs,
    XfrmMessage,
};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};
use rustix::io::Errno;

use super::{converse, refusal};
use crate::ipsec::{Association, Direction, Ipsec, Keys, Policy, Rule, Step};

/// Priorities of policies; the kernel asks the lowest first. Those of IKE daemons are in the hundred thousands.
const PROTECT: u32 = 100;
const BLOCK: u32 = 200;

/// A socket to one namespace's IPsec.
pub(crate) struct Xfrm {
    socket: Socket,
    sequence: u32,
}

impl Xfrm {
    /// Opens a socket to the calling thread's network namespace.
    ///
    /// # Errors
    /// `Unsupported` without IPsec, else the kernel's.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_XFRM).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::PROTONOSUPPORT) => {
                io::Error::new(io::ErrorKind::Unsupported, "this kernel has no IPsec (module xfrm_user)")
            }
            _ => error,
        })?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Its own words, and no keys, in the answer.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// What the kernel has of a network.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn found(&mut self, ipsec: &Ipsec) -> io::Result<(Vec<Association>, Vec<Policy>)> {
        let states = XfrmMessage::GetDumpSa(GetDumpMessage::default());
        let states = self.converse(states, NLM_F_DUMP, |reply| read_state(&reply, ipsec))?;
        let policies = XfrmMessage::GetPolicy(PolicyId::default());
        Ok((states, self.converse(policies, NLM_F_DUMP, |reply| read_policy(&reply, ipsec))?))
    }

    /// Takes a step. What is to go and is gone is fine.
    ///
    /// # Errors
    /// The kernel's; one that lacks something says what.
    pub(crate) fn apply(&mut self, ipsec: &Ipsec, step: &Step) -> io::Result<()> {
        const ADD: u16 = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let (message, flags) = match step {
            Step::AddPolicy(policy) => (XfrmMessage::AddPolicy(policy_message(ipsec, policy)), ADD),
            Step::ChangePolicy { to, .. } => (XfrmMessage::UpdatePolicy(policy_message(ipsec, to)), NLM_F_ACK),
            Step::AddAssociation(association, keys) => {
                (XfrmMessage::AddSa(state_message(ipsec, association, keys)), ADD)
            }
            Step::RemovePolicy(policy) => {
                let (selector, direction) = (selector(policy.from, policy.to, ipsec.port), direction(policy));
                let user_policy_id = UserPolicyId { selector, index: 0, direction };
                (XfrmMessage::DeletePolicy(PolicyId { user_policy_id, nlas: Vec::new() }), NLM_F_ACK)
            }
            Step::RemoveAssociation(association) => {
                let (daddr, family) = (Address::from_ip(&association.to), family(association.to));
                let user_sa_id = UserSaId { daddr, spi: association.spi, family, proto: IPPROTO_ESP };
                (XfrmMessage::DeleteSa(StateId { user_sa_id, nlas: Vec::new() }), NLM_F_ACK)
            }
        };
        match self.converse(message, flags, |_| None::<()>) {
            Err(error) if step.removes() && is_missing(&error) => Ok(()),
            Err(error) => Err(explained(step, ipsec, error)),
            Ok(_) => Ok(()),
        }
    }

    fn converse<T>(
        &mut self,
        message: XfrmMessage,
        flags: u16,
        read: impl FnMut(XfrmMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        converse(&self.socket, &mut self.sequence, message, flags, read)
    }
}

fn is_missing(error: &io::Error) -> bool {
    [Errno::SRCH, Errno::NOENT].iter().any(|errno| refusal::number(error) == Some(errno.raw_os_error()))
}

/// An error of a step in words that help.
fn explained(step: &Step, ipsec: &Ipsec, error: io::Error) -> io::Error {
    let errno = refusal::number(&error).map(Errno::from_raw_os_error);
    match (step, errno) {
        (Step::AddAssociation(..), Some(Errno::PROTONOSUPPORT)) => {
            let module = if ipsec.local.is_ipv4() { "esp4" } else { "esp6" };
            lacks(&format!("ESP (module {module})"), &error)
        }
        (Step::AddAssociation(..), Some(Errno::NOSYS | Errno::NOENT)) => {
            lacks("hmac(sha256) with cbc(aes) for ESP (modules authenc, cbc, echainiv)", &error)
        }
        (Step::AddPolicy(_), Some(Errno::EXIST)) => {
            io::Error::new(error.kind(), format!("somebody else has an IPsec policy for UDP port {}", ipsec.port))
        }
        (Step::AddAssociation(..), Some(Errno::EXIST)) => {
            io::Error::new(error.kind(), "somebody else has one with this SPI (ip xfrm state)")
        }
        _ => error,
    }
}

fn lacks(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("this kernel has no {what}: {error}"))
}

fn state_message(ipsec: &Ipsec, association: &Association, keys: &Keys) -> StateMessage {
    let Association { from, to, spi } = association;
    let user_sa_info = UserSaInfo {
        // Nothing else comes by it (RFC 4301, section 5.2).
        selector: selector((*from).into(), (*to).into(), ipsec.port),
        id: Id { daddr: Address::from_ip(to), spi: *spi, proto: IPPROTO_ESP },
        saddr: Address::from_ip(from),
        reqid: ipsec.reqid,
        family: family(*to),
        mode: XFRM_MODE_TRANSPORT,
        ..UserSaInfo::default()
    };
    let integrity = AlgAuth {
        alg_name: name("hmac(sha256)"),
        alg_key_len: bits(&keys.integrity),
        alg_trunc_len: 128,
        alg_key: keys.integrity.to_vec(),
    };
    let cipher = Alg { alg_name: name("cbc(aes)"), alg_key_len: bits(&keys.cipher), alg_key: keys.cipher.to_vec() };
    let nlas = vec![
        XfrmAttrs::AuthenticationAlgTrunc(integrity),
        XfrmAttrs::EncryptionAlg(cipher),
        // Nobody looks at the sequence number; without this the 2^32nd packet would be the last.
        XfrmAttrs::ExtraFlags(XFRM_SA_XFLAG_OSEQ_MAY_WRAP),
    ];
    StateMessage { user_sa_info, nlas }
}

fn policy_message(ipsec: &Ipsec, policy: &Policy) -> PolicyMessage {
    let (priority, action, spi) = match policy.rule {
        Rule::Block => (BLOCK, XFRM_POLICY_BLOCK, 0),
        Rule::Protected(spi) => (PROTECT, XFRM_POLICY_ALLOW, spi),
    };
    let user_policy_info = UserPolicyInfo {
        selector: selector(policy.from, policy.to, ipsec.port),
        priority,
        direction: direction(policy),
        action,
        ..UserPolicyInfo::default()
    };
    // What blocks has one too, which the kernel only keeps: it says whose policy it is.
    let mut template = UserTemplate { reqid: ipsec.reqid, mode: XFRM_MODE_TRANSPORT, ..UserTemplate::default() };
    template.source(&policy.from.addr());
    template.destination(&policy.to.addr());
    template.protocol(IPPROTO_ESP);
    template.spi(spi);
    PolicyMessage { user_policy_info, nlas: vec![XfrmAttrs::Template(vec![template])] }
}

fn read_state(reply: &XfrmMessage, ipsec: &Ipsec) -> Option<Association> {
    let XfrmMessage::AddSa(StateMessage { user_sa_info: info, .. }) = reply else { return None };
    if info.reqid != ipsec.reqid || info.id.proto != IPPROTO_ESP {
        return None;
    }
    let from = address(info.saddr, info.family)?;
    Some(Association { from, to: address(info.id.daddr, info.family)?, spi: info.id.spi })
}

fn read_policy(reply: &XfrmMessage, ipsec: &Ipsec) -> Option<Policy> {
    let XfrmMessage::AddPolicy(PolicyMessage { user_policy_info: info, nlas }) = reply else { return None };
    let direction = match info.direction {
        XFRM_POLICY_IN => Direction::In,
        XFRM_POLICY_OUT => Direction::Out,
        _ => return None,
    };
    let template = nlas.iter().find_map(|attribute| match attribute {
        XfrmAttrs::Template(templates) => templates.first(),
        _ => None,
    })?;
    let Selector { family, saddr, prefixlen_s, daddr, prefixlen_d, dport, .. } = info.selector;
    if template.reqid != ipsec.reqid || dport != ipsec.port {
        return None;
    }
    let rule = match info.action {
        XFRM_POLICY_BLOCK => Rule::Block,
        _ => Rule::Protected(template.id.spi),
    };
    let from = IpNet::new(address(saddr, family)?, prefixlen_s).ok()?;
    Some(Policy { direction, from, to: IpNet::new(address(daddr, family)?, prefixlen_d).ok()?, rule })
}

/// Matches UDP to the network's port.
fn selector(from: IpNet, to: IpNet, port: u16) -> Selector {
    let mut selector = Selector { dport: port, dport_mask: u16::MAX, proto: IPPROTO_UDP, ..Selector::default() };
    selector.source_prefix(&from.addr(), from.prefix_len());
    selector.destination_prefix(&to.addr(), to.prefix_len());
    selector
}

fn direction(policy: &Policy) -> u8 {
    match policy.direction {
        Direction::In => XFRM_POLICY_IN,
        Direction::Out => XFRM_POLICY_OUT,
    }
}

fn family(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn address(address: Address, family: u16) -> Option<IpAddr> {
    match family {
        AF_INET => Some(address.to_ipv4().into()),
        AF_INET6 => Some(address.to_ipv6().into()),
        _ => None,
    }
}

/// An algorithm's name, filled up with zeros.
fn name(text: &str) -> [u8; 64] {
    let mut name = [0; 64];
    for (to, from) in name.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

fn bits(key: &[u8; 32]) -> u32 {
    u32::try_from(key.len() * 8).unwrap_or_default()
}
