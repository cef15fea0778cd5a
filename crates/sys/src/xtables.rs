//! The kernel's own tables of iptables (xtables): how large they are, to notice that somebody changed them.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// IPT_SO_GET_INFO of linux/netfilter_ipv4/ip_tables.h, IP6T_SO_GET_INFO of the other family.
const GET_INFO: libc::c_int = 64;

/// `struct ipt_getinfo`, and `ip6t_getinfo`, which is the same.
#[repr(C)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

/// Number of rules and bytes of a table (`filter`, `nat`, …) in the calling thread's network namespace.
///
/// # Errors
/// The kernel's: it has no such table.
pub fn size(ipv6: bool, table: &str) -> io::Result<(u32, u32)> {
    let (family, level) =
        if ipv6 { (AddressFamily::INET6, libc::IPPROTO_IPV6) } else { (AddressFamily::INET, libc::IPPROTO_IP) };
    let socket: OwnedFd = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
    let mut info = Info { name: [0; 32], valid_hooks: 0, hook_entry: [0; 5], underflow: [0; 5], entries: 0, size: 0 };
    // The last byte stays zero.
    for (to, from) in info.name[..31].iter_mut().zip(table.bytes()) {
        *to = from;
    }
    let mut length = size_of::<Info>() as libc::socklen_t;
    // SAFETY: the kernel reads the name and writes at most `length` bytes of `info`, plain integers, which is alive.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((info.entries, info.size)) }
}
