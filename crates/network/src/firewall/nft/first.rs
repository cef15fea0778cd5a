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

use std::io;

use crate::netlink::Netlink;

/// After the host's filters: 0 is `filter`, 50 `security`.
const PRIORITY: i32 = 300;
/// Both ends have it, so that neither has to ask for the other's.
const MAC: [u8; 6] = [0x02, 0x50, 0x49, 0x45, 0x52, 0x46];

/// The pair: copies go out by the first and come in by the second.
pub(super) fn links(table: &str) -> [String; 2] {
    [format!("{table}f0"), format!("{table}f1")]
}

/// The tables of families ip and ip6. Packets from the pair are never copied again.
pub(super) fn tables(table: &str) -> String {
    let [out, back] = links(table);
    let one = |family: &str, set: &str, kind: &str, hop: &str| {
        format!(
            "table {family} {table} {{\n  set {set} {{ type inet_proto . {kind} . inet_service; flags interval; }}\n  \
             chain admitted {{\n    dup to {hop} device \"{out}\"\n    drop\n  }}\n  chain input {{\n    \
             type filter hook input priority {PRIORITY}; policy accept;\n    iifname \"{back}\" drop\n    \
             iifname != \"lo\" meta l4proto {{ tcp, udp, sctp }} meta l4proto . {family} daddr . th dport @{set} jump \
             admitted\n  }}\n}}\n"
        )
    };
    // The hops are nobody: the pair does not ask for neighbours.
    one("ip", "first4", "ipv4_addr", "169.254.80.1") + &one("ip6", "first6", "ipv6_addr", "fe80::1")
}

/// Makes the pair, if it is not there.
pub(super) fn make_links(table: &str) -> io::Result<()> {
    let [out, back] = links(table);
    let mut netlink = Netlink::open()?;
    if netlink.link(&back)?.is_some() {
        return Ok(());
    }
    netlink.add_pair(&out, &back, MAC)?;
    // The copies come from everywhere.
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{back}/rp_filter"), "0")?;
    match std::fs::write(format!("/proc/sys/net/ipv6/conf/{back}/accept_ra"), "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the pair; fine when it is not there.
pub(super) fn remove_links(table: &str) -> io::Result<()> {
    Netlink::open()?.delete_link(&links(table)[0]).map(drop)
}
