//! Sockets that keep a port from others and answer nobody.
//!
//! A published port is reached by the firewall's rules, before any socket is looked up; the socket is there so that no
//! other program gets the port. It never listens for longer than it takes to bind it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, bind, ipproto, listen, shutdown, socket_with};
use rustix::net::{getsockname, sockopt};

use super::shared::{Owner, is_shared, share};
use crate::model::{PortMapping, Protocol};

/// Why a port cannot be held.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Refused {
    /// A program has it, at this address.
    Taken(SocketAddr),
    /// The host does not have this address.
    NoSuchAddress(IpAddr),
    /// The process may not: a port below `net.ipv4.ip_unprivileged_port_start`.
    Privileged(SocketAddr),
    /// The kernel's words, and what was tried.
    Failed(String),
}

/// One socket for each port of a mapping, and each family where one does not do for both. `owner`: the name server's
/// port is shared with it.
pub(crate) fn all(port: &PortMapping, owner: Option<Owner>) -> Result<Vec<OwnedFd>, Refused> {
    let mut sockets = Vec::with_capacity(usize::from(port.range));
    for number in port.host_port..=port.last_host_port() {
        let owner = owner.filter(|_| is_shared(port.protocol, port.host_ip, number));
        sockets.extend(one(port.protocol, port.host_ip, number, owner)?);
    }
    Ok(sockets)
}

/// A socket for one port. None where the kernel has no sockets of the protocol: nobody can take the port then.
fn one(
    protocol: Protocol,
    host_ip: Option<IpAddr>,
    port: u16,
    owner: Option<Owner>,
) -> Result<Option<OwnedFd>, Refused> {
    let address = SocketAddr::new(host_ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port);
    let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    match hold(protocol, address, host_ip.is_none(), owner) {
        Ok(socket) => Ok(Some(socket)),
        // A host without IPv6.
        Err(error) if host_ip.is_none() && !is_final(&error) => match hold(protocol, v4, false, owner) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) => refused(protocol, v4, &error),
        },
        Err(error) => refused(protocol, address, &error),
    }
}

fn is_final(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn refused(protocol: Protocol, address: SocketAddr, error: &io::Error) -> Result<Option<OwnedFd>, Refused> {
    match error.kind() {
        io::ErrorKind::AddrInUse => Err(Refused::Taken(address)),
        io::ErrorKind::AddrNotAvailable => Err(Refused::NoSuchAddress(address.ip())),
        io::ErrorKind::PermissionDenied => Err(Refused::Privileged(address)),
        _ if protocol == Protocol::Sctp => Ok(None),
        _ => Err(Refused::Failed(format!("bind {protocol} {address}: {error}"))),
    }
}

fn hold(protocol: Protocol, address: SocketAddr, both: bool, owner: Option<Owner>) -> io::Result<OwnedFd> {
    let socket = open(protocol, address, both)?;
    if let Some(owner) = owner {
        share(&socket, owner)?;
    }
    match bind(&socket, &address) {
        Ok(()) => {}
        // TCP's connections of an earlier program linger on the port. With the "reuse" flag they do not count, but then the
        // next program with that flag gets the port too. Having listened takes that right away again.
        Err(rustix::io::Errno::ADDRINUSE) if protocol == Protocol::Tcp => {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &address)?;
            listen(&socket, 1)?;
            sockopt::set_socket_reuseaddr(&socket, false)?;
            shutdown(&socket, Shutdown::Both)?;
        }
        Err(error) => return Err(error.into()),
    }
    if protocol == Protocol::Udp {
        // Nobody reads what arrives here while the rules are away.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, 1);
    }
    Ok(socket)
}

fn open(protocol: Protocol, address: SocketAddr, both: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !both)?;
    }
    Ok(socket)
}

/// A port that the kernel calls free.
pub(super) fn ephemeral(protocol: Protocol, host_ip: Option<IpAddr>) -> io::Result<u16> {
    let address = SocketAddr::new(host_ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), 0);
    // Few kernels have SCTP sockets; a TCP port stands in for one.
    let protocol = if protocol == Protocol::Sctp { Protocol::Tcp } else { protocol };
    let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let socket = match hold(protocol, address, host_ip.is_none(), None) {
        Err(error) if host_ip.is_none() && !is_final(&error) => hold(protocol, v4, false, None)?,
        socket => socket?,
    };
    Ok(SocketAddr::try_from(getsockname(&socket)?)?.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn mapping(text: &str) -> PortMapping {
        text.parse().unwrap()
    }

    #[test]
    fn a_held_port_is_nobody_elses_and_answers_nobody() {
        let port = ephemeral(Protocol::Tcp, None).unwrap();
        let held = all(&mapping(&format!("{port}:80")), None).unwrap();
        assert!(all(&mapping(&format!("{port}:80")), None).is_err());
        // std sets SO_REUSEADDR.
        for address in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            assert!(TcpListener::bind((address, port)).is_err(), "{address}");
        }
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        drop(held);
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn connections_that_linger_are_no_program() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        assert_eq!(
            all(&mapping(&format!("{port}:80")), None).err(),
            Some(Refused::Taken(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)))
        );
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, _) = server.accept().unwrap();
        // Closed first by the server, so that the wait is at its port.
        drop(accepted);
        drop(client);
        drop(server);
        let held = all(&mapping(&format!("127.0.0.1:{port}:80")), None).unwrap();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        drop(held);
    }
}
