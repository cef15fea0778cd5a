//! Which subnet, which address: pure choices. What is taken is an argument.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::{Error, Result};
use crate::model::{AddressRange, NewSubnet, Subnet};

/// Prefix length of the subnets that are taken from pools.
const POOL_PREFIX: u8 = 24;

/// The first subnet of the pools that overlaps nothing busy.
#[must_use]
pub fn free_subnet(pools: &[Ipv4Net], busy: &[IpNet]) -> Option<Ipv4Net> {
    pools
        .iter()
        .filter_map(|pool| pool.subnets(POOL_PREFIX.max(pool.prefix_len())).ok())
        .flatten()
        .find(|subnet| !busy.iter().any(|net| overlaps(net, &IpNet::V4(*subnet))))
}

/// A unique local IPv6 subnet (RFC 4193) with this random global id.
#[must_use]
pub fn unique_local(global_id: [u8; 5]) -> Ipv6Net {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&global_id);
    Ipv6Net::new_assert(Ipv6Addr::from(octets), 64)
}

/// Whether two subnets share an address.
#[must_use]
pub fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The first address that can be a host's.
#[must_use]
pub fn first_usable(subnet: &IpNet) -> IpAddr {
    from_bits(bounds(subnet).0, subnet)
}

/// Checks a subnet as typed, and fills in the gateway.
///
/// # Errors
/// [`Error::Invalid`] names what is wrong.
pub fn check(new: &NewSubnet) -> Result<Subnet> {
    let what = || format!("subnet {:?}", new.subnet);
    let subnet: IpNet = new.subnet.parse().map_err(|_| Error::invalid(what(), "not a CIDR like 10.1.2.0/24"))?;
    if subnet.addr() != subnet.network() {
        return Err(Error::invalid(what(), format!("host bits are set; meant is {}", subnet.trunc())));
    }
    let longest = if subnet.addr().is_ipv4() { 30 } else { 126 };
    if subnet.prefix_len() > longest || subnet.prefix_len() == 0 {
        return Err(Error::invalid(what(), format!("the prefix length is 1 to {longest}")));
    }
    let gateway = if new.gateway.is_empty() {
        first_usable(&subnet)
    } else {
        let what = || format!("gateway {:?}", new.gateway);
        let gateway: IpAddr = new.gateway.parse().map_err(|_| Error::invalid(what(), "not an IP address"))?;
        if !is_usable(&subnet, gateway) {
            return Err(Error::invalid(what(), format!("not a usable address of {subnet}")));
        }
        gateway
    };
    Ok(Subnet { range: check_range(&new.range, &subnet)?, subnet, gateway })
}

fn check_range(text: &str, subnet: &IpNet) -> Result<Option<AddressRange>> {
    if text.is_empty() {
        return Ok(None);
    }
    let what = || format!("address range {text:?}");
    let range: AddressRange = text.parse().map_err(|why: &str| Error::invalid(what(), why))?;
    if !subnet.contains(&range.first) || !subnet.contains(&range.last) {
        return Err(Error::invalid(what(), format!("not inside {subnet}")));
    }
    Ok(Some(range))
}

/// Whether an address can be a host's in this subnet.
#[must_use]
pub fn is_usable(subnet: &IpNet, address: IpAddr) -> bool {
    let (first, last) = bounds(subnet);
    subnet.contains(&address) && (first..=last).contains(&to_bits(address))
}

/// The next free address after `cursor`, round the subnet's range: an address that was just given back rests as long
/// as possible.
#[must_use]
pub fn next_address(subnet: &Subnet, used: &BTreeSet<IpAddr>, cursor: Option<IpAddr>) -> Option<IpAddr> {
    let (mut first, mut last) = bounds(&subnet.subnet);
    if let Some(range) = &subnet.range {
        first = first.max(to_bits(range.first));
        last = last.min(to_bits(range.last));
    }
    let start = cursor.map(|ip| to_bits(ip).saturating_add(1)).filter(|bits| (first..=last).contains(bits));
    let start = start.unwrap_or(first);
    (start..=last)
        .chain(first..start)
        .map(|bits| from_bits(bits, &subnet.subnet))
        .find(|address| *address != subnet.gateway && !used.contains(address))
}

/// First and last address for hosts.
fn bounds(subnet: &IpNet) -> (u128, u128) {
    let (network, broadcast) = (to_bits(subnet.network()), to_bits(subnet.broadcast()));
    match subnet {
        IpNet::V4(_) => (network + 1, broadcast - 1),
        // The first is the subnet-router anycast address; there is no broadcast.
        IpNet::V6(_) => (network + 1, broadcast),
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn from_bits(bits: u128, like: &IpNet) -> IpAddr {
    match like {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(bits as u32)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

/// A MAC address that follows from the endpoint's id: locally administered, unicast.
#[must_use]
pub fn mac_from_id(id: &str) -> [u8; 6] {
    let mut mac = [0x02; 6];
    for (byte, digits) in mac[1..].iter_mut().zip(id.as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
    }
    mac
}

/// `aa:bb:cc:dd:ee:ff`.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Reads a unicast MAC address.
///
/// # Errors
/// [`Error::Invalid`].
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let invalid = |why: &str| Error::invalid(format!("MAC address {text:?}"), why);
    let parts: Vec<u8> = text.split(':').map_while(|part| u8::from_str_radix(part, 16).ok()).collect();
    let mac = <[u8; 6]>::try_from(parts).map_err(|_| invalid("six hexadecimal bytes with colons are needed"))?;
    if text.split(':').count() != 6 {
        return Err(invalid("six hexadecimal bytes with colons are needed"));
    }
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(invalid("not the address of one link"));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str, range: &str) -> Subnet {
        check(&NewSubnet { subnet: text.into(), gateway: String::new(), range: range.into() }).unwrap()
    }

    #[test]
    fn a_pool_steps_round_what_is_busy() {
        let pools = ["10.88.0.0/16".parse().unwrap()];
        let busy: Vec<IpNet> = ["10.88.0.0/24", "10.88.1.128/30", "0.0.0.0/32"].map(|n| n.parse().unwrap()).into();
        assert_eq!(free_subnet(&pools, &busy), Some("10.88.2.0/24".parse().unwrap()));
        assert_eq!(free_subnet(&pools, &["10.0.0.0/8".parse().unwrap()]), None);
    }

    #[test]
    fn bad_subnets_are_named() {
        for (net, gateway, range, why) in [
            ("10.1.2.3/24", "", "", "meant is 10.1.2.0/24"),
            ("10.1.2.0/31", "", "", "1 to 30"),
            ("nonsense", "", "", "not a CIDR"),
            ("10.1.2.0/24", "10.1.3.1", "", "not a usable address"),
            ("10.1.2.0/24", "10.1.2.255", "", "not a usable address"),
            ("10.1.2.0/24", "", "10.1.3.0/25", "not inside"),
            ("10.1.2.0/24", "", "10.1.2.9-10.1.3.9", "not inside"),
            ("10.1.2.0/24", "", "10.1.2.9-10.1.2.3", "before its first"),
        ] {
            let new = NewSubnet { subnet: net.into(), gateway: gateway.into(), range: range.into() };
            assert!(check(&new).unwrap_err().to_string().contains(why), "{net} {gateway} {range}");
        }
    }

    #[test]
    fn a_small_subnet_runs_out() {
        let net = subnet("10.0.0.0/30", "");
        let mut used = BTreeSet::new();
        assert_eq!(net.gateway, "10.0.0.1".parse::<IpAddr>().unwrap());
        let only = next_address(&net, &used, None).unwrap();
        assert_eq!(only, "10.0.0.2".parse::<IpAddr>().unwrap());
        used.insert(only);
        assert_eq!(next_address(&net, &used, Some(only)), None);
    }

    #[test]
    fn mac_addresses() {
        assert_eq!(mac_text(parse_mac("02:42:ac:11:00:02").unwrap()), "02:42:ac:11:00:02");
        for bad in ["", "01:00:5e:00:00:01", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "zz:42:ac:11:00:02"] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
        assert_eq!(mac_from_id("0123456789ab")[0..3], [0x02, 0x01, 0x23]);
    }

    #[test]
    fn a_range_from_first_to_last_is_used_up() {
        let net = subnet("10.1.2.0/24", "10.1.2.20-10.1.2.22");
        let (mut used, mut cursor) = (BTreeSet::new(), None);
        while let Some(address) = next_address(&net, &used, cursor) {
            used.insert(address);
            cursor = Some(address);
        }
        let wanted: Vec<IpAddr> = ["10.1.2.20", "10.1.2.21", "10.1.2.22"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), wanted);
    }

    proptest! {
        #[test]
        fn every_address_is_given_once(prefix in 26_u8..=30, third in 0_u8..=255) {
            let net = IpNet::new("10.9.0.0".parse().unwrap(), prefix).unwrap();
            let net = subnet(&IpNet::new(IpAddr::V4(Ipv4Addr::new(10, 9, third, 0)), net.prefix_len()).unwrap().to_string(), "");
            let (mut used, mut cursor) = (BTreeSet::new(), None);
            while let Some(address) = next_address(&net, &used, cursor) {
                prop_assert!(is_usable(&net.subnet, address) && address != net.gateway);
                prop_assert!(used.insert(address));
                cursor = Some(address);
            }
            prop_assert_eq!(used.len(), (1_usize << (32 - prefix)) - 3);
        }

        #[test]
        fn a_freed_address_is_found_again(freed in 2_u8..=254) {
            let net = subnet("10.9.9.0/24", "");
            let freed: IpAddr = Ipv4Addr::new(10, 9, 9, freed).into();
            let used: BTreeSet<IpAddr> = (2..=254).map(|n| Ipv4Addr::new(10, 9, 9, n).into()).filter(|ip| *ip != freed).collect();
            prop_assert_eq!(next_address(&net, &used, Some(freed)), Some(freed));
        }

        #[test]
        fn a_range_is_kept_to(cursor in 1_u8..=254) {
            let net = subnet("fd00:1::/64", "fd00:1::100/120");
            let given = next_address(&net, &BTreeSet::new(), Some(IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, u16::from(cursor))))).unwrap();
            prop_assert!("fd00:1::100/120".parse::<IpNet>().unwrap().contains(&given));
        }
    }
}
