//! What goes to nf_tables, and what comes back.

use std::io;

use netlink_bindings::builtin::Nlmsghdr;
use netlink_bindings::nftables::Nfgenmsg;

use crate::firewall::socket;

/// NFNL_SUBSYS_NFTABLES of linux/netfilter/nfnetlink.h.
pub(super) const SUBSYSTEM: u16 = 10;
/// NFPROTO_* of linux/netfilter.h.
const FAMILIES: [(&str, u8); 4] = [("inet", 1), ("ip", 2), ("bridge", 7), ("ip6", 10)];
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The header of a request about tables of this family.
pub(super) fn header(family: &str) -> Nfgenmsg {
    let number = FAMILIES.iter().find(|(word, _)| *word == family).map_or(1, |(_, number)| *number);
    Nfgenmsg { nfgen_family: number, ..Nfgenmsg::new() }
}

/// The header of what begins and ends a transaction.
pub(super) fn whole() -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.set_res_id(SUBSYSTEM);
    header
}

/// Sends a transaction and waits until all of it is done, or refused. `last` is the number of its last change, `removes`
/// whether anything is taken away.
pub(super) fn commit(batch: &[u8], last: u32, removes: bool) -> io::Result<()> {
    let socket = socket::open()?;
    let sent = socket.send(batch, 0)?;
    if sent != batch.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for message in messages(&datagram) {
            // Of a refused transaction each change is answered, and the refused one says why.
            message.refusal()?;
            if message.header.seq == last {
                if removes {
                    socket::leave(socket);
                }
                return Ok(());
            }
        }
    }
}

/// The answers to a question that lists things.
pub(super) fn list<T>(question: &[u8], mut read: impl FnMut(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    let socket = socket::open()?;
    socket.send(question, 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for message in messages(&datagram) {
            message.refusal()?;
            if matches!(message.header.r#type, NLMSG_DONE | NLMSG_ERROR) {
                return Ok(found);
            }
            found.extend(read(message.payload));
        }
    }
}

/// A message of a datagram.
pub(super) struct Message<'a> {
    pub(super) header: Nlmsghdr,
    pub(super) payload: &'a [u8],
}

impl Message<'_> {
    /// Fails with what an error message says; an acknowledgement is none.
    pub(super) fn refusal(&self) -> io::Result<()> {
        if self.header.r#type != NLMSG_ERROR {
            return Ok(());
        }
        match self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        }
    }
}

/// The messages of a datagram; what is cut off at its end is left out.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = Nlmsghdr::new_from_slice(datagram.get(..Nlmsghdr::len())?)?;
        let length = (header.len as usize).max(Nlmsghdr::len());
        let payload = datagram.get(Nlmsghdr::len()..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { header, payload })
    })
}
