//! Links that drivers make, beyond the bridge.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::NLM_F_ACK;
use rtnetlink::packet_route::link::{
    BridgeVlanInfoFlags, InfoBridge, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVeth, InfoVlan, InfoVrf,
    IpVlanMode, LinkAttribute, LinkInfo, MacVlanMode,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridge, LinkBridgeVlan, LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVxlan};

use super::{ADD, Netlink, Veth};
use crate::driver::Overlay;
use crate::plan::Child;

/// The VLAN of a bridge's ports that are in no other (`vlan_default_pvid` of ip-link(8)), unless somebody chose one.
const DEFAULT_VLAN: u16 = 1;

impl Netlink {
    /// Makes a bridge, up. With `vlan` it keeps frames apart by their 802.1Q tags.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32, vlan: bool) -> io::Result<()> {
        let mut builder = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu);
        if vlan {
            builder = builder.vlan_filtering(true);
        }
        self.request(RouteNetlinkMessage::NewLink(builder.build()), ADD | NLM_F_ACK).map(drop)
    }

    /// Makes a veth pair: one end up, the other born in the namespace `netns`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_veth(&mut self, veth: &Veth<'_>, netns: BorrowedFd<'_>) -> io::Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.inside)
            .address(veth.mac.to_vec())
            .mtu(veth.mtu)
            .setns_by_fd(netns.as_raw_fd())
            .build();
        let mut builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(veth.host)
            .mtu(veth.mtu)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        if let Some(bridge) = veth.bridge {
            builder = builder.controller(bridge);
        }
        self.request(RouteNetlinkMessage::NewLink(builder.build()), ADD | NLM_F_ACK).map(drop)
    }

    /// Makes a child of a link of this namespace, born in the namespace `netns`.
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` when it has no links of this kind.
    pub fn add_child(
        &mut self,
        child: &Child,
        parent: u32,
        name: &str,
        mac: Option<[u8; 6]>,
        mtu: Option<u32>,
        netns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let (kind, data) = match child {
            Child::Macvlan { mode, broadcast_limit } => {
                let mut data = vec![InfoMacVlan::Mode(macvlan_mode(mode))];
                data.extend(broadcast_limit.map(InfoMacVlan::BcCutoff));
                (InfoKind::MacVlan, InfoData::MacVlan(data))
            }
            Child::Ipvlan { mode } => (InfoKind::IpVlan, InfoData::IpVlan(vec![InfoIpVlan::Mode(ipvlan_mode(mode))])),
            Child::Vlan { id } => (InfoKind::Vlan, InfoData::Vlan(vec![InfoVlan::Id(*id)])),
        };
        let mut builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind)
            .name(name)
            .link(parent)
            .setns_by_fd(netns.as_raw_fd())
            .set_info_data(data);
        if let Some(mac) = mac {
            builder = builder.address(mac.to_vec());
        }
        if let Some(mtu) = mtu {
            builder = builder.mtu(mtu);
        }
        self.request(RouteNetlinkMessage::NewLink(builder.build()), ADD | NLM_F_ACK).map(drop)
    }

    /// Makes a tagged link, up, marked with an alias.
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` when it has no VLANs.
    pub fn add_vlan(&mut self, name: &str, base: u32, id: u16, alias: &str) -> io::Result<()> {
        let message = LinkVlan::new(name, base, id).alias(alias).up().build();
        self.request(RouteNetlinkMessage::NewLink(message), ADD | NLM_F_ACK).map(drop)
    }

    /// Makes a VXLAN link, up and on a bridge, that learns who is where.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_vxlan(&mut self, name: &str, overlay: &Overlay, mtu: u32, bridge: u32) -> io::Result<()> {
        let mut builder = LinkVxlan::new(name, overlay.vni).port(overlay.port).learning(true).mtu(mtu);
        builder = match overlay.local {
            Some(IpAddr::V4(ip)) => builder.local(ip),
            Some(IpAddr::V6(ip)) => builder.local6(ip),
            None => builder,
        };
        let message = builder.controller(bridge).up().build();
        self.request(RouteNetlinkMessage::NewLink(message), ADD | NLM_F_ACK).map(drop)
    }

    /// Makes a port of a bridge an untagged member of a VLAN, and of no other.
    ///
    /// # Errors
    /// The kernel's; `EOPNOTSUPP` when its bridges know no VLANs.
    pub fn set_port_vlan(&mut self, port: u32, id: u16) -> io::Result<()> {
        let flags = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
        let message = |id, flags| {
            let mut message = LinkBridgeVlan::new(port).vlan(id, flags).build();
            message.header.interface_family = AddressFamily::Bridge;
            message
        };
        self.request(RouteNetlinkMessage::SetLink(message(id, flags)), NLM_F_ACK)?;
        if id == DEFAULT_VLAN {
            return Ok(());
        }
        // Whatever joins a bridge is a member of that.
        let left = message(DEFAULT_VLAN, BridgeVlanInfoFlags::empty());
        match self.request(RouteNetlinkMessage::DelLink(left), NLM_F_ACK) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a bridge keep frames apart by their 802.1Q tags; fine when it does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn filter_vlans(&mut self, bridge: u32) -> io::Result<()> {
        let mut message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge)
            .set_info_data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)]))
            .build();
        message.header.index = bridge;
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK).map(drop)
    }

    /// The routing table of a VRF link; `None` for a link of another kind, or none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn vrf_table(&mut self, name: &str) -> io::Result<Option<u32>> {
        let message = LinkUnspec::new_with_name(name).build();
        let replies = match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Err(error) if super::is_gone(&error) => return Ok(None),
            replies => replies?,
        };
        let attributes = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(link) => Some(link.attributes),
            _ => None,
        });
        let infos = attributes.flatten().filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
        let mut tables = infos.flatten().filter_map(|info| match info {
            LinkInfo::Data(InfoData::Vrf(data)) => data.into_iter().find_map(|item| match item {
                InfoVrf::TableId(table) => Some(table),
                _ => None,
            }),
            _ => None,
        });
        Ok(tables.next())
    }

    /// Moves a link into the namespace `netns`, under another name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn move_link(&mut self, link: u32, name: &str, mac: Option<[u8; 6]>, netns: BorrowedFd<'_>) -> io::Result<()> {
        // A link that is up keeps its name.
        let down = LinkUnspec::new_with_index(link).down().build();
        self.request(RouteNetlinkMessage::SetLink(down), NLM_F_ACK)?;
        let mut builder = LinkUnspec::new_with_index(link).name(name).setns_by_fd(netns.as_raw_fd());
        if let Some(mac) = mac {
            builder = builder.address(mac.to_vec());
        }
        self.request(RouteNetlinkMessage::SetLink(builder.build()), NLM_F_ACK).map(drop)
    }

    /// The alias of a link; empty when it has none or is not there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn alias(&mut self, name: &str) -> io::Result<String> {
        let message = LinkUnspec::new_with_name(name).build();
        let replies = match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Err(error) if super::is_gone(&error) => return Ok(String::new()),
            replies => replies?,
        };
        let alias = replies.into_iter().find_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(link) => link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfAlias(alias) => Some(alias),
                _ => None,
            }),
            _ => None,
        });
        Ok(alias.unwrap_or_default())
    }
}

fn macvlan_mode(mode: &str) -> MacVlanMode {
    match mode {
        "private" => MacVlanMode::Private,
        "vepa" => MacVlanMode::Vepa,
        "passthru" => MacVlanMode::Passthrough,
        "source" => MacVlanMode::Source,
        _ => MacVlanMode::Bridge,
    }
}

fn ipvlan_mode(mode: &str) -> IpVlanMode {
    match mode {
        "l3" => IpVlanMode::L3,
        "l3s" => IpVlanMode::L3S,
        _ => IpVlanMode::L2,
    }
}
