//! Elements as rules: pure functions.

use ipnet::IpNet;

use super::{first, policies, translation};
use crate::firewall::element::{Element, Field};
use crate::firewall::elements::Elements;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Of the names of sets.
    pub(super) fn set(self, name: &str) -> String {
        let digit = if self == Self::V4 { '4' } else { '6' };
        format!("{name}{digit}")
    }

    pub(super) fn reject(self) -> &'static str {
        match self {
            Self::V4 => "-j REJECT --reject-with icmp-admin-prohibited",
            Self::V6 => "-j REJECT --reject-with icmp6-adm-prohibited",
        }
    }
}

/// Where a chain of the kernel's calls one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) from: &'static str,
    /// Before all other rules, or after them.
    pub(super) first: bool,
    /// Match and target.
    pub(super) rule: String,
}

/// A chain of ours, whose rules are without `-A CHAIN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) rules: Vec<String>,
}

/// What lies in one of the kernel's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) jumps: Vec<Jump>,
    pub(super) chains: Vec<Chain>,
}

/// All of a stack, for one family.
pub(super) fn tables(name: &str, elements: &Elements, family: Family) -> Vec<Table> {
    let mut tables = vec![filter(name, elements, family)];
    // Not every kernel translates IPv6.
    if family == Family::V4 || elements.has_ipv6() {
        let mut nat = nat(name, elements, family);
        if elements.host_first() {
            first::translate(name, &mut nat, elements, family);
            tables.push(first::admit(name, elements, family));
        }
        tables.push(nat);
    }
    if family == Family::V4 {
        tables.push(raw(name));
    }
    tables
}

fn chain(name: &str, word: &str, rules: Vec<String>) -> Chain {
    Chain { name: format!("{name}-{word}"), rules }
}

fn jump(from: &'static str, first: bool, rule: String) -> Jump {
    Jump { from, first, rule }
}

/// Bridges route to 127.0.0.0/8 (published ports on loopback); nobody outside may.
fn raw(name: &str) -> Table {
    Table {
        name: "raw",
        jumps: vec![jump("PREROUTING", true, format!("-j {name}-GUARD"))],
        chains: vec![chain(name, "GUARD", vec!["! -i lo -d 127.0.0.0/8 -j DROP".into()])],
    }
}

fn nat(name: &str, elements: &Elements, family: Family) -> Table {
    let publish = format!("-m addrtype --dst-type LOCAL -j {name}-PUBLISH");
    Table {
        name: "nat",
        jumps: vec![
            jump("PREROUTING", true, publish.clone()),
            jump("OUTPUT", true, publish),
            jump("POSTROUTING", true, format!("-j {name}-MASQ")),
        ],
        chains: vec![
            chain(name, "PUBLISH", translation::published(elements, family, "")),
            chain(name, "MASQ", masqueraded(elements, family)),
        ],
    }
}

fn masqueraded(elements: &Elements, family: Family) -> Vec<String> {
    let bridges: Vec<&str> = links(elements, "bridges");
    let mut rules = Vec::new();
    if family == Family::V4 {
        rules.extend(bridges.iter().map(|link| format!("-s 127.0.0.0/8 -o {link} -j MASQUERADE")));
    }
    let (own, out, outbound) = (family.set("own"), family.set("masquerade"), family.set("outbound"));
    rules.extend(elements.of(&own).filter_map(|element| match element.key.as_slice() {
        [Field::Link(link), Field::Subnet(subnet)] => {
            Some(format!("-s {subnet} -o {link} -m conntrack --ctstate DNAT -j MASQUERADE"))
        }
        _ => None,
    }));
    // From here on it leaves the host.
    rules.extend(bridges.iter().map(|link| format!("-o {link} -j RETURN")));
    rules.extend(elements.of(&outbound).filter_map(|element| {
        match (element.key.as_slice(), element.value.as_slice()) {
            ([Field::Subnet(subnet)], [Field::Address(ip)]) => Some(format!("-s {subnet} -j SNAT --to-source {ip}")),
            _ => None,
        }
    }));
    rules.extend(subnets(elements, &out).map(|subnet| format!("-s {subnet} -j MASQUERADE")));
    rules
}

fn filter(name: &str, elements: &Elements, family: Family) -> Table {
    let bridges = links(elements, "bridges");
    let mut chains = vec![
        chain(name, "DENY", denied(name, elements, family)),
        chain(name, "OPEN", {
            let others = links(elements, "open");
            let open = others.iter().map(|link| format!("-o {link} -j RETURN"));
            open.chain([format!("-g {name}-TO")]).collect()
        }),
        // To, and from, any of the networks.
        chain(name, "TO", bridges.iter().map(|link| format!("-o {link} {}", family.reject())).collect()),
        chain(name, "FROM", bridges.iter().map(|link| format!("-i {link} {}", family.reject())).collect()),
        chain(
            name,
            "ALLOW",
            bridges.iter().flat_map(|link| [format!("-i {link} -j ACCEPT"), format!("-o {link} -j ACCEPT")]).collect(),
        ),
    ];
    chains.extend(policies::chains(name, elements.compiled(), family));
    Table {
        name: "filter",
        jumps: vec![
            jump("FORWARD", true, format!("-j {name}-DENY")),
            jump("FORWARD", false, format!("-j {name}-ALLOW")),
        ],
        chains,
    }
}

/// In the order of the nft table's chain `forward`; RETURN leaves it to the host's rules.
fn denied(name: &str, elements: &Elements, family: Family) -> Vec<String> {
    let [bridges, internal, strict, open] = ["bridges", "internal", "strict", "open"].map(|set| links(elements, set));
    let reject = family.reject();
    let mut rules = vec!["-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN".to_owned()];
    if !elements.compiled().is_empty() {
        rules.push(format!("-j {}", policies::first(name)));
    }
    rules.extend(bridges.iter().map(|link| format!("-i {link} -o {link} -j RETURN")));
    rules.extend(internal.iter().flat_map(|link| [format!("-i {link} {reject}"), format!("-o {link} -j DROP")]));
    rules.extend(
        strict.iter().flat_map(|link| [format!("-i {link} -j {name}-TO"), format!("-o {link} -j {name}-FROM")]),
    );
    rules.push("-m conntrack --ctstate DNAT -j RETURN".to_owned());
    rules.extend(open.iter().map(|link| format!("-i {link} -g {name}-OPEN")));
    rules.extend(bridges.iter().map(|link| format!("-i {link} -j {name}-TO")));
    rules.extend(bridges.iter().map(|link| format!("-o {link} -j DROP")));
    rules
}

fn links<'a>(elements: &'a Elements, set: &str) -> Vec<&'a str> {
    let link = |element: &'a Element| match element.key.first() {
        Some(Field::Link(link)) => Some(link.as_str()),
        _ => None,
    };
    elements.of(set).filter_map(link).collect()
}

fn subnets(elements: &Elements, set: &str) -> impl Iterator<Item = IpNet> {
    elements.of(set).filter_map(|element| match element.key.as_slice() {
        [Field::Subnet(subnet)] => Some(*subnet),
        _ => None,
    })
}
