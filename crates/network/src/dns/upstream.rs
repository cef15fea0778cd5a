//! Name servers beyond the networks: read from the host's resolv.conf, asked all at once for what the networks do
//! not know.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::PORT;

/// After this the client is told that nobody answered. Clients give up after 5 s.
const PATIENCE: Duration = Duration::from_secs(4);
/// A datagram that was lost is sent again after this.
const AGAIN: Duration = Duration::from_millis(1200);
/// Largest UDP answer that is taken.
const DATAGRAM: usize = 65535;

/// The addresses after `nameserver`, in order. A file that cannot be read has none.
#[must_use]
pub fn read_resolv_conf(path: &Path) -> Vec<IpAddr> {
    parse(&std::fs::read_to_string(path).unwrap_or_default()).into_iter().map(|(ip, _)| ip).collect()
}

/// Addresses, each with its zone: fe80::1%eth0.
fn parse(text: &str) -> Vec<(IpAddr, Option<&str>)> {
    text.lines().filter_map(server).collect()
}

fn server(line: &str) -> Option<(IpAddr, Option<&str>)> {
    let mut words = line.split_whitespace();
    let word = words.next().filter(|word| *word == "nameserver").and(words.next())?;
    let (ip, zone) = word.split_once('%').map_or((word, None), |(ip, zone)| (ip, Some(zone)));
    Some((ip.parse().ok()?, zone))
}

/// The host's upstreams: read again whenever the file changes.
pub(super) struct Host {
    path: Mutex<PathBuf>,
    read: Mutex<Option<(Version, Vec<SocketAddr>)>>,
}

/// What tells one state of a file from the next.
type Version = (PathBuf, Option<SystemTime>, u64);

impl Host {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: Mutex::new(path), read: Mutex::default() }
    }

    /// Another file from now on.
    pub(super) fn set_path(&self, path: PathBuf) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
    }

    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let about = std::fs::metadata(&path).ok();
        let changed = about.as_ref().and_then(|about| about.modified().ok());
        let version = (path, changed, about.map_or(0, |about| about.len()));
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match read.as_ref() {
            Some((of, servers)) if *of == version => servers.clone(),
            _ => {
                let text = std::fs::read_to_string(&version.0).unwrap_or_default();
                let servers: Vec<SocketAddr> = parse(&text).into_iter().filter_map(socket_address).collect();
                *read = Some((version, servers.clone()));
                servers
            }
        }
    }
}

/// A link-local address without a link leads nowhere.
fn socket_address((ip, zone): (IpAddr, Option<&str>)) -> Option<SocketAddr> {
    match (ip, zone) {
        (IpAddr::V6(ip), Some(zone)) => {
            let scope = zone.parse().ok().or_else(|| link_index(zone))?;
            Some(SocketAddrV6::new(ip, PORT, 0, scope).into())
        }
        (ip, _) => Some(SocketAddr::new(ip, PORT)),
    }
}

fn link_index(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}

pub(super) fn at_port(servers: &[IpAddr]) -> Vec<SocketAddr> {
    servers.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect()
}

/// Asks all upstreams at once, with the query as it came, and gives the first good answer as it came: records, or
/// that there are none. A complaint (SERVFAIL, REFUSED) is given when nobody has better.
pub(super) async fn ask(upstreams: &[SocketAddr], query: &[u8], question: &Message, tcp: bool) -> Option<Vec<u8>> {
    let mut asked: FuturesUnordered<_> =
        upstreams.iter().map(|upstream| ask_one(*upstream, query, question, tcp)).collect();
    let mut complaint = None;
    let first_good = async {
        while let Some(answer) = asked.next().await {
            match answer {
                Some((answer, ResponseCode::NoError | ResponseCode::NXDomain)) => return Some(answer),
                Some((answer, _)) => complaint = complaint.take().or(Some(answer)),
                None => {}
            }
        }
        None
    };
    timeout(PATIENCE, first_good).await.ok().flatten().or(complaint)
}

async fn ask_one(upstream: SocketAddr, query: &[u8], question: &Message, tcp: bool) -> Option<(Vec<u8>, ResponseCode)> {
    let asked = if tcp { ask_tcp(upstream, query).await } else { ask_udp(upstream, query, question).await };
    match asked {
        Ok(answer) => Some((answer.clone(), code_of(&answer, question)?)),
        Err(error) => {
            tracing::debug!(%upstream, %error, "upstream name server");
            None
        }
    }
}

/// The code of an answer to this question; `None` if it is something else.
fn code_of(answer: &[u8], question: &Message) -> Option<ResponseCode> {
    let answer = Message::from_vec(answer).ok()?;
    (answer.metadata.id == question.metadata.id && answer.queries == question.queries)
        .then_some(answer.metadata.response_code)
}

async fn ask_udp(upstream: SocketAddr, query: &[u8], question: &Message) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if upstream.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        socket.send(query).await?;
        let answered = async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                // What is not the answer to this was sent by somebody who guesses.
                if let Some(answer) = buffer.get(..length)
                    && code_of(answer, question).is_some()
                {
                    return std::io::Result::Ok(length);
                }
            }
        };
        if let Ok(length) = timeout(AGAIN, answered).await {
            buffer.truncate(length?);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(upstream: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}

/// Writes a message with its length in front, as DNS over TCP has it (RFC 1035, 4.2.2).
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn name_servers_are_found_in_order() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.1\n nameserver  fe80::1%eth0 \nnameserver x\n\
                    nameserver\t::1 # here\nnameservers 1.1.1.1\n";
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let wanted = [(ip("10.0.0.1"), None), (ip("fe80::1"), Some("eth0")), (ip("::1"), None)];
        assert_eq!(parse(text), wanted);
    }
}
