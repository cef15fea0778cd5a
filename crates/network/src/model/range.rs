//! The part of a subnet that addresses are taken from, and how it is written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde::{Deserialize, Serialize};

/// From one address to another of the same family, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AddressRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
}

impl From<IpNet> for AddressRange {
    fn from(net: IpNet) -> Self {
        Self { first: net.network(), last: net.broadcast() }
    }
}

/// `10.1.2.128/25` or `10.1.2.20-10.1.2.50`. The error says what is wrong with it.
impl FromStr for AddressRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let why = "not a CIDR like 10.1.2.128/25, nor FIRST-LAST";
        let Some((first, last)) = text.split_once('-') else {
            return text.parse::<IpNet>().map(Self::from).map_err(|_| why);
        };
        let (first, last): (IpAddr, IpAddr) = (first.parse().map_err(|_| why)?, last.parse().map_err(|_| why)?);
        if first.is_ipv4() != last.is_ipv4() {
            return Err("its ends are of two families");
        }
        if first > last { Err("its last address is before its first") } else { Ok(Self { first, last }) }
    }
}

/// A CIDR where it is one.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nets: Box<dyn Iterator<Item = IpNet>> = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Box::new(Ipv4Subnets::new(first, last, 0).map(IpNet::V4)),
            (IpAddr::V6(first), IpAddr::V6(last)) => Box::new(Ipv6Subnets::new(first, last, 0).map(IpNet::V6)),
            _ => Box::new(std::iter::empty()),
        };
        match (nets.next(), nets.next()) {
            (Some(net), None) => write!(f, "{net}"),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for AddressRange {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_written() {
        for (text, first, last) in [
            ("10.1.2.128/25", "10.1.2.128", "10.1.2.255"),
            ("10.1.2.20-10.1.2.50", "10.1.2.20", "10.1.2.50"),
            ("fd00::100/120", "fd00::100", "fd00::1ff"),
            ("fd00::2-fd00::9", "fd00::2", "fd00::9"),
            ("10.1.2.7/32", "10.1.2.7", "10.1.2.7"),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!((range.first.to_string(), range.last.to_string()), (first.into(), last.into()));
            assert_eq!(range.to_string(), text);
            assert_eq!(serde_json::from_value::<AddressRange>(text.into()).unwrap(), range);
        }
        for bad in ["", "10.1.2.0", "10.1.2.9-10.1.2.3", "10.1.2.3-fd00::1", "a-b"] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
    }
}
