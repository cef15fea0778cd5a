//! The one port that two programs of a stack have: 53 is the name server's at the gateways, and, while somebody
//! publishes it on all addresses, the holder's everywhere else.
//!
//! The kernel lets sockets share a port when all of them ask for it (SO_REUSEPORT, socket(7)) and belong to one user.
//! So these are given to a user whom no program runs as, another one for each stack: nobody else gets in. A packet
//! goes to the socket with the more exact address, the name server's.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::fchown;

use rustix::net::sockopt;

use crate::dns;
use crate::model::Protocol;

/// From here on user ids are nobody's (systemd's UIDS-GIDS: "HIC SVNT LEONES").
const NOBODYS: u32 = 0x8000_0000;

/// Whom a stack's sockets at the shared port belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    /// From the hash of a stack's name; away from -1 and -2, which mean something.
    pub(crate) fn of_hash(hash: u32) -> Self {
        Self(NOBODYS | hash >> 2)
    }

    /// Of the words that the holder was started with.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        word.parse().ok().map(Self)
    }

    pub(super) fn word(self) -> String {
        self.0.to_string()
    }
}

/// Whether the user id of a socket is that of some stack's name server or holder.
pub(super) fn is_owned(uid: u32) -> bool {
    uid >= NOBODYS
}

/// Whether a published port is shared with the name server. At a gateway's own address it is not: there the two would
/// get each other's packets.
pub(super) fn is_shared(protocol: Protocol, host_ip: Option<IpAddr>, port: u16) -> bool {
    port == dns::PORT && protocol != Protocol::Sctp && host_ip.is_none_or(|ip| ip.is_unspecified())
}

/// Lets a socket be bound beside the others of this owner, and them beside it.
///
/// # Errors
/// The kernel's.
pub(crate) fn share(socket: impl AsFd, owner: Owner) -> io::Result<()> {
    sockopt::set_socket_reuseport(&socket, true)?;
    match fchown(&socket, Some(owner.0), None) {
        // In a user namespace without that user the sockets stay the program's: others of its user may join.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => Ok(()),
        given => given,
    }
}
