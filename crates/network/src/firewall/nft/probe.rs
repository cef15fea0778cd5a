//! Asks nf_tables itself: a look at a table costs microseconds here, an `nft` process milliseconds.

use std::io;
use std::time::Duration;

use netlink_bindings::nftables::{Chained, OpNewtableDo};
use rtnetlink::sys::{Socket, protocols::NETLINK_NETFILTER};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::netfilter::{self, Message, SUBSYSTEM, messages};

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_DELSET: u16 = 11;
const NFT_MSG_NEWGEN: u16 = 15;
/// Group of linux/netfilter/nfnetlink.h that hears of every change of tables and rules.
const NFNLGRP_NFTABLES: u32 = 7;

/// Whether a table of this family (inet, ip, ip6, bridge) is there. A kernel without the family has none.
///
/// # Errors
/// The kernel's.
pub fn table_exists(family: &str, table: &str) -> io::Result<bool> {
    let mut request = Chained::new(1);
    request.request().op_gettable_do(&netfilter::header(family)).encode().push_name_bytes(table.as_bytes());
    let socket = crate::firewall::socket::open()?;
    socket.send(request.finalize().buf(), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match messages(&answer).next().map_or(Ok(()), |message| message.refusal()) {
        Err(error) if is_absence(&error) => Ok(false),
        answer => answer.map(|()| true),
    }
}

/// No table, no family, or no nf_tables at all (`EINVAL`: the subsystem is not known).
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

/// A transaction of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) enum Change {
    /// It removed the table, or chains, rules or sets of it. This stack's own make the table anew.
    OfTheTable,
    /// It removed something of the tables that iptables-nft has its rules in.
    OfIptables,
    /// Nothing came in time.
    None,
}

/// A socket that hears of changes.
pub(in crate::firewall) struct Changes {
    socket: Socket,
    table: String,
}

impl Changes {
    /// Hears of changes from now on.
    pub(in crate::firewall) fn of(table: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.add_membership(NFNLGRP_NFTABLES)?;
        // A flood of changes that overruns the buffer must not end the watch.
        let _ = socket.set_no_enobufs(true);
        Ok(Self { socket, table: table.to_owned() })
    }

    /// Waits, without a limit or so long, for one that matters.
    pub(in crate::firewall) fn wait(&self, patience: Option<Duration>) -> io::Result<Change> {
        let mut so_far = Transaction::default();
        loop {
            let limit = patience.map(|limit| Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() });
            if poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], limit.as_ref())? == 0 {
                return Ok(Change::None);
            }
            let (datagram, _) = self.socket.recv_from_full()?;
            match so_far.take(&datagram, &self.table) {
                Change::None => {}
                change => return Ok(change),
            }
        }
    }
}

/// What one transaction has done so far.
#[derive(Default)]
struct Transaction {
    removed: bool,
    made: bool,
    removed_of_iptables: bool,
}

impl Transaction {
    /// Takes a datagram; what the transactions that ended in it have changed.
    fn take(&mut self, datagram: &[u8], table: &str) -> Change {
        let mut change = Change::None;
        for message in messages(datagram).filter(|message| message.header.r#type >> 8 == SUBSYSTEM) {
            let name = table_name(&message).unwrap_or_default();
            match message.header.r#type & 0xff {
                NFT_MSG_NEWGEN => {
                    if self.removed && !self.made {
                        change = Change::OfTheTable;
                    } else if self.removed_of_iptables && change == Change::None {
                        change = Change::OfIptables;
                    }
                    *self = Self::default();
                }
                NFT_MSG_NEWTABLE => self.made |= name == table.as_bytes(),
                NFT_MSG_DELTABLE | NFT_MSG_DELCHAIN | NFT_MSG_DELRULE | NFT_MSG_DELSET => {
                    self.removed |= name == table.as_bytes();
                    self.removed_of_iptables |= matches!(name, b"raw" | b"nat" | b"filter" | b"security");
                }
                _ => {}
            }
        }
        change
    }
}

/// The attribute that names the table is the first of all these messages.
fn table_name<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let (_, attributes) = OpNewtableDo::decode_request(message.payload);
    attributes.get_name().ok().map(std::ffi::CStr::to_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, table: &str) -> Vec<u8> {
        let mut request = Chained::new(1);
        request.request().op_gettable_do(&netfilter::header("inet")).encode().push_name_bytes(table.as_bytes());
        let mut message = request.finalize().buf().clone();
        message[4..6].copy_from_slice(&(SUBSYSTEM << 8 | kind).to_ne_bytes());
        message
    }

    #[test]
    fn a_removal_is_told_from_a_replacement() {
        let damaged = |kinds: &[(u16, &str)]| {
            let datagram: Vec<u8> = kinds.iter().flat_map(|(kind, table)| message(*kind, table)).collect();
            Transaction::default().take(&datagram, "pier") == Change::OfTheTable
        };
        let end = (NFT_MSG_NEWGEN, "");
        assert!(damaged(&[(NFT_MSG_DELTABLE, "pier"), end]));
        assert!(damaged(&[(NFT_MSG_DELRULE, "pier"), end]));
        assert!(!damaged(&[(NFT_MSG_DELTABLE, "pie"), end]));
        assert!(!damaged(&[(NFT_MSG_DELRULE, "pier"), (NFT_MSG_DELTABLE, "pier"), (NFT_MSG_NEWTABLE, "pier"), end]));
        assert!(!damaged(&[]));
        let cut = &message(NFT_MSG_DELTABLE, "pier")[..30];
        assert_eq!(Transaction::default().take(cut, "pier"), Change::None);
        let flushed = [message(NFT_MSG_DELRULE, "nat"), message(NFT_MSG_NEWGEN, "")].concat();
        assert_eq!(Transaction::default().take(&flushed, "pier"), Change::OfIptables);
    }
}
