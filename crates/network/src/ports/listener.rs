//! Who has a port of the host: from /proc/net and the descriptors of all processes (proc_net(5), proc_pid_fd(5)); of
//! SCTP from /proc/net/sctp/eps (net/sctp/proc.c of the kernel).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::shared::is_owned;
use crate::model::Protocol;

/// State of a TCP socket that listens, in /proc/net/tcp.
const LISTENS: &str = "0A";

/// "nginx (pid 12)"; empty when nobody is found: the socket does not listen, or is another user's.
#[must_use]
pub(super) fn name(protocol: Protocol, address: SocketAddr) -> String {
    let read = |file: &String| match protocol {
        Protocol::Sctp => sctp_sockets(file, address),
        _ => sockets(protocol, file, address),
    };
    let mut found: Vec<Found> = files(protocol).iter().flat_map(read).collect();
    // A name server of ours shares its port: it is the last to be in the way.
    found.sort_by_key(|found| found.shares);
    found.iter().find_map(|found| owner(&found.inode)).unwrap_or_default()
}

/// A socket in the way.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    inode: String,
    /// It is a name server's of ours.
    shares: bool,
}

fn files(protocol: Protocol) -> Vec<String> {
    let names: &[&str] = match protocol {
        Protocol::Tcp => &["tcp", "tcp6"],
        Protocol::Udp => &["udp", "udp6"],
        Protocol::Sctp => &["sctp/eps"],
    };
    names
        .iter()
        .map(|name| format!("/proc/thread-self/net/{name}"))
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect()
}

/// The sockets that an address cannot be bound beside. Columns: number, local address, remote address, state, queues,
/// timer, retransmits, uid, timeout, inode.
fn sockets(protocol: Protocol, file: &str, wanted: SocketAddr) -> Vec<Found> {
    let one = |line: &str| {
        let mut columns = line.split_whitespace();
        let (address, number) = columns.nth(1)?.rsplit_once(':')?;
        let (state, uid, inode) = (columns.nth(1)?, columns.nth(3)?, columns.nth(1)?);
        let listens = protocol != Protocol::Tcp || state == LISTENS;
        let address = local(address)?;
        let there = u16::from_str_radix(number, 16) == Ok(wanted.port()) && overlaps(address, wanted.ip());
        let shares = is_owned(uid.parse().ok()?) && !address.is_unspecified();
        (listens && there && inode != "0").then(|| Found { inode: inode.to_owned(), shares })
    };
    file.lines().skip(1).filter_map(one).collect()
}

/// Columns: endpoint, socket, style, state, hash, port, uid, inode, local addresses.
fn sctp_sockets(file: &str, wanted: SocketAddr) -> Vec<Found> {
    let one = |line: &str| {
        let mut columns = line.split_whitespace().skip(5);
        let (number, _uid, inode) = (columns.next()?, columns.next()?, columns.next()?);
        let mut addresses = columns.filter_map(|text| text.trim_start_matches('*').parse::<IpAddr>().ok());
        let there = number.parse() == Ok(wanted.port())
            && addresses.any(|address| overlaps(address.to_canonical(), wanted.ip()));
        (there && inode != "0").then(|| Found { inode: inode.to_owned(), shares: false })
    };
    file.lines().skip(1).filter_map(one).collect()
}

/// An address in words of 32 bits, each in the machine's order of bytes.
fn local(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).to_canonical())
        }
        _ => None,
    }
}

fn overlaps(one: IpAddr, other: IpAddr) -> bool {
    one.is_unspecified() || other.is_unspecified() || one == other
}

fn owner(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = |link: std::path::PathBuf| link.as_os_str() == wanted.as_str();
        if descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(has)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let file = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: \
                    0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100\n   \
                    1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n";
        let inodes = |protocol, file, address: &str| {
            let address = address.parse().map(|address| sockets(protocol, file, address)).unwrap_or_default();
            address.into_iter().map(|found| found.inode).collect::<Vec<_>>()
        };
        assert_eq!(inodes(Protocol::Tcp, file, "127.0.0.1:8080"), ["4711"]);
        assert_eq!(inodes(Protocol::Udp, file, "[::]:8080"), ["4711", "4712"]);
        assert!(inodes(Protocol::Tcp, file, "127.0.0.2:8080").is_empty());
        assert!(inodes(Protocol::Tcp, file, "127.0.0.1:8081").is_empty());
        assert!(inodes(Protocol::Tcp, "garbage\nmore : garbage", "127.0.0.1:1").is_empty());
        let six = "\n 0: 000080FE000000000000000001000000:0035 0:0 07 0:0 0:0 0 2147483649 0 9\n";
        let all = sockets(Protocol::Udp, six, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 53));
        assert_eq!(all, [Found { inode: "9".into(), shares: true }]);
        assert_eq!(inodes(Protocol::Udp, six, "[fe80::1]:53"), ["9"]);
    }

    #[test]
    fn endpoints_of_sctp_are_read() {
        let file = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n4dfcd8ce 9b5aad30 2   10  57   7000      0  1503 \
                    0.0.0.0\n4dfcd8cf 9b5aad31 2   7   58   7001      0  1504 *198.51.100.1 \
                    2001:0db8:0000:0000:0000:0000:0000:0001 \n";
        let inodes = |address: &str| {
            let found = address.parse().map(|address| sctp_sockets(file, address)).unwrap_or_default();
            found.into_iter().map(|found| found.inode).collect::<Vec<_>>()
        };
        assert_eq!(inodes("[::]:7000"), ["1503"]);
        assert_eq!(inodes("[2001:db8::1]:7001"), ["1504"]);
        assert_eq!(inodes("198.51.100.1:7001"), ["1504"]);
        assert!(inodes("127.0.0.1:7001").is_empty() && inodes("[::]:7002").is_empty());
    }

    #[test]
    fn a_listener_is_found_by_name() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").and_then(|server| Ok((server.local_addr()?, server)));
        let Ok((address, _server)) = server else { panic!("no listener: {server:?}") };
        assert!(name(Protocol::Tcp, address).contains(&format!("(pid {})", std::process::id())));
    }
}
