//! Routes: listed, set, removed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{ADD, Netlink, fine_if_there};
use crate::model::RouteKind;

/// A route to somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Absent: the default route.
    pub destination: Option<IpNet>,
    /// Index of the link it leaves by.
    pub link: Option<u32>,
    /// Of the destination.
    pub ipv6: bool,
    /// Learned from router advertisements.
    pub advertised: bool,
}

impl Netlink {
    /// The routes of the main table, both families.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        self.routes_in(RouteHeader::RT_TABLE_MAIN.into())
    }

    /// The routes of one table, both families.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes_in(&mut self, table: u32) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            routes.extend(self.dump(RouteNetlinkMessage::GetRoute(message), |reply| read_route(reply, table))?);
        }
        Ok(routes)
    }

    /// Sets the default route; one of the same family and metric gives way.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_default_route(&mut self, link: u32, gateway: IpAddr, metric: Option<u32>) -> io::Result<()> {
        let message = match gateway {
            IpAddr::V4(ip) => {
                let builder = RouteMessageBuilder::<Ipv4Addr>::new().gateway(ip).output_interface(link);
                metric.into_iter().fold(builder, RouteMessageBuilder::priority).build()
            }
            IpAddr::V6(ip) => {
                let builder = RouteMessageBuilder::<Ipv6Addr>::new().gateway(ip).output_interface(link);
                metric.into_iter().fold(builder, RouteMessageBuilder::priority).build()
            }
        };
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK).map(drop)
    }

    /// Adds a route. One that is there already is fine. A gateway that the link does not lead to is looked for on the
    /// namespace's other links.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_route(&mut self, link: u32, route: &crate::model::Route) -> io::Result<()> {
        let mut add = |link| {
            let message = RouteNetlinkMessage::NewRoute(message(route, link));
            fine_if_there(self.request(message, ADD | NLM_F_ACK))
        };
        match (route.kind, route.gateway) {
            (RouteKind::Unicast, None) => add(Some(link)),
            (RouteKind::Unicast, Some(_)) => match add(Some(link)) {
                Err(error) if is(&error, Errno::NETUNREACH) || is(&error, Errno::HOSTUNREACH) => add(None),
                result => result,
            },
            _ => add(None),
        }
    }

    /// Removes a route that [`Netlink::add_route`] added, wherever it leads. A missing one is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete_route(&mut self, route: &crate::model::Route) -> io::Result<()> {
        let mut message = message(route, None);
        message.header.scope = RouteScope::NoWhere;
        match self.request(RouteNetlinkMessage::DelRoute(message), NLM_F_ACK) {
            Err(error) if !is(&error, Errno::SRCH) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn message(route: &crate::model::Route, link: Option<u32>) -> RouteMessage {
    let length = route.destination.prefix_len();
    let mut message = match route.destination.addr() {
        IpAddr::V4(ip) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, length);
            match route.gateway {
                Some(IpAddr::V4(gateway)) => builder.gateway(gateway),
                _ if route.kind.is_unicast() => builder.scope(RouteScope::Link),
                _ => builder,
            }
            .build()
        }
        IpAddr::V6(ip) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, length);
            match route.gateway {
                Some(IpAddr::V6(gateway)) => builder.gateway(gateway),
                _ => builder,
            }
            .build()
        }
    };
    message.header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
    };
    message.attributes.extend(link.map(RouteAttribute::Oif));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

fn read_route(message: RouteNetlinkMessage, table: u32) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let mut route = Route {
        destination: None,
        link: None,
        ipv6: message.header.address_family == AddressFamily::Inet6,
        advertised: message.header.protocol == RouteProtocol::Ra,
    };
    let mut of = u32::from(message.header.table);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                route.destination = IpNet::new(ip.into(), message.header.destination_prefix_length).ok();
            }
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
                route.destination = IpNet::new(ip.into(), message.header.destination_prefix_length).ok();
            }
            RouteAttribute::Oif(index) => route.link = Some(index),
            RouteAttribute::Table(number) => of = number,
            _ => {}
        }
    }
    (of == table).then_some(route)
}
