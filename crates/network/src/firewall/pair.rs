//! The pair of links of host-first publishing: both ends are the host's, and a copy sent out by one comes in by the other.

use std::io;

use crate::netlink::Netlink;

/// Both ends have it, so that neither has to ask for the other's.
const MAC: [u8; 6] = [0x02, 0x50, 0x49, 0x45, 0x52, 0x46];
/// Where copies are sent, of each family. The hops are nobody: the pair does not ask for neighbours.
pub(super) const HOPS: [&str; 2] = ["169.254.80.1", "fe80::1"];

/// The pair: copies go out by the first and come in by the second.
pub(super) fn links(table: &str) -> [String; 2] {
    [format!("{table}f0"), format!("{table}f1")]
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
