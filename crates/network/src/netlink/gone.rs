//! Removing a link without waiting for all of it.
//!
//! The kernel takes a link out of sight within a moment, and then waits, still in the caller's system call, until no
//! part of it holds a trace of the link (tens of milliseconds on a busy machine). A child process makes that call and
//! waits there; whoever asked goes on when the link is out of sight. Nothing is left to do afterwards: the kernel
//! finishes on its own even when that child is killed.
//!
//! Whether it is out of sight is asked by ioctl (SIOCGIFNAME of netdevice(7)), which takes no lock; netlink would wait for
//! the one that the removal holds to its end. Whoever needs that lock, to list links or to make one of the same name,
//! comes after the removal.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netdevice;

use super::Netlink;

/// How long a link may stay in sight before its removal is done, and reported, the plain way.
const PATIENCE: Duration = Duration::from_millis(500);

impl Netlink {
    /// Removes a link of this socket's namespace; it is out of sight at return. A missing one is fine; returns whether
    /// it was there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_link(&mut self, name: &str) -> io::Result<bool> {
        let going = self.begin_removal(name)?;
        self.end_removal(name, going)?;
        Ok(going.is_some())
    }

    /// Starts to remove a link; returns its index, none when it was not there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin_removal(&mut self, name: &str) -> io::Result<Option<u32>> {
        let Some(link) = self.link(name)? else { return Ok(None) };
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_name(name).build()));
        message.header.flags = NLM_F_REQUEST;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        // Not numbered and not acknowledged: should there be an answer, `request` passes over it.
        match sys::process::send_from_a_child(self.socket.as_fd(), &bytes) {
            Ok(()) => Ok(Some(link.index)),
            Err(_) => self.delete_link(name).map(|_| None),
        }
    }

    /// Waits until a link whose removal has begun is out of sight. `going` is what [`Netlink::begin_removal`] said.
    ///
    /// # Errors
    /// The kernel's.
    pub fn end_removal(&mut self, name: &str, going: Option<u32>) -> io::Result<()> {
        let Some(index) = going else { return Ok(()) };
        let end = Instant::now() + PATIENCE;
        while self.is_in_sight(index)? {
            if Instant::now() > end {
                return self.delete_link(name).map(drop);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn is_in_sight(&self, index: u32) -> io::Result<bool> {
        match netdevice::index_to_name(&self.socket, index) {
            Err(Errno::NODEV) => Ok(false),
            found => Ok(found.map(|_| true)?),
        }
    }
}
