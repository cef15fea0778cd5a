//! Host-first publishing: the host's own rules for incoming packets decide about published ports too.
//!
//! A published port is translated before the host's input chains could see it, so neither ufw's nor firewalld's deny
//! rules hold for it. On a network with the option `host_first=true` the first packet of a connection is *not*
//! translated. It takes the way of any packet to the host. What comes through all input chains at priorities below
//! [`PRIORITY`] is sent, as a copy (`dup`, nft(8)), into a veth pair whose both ends are the host's, and the packet
//! itself ends there. The copy comes in again by the pair's other end, and only there is it translated; the kernel's
//! connection tracking then takes every further packet along without another look. The client sees no delay and the
//! server its address.
//!
//! Connections from the host itself are translated at once, as on other networks: output chains have seen them.
//!
//! Needs the kernel's nft_dup_ipv4 and, for IPv6, nft_dup_ipv6. Strict reverse-path filtering on all links
//! (`net.ipv4.conf.all.rp_filter=1`) drops the copies.

use super::names_port;
use crate::firewall::pair::{HOPS, links};

/// After the host's filters: 0 is `filter`, 50 `security`.
const PRIORITY: i32 = 300;

/// The tables of families ip and ip6. Packets from the pair are never copied again.
pub(super) fn tables(table: &str) -> String {
    let [out, back] = links(table);
    let one = |family: &str, set: &str, kind: &str, hop: &str| {
        let (names, asked) = (set.replace("first", "first_names"), names_port());
        format!(
            "table {family} {table} {{\n  set {set} {{ type inet_proto . {kind} . inet_service; flags interval; }}\n  \
             set {names} {{ type {kind}; flags interval; }}\n  \
             chain admitted {{\n    dup to {hop} device \"{out}\"\n    drop\n  }}\n  chain input {{\n    \
             type filter hook input priority {PRIORITY}; policy accept;\n    iifname \"{back}\" drop\n    \
             {asked} {family} daddr @{names} accept\n    \
             iifname != \"lo\" meta l4proto {{ tcp, udp, sctp }} meta l4proto . {family} daddr . th dport @{set} jump \
             admitted\n  }}\n}}\n"
        )
    };
    one("ip", "first4", "ipv4_addr", HOPS[0]) + &one("ip6", "first6", "ipv6_addr", HOPS[1])
}
