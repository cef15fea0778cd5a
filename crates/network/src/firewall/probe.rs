//! Asks nf_tables itself: a look at a table costs microseconds here, an `nft` process milliseconds.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFTA_TABLE_NAME: u16 = 1;
const NFPROTO_INET: u8 = 1;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// Group of linux/netfilter/nfnetlink.h that hears of every change of tables and rules.
const NFNLGRP_NFTABLES: u32 = 7;
/// nlmsghdr and nfgenmsg.
const HEADERS: usize = 16 + 4;

/// Whether a table of family inet is there.
///
/// # Errors
/// The kernel's.
pub fn table_exists(table: &str) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&get_table(table), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    if message_type(&answer) != Some(NLMSG_ERROR) {
        return Ok(true);
    }
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match io::Error::from_raw_os_error(-code) {
        error if error.kind() == io::ErrorKind::NotFound => Ok(false),
        error => Err(error),
    }
}

/// A socket that hears when tables are removed.
pub struct Removals {
    socket: Socket,
    table: String,
}

impl Removals {
    /// Listens for the removal of `table`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(table: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.add_membership(NFNLGRP_NFTABLES)?;
        // A flood of changes that overruns the buffer must not end the watch.
        let _ = socket.set_no_enobufs(true);
        Ok(Self { socket, table: table.to_owned() })
    }

    /// Waits until the table was removed. May return without cause.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self) -> io::Result<()> {
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if removes(&datagram, &self.table) {
                return Ok(());
            }
        }
    }
}

fn removes(mut datagram: &[u8], table: &str) -> bool {
    let wanted = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE;
    while let Some(length) = datagram.get(0..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes) {
        let end = (length as usize).max(16).min(datagram.len());
        let (message, rest) = datagram.split_at(end);
        if message_type(message) == Some(wanted) && table_name(message) == Some(table.as_bytes()) {
            return true;
        }
        datagram = &rest[(end.next_multiple_of(4) - end).min(rest.len())..];
    }
    false
}

/// The first attribute of a table's message is its name, ended by a zero.
fn table_name(message: &[u8]) -> Option<&[u8]> {
    let length = u16::from_ne_bytes(message.get(HEADERS..HEADERS + 2)?.try_into().ok()?) as usize;
    message.get(HEADERS + 4..(HEADERS + length).checked_sub(1)?)
}

fn message_type(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?))
}

fn get_table(table: &str) -> Vec<u8> {
    let attribute = 4 + table.len() + 1;
    let total = HEADERS + attribute.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(total);
    bytes.extend((total as u32).to_ne_bytes());
    bytes.extend((NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE).to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([NFPROTO_INET, 0, 0, 0]);
    bytes.extend((attribute as u16).to_ne_bytes());
    bytes.extend(NFTA_TABLE_NAME.to_ne_bytes());
    bytes.extend(table.as_bytes());
    bytes.resize(total, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_is_recognised_among_other_messages() {
        let mut removal = get_table("pier");
        removal[4..6].copy_from_slice(&(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE).to_ne_bytes());
        let datagram = [get_table("pier"), removal].concat();
        assert!(removes(&datagram, "pier"));
        assert!(!removes(&datagram, "pie"));
        assert!(!removes(&datagram[..30], "pier"));
        assert!(!removes(&[], "pier"));
    }
}
