//! Published ports as rules of the table nat.

use std::net::IpAddr;

use super::rules::Family;
use crate::dns;
use crate::firewall::element::{Element, Field};
use crate::firewall::elements::Elements;

/// What the maps with this prefix say.
pub(super) fn published(elements: &Elements, family: Family, prefix: &str) -> Vec<String> {
    // The kernel cannot route an answer to ::1 back, so that address is left to programs of the host.
    let loopback = (family == Family::V6).then(|| "-d ::1/128 -j RETURN".to_owned());
    let maps = ["publish", "range"].map(|map| family.set(&format!("{prefix}{map}")));
    let all = maps.iter().flat_map(|map| elements.of(map)).filter_map(translation);
    loopback.into_iter().chain(names(elements, family)).chain(all).collect()
}

/// At a gateway names are asked for.
pub(super) fn names(elements: &Elements, family: Family) -> Vec<String> {
    let set = family.set("names");
    let addresses = elements.of(&set).filter_map(|element| match element.key.as_slice() {
        [Field::Address(address)] => Some(address),
        _ => None,
    });
    let rule = |address, protocol| format!("-d {address} -p {protocol} -m {protocol} --dport {} -j RETURN", dns::PORT);
    addresses.flat_map(|address| ["udp", "tcp"].map(|protocol| rule(address, protocol))).collect()
}

/// The match of the host's address; none for all of them.
pub(super) fn host(address: &Field) -> String {
    match address {
        Field::Address(address) => format!(" -d {address}"),
        _ => String::new(),
    }
}

/// (protocol, host address, ports) : address [. port]
fn translation(element: &Element) -> Option<String> {
    let [Field::Protocol(protocol), to, Field::Ports(first, last)] = element.key.as_slice() else { return None };
    let host = host(to);
    let ports = if first == last { first.to_string() } else { format!("{first}:{last}") };
    let to = match element.value.as_slice() {
        [Field::Address(address)] => address.to_string(),
        [Field::Address(IpAddr::V4(address)), Field::Ports(port, _)] => format!("{address}:{port}"),
        [Field::Address(IpAddr::V6(address)), Field::Ports(port, _)] => format!("[{address}]:{port}"),
        _ => return None,
    };
    Some(format!("-p {protocol}{host} -m {protocol} --dport {ports} -j DNAT --to-destination {to}"))
}
