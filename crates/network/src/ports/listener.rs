//! Who has a port of the host: from /proc/net and the descriptors of all processes (proc_net(5), proc_pid_fd(5)).

use std::fs;
use std::net::SocketAddr;

use crate::model::Protocol;

/// State of a TCP socket that listens, in /proc/net/tcp.
const LISTENS: &str = "0A";

/// "nginx (pid 12)"; empty when nobody is found: the socket does not listen, or is another user's.
#[must_use]
pub(super) fn name(protocol: Protocol, address: SocketAddr) -> String {
    let inodes: Vec<String> = files(protocol).iter().flat_map(|file| inodes(protocol, file, address.port())).collect();
    if inodes.is_empty() { String::new() } else { owner(&inodes).unwrap_or_default() }
}

fn files(protocol: Protocol) -> Vec<String> {
    let name = |family: &str| format!("/proc/thread-self/net/{protocol}{family}");
    [name(""), name("6")].iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// Inodes of the sockets on a port. Columns: number, local address, remote address, state, queues, timer, retransmits,
/// uid, timeout, inode.
fn inodes(protocol: Protocol, file: &str, port: u16) -> Vec<String> {
    let one = |line: &str| {
        let mut columns = line.split_whitespace();
        let (_, number) = columns.nth(1)?.rsplit_once(':')?;
        let (state, inode) = (columns.nth(1)?, columns.nth(5)?);
        let listens = protocol != Protocol::Tcp || state == LISTENS;
        (listens && u16::from_str_radix(number, 16) == Ok(port) && inode != "0").then(|| inode.to_owned())
    };
    file.lines().skip(1).filter_map(one).collect()
}

fn owner(inodes: &[String]) -> Option<String> {
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = |link: std::path::PathBuf| wanted.iter().any(|wanted| link.as_os_str() == wanted.as_str());
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
        assert_eq!(inodes(Protocol::Tcp, file, 8080), ["4711"]);
        assert_eq!(inodes(Protocol::Udp, file, 8080), ["4711", "4712"]);
        assert!(inodes(Protocol::Tcp, file, 8081).is_empty());
        assert!(inodes(Protocol::Tcp, "garbage\nmore : garbage", 1).is_empty());
    }

    #[test]
    fn a_listener_is_found_by_name() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").and_then(|server| Ok((server.local_addr()?, server)));
        let Ok((address, _server)) = server else { panic!("no listener: {server:?}") };
        assert!(name(Protocol::Tcp, address).contains(&format!("(pid {})", std::process::id())));
    }
}
