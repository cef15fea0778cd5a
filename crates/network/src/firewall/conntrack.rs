//! Forgets UDP and SCTP flows whose translation has changed.
//!
//! NAT is decided by a flow's first packet. A client that goes on sending from one port, as SCTP's often do in each
//! association, would otherwise talk to the container that had the published port before, or to nobody. Of TCP the
//! kernel forgets a connection by itself when another one begins.

use std::io;

use rtnetlink::sys::Socket;

use super::socket;
use crate::model::{PortMapping, Protocol};

const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// nlmsghdr and nfgenmsg.
const HEADERS: usize = 16 + 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const NESTED: u16 = 0x8000;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// One flow: the address family, and the original direction's tuple as the kernel wrote it.
struct Flow {
    family: u8,
    tuple: Vec<u8>,
}

/// Forgets the flows to these host ports. Without a UDP or SCTP port among them nothing is asked.
///
/// # Errors
/// The kernel's.
pub fn forget(ports: &[PortMapping]) -> io::Result<()> {
    if ports.iter().all(|port| port.protocol == Protocol::Tcp) {
        return Ok(());
    }
    let wanted = |protocol, number| {
        let is = |port: &PortMapping| number_of(port.protocol) == Some(protocol);
        ports.iter().any(|port| is(port) && (port.host_port..=port.last_host_port()).contains(&number))
    };
    let socket = socket::open()?;
    for flow in flows(&socket, &wanted)? {
        let mut attribute = Vec::with_capacity(flow.tuple.len() + 4);
        attribute.extend(((flow.tuple.len() + 4) as u16).to_ne_bytes());
        attribute.extend((CTA_TUPLE_ORIG | NESTED).to_ne_bytes());
        attribute.extend(&flow.tuple);
        socket.send(&message(CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, flow.family, &attribute), 0)?;
        // A flow that ended meanwhile is as good.
        socket.recv_from_full()?;
    }
    socket::leave(socket);
    Ok(())
}

/// IPPROTO_* of linux/in.h, of protocols whose flows stay.
fn number_of(protocol: Protocol) -> Option<u8> {
    match protocol {
        Protocol::Udp => Some(UDP),
        Protocol::Sctp => Some(SCTP),
        Protocol::Tcp => None,
    }
}

fn flows(socket: &Socket, wanted: &dyn Fn(u8, u16) -> bool) -> io::Result<Vec<Flow>> {
    socket.send(&message(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, 0, &[]), 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Some((message, next)) = split(rest, 4) {
            rest = next;
            match u16_at(message, 4) {
                Some(NLMSG_DONE) => return Ok(found),
                Some(NLMSG_ERROR) => {
                    let code = message.get(16..20).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                    return Err(io::Error::from_raw_os_error(-code));
                }
                _ => found.extend(
                    read(message).filter(|(_, protocol, port)| wanted(*protocol, *port)).map(|(flow, ..)| flow),
                ),
            }
        }
    }
}

/// A UDP or SCTP flow, its protocol, and the port it was sent to.
fn read(message: &[u8]) -> Option<(Flow, u8, u16)> {
    let tuple = attribute(message.get(HEADERS..)?, CTA_TUPLE_ORIG)?;
    let protocol = attribute(tuple, CTA_TUPLE_PROTO)?;
    let number = *attribute(protocol, CTA_PROTO_NUM)?.first().filter(|number| matches!(**number, UDP | SCTP))?;
    let port = u16::from_be_bytes(attribute(protocol, CTA_PROTO_DST_PORT)?.get(..2)?.try_into().ok()?);
    Some((Flow { family: *message.get(16)?, tuple: tuple.to_vec() }, number, port))
}

/// The first attribute of this type.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some((one, rest)) = split(attributes, 2) {
        if u16_at(one, 2)? & 0x3fff == kind {
            return one.get(4..);
        }
        attributes = rest;
    }
    None
}

/// The first record of a list, whose length stands in its first `width` bytes, and the rest after padding.
fn split(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let length = match width {
        2 => usize::from(u16_at(bytes, 0)?),
        _ => u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize,
    };
    let record = bytes.get(..length).filter(|_| length >= 4)?;
    Some((record, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let total = HEADERS + attributes.len().next_multiple_of(4);
    let mut bytes = Vec::with_capacity(total);
    bytes.extend((total as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes.resize(total, 0);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn nested(kind: u16, inner: &[u8]) -> Vec<u8> {
        let mut bytes = [((inner.len() + 4) as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(inner);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(protocol: u8) -> Vec<u8> {
        let ports = [nested(1, &[protocol]), nested(2, &[1, 2]), nested(3, &5353_u16.to_be_bytes())].concat();
        [nested(1 | NESTED, &nested(1, &[10, 0, 0, 1])), nested(2 | NESTED, &ports)].concat()
    }

    #[test]
    fn a_flow_is_read() {
        let flow_of = |protocol| read(&message(CT_GET, 0, 2, &nested(1 | NESTED, &tuple(protocol))));
        for protocol in [UDP, SCTP] {
            let (flow, number, port) = flow_of(protocol).unwrap();
            assert_eq!((flow.family, flow.tuple, number, port), (2, tuple(protocol), protocol, 5353));
        }
        assert!(flow_of(6).is_none());
        assert!(read(&[0; 10]).is_none());
    }
}
