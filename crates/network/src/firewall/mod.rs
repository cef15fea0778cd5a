//! The firewall: one nftables table of our own, in family inet.
//!
//! The chains never change. What a network or an endpoint needs are *elements* of the table's sets and maps
//! ([`Elements`]), so that an attach without published ports adds nothing at all and one with a range of a thousand
//! ports adds one element. Every change is one transaction of `nft -f -`.
//!
//! A published port is reached from outside, from the host's own addresses and from 127.0.0.1, by other endpoints and
//! by the endpoint itself, in each family that the endpoint has an address of. Not by ::1: the kernel has no
//! route_localnet for IPv6; there the connection is refused at once, so that clients go on to 127.0.0.1.
//!
//! The base chains sit at the standard priorities (`raw`, `dstnat`, `filter`, `srcnat`) with policy accept: other
//! tables may still deny what this one lets pass, and a drop elsewhere (docker's FORWARD policy) is final: no table
//! can overrule it.
//!
//! | chain | hook | priority |
//! |---|---|---|
//! | the keeper's guard: `localhost`, `forward` | prerouting, forward | -301, -1 |
//! | `guard` | prerouting | -300 |
//! | `prerouting`, `output` | prerouting, output (nat) | -100 |
//! | `forward` | forward | 0 |
//! | `postrouting` | postrouting (nat) | 100 |
//! | `input` in tables ip and ip6, only with host-first networks | input | 300 |
//! | `policies` in a table of family bridge, only with policies | forward | 0 |

use std::fmt::Write as _;

mod apply;
pub mod conntrack;
mod elements;
mod first;
mod policies;
pub mod probe;

pub use apply::Firewall;
pub use elements::Elements;

/// All tables with these elements, replacing what was there. `stale` are families of tables that are there and no
/// longer needed.
#[must_use]
pub fn ruleset(table: &str, elements: &Elements, stale: &[&str]) -> String {
    let fresh = |family: &str| format!("table {family} {table}\ndelete table {family} {table}\n");
    let mut text: String = stale.iter().map(|family| fresh(family)).collect();
    let [_, back] = first::links(table);
    let _ = write!(
        text,
        "{}table inet {table} {{\n{}{}{}}}\n",
        fresh("inet"),
        elements::DECLARATIONS,
        policies::routed(elements.compiled()),
        CHAINS.replace("$BACK", &back)
    );
    if elements.host_first() {
        text += &(fresh("ip") + &fresh("ip6") + &first::tables(table));
    }
    if !elements.compiled().is_empty() {
        text += &(fresh("bridge") + &policies::bridged(table, elements.compiled()));
    }
    text + &elements.change(table, "add")
}

/// Families, beside inet, that these elements need a table of.
fn families(elements: &Elements) -> Vec<&'static str> {
    let first = elements.host_first().then_some(["ip", "ip6"]).into_iter().flatten();
    first.chain((!elements.compiled().is_empty()).then_some("bridge")).collect()
}

/// Adds elements to a table that is there.
#[must_use]
pub fn addition(table: &str, elements: &Elements) -> String {
    elements.change(table, "add")
}

/// Takes elements out again.
#[must_use]
pub fn removal(table: &str, elements: &Elements) -> String {
    elements.change(table, "delete")
}

/// Takes tables of these families away, fine when they are not there.
#[must_use]
pub fn absence(table: &str, families: &[&str]) -> String {
    families.iter().map(|family| format!("table {family} {table}\ndelete table {family} {table}\n")).collect()
}

const CHAINS: &str = r#"
  # Bridges route to 127.0.0.0/8 (published ports on loopback); nobody outside may.
  chain guard {
    type filter hook prerouting priority -300; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
  }

  # The kernel cannot route an answer to ::1 back, so that address is left to programs of the host.
  chain publish {
    ip6 daddr ::1 return
    meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . ip daddr . th dport map @publish4
    meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . ip daddr . th dport map @range4
    meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . ip6 daddr . th dport map @publish6
    meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . ip6 daddr . th dport map @range6
  }

  chain publish_first {
    ip6 daddr ::1 return
    meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . ip daddr . th dport map @first_publish4
    meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . ip daddr . th dport map @first_range4
    meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . ip6 daddr . th dport map @first_publish6
    meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . ip6 daddr . th dport map @first_range6
  }

  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local jump publish
    iifname "$BACK" fib daddr type local jump publish_first
  }

  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
    fib daddr type local jump publish_first
  }

  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname != @bridges oifname != @bridges accept
    ct state established,related accept
    jump policies
    iifname . oifname @same accept
    iifname @internal reject with icmpx type admin-prohibited
    oifname @internal drop
    iifname @strict oifname @bridges reject with icmpx type admin-prohibited
    iifname @bridges oifname @strict reject with icmpx type admin-prohibited
    ct status dnat accept
    iifname @open oifname @open accept
    iifname @bridges oifname @bridges reject with icmpx type admin-prohibited
    oifname @bridges drop
  }

  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ct status dnat oifname . ip saddr @own4 masquerade
    ct status dnat oifname . ip6 saddr @own6 masquerade
    oifname != @bridges snat ip to ip saddr map @outbound4
    oifname != @bridges snat ip6 to ip6 saddr map @outbound6
    oifname != @bridges ip saddr @masquerade4 masquerade
    oifname != @bridges ip6 saddr @masquerade6 masquerade
  }
"#;

#[cfg(test)]
mod tests;
