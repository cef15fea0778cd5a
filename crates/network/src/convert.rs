//! Between the protocol's messages and this crate's values.

use std::net::IpAddr;

use api::network::v1 as pb;
use api::types::v1 as types;

use crate::diagnose::Finding;
use crate::error::{Error, Result};
use crate::model::{
    Dns, Endpoint, Ipam, NamedPort, Network, NewEndpoint, NewNetwork, NewSubnet, PortMapping, Protocol, Route,
};
use crate::names::NetworkUpdate;
use crate::networks::Filters;
use crate::policy::{Policy, PolicyPorts};
use crate::stats::Statistics;
use crate::store::StoredEvent;

impl From<Network> for pb::Network {
    fn from(network: Network) -> Self {
        let subnets = network.subnets.into_iter().map(|subnet| pb::Subnet {
            subnet: subnet.subnet.to_string(),
            gateway: subnet.gateway.to_string(),
            ip_range: subnet.range.map(|range| range.to_string()).unwrap_or_default(),
        });
        Self {
            id: network.id,
            name: network.name,
            driver: network.driver.to_string(),
            subnets: subnets.collect(),
            internal: network.internal,
            ipv6: network.ipv6,
            options: network.options.into_iter().collect(),
            labels: network.labels.into_iter().collect(),
            created_at: network.created_at,
            bridge: network.bridge,
            dns_enabled: network.dns_enabled,
            ipam: Some(network.ipam.into()),
            routes: network.routes.into_iter().map(Into::into).collect(),
            peers: network.peers.iter().map(ToString::to_string).collect(),
            config_only: network.config_only,
            config_from: network.config_from,
            dns_servers: texts(&network.dns.servers),
            dns_search: network.dns.search,
            dns_options: network.dns.options,
        }
    }
}

impl From<Endpoint> for pb::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            id: endpoint.id,
            network_id: endpoint.network_id,
            network_name: endpoint.network_name,
            owner: endpoint.owner,
            netns_path: endpoint.netns_path.to_string_lossy().into_owned(),
            interface_name: endpoint.interface,
            host_interface: endpoint.host_interface,
            mac_address: endpoint.mac_address,
            addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
            gateways: texts(&endpoint.gateways),
            ports: endpoint.ports.into_iter().map(Into::into).collect(),
            names: endpoint.names,
            dns_servers: texts(&endpoint.dns_servers),
            dns_search: endpoint.dns.search,
            dns_options: endpoint.dns.options,
            dns_upstreams: texts(&endpoint.dns.servers),
            labels: endpoint.labels.into_iter().collect(),
            services: endpoint.services.into_iter().map(Into::into).collect(),
            unhealthy: endpoint.unhealthy,
            host_first: endpoint.host_first,
            gateway_priority: endpoint.gateway_priority,
            metric: endpoint.metric,
            mtu: endpoint.mtu.unwrap_or(0),
            routes: endpoint.routes.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Ipam> for pb::Ipam {
    fn from(ipam: Ipam) -> Self {
        Self {
            driver: ipam.driver,
            options: ipam.options.into_iter().collect(),
            auxiliary_addresses: ipam.auxiliary.into_iter().map(|(name, ip)| (name, ip.to_string())).collect(),
        }
    }
}

impl TryFrom<pb::Ipam> for Ipam {
    type Error = Error;

    fn try_from(ipam: pb::Ipam) -> Result<Self> {
        let one = |(name, ip): (String, String)| Ok((name, address("auxiliary address", &ip)?));
        Ok(Self {
            driver: ipam.driver,
            options: ipam.options.into_iter().collect(),
            auxiliary: ipam.auxiliary_addresses.into_iter().map(one).collect::<Result<_>>()?,
            pools: Vec::new(),
        })
    }
}

impl From<Route> for pb::Route {
    fn from(route: Route) -> Self {
        let gateway = route.gateway.map(|ip| ip.to_string()).unwrap_or_default();
        let r#type = route.kind.word().to_owned();
        Self { destination: route.destination.to_string(), gateway, metric: route.metric, r#type }
    }
}

impl TryFrom<pb::Route> for Route {
    type Error = Error;

    fn try_from(route: pb::Route) -> Result<Self> {
        if !route.gateway.is_empty() && !route.r#type.is_empty() {
            let what = format!("route to {}", route.destination);
            return Err(Error::invalid(what, format!("of type {} it has no gateway", route.r#type)));
        }
        let typed: Route = format!("{},{}{}", route.destination, route.gateway, route.r#type).parse()?;
        Ok(Route { metric: route.metric, ..typed })
    }
}

fn routes(routes: Vec<pb::Route>) -> Result<Vec<Route>> {
    routes.into_iter().map(TryInto::try_into).collect()
}

pub(crate) fn peers(peers: &[String]) -> Result<Vec<IpAddr>> {
    peers.iter().map(|text| address("peer", text)).collect()
}

fn texts(items: &[IpAddr]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

impl From<Protocol> for pb::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

fn protocol(number: i32) -> Result<Protocol> {
    match pb::Protocol::try_from(number) {
        Ok(pb::Protocol::Unspecified | pb::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(pb::Protocol::Udp) => Ok(Protocol::Udp),
        Ok(pb::Protocol::Sctp) => Ok(Protocol::Sctp),
        Err(_) => Err(Error::invalid(format!("protocol {number}"), "unknown")),
    }
}

impl From<NamedPort> for pb::NamedPort {
    fn from(named: NamedPort) -> Self {
        let protocol = pb::Protocol::from(named.protocol).into();
        Self { name: named.name, protocol, port: named.port.into() }
    }
}

impl TryFrom<pb::NamedPort> for NamedPort {
    type Error = Error;

    fn try_from(named: pb::NamedPort) -> Result<Self> {
        let port = u16::try_from(named.port).unwrap_or_default();
        Ok(Self { name: named.name, protocol: protocol(named.protocol)?, port })
    }
}

impl From<PortMapping> for pb::PortMapping {
    fn from(port: PortMapping) -> Self {
        let protocol = pb::Protocol::from(port.protocol);
        Self {
            host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: port.host_port.into(),
            container_port: port.container_port.into(),
            range: port.range.into(),
            protocol: protocol.into(),
        }
    }
}

impl TryFrom<pb::PortMapping> for PortMapping {
    type Error = Error;

    fn try_from(port: pb::PortMapping) -> Result<Self> {
        let number = |what: &str, value: u32| {
            u16::try_from(value).map_err(|_| Error::invalid(format!("{what} {value}"), "ports are 1 to 65535"))
        };
        let protocol = protocol(port.protocol)?;
        let host_ip = match port.host_ip.as_str() {
            "" => None,
            text => Some(address("host address", text)?),
        };
        Ok(Self {
            host_ip,
            host_port: number("host port", port.host_port)?,
            container_port: number("container port", port.container_port)?,
            range: number("range", port.range.max(1))?,
            protocol,
        })
    }
}

impl TryFrom<pb::CreateNetworkRequest> for NewNetwork {
    type Error = Error;

    fn try_from(request: pb::CreateNetworkRequest) -> Result<Self> {
        let subnet =
            |subnet: pb::Subnet| NewSubnet { subnet: subnet.subnet, gateway: subnet.gateway, range: subnet.ip_range };
        Ok(Self {
            name: request.name,
            driver: request.driver,
            subnets: request.subnets.into_iter().map(subnet).collect(),
            internal: request.internal,
            ipv6: request.ipv6,
            options: request.options.into_iter().collect(),
            labels: request.labels.into_iter().collect(),
            disable_dns: request.disable_dns,
            exist_ok: request.exist_ok,
            disable_ipv4: request.disable_ipv4,
            ipam: request.ipam.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            routes: routes(request.routes)?,
            peers: peers(&request.peers)?,
            config_only: request.config_only,
            config_from: request.config_from,
            dns: dns(&request.dns_servers, request.dns_search, request.dns_options)?,
        })
    }
}

impl TryFrom<pb::AttachRequest> for NewEndpoint {
    type Error = Error;

    fn try_from(request: pb::AttachRequest) -> Result<Self> {
        Ok(Self {
            network: request.network,
            netns_path: request.netns_path.into(),
            owner: request.owner,
            names: request.names,
            addresses: request.addresses.iter().map(|text| address("address", text)).collect::<Result<_>>()?,
            mac_address: request.mac_address,
            interface: request.interface_name,
            ports: ports(request.ports)?,
            no_default_route: request.no_default_route,
            gateway_priority: request.gateway_priority,
            metric: request.metric,
            mtu: (request.mtu != 0).then_some(request.mtu),
            routes: routes(request.routes)?,
            host_interface: request.host_interface_name,
            dns: dns(&request.dns_servers, request.dns_search, request.dns_options)?,
            labels: request.labels.into_iter().collect(),
            services: request.services.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        })
    }
}

impl TryFrom<pb::UpdateNetworkRequest> for NetworkUpdate {
    type Error = Error;

    fn try_from(request: pb::UpdateNetworkRequest) -> Result<Self> {
        Ok(Self { dns_add: servers(&request.dns_add)?, dns_drop: servers(&request.dns_drop)? })
    }
}

impl From<Statistics> for pb::EndpointStatistics {
    fn from(of: Statistics) -> Self {
        let counters = of.counters;
        Self {
            endpoint_id: of.endpoint_id,
            network_name: of.network_name,
            owner: of.owner,
            interface_name: of.interface,
            rx_bytes: counters.rx_bytes,
            rx_packets: counters.rx_packets,
            rx_errors: counters.rx_errors,
            rx_dropped: counters.rx_dropped,
            tx_bytes: counters.tx_bytes,
            tx_packets: counters.tx_packets,
            tx_errors: counters.tx_errors,
            tx_dropped: counters.tx_dropped,
        }
    }
}

impl From<Finding> for pb::Finding {
    fn from(finding: Finding) -> Self {
        Self {
            endpoint_id: finding.endpoint,
            check: finding.check,
            verdict: finding.verdict.to_string(),
            detail: finding.detail,
            hint: finding.hint,
        }
    }
}

impl From<Policy> for pb::Policy {
    fn from(policy: Policy) -> Self {
        let ports = policy.ports.into_iter().map(|ports| pb::PolicyPorts {
            protocol: pb::Protocol::from(ports.protocol).into(),
            first: ports.first.into(),
            last: ports.last.into(),
        });
        Self {
            name: policy.name,
            deny: policy.deny,
            from: policy.from.into_iter().collect(),
            to: policy.to.into_iter().collect(),
            ports: ports.collect(),
        }
    }
}

impl TryFrom<pb::Policy> for Policy {
    type Error = Error;

    fn try_from(policy: pb::Policy) -> Result<Self> {
        let ports = policy.ports.iter().map(|ports| {
            let last = if ports.last == 0 { ports.first } else { ports.last };
            let number = |port: u32| {
                u16::try_from(port).map_err(|_| Error::invalid(format!("port {port}"), "ports are 1 to 65535"))
            };
            Ok(PolicyPorts { protocol: protocol(ports.protocol)?, first: number(ports.first)?, last: number(last)? })
        });
        Ok(Self {
            ports: ports.collect::<Result<_>>()?,
            name: policy.name,
            deny: policy.deny,
            from: policy.from.into_iter().collect(),
            to: policy.to.into_iter().collect(),
        })
    }
}

fn servers(texts: &[String]) -> Result<Vec<IpAddr>> {
    texts.iter().map(|text| address("name server", text)).collect()
}

fn dns(texts: &[String], search: Vec<String>, options: Vec<String>) -> Result<Dns> {
    Ok(Dns { servers: servers(texts)?, search, options })
}

pub(crate) fn ports(ports: Vec<pb::PortMapping>) -> Result<Vec<PortMapping>> {
    ports.into_iter().map(TryInto::try_into).collect()
}

pub(crate) fn filters(filters: std::collections::HashMap<String, types::StringList>) -> Filters {
    filters.into_iter().map(|(key, list)| (key, list.values)).collect()
}

pub(crate) fn event(event: StoredEvent) -> types::Event {
    types::Event {
        time_unix_nano: event.time,
        r#type: "network".into(),
        action: event.action,
        id: event.id,
        attributes: event.attributes.into_iter().collect(),
    }
}

/// Whether docker's filters let an event through.
pub(crate) fn passes(event: &StoredEvent, filters: &Filters) -> bool {
    let attribute = |key: &str, value: &str| event.attributes.get(key).is_some_and(|is| is == value);
    let one = |key: &str, value: &str| match key {
        "type" => value == "network",
        "event" => event.action == value,
        "network" => event.id == value || attribute("name", value),
        "container" => attribute("container", value),
        _ => false,
    };
    filters.iter().all(|(key, values)| values.iter().any(|value| one(key, value)))
}

fn address(what: &str, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid(format!("{what} {text:?}"), "not an IP address"))
}
