//! Sockets of netfilter's subsystems.

use std::io;
use std::os::fd::AsFd as _;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// One of the calling thread's network namespace.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Closes it without a wait. The kernel lets nobody close one while something that was removed from nf_tables may still
/// be read on another CPU: some 8 ms (nft_rcv_nl_event of net/netfilter/nf_tables_api.c).
pub(super) fn leave(socket: Socket) {
    if let Ok(descriptor) = socket.as_fd().try_clone_to_owned() {
        drop(socket);
        sys::process::close_in_a_child(descriptor);
    }
}
