//! DHCP as a way to addresses (RFC 2131): a client for each endpoint, inside its namespace.
//!
//! dhcproto makes and reads the packets. They go over an ordinary UDP socket that is bound to the link: with the
//! broadcast flag the server answers to everybody, which reaches a link without an address. Whoever attaches asks for
//! the lease; the serving program renews it ([`Networks::renew_leases`]); a detach gives it back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use ipnet::{IpNet, Ipv4Net};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use serde::{Deserialize, Serialize};
use sys::netns::Netns;

use crate::driver;
use crate::error::{Error, Result};
use crate::ipam;
use crate::kernel::apply_inside;
use crate::model::{Endpoint, Network};
use crate::networks::Networks;
use crate::plan::{Change, Place};
use crate::store::EndpointFilter;

/// How long an attach looks for a server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time to the first repetition; doubled each time.
const FIRST_TRY: Duration = Duration::from_millis(500);

/// A lease, as the endpoint's record keeps it. Times in seconds, the end since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address with its subnet's length.
    pub address: Ipv4Net,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// The default gateway, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// How long it was given for.
    pub seconds: u32,
    /// When it ends.
    pub ends: u64,
}

/// Whether addresses of a network come by DHCP.
pub(crate) fn wanted(network: &Network) -> bool {
    network.ipam.driver == "dhcp"
}

/// Asks for a lease on the endpoint's link, which is up. Returns the endpoint with what it was given.
///
/// # Errors
/// [`Error::Dhcp`].
pub(crate) fn obtain(network: &Network, endpoint: &Endpoint, netns: &Netns) -> Result<Endpoint> {
    let lease = inside(endpoint, netns, |client| client.obtain())?;
    Ok(with(network, endpoint, lease))
}

/// Gives the lease back. One packet, no answer: an endpoint that goes does not wait.
pub(crate) fn release(endpoint: &Endpoint, netns: &Netns) {
    let Some(lease) = lease_of(endpoint) else { return };
    if let Err(error) = inside(endpoint, netns, |client| client.release(&lease)) {
        tracing::warn!(endpoint = endpoint.id, %error, "the lease is not given back; it ends by itself");
    }
}

/// What is set inside once the lease is there.
pub(crate) fn changes(endpoint: &Endpoint) -> Vec<Change> {
    let address =
        |address: &IpNet| Change::Address { place: Place::Inside, link: endpoint.interface.clone(), address: *address };
    endpoint.addresses.iter().map(address).chain(driver::routes(endpoint)).collect()
}

fn with(network: &Network, endpoint: &Endpoint, lease: Lease) -> Endpoint {
    let mut endpoint = endpoint.clone();
    endpoint.addresses = vec![IpNet::V4(lease.address)];
    if !network.internal && !endpoint.no_default_route {
        endpoint.gateways = lease.router.into_iter().map(IpAddr::V4).collect();
    }
    endpoint.dns_servers = lease.dns.iter().copied().map(IpAddr::V4).collect();
    endpoint.state = serde_json::to_value(&lease).unwrap_or_default();
    endpoint
}

fn lease_of(endpoint: &Endpoint) -> Option<Lease> {
    serde_json::from_value(endpoint.state.clone()).ok()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Networks {
    /// Renews the leases that are past half their time. Returns when the next one is due.
    ///
    /// # Errors
    /// The records cannot be read. A lease that is not renewed is logged, and tried again.
    pub fn renew_leases(&self) -> Result<Duration> {
        let mut next = Duration::from_secs(3600);
        for endpoint in self.endpoints(&EndpointFilter::default())? {
            let Some(lease) = lease_of(&endpoint) else { continue };
            let half = u64::from(lease.seconds / 2);
            let due = lease.ends.saturating_sub(half);
            if due > now() {
                next = next.min(Duration::from_secs(due - now()));
                continue;
            }
            let renewed = self.renew(&endpoint, &lease);
            if let Err(error) = &renewed {
                tracing::warn!(endpoint = endpoint.id, %error, "the lease is not renewed yet");
            }
            next = next.min(Duration::from_secs((half / 4).clamp(1, 60)));
        }
        Ok(next)
    }

    fn renew(&self, endpoint: &Endpoint, lease: &Lease) -> Result<()> {
        let open = |error| Error::Dhcp { link: endpoint.interface.clone(), why: format!("{error}") };
        let netns = Netns::open(&endpoint.netns_path).map_err(open)?;
        let lease = inside(endpoint, &netns, |client| client.renew(lease))?;
        let _lock = self.lock()?;
        // Detached meanwhile, or given something else: then the record is not ours to write.
        let current = self.store.find_endpoint(&endpoint.id)?;
        let network = self.store.find_network(&endpoint.network_id)?.network;
        let renewed = with(&network, &current, lease);
        if renewed.addresses != current.addresses {
            apply_inside(&changes(&renewed), Some(&netns))?;
        }
        self.store.update_endpoint(&renewed)
    }
}

fn inside<T: Send>(
    endpoint: &Endpoint,
    netns: &Netns,
    work: impl FnOnce(&Client<'_>) -> io::Result<T> + Send,
) -> Result<T> {
    let error = |error: io::Error| Error::Dhcp { link: endpoint.interface.clone(), why: error.to_string() };
    let mac = ipam::parse_mac(&endpoint.mac_address)?;
    let result = netns.within(|| {
        let _filter = ReversePath::off(&endpoint.interface);
        work(&Client { socket: open(&endpoint.interface)?, mac, name: endpoint.names.first().map(String::as_str) })
    });
    result.and_then(|result| result).map_err(error)
}

/// The check of source addresses would drop the answers while the link has no address and no route.
struct ReversePath(String, Option<String>);

impl ReversePath {
    fn off(link: &str) -> Self {
        let path = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
        let before = std::fs::read_to_string(&path).ok().filter(|value| value.trim() != "0");
        if before.is_some() {
            let _ = std::fs::write(&path, "0");
        }
        Self(path, before)
    }
}

impl Drop for ReversePath {
    fn drop(&mut self) {
        if let Some(before) = &self.1 {
            let _ = std::fs::write(&self.0, before.trim());
        }
    }
}

fn open(link: &str) -> io::Result<UdpSocket> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_broadcast(&socket, true)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sys::netns::bind_to_link(socket.as_fd(), link)?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)))?;
    Ok(UdpSocket::from(socket))
}

/// One link's conversation with servers.
struct Client<'a> {
    socket: UdpSocket,
    mac: [u8; 6],
    name: Option<&'a str>,
}

impl Client<'_> {
    fn obtain(&self) -> io::Result<Lease> {
        let xid: u32 = rand::random();
        let offer = self.ask(&self.message(xid, MessageType::Discover), MessageType::Offer)?;
        let server = server_of(&offer).ok_or_else(|| io::Error::other("the offer names no server"))?;
        let mut request = self.message(xid, MessageType::Request);
        request.opts_mut().insert(DhcpOption::RequestedIpAddress(offer.yiaddr()));
        request.opts_mut().insert(DhcpOption::ServerIdentifier(server));
        self.ask(&request, MessageType::Ack).and_then(|ack| read(&ack))
    }

    /// Broadcast: the server's unicast answer would need nothing more, but this works in every state of the lease.
    fn renew(&self, lease: &Lease) -> io::Result<Lease> {
        let mut request = self.message(rand::random(), MessageType::Request);
        request.set_ciaddr(lease.address.addr());
        self.ask(&request, MessageType::Ack).and_then(|ack| read(&ack))
    }

    fn release(&self, lease: &Lease) -> io::Result<()> {
        let mut release = self.message(rand::random(), MessageType::Release);
        release.set_flags(Flags::default());
        release.set_ciaddr(lease.address.addr());
        release.opts_mut().insert(DhcpOption::ServerIdentifier(lease.server));
        self.socket.send_to(&encode(&release)?, (lease.server, 67)).map(drop)
    }

    fn message(&self, xid: u32, kind: MessageType) -> Message {
        let mut message = Message::default();
        message.set_xid(xid).set_flags(Flags::default().set_broadcast()).set_chaddr(&self.mac);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        // Type 1: Ethernet.
        options.insert(DhcpOption::ClientIdentifier([&[1], self.mac.as_slice()].concat()));
        if kind != MessageType::Release {
            if let Some(name) = self.name {
                options.insert(DhcpOption::Hostname(name.to_owned()));
            }
            let wanted = [OptionCode::SubnetMask, OptionCode::Router, OptionCode::DomainNameServer];
            options.insert(DhcpOption::ParameterRequestList(wanted.to_vec()));
        }
        message
    }

    /// Sends until somebody answers. A refusal ends it.
    fn ask(&self, message: &Message, wanted: MessageType) -> io::Result<Message> {
        let bytes = encode(message)?;
        let (end, mut pause) = (Instant::now() + PATIENCE, FIRST_TRY);
        while Instant::now() < end {
            self.socket.send_to(&bytes, (Ipv4Addr::BROADCAST, 67))?;
            let again = (Instant::now() + pause).min(end);
            while let Some(left) = again.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                match self.receive(message.xid(), left)? {
                    Some(answer) if answer.opts().msg_type() == Some(wanted) => return Ok(answer),
                    Some(answer) if answer.opts().msg_type() == Some(MessageType::Nak) => {
                        return Err(io::Error::other("the DHCP server refused"));
                    }
                    _ => {}
                }
            }
            pause *= 2;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no DHCP server answered within {PATIENCE:?}")))
    }

    /// One packet of this conversation; none when time is up, or it was something else.
    fn receive(&self, xid: u32, limit: Duration) -> io::Result<Option<Message>> {
        self.socket.set_read_timeout(Some(limit))?;
        let mut buffer = [0; 1500];
        let length = match self.socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let message = buffer.get(..length).and_then(|bytes| Message::decode(&mut Decoder::new(bytes)).ok());
        Ok(message.filter(|message| message.xid() == xid && message.chaddr().starts_with(&self.mac)))
    }
}

fn encode(message: &Message) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).map_err(io::Error::other)?;
    Ok(bytes)
}

fn server_of(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::ServerIdentifier)? {
        DhcpOption::ServerIdentifier(server) => Some(*server),
        _ => None,
    }
}

fn read(ack: &Message) -> io::Result<Lease> {
    let options = ack.opts();
    let missing = |what: &str| io::Error::other(format!("the DHCP server gives no {what}"));
    let mask = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => *mask,
        _ => return Err(missing("subnet mask")),
    };
    let seconds = match options.get(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) => *seconds,
        _ => return Err(missing("lease time")),
    };
    let list = |code| match options.get(code) {
        Some(DhcpOption::Router(list) | DhcpOption::DomainNameServer(list)) => list.clone(),
        _ => Vec::new(),
    };
    Ok(Lease {
        address: Ipv4Net::with_netmask(ack.yiaddr(), mask).map_err(|_| missing("usable subnet mask"))?,
        server: server_of(ack).ok_or_else(|| missing("name of its own"))?,
        router: list(OptionCode::Router).first().copied(),
        dns: list(OptionCode::DomainNameServer),
        seconds,
        ends: now() + u64::from(seconds),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_becomes_a_lease() {
        let mut ack = Message::default();
        ack.set_yiaddr([192, 0, 2, 7]);
        assert!(read(&ack).unwrap_err().to_string().contains("subnet mask"));
        ack.opts_mut().insert(DhcpOption::SubnetMask([255, 255, 255, 0].into()));
        ack.opts_mut().insert(DhcpOption::AddressLeaseTime(60));
        ack.opts_mut().insert(DhcpOption::ServerIdentifier([192, 0, 2, 1].into()));
        ack.opts_mut().insert(DhcpOption::Router(vec![[192, 0, 2, 1].into()]));
        let lease = read(&Message::decode(&mut Decoder::new(&encode(&ack).unwrap())).unwrap()).unwrap();
        assert_eq!(lease.address, "192.0.2.7/24".parse().unwrap());
        assert_eq!((lease.router, lease.dns.len(), lease.seconds), (Some([192, 0, 2, 1].into()), 0, 60));
        let endpoint = with(&Network::default(), &Endpoint::default(), lease.clone());
        assert_eq!(lease_of(&endpoint), Some(lease));
    }
}
