//! Links, addresses and routes over rtnetlink, one request at a time.
//!
//! rtnetlink's builders make the messages; they travel over a plain blocking socket, because a change is a handful of
//! requests whose answers the kernel has ready at once. A socket belongs to the namespace it was opened in.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{AddressMessageBuilder, LinkBridgePort, LinkMessageBuilder, LinkUnspec};
use std::net::{Ipv4Addr, Ipv6Addr};

mod gone;
mod make;
mod peers;
mod refusal;
mod routes;
mod xfrm;

pub use routes::Route;
pub(crate) use xfrm::Xfrm;

const ADD: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A link, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Index of the bridge it is a port of.
    pub controller: Option<u32>,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// MAC address; empty when it has none.
    pub mac: Vec<u8>,
}

/// What went over a link since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)] // the kernel's words, see ip-link(8)
pub struct Counters {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl Counters {
    /// As the other end of the link counts.
    #[must_use]
    pub fn turned(self) -> Self {
        Self {
            rx_bytes: self.tx_bytes,
            rx_packets: self.tx_packets,
            rx_errors: self.tx_errors,
            rx_dropped: self.tx_dropped,
            tx_bytes: self.rx_bytes,
            tx_packets: self.rx_packets,
            tx_errors: self.rx_errors,
            tx_dropped: self.rx_dropped,
        }
    }
}

/// What a veth pair is to be.
#[derive(Debug, Clone)]
pub struct Veth<'a> {
    /// Name of the host's end.
    pub host: &'a str,
    /// Name of the end inside.
    pub inside: &'a str,
    /// MAC address of the end inside.
    pub mac: [u8; 6],
    /// Bytes.
    pub mtu: u32,
    /// Index of the bridge that the host's end joins.
    pub bridge: Option<u32>,
}

/// A socket to one namespace's rtnetlink.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket to the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// A link by name.
    ///
    /// # Errors
    /// The kernel's; a missing link is none.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let message = LinkUnspec::new_with_name(name).build();
        match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Ok(replies) => Ok(replies.into_iter().find_map(read_link)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), read_link)
    }

    /// The counters of all links, by name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counters(&mut self) -> io::Result<BTreeMap<String, Counters>> {
        let all = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), read_counters)?;
        Ok(all.into_iter().collect())
    }

    /// The addresses of a link.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self, link: u32) -> io::Result<Vec<IpNet>> {
        self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |reply| read_address(reply, link))
    }

    /// Makes a veth pair whose ends stay here, up, with one address and without asking for neighbours'.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_pair(&mut self, one: &str, other: &str, mac: [u8; 6]) -> io::Result<()> {
        let quiet = |mut message: LinkMessage| {
            message.header.flags |= LinkFlags::Noarp;
            message.header.change_mask |= LinkFlags::Noarp;
            message
        };
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(other).address(mac.to_vec()).build();
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(one)
            .address(mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(quiet(peer))))
            .build();
        self.request(RouteNetlinkMessage::NewLink(quiet(message)), ADD | NLM_F_ACK)?;
        for name in [one, other] {
            let gone = || io::Error::new(io::ErrorKind::NotFound, format!("link {name} is gone"));
            let index = self.link(name)?.ok_or_else(gone)?.index;
            self.set_up(index)?;
        }
        Ok(())
    }

    /// Lets a bridge send a frame back through the port it came from.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_hairpin(&mut self, link: u32) -> io::Result<()> {
        let message = LinkBridgePort::new(link).append_info_data(InfoBridgePort::HairpinMode(true)).build();
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK).map(drop)
    }

    /// Makes a link a port of a bridge.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_controller(&mut self, link: u32, bridge: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(link).controller(bridge).build();
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Gives a link another name.
    ///
    /// # Errors
    /// The kernel's: the name is taken, or the link is up.
    pub fn rename(&mut self, link: u32, name: &str) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(link).name(name.to_owned()).build();
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&mut self, link: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(link).up().build();
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Removes a link by name. A missing one is fine; returns whether it was there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete_link(&mut self, name: &str) -> io::Result<bool> {
        let message = LinkUnspec::new_with_name(name).build();
        match self.request(RouteNetlinkMessage::DelLink(message), NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds an address, usable at once (no duplicate address detection). One that is there already is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_address(&mut self, link: u32, address: IpNet) -> io::Result<()> {
        let prefix = address.prefix_len();
        let mut message = match address.addr() {
            IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new().index(link).address(ip, prefix).build(),
            IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new().index(link).address(ip, prefix).build(),
        };
        if address.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        fine_if_there(self.request(RouteNetlinkMessage::NewAddress(message), ADD | NLM_F_ACK))
    }

    fn request(&mut self, payload: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.converse(payload, flags, Some)
    }

    /// All of a kind.
    fn dump<T>(
        &mut self,
        payload: RouteNetlinkMessage,
        read: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.converse(payload, NLM_F_DUMP, read)
    }

    /// What `read` makes of each reply, as it comes: a message is many times what is kept of it (a link's some 20 KB).
    fn converse<T>(
        &mut self,
        payload: RouteNetlinkMessage,
        flags: u16,
        read: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        converse(&self.socket, &mut self.sequence, payload, flags, read)
    }
}

/// Sends a request, and gives what `read` makes of each reply, as it comes.
fn converse<M, T>(
    socket: &Socket,
    sequence: &mut u32,
    payload: M,
    flags: u16,
    mut read: impl FnMut(M) -> Option<T>,
) -> io::Result<Vec<T>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
{
    *sequence = sequence.wrapping_add(1);
    let mut message = NetlinkMessage::from(payload);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = *sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut replies = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if read_datagram(&datagram, *sequence, |reply| replies.extend(read(reply)))? {
            return Ok(replies);
        }
    }
}

/// Reads the messages of one datagram; true when the answer is complete.
fn read_datagram<M: NetlinkDeserializable>(
    mut bytes: &[u8],
    sequence: u32,
    mut take: impl FnMut(M),
) -> io::Result<bool> {
    while !bytes.is_empty() {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, format!("netlink answer: {error}"));
        let message = NetlinkMessage::<M>::deserialize(bytes).map_err(invalid)?;
        let length = (message.header.length as usize).next_multiple_of(4).min(bytes.len());
        bytes = &bytes[length.max(1)..];
        if message.header.sequence_number != sequence {
            continue;
        }
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => match error.code {
                None => return Ok(true),
                Some(_) => return Err(refusal::of(&error, message.header.flags)),
            },
            NetlinkPayload::InnerMessage(inner) => take(inner),
            _ => {}
        }
    }
    Ok(false)
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn fine_if_there(result: io::Result<Vec<RouteNetlinkMessage>>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn read_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let up = message.header.flags.contains(LinkFlags::Up);
    let mut link =
        Link { index: message.header.index, name: String::new(), controller: None, mtu: 0, up, mac: Vec::new() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = mac,
            _ => {}
        }
    }
    Some(link)
}

fn read_counters(message: RouteNetlinkMessage) -> Option<(String, Counters)> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let (mut name, mut counters) = (None, Counters::default());
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Stats64(stats) => {
                counters = Counters {
                    rx_bytes: stats.rx_bytes,
                    rx_packets: stats.rx_packets,
                    rx_errors: stats.rx_errors,
                    rx_dropped: stats.rx_dropped,
                    tx_bytes: stats.tx_bytes,
                    tx_packets: stats.tx_packets,
                    tx_errors: stats.tx_errors,
                    tx_dropped: stats.tx_dropped,
                }
            }
            _ => {}
        }
    }
    Some((name?, counters))
}

fn read_address(message: RouteNetlinkMessage, link: u32) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != link {
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    })?;
    IpNet::new(address, message.header.prefix_len).ok()
}
