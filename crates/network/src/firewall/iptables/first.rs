//! Host-first publishing (see `nft::first`) by iptables: the chain INPUT of the table `security` comes after those of the
//! other tables, so what gets there the host lets in. TEE (iptables-extensions(8)) makes the copy.

use super::rules::{Chain, Family, Jump, Table};
use super::translation::{host, names, published};
use crate::firewall::element::Field;
use crate::firewall::elements::Elements;
use crate::firewall::pair::{HOPS, links};

/// Added to the table nat: copies, and what the host itself sends, are translated.
pub(super) fn translate(name: &str, nat: &mut Table, elements: &Elements, family: Family) {
    let [_, back] = links(&name.to_lowercase());
    let local = format!("-m addrtype --dst-type LOCAL -j {name}-FIRST");
    nat.jumps.push(Jump { from: "PREROUTING", first: true, rule: format!("-i {back} {local}") });
    nat.jumps.push(Jump { from: "OUTPUT", first: true, rule: local });
    let rules = published(elements, family, "first_");
    nat.chains.push(Chain { name: format!("{name}-FIRST"), rules });
}

/// The table `security`. Packets from the pair are never copied again.
pub(super) fn admit(name: &str, elements: &Elements, family: Family) -> Table {
    let [out, back] = links(&name.to_lowercase());
    let hop = if family == Family::V4 { HOPS[0] } else { HOPS[1] };
    let set = family.set("first");
    let admitted = elements.of(&set).filter_map(|element| match element.key.as_slice() {
        [Field::Protocol(protocol), address, Field::Ports(first, last)] => {
            let to = host(address);
            Some(format!("! -i lo -p {protocol}{to} -m {protocol} --dport {first}:{last} -j {name}-ADMIT"))
        }
        _ => None,
    });
    let input = [format!("-i {back} -j DROP")].into_iter().chain(names(elements, family)).chain(admitted).collect();
    Table {
        name: "security",
        jumps: vec![Jump { from: "INPUT", first: true, rule: format!("-j {name}-INPUT") }],
        chains: vec![
            Chain { name: format!("{name}-INPUT"), rules: input },
            Chain {
                name: format!("{name}-ADMIT"),
                rules: vec![format!("-j TEE --gateway {hop} --oif {out}"), "-j DROP".to_owned()],
            },
        ],
    }
}
