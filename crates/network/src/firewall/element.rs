//! One element of a set or map: as nft writes it, and as the kernel has it in memory.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::Protocol;

/// IFNAMSIZ of linux/if.h: a link's name is a key of this many bytes.
const LINK_NAME: usize = 16;
/// Parts of a concatenated key lie at multiples of this many bytes.
const PART: usize = 4;

/// A part of a key or a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    Link(String),
    Protocol(Protocol),
    Address(IpAddr),
    Subnet(IpNet),
    /// First and last.
    Ports(u16, u16),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "\"{name}\""),
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Subnet(subnet) => write!(f, "{subnet}"),
            Self::Ports(first, last) if first == last => write!(f, "{first}"),
            Self::Ports(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl Field {
    /// The lowest and the highest value it stands for.
    fn bounds(&self) -> [Vec<u8>; 2] {
        let both = |bytes: Vec<u8>| [bytes.clone(), bytes];
        match self {
            Self::Link(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(LINK_NAME, 0);
                both(bytes)
            }
            Self::Protocol(protocol) => both(vec![number(*protocol)]),
            Self::Address(address) => both(octets(*address)),
            Self::Subnet(subnet) => [octets(subnet.network()), octets(subnet.broadcast())],
            Self::Ports(first, last) => [first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec()],
        }
    }
}

/// IPPROTO_* of linux/in.h.
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// What lies in the set or map `set`: a key and, in a map, its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: &'static str,
    pub(crate) key: Vec<Field>,
    pub(crate) value: Vec<Field>,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |fields: &[Field]| fields.iter().map(ToString::to_string).collect::<Vec<String>>().join(" . ");
        f.write_str(&text(&self.key))?;
        if self.value.is_empty() { Ok(()) } else { write!(f, " : {}", text(&self.value)) }
    }
}

impl Element {
    /// The lowest and the highest key.
    pub(crate) fn keys(&self) -> [Vec<u8>; 2] {
        concatenated(&self.key)
    }

    /// The value; empty in a set.
    pub(crate) fn data(&self) -> Vec<u8> {
        let [data, _] = concatenated(&self.value);
        data
    }
}

fn concatenated(fields: &[Field]) -> [Vec<u8>; 2] {
    if let [field] = fields {
        return field.bounds();
    }
    let mut whole = [Vec::new(), Vec::new()];
    for field in fields {
        for (whole, part) in whole.iter_mut().zip(field.bounds()) {
            whole.extend(part);
            whole.resize(whole.len().next_multiple_of(PART), 0);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_published_port_in_both_ways_of_writing() {
        let element = Element {
            set: "publish4",
            key: vec![
                Field::Protocol(Protocol::Tcp),
                Field::Subnet("0.0.0.0/0".parse().unwrap()),
                Field::Ports(8080, 8081),
            ],
            value: vec![Field::Address("10.1.0.2".parse().unwrap()), Field::Ports(80, 80)],
        };
        assert_eq!(element.to_string(), "tcp . 0.0.0.0/0 . 8080-8081 : 10.1.0.2 . 80");
        assert_eq!(
            element.keys(),
            [[6, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0x90, 0, 0], [6, 0, 0, 0, 255, 255, 255, 255, 0x1f, 0x91, 0, 0]]
        );
        assert_eq!(element.data(), [10, 1, 0, 2, 0, 80, 0, 0]);
    }

    #[test]
    fn a_lone_part_is_not_padded() {
        let one = |field| Element { set: "s", key: vec![field], value: Vec::new() };
        assert_eq!(one(Field::Link("br0".into())).keys()[0], *b"br0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(one(Field::Ports(1, 2)).keys(), [[0, 1], [0, 2]]);
        assert!(one(Field::Ports(1, 2)).data().is_empty());
    }
}
