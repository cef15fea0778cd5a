//! The firewall as nftables: one table of our own, in family inet, and few more.
//!
//! The chains never change. What networks and endpoints need are elements of the table's sets and maps: they are added
//! and deleted over netlink, one transaction each ([`wire`]). The whole table is written by `nft -f -`, one transaction too.
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

mod first;
mod inspect;
mod netfilter;
mod policies;
pub mod probe;
mod run;
mod wire;

pub(super) use run::Nft;

use super::Elements;
use super::pair::links;
use crate::dns;

/// The sets and maps. Keys of the port maps are (protocol, host address, host port), with intervals.
const DECLARATIONS: &str = "\
  set bridges { type ifname; }
  set internal { type ifname; }
  set open { type ifname; }
  set strict { type ifname; }
  set same { type ifname . ifname; }
  set own4 { type ifname . ipv4_addr; flags interval; }
  set own6 { type ifname . ipv6_addr; flags interval; }
  set masquerade4 { type ipv4_addr; flags interval; }
  set masquerade6 { type ipv6_addr; flags interval; }
  set names4 { type ipv4_addr; }
  set names6 { type ipv6_addr; }
  map outbound4 { type ipv4_addr : ipv4_addr; flags interval; }
  map outbound6 { type ipv6_addr : ipv6_addr; flags interval; }
  map publish4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; }
  map publish6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; flags interval; }
  map range4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr; flags interval; }
  map range6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr; flags interval; }
  map first_publish4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; }
  map first_publish6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service; flags interval; }
  map first_range4 { type inet_proto . ipv4_addr . inet_service : ipv4_addr; flags interval; }
  map first_range6 { type inet_proto . ipv6_addr . inet_service : ipv6_addr; flags interval; }
";

/// All tables with these elements, replacing what was there. `stale` are families of tables that are there and no
/// longer needed.
#[must_use]
pub fn ruleset(table: &str, elements: &Elements, stale: &[&str]) -> String {
    let elements = elements.copied(elements.host_first());
    let fresh = |family: &str| format!("table {family} {table}\ndelete table {family} {table}\n");
    let mut text: String = stale.iter().map(|family| fresh(family)).collect();
    let [_, back] = links(table);
    let _ = write!(
        text,
        "{}table inet {table} {{\n{}{}{}{}{}}}\n",
        fresh("inet"),
        DECLARATIONS,
        policies::routed(elements.compiled()),
        publishing("publish", ""),
        publishing("publish_first", "first_"),
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

/// A chain that translates to what the maps with this prefix say. The kernel cannot route an answer to ::1 back, so that
/// address is left to programs of the host; at the gateways names are asked for.
fn publishing(chain: &str, prefix: &str) -> String {
    let mut text = format!("  chain {chain} {{\n    ip6 daddr ::1 return\n");
    for (family, digit) in [("ip", '4'), ("ip6", '6')] {
        let _ = writeln!(text, "    {} {family} daddr @names{digit} return", names_port());
    }
    for (family, digit) in [("ip", '4'), ("ip6", '6')] {
        for map in ["publish", "range"] {
            let key = format!("meta l4proto . {family} daddr . th dport");
            let _ = writeln!(
                text,
                "    meta l4proto {{ tcp, udp, sctp }} dnat {family} to {key} map @{prefix}{map}{digit}"
            );
        }
    }
    text + "  }\n"
}

/// Matches what asks for names.
fn names_port() -> String {
    format!("meta l4proto {{ tcp, udp }} th dport {}", dns::PORT)
}

const CHAINS: &str = r#"
  # Bridges route to 127.0.0.0/8 (published ports on loopback); nobody outside may.
  chain guard {
    type filter hook prerouting priority -300; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
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
    ct state established,related accept
    # What a bridge of a VRF sends comes by the VRF's own link; the bridge is the slave interface then.
    iifname != @bridges oifname != @bridges meta sdifname != @bridges accept
    jump policies
    iifname . oifname @same accept
    meta sdifname . oifname @same accept
    iifname @internal reject with icmpx type admin-prohibited
    meta sdifname @internal reject with icmpx type admin-prohibited
    oifname @internal drop
    iifname @strict oifname @bridges reject with icmpx type admin-prohibited
    meta sdifname @strict oifname @bridges reject with icmpx type admin-prohibited
    iifname @bridges oifname @strict reject with icmpx type admin-prohibited
    ct status dnat accept
    iifname @open oifname @open accept
    meta sdifname @open oifname @open accept
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
