//! The sockets: one server for each gateway address, bound and closed as networks come and go.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::index::{Answer, Index, reply};
use super::upstream;

const PORT: u16 = 53;
/// Largest query that is taken over UDP.
const DATAGRAM: usize = 4096;
/// Answer size of a client without EDNS.
const PLAIN_ANSWER: usize = 512;
/// A TCP client that says nothing for this long is cut off.
const IDLE: Duration = Duration::from_secs(10);

type Shared = Arc<RwLock<Index>>;

/// All servers of a stack. Dropping it closes them.
pub struct Servers {
    index: Shared,
    resolv_conf: PathBuf,
    running: BTreeMap<IpAddr, Running>,
}

/// One gateway's two tasks.
struct Running {
    network: String,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Servers {
    /// None yet.
    #[must_use]
    pub fn new(resolv_conf: PathBuf) -> Self {
        Self { index: Shared::default(), resolv_conf, running: BTreeMap::new() }
    }

    /// Serves this index from now on. An address that cannot be bound is a warning; returns whether there was one,
    /// so that the caller tries again later.
    pub async fn update(&mut self, index: Index) -> bool {
        let wanted: BTreeMap<IpAddr, String> =
            index.iter().flat_map(|(id, zone)| zone.gateways.iter().map(|ip| (*ip, id.clone()))).collect();
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
        self.running.retain(|ip, running| wanted.get(ip) == Some(&running.network));
        let mut failed = false;
        for (ip, network) in wanted {
            if self.running.contains_key(&ip) {
                continue;
            }
            match self.start(ip, &network) {
                Ok(running) => {
                    self.running.insert(ip, running);
                }
                Err(error) => {
                    tracing::warn!(%ip, %error, "the name server cannot listen; it is tried again");
                    failed = true;
                }
            }
        }
        failed
    }

    fn start(&self, ip: IpAddr, network: &str) -> io::Result<Running> {
        let (udp, tcp) = listen(SocketAddr::new(ip, PORT))?;
        let server =
            Server { index: self.index.clone(), network: network.to_owned(), resolv_conf: self.resolv_conf.clone() };
        let tasks = [tokio::spawn(serve_udp(server.clone(), Arc::new(udp))), tokio::spawn(serve_tcp(server, tcp))];
        Ok(Running { network: network.to_owned(), tasks })
    }
}

/// Binds both sockets, whether or not the bridge with this address is there at the moment (IP_FREEBIND).
fn listen(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let kind = if address.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    let udp = rustix::net::socket_with(kind, rustix::net::SocketType::DGRAM, flags, None)?;
    let tcp = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    tcp.set_reuseaddr(true)?;
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&udp, true)?;
        sockopt::set_ip_freebind(&tcp, true)?;
    } else {
        sockopt::set_ipv6_freebind(&udp, true)?;
        sockopt::set_ipv6_freebind(&tcp, true)?;
    }
    rustix::net::bind(&udp, &address)?;
    tcp.bind(address)?;
    Ok((UdpSocket::from_std(udp.into())?, tcp.listen(128)?))
}

#[derive(Clone)]
struct Server {
    index: Shared,
    network: String,
    resolv_conf: PathBuf,
}

impl Server {
    /// The answer to a query, if it deserves one.
    async fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let message = Message::from_vec(query).ok()?;
        if message.metadata.message_type == hickory_proto::op::MessageType::Response {
            return None;
        }
        let local = self.ask_zone(&message)?;
        let answer = match local {
            Answer::Ours(answer) => *answer,
            Answer::Forward => {
                let upstreams = upstream::read_resolv_conf(&self.resolv_conf);
                if let Some(answer) = upstream::ask(&upstreams, query, tcp).await {
                    return Some(answer);
                }
                reply(&message, ResponseCode::ServFail, Vec::new())
            }
        };
        let bytes = answer.to_vec().ok()?;
        let room = message.edns.as_ref().map_or(PLAIN_ANSWER, |edns| usize::from(edns.max_payload()).max(PLAIN_ANSWER));
        if tcp || bytes.len() <= room { Some(bytes) } else { answer.truncate().to_vec().ok() }
    }

    fn ask_zone(&self, message: &Message) -> Option<Answer> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.get(&self.network).map(|zone| zone.answer(message))
    }
}

async fn serve_udp(server: Server, socket: Arc<UdpSocket>) {
    let mut buffer = [0; DATAGRAM];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "name server, UDP");
                continue;
            }
        };
        let (server, socket, query) = (server.clone(), socket.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Some(answer) = server.answer(&query, false).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn serve_tcp(server: Server, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_client(server.clone(), stream));
            }
            Err(error) => {
                // Out of descriptors, mostly: a moment's rest, then on.
                tracing::warn!(%error, "name server, TCP");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_client(server: Server, mut stream: TcpStream) {
    while let Ok(Ok(query)) = timeout(IDLE, upstream::read_framed(&mut stream)).await {
        let Some(answer) = server.answer(&query, true).await else { return };
        if upstream::write_framed(&mut stream, &answer).await.is_err() {
            return;
        }
    }
}
