//! The sockets: one server for each gateway address, bound and closed as networks come and go.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::index::{Answer, Index, reply};
use super::upstream;
use crate::ports::{Owner, share};

/// Where name servers listen (RFC 1035, 4.2).
pub(crate) const PORT: u16 = 53;
/// Largest query that is taken over UDP.
const DATAGRAM: usize = 4096;
/// Answer size of a client without EDNS.
const PLAIN_ANSWER: usize = 512;
/// A TCP client that says nothing for this long is cut off.
const IDLE: Duration = Duration::from_secs(10);
/// Queries that wait for an upstream at one moment. More are dropped: their clients ask again.
const WAITING: usize = 1024;
/// How long those may take when another program takes the sockets over.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// TCP clients at one moment; more wait to be accepted.
const CLIENTS: usize = 256;

/// The sockets at each address, UDP and TCP.
pub type Sockets = BTreeMap<IpAddr, [OwnedFd; 2]>;

/// All servers of a stack. Dropping it closes them.
pub struct Servers {
    common: Arc<Common>,
    owner: Owner,
    running: BTreeMap<IpAddr, Running>,
    /// Of the program that served before, not in use yet.
    inherited: Sockets,
}

/// What all sockets answer from.
struct Common {
    index: RwLock<Index>,
    host: upstream::Host,
    turn: AtomicUsize,
    waiting: Semaphore,
    clients: Arc<Semaphore>,
}

/// One gateway's two tasks.
struct Running {
    network: String,
    /// The tasks', once more.
    sockets: [OwnedFd; 2],
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Servers {
    /// None yet. `inherited` are used where an address is wanted that they listen at. The sockets belong to `owner`, so
    /// that the port can be published on all other addresses.
    #[must_use]
    pub(crate) fn new(resolv_conf: PathBuf, inherited: Sockets, owner: Owner) -> Self {
        let common = Common {
            index: RwLock::default(),
            host: upstream::Host::new(resolv_conf),
            turn: AtomicUsize::new(0),
            waiting: Semaphore::new(WAITING),
            clients: Arc::new(Semaphore::new(CLIENTS)),
        };
        Self { common: Arc::new(common), owner, running: BTreeMap::new(), inherited }
    }

    /// Another file that names the host's upstreams.
    pub fn set_resolv_conf(&self, path: PathBuf) {
        self.common.host.set_path(path);
    }

    /// Serves this index from now on. An address that cannot be bound is a warning; returns whether there was one,
    /// so that the caller tries again later.
    pub fn update(&mut self, index: Index) -> bool {
        let wanted = index.gateways().into_iter().map(|(ip, network)| (ip, index.vrf(&network).to_owned(), network));
        let wanted: Vec<(IpAddr, String, String)> = wanted.collect();
        *self.common.index.write().unwrap_or_else(PoisonError::into_inner) = index;
        let stays =
            |ip: &IpAddr, running: &Running| wanted.iter().any(|(at, _, of)| at == ip && *of == running.network);
        self.running.retain(|ip, running| stays(ip, running));
        let mut failed = false;
        for (ip, vrf, network) in wanted {
            if self.running.contains_key(&ip) {
                continue;
            }
            match self.start(ip, &vrf, &network) {
                Ok(running) => {
                    self.running.insert(ip, running);
                }
                Err(error) => {
                    tracing::warn!(%ip, %error, "the name server cannot listen; it is tried again");
                    failed = true;
                }
            }
        }
        // The rest is of networks that are gone.
        self.inherited.clear();
        failed
    }

    /// Stops reading, waits until what was read is answered, and gives the sockets, in which further queries wait.
    ///
    /// # Errors
    /// Out of descriptors.
    pub async fn hand_over(&mut self) -> io::Result<Sockets> {
        let mut sockets = Sockets::new();
        for (ip, running) in std::mem::take(&mut self.running) {
            let [udp, tcp] = &running.sockets;
            sockets.insert(ip, [udp.try_clone()?, tcp.try_clone()?]);
        }
        // What needs no upstream is answered at once; who waits for one has a place each.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _ = timeout(LAST_ANSWERS, self.common.waiting.acquire_many(WAITING as u32)).await;
        Ok(sockets)
    }

    fn start(&mut self, ip: IpAddr, vrf: &str, network: &str) -> io::Result<Running> {
        let (udp, tcp) = match self.inherited.remove(&ip) {
            Some([udp, tcp]) => {
                // An earlier version did not share.
                share(&udp, self.owner)?;
                share(&tcp, self.owner)?;
                (UdpSocket::from_std(udp.into())?, TcpListener::from_std(tcp.into())?)
            }
            None => listen(SocketAddr::new(ip, PORT), vrf, self.owner)?,
        };
        let sockets = [udp.as_fd().try_clone_to_owned()?, tcp.as_fd().try_clone_to_owned()?];
        let server = Server { common: self.common.clone(), network: network.to_owned() };
        let tasks = [tokio::spawn(serve_udp(server.clone(), Arc::new(udp))), tokio::spawn(serve_tcp(server, tcp))];
        Ok(Running { network: network.to_owned(), sockets, tasks })
    }
}

/// Binds both sockets, whether or not the bridge with this address is there at the moment (IP_FREEBIND). What comes in a
/// VRF reaches sockets that are tied to it (Documentation/networking/vrf.rst).
fn listen(address: SocketAddr, vrf: &str, owner: Owner) -> io::Result<(UdpSocket, TcpListener)> {
    let kind = if address.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    let udp = rustix::net::socket_with(kind, rustix::net::SocketType::DGRAM, flags, None)?;
    let tcp = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    tcp.set_reuseaddr(true)?;
    share(&udp, owner)?;
    share(&tcp, owner)?;
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&udp, true)?;
        sockopt::set_ip_freebind(&tcp, true)?;
    } else {
        sockopt::set_ipv6_freebind(&udp, true)?;
        sockopt::set_ipv6_freebind(&tcp, true)?;
    }
    if !vrf.is_empty() {
        sys::netns::bind_to_link(udp.as_fd(), vrf)?;
        sys::netns::bind_to_link(tcp.as_fd(), vrf)?;
    }
    rustix::net::bind(&udp, &address)?;
    tcp.bind(address)?;
    Ok((UdpSocket::from_std(udp.into())?, tcp.listen(128)?))
}

#[derive(Clone)]
struct Server {
    common: Arc<Common>,
    network: String,
}

impl Server {
    /// The answer to a query, if it deserves one.
    async fn answer(&self, query: &[u8], from: IpAddr, tcp: bool) -> Option<Vec<u8>> {
        let message = Message::from_vec(query).ok()?;
        if message.metadata.message_type == MessageType::Response {
            return None;
        }
        let answer = match self.ask_index(&message, from) {
            Answer::Ours(answer) => *answer,
            Answer::Forward(to) => match self.forward(&to, query, &message, tcp).await? {
                Some(answer) => return Some(answer),
                None => reply(&message, ResponseCode::ServFail, Vec::new()),
            },
        };
        let bytes = answer.to_vec().ok()?;
        let room = message.edns.as_ref().map_or(PLAIN_ANSWER, |edns| usize::from(edns.max_payload()).max(PLAIN_ANSWER));
        if tcp || bytes.len() <= room { Some(bytes) } else { answer.truncate().to_vec().ok() }
    }

    fn ask_index(&self, message: &Message, from: IpAddr) -> Answer {
        let turn = self.common.turn.fetch_add(1, Ordering::Relaxed);
        let index = self.common.index.read().unwrap_or_else(PoisonError::into_inner);
        index.answer(&self.network, from, message, turn)
    }

    /// Outer `None`: too many wait already. Inner: nobody answered.
    async fn forward(&self, to: &[IpAddr], query: &[u8], message: &Message, tcp: bool) -> Option<Option<Vec<u8>>> {
        let _place = self.common.waiting.try_acquire().ok()?;
        let upstreams = if to.is_empty() { self.common.host.servers() } else { upstream::at_port(to) };
        Some(upstream::ask(&upstreams, query, message, tcp).await)
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
            if let Some(answer) = server.answer(&query, client.ip(), false).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn serve_tcp(server: Server, listener: TcpListener) {
    loop {
        let Ok(place) = server.common.clients.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let server = server.clone();
                tokio::spawn(async move {
                    serve_client(server, stream, client.ip()).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: a moment's rest, then on.
                tracing::warn!(%error, "name server, TCP");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_client(server: Server, mut stream: TcpStream, from: IpAddr) {
    while let Ok(Ok(query)) = timeout(IDLE, upstream::read_framed(&mut stream)).await {
        let Some(answer) = server.answer(&query, from, true).await else { return };
        if upstream::write_framed(&mut stream, &answer).await.is_err() {
            return;
        }
    }
}
