//! Asks nf_tables itself: a look at a table costs microseconds here, an `nft` process milliseconds.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_DELSET: u16 = 11;
const NFT_MSG_NEWGEN: u16 = 15;
const NFTA_TABLE_NAME: u16 = 1;
/// NFPROTO_* of linux/netfilter.h.
const FAMILIES: [(&str, u8); 4] = [("inet", 1), ("ip", 2), ("bridge", 7), ("ip6", 10)];
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// Group of linux/netfilter/nfnetlink.h that hears of every change of tables and rules.
const NFNLGRP_NFTABLES: u32 = 7;
/// nlmsghdr and nfgenmsg.
const HEADERS: usize = 16 + 4;

/// Whether a table of this family (inet, ip, ip6, bridge) is there. A kernel without the family has none.
///
/// # Errors
/// The kernel's.
pub fn table_exists(family: &str, table: &str) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&get_table(family, table), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    if message_type(&answer) != Some(NLMSG_ERROR) {
        return Ok(true);
    }
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    match io::Error::from_raw_os_error(-code) {
        error if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => Ok(false),
        error => Err(error),
    }
}

/// A socket that hears when somebody else removes the table, or chains, rules or sets of it.
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

    /// Waits for a transaction that removed something and did not make the table anew: this stack's own always do.
    /// May return without cause.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self) -> io::Result<()> {
        let mut so_far = Transaction::default();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if so_far.take(&datagram, &self.table) {
                return Ok(());
            }
        }
    }
}

/// What one transaction has done to the table so far.
#[derive(Default)]
struct Transaction {
    removed: bool,
    made: bool,
}

impl Transaction {
    /// Takes a datagram; whether a transaction that damaged the table has ended in it.
    fn take(&mut self, mut datagram: &[u8], table: &str) -> bool {
        let mut damaged = false;
        while let Some(length) = datagram.get(0..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes) {
            let end = (length as usize).max(16).min(datagram.len());
            let (message, rest) = datagram.split_at(end);
            let kind = message_type(message).filter(|kind| kind >> 8 == NFNL_SUBSYS_NFTABLES).map(|kind| kind & 0xff);
            let ours = table_name(message) == Some(table.as_bytes());
            match kind {
                Some(NFT_MSG_NEWGEN) => {
                    damaged |= self.removed && !self.made;
                    *self = Self::default();
                }
                Some(NFT_MSG_NEWTABLE) => self.made |= ours,
                Some(NFT_MSG_DELTABLE | NFT_MSG_DELCHAIN | NFT_MSG_DELRULE | NFT_MSG_DELSET) => self.removed |= ours,
                _ => {}
            }
            datagram = &rest[(end.next_multiple_of(4) - end).min(rest.len())..];
        }
        damaged
    }
}

/// The first attribute of a table's message is its name, ended by a zero.
fn table_name(message: &[u8]) -> Option<&[u8]> {
    let length = u16::from_ne_bytes(message.get(HEADERS..HEADERS + 2)?.try_into().ok()?) as usize;
    message.get(HEADERS + 4..(HEADERS + length).checked_sub(1)?)
}

fn message_type(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?))
}

fn get_table(family: &str, table: &str) -> Vec<u8> {
    let family = FAMILIES.iter().find(|(word, _)| *word == family).map_or(1, |(_, number)| *number);
    let attribute = 4 + table.len() + 1;
    let total = HEADERS + attribute.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(total);
    bytes.extend((total as u32).to_ne_bytes());
    bytes.extend((NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE).to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0, 0, 0]);
    bytes.extend((attribute as u16).to_ne_bytes());
    bytes.extend(NFTA_TABLE_NAME.to_ne_bytes());
    bytes.extend(table.as_bytes());
    bytes.resize(total, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, table: &str) -> Vec<u8> {
        let mut message = get_table("inet", table);
        message[4..6].copy_from_slice(&(NFNL_SUBSYS_NFTABLES << 8 | kind).to_ne_bytes());
        message
    }

    #[test]
    fn a_removal_is_told_from_a_replacement() {
        let damaged = |kinds: &[(u16, &str)]| {
            let datagram: Vec<u8> = kinds.iter().flat_map(|(kind, table)| message(*kind, table)).collect();
            Transaction::default().take(&datagram, "pier")
        };
        let end = (NFT_MSG_NEWGEN, "");
        assert!(damaged(&[(NFT_MSG_DELTABLE, "pier"), end]));
        assert!(damaged(&[(NFT_MSG_DELRULE, "pier"), end]));
        assert!(!damaged(&[(NFT_MSG_DELTABLE, "pie"), end]));
        assert!(!damaged(&[(NFT_MSG_DELRULE, "pier"), (NFT_MSG_DELTABLE, "pier"), (NFT_MSG_NEWTABLE, "pier"), end]));
        assert!(!damaged(&[]));
        assert!(!Transaction::default().take(&message(NFT_MSG_DELTABLE, "pier")[..30], "pier"));
    }
}
