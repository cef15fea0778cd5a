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

mod apply;
pub mod conntrack;
mod elements;
pub mod probe;

pub use apply::Firewall;
pub use elements::Elements;

/// The whole table with these elements, replacing what was there.
#[must_use]
pub fn ruleset(table: &str, elements: &Elements) -> String {
    format!(
        "table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{}{CHAINS}}}\n{}",
        elements::DECLARATIONS,
        elements.change(table, "add")
    )
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

/// Takes the table away, fine when it is not there.
#[must_use]
pub fn absence(table: &str) -> String {
    format!("table inet {table}\ndelete table inet {table}\n")
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

  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local jump publish
  }

  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }

  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname != @bridges oifname != @bridges accept
    ct state established,related accept
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
    oifname != @bridges ip saddr @masquerade4 masquerade
    oifname != @bridges ip6 saddr @masquerade6 masquerade
  }
"#;

#[cfg(test)]
mod tests;
