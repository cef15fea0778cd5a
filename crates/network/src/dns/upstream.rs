//! The host's name servers: read from resolv.conf, asked for what the networks do not know.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one upstream may take before the next is asked as well.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Largest UDP answer that is taken.
const DATAGRAM: usize = 65535;

/// The addresses after `nameserver`, in order. A file that cannot be read has none.
#[must_use]
pub fn read_resolv_conf(path: &Path) -> Vec<IpAddr> {
    parse(&std::fs::read_to_string(path).unwrap_or_default())
}

fn parse(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten().and_then(|word| {
            // A zone (fe80::1%eth0) means nothing to a socket that is not bound to the link.
            word.split('%').next().and_then(|ip| ip.parse().ok())
        })
    };
    text.lines().filter_map(server).collect()
}

/// Asks the upstreams in turn, with the query as it came, and gives the first answer as it came.
pub async fn ask(upstreams: &[IpAddr], query: &[u8], tcp: bool) -> Option<Vec<u8>> {
    for upstream in upstreams {
        let address = SocketAddr::new(*upstream, 53);
        let answer = async { if tcp { ask_tcp(address, query).await } else { ask_udp(address, query).await } };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%upstream, %error, "upstream name server"),
            Err(_) => tracing::debug!(%upstream, "upstream name server does not answer"),
        }
    }
    None
}

async fn ask_udp(upstream: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if upstream.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // The id is the first two bytes: anything else is not the answer to this.
        if length > 2 && buffer.get(..2) == query.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(upstream: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}

/// Writes a message with its length in front, as DNS over TCP has it.
pub(super) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// Reads a message with its length in front.
pub(super) async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_in_order() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.1\n nameserver  fe80::1%eth0 \nnameserver x\n";
        let found: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "fe80::1"]);
    }
}
