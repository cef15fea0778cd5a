//! Peers of a VXLAN link: entries of its forwarding database for the address of zeros (bridge(8), fdb).

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, fine_if_there};

/// Stands for everybody, and for whoever is not known.
const EVERYBODY: [u8; 6] = [0; 6];

impl Netlink {
    /// Adds or removes a peer that frames for everybody, and for nobody known, are sent to. One that is there, or
    /// gone, already is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_peer(&mut self, vxlan: u32, peer: IpAddr, there: bool) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = vxlan;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(EVERYBODY.to_vec()),
            NeighbourAttribute::Destination(match peer {
                IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
                IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
            }),
        ];
        if there {
            let flags = NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK;
            return fine_if_there(self.request(RouteNetlinkMessage::NewNeighbour(message), flags));
        }
        match self.request(RouteNetlinkMessage::DelNeighbour(message), NLM_F_ACK) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The peers of a link.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peers(&mut self, vxlan: u32) -> io::Result<Vec<IpAddr>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        // The kernel tells of all links.
        let of_link = |reply| match reply {
            RouteNetlinkMessage::NewNeighbour(entry) if entry.header.ifindex == vxlan => peer(&entry),
            _ => None,
        };
        self.dump(RouteNetlinkMessage::GetNeighbour(message), of_link)
    }
}

fn peer(entry: &NeighbourMessage) -> Option<IpAddr> {
    let everybody = |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::LinkLayerAddress(address) if *address == EVERYBODY);
    entry.attributes.iter().any(everybody).then_some(())?;
    // The entry's family is the bridge's: the length says which address it is.
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            let four = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
        }
        _ => None,
    })
}
