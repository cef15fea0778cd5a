//! What is asked for, and what the networks know of it. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::model::{Driver, Endpoint, Network};

/// How long an answer may be kept, in seconds: not at all, endpoints come and go.
const TTL: u32 = 0;
const HOST_NAMES: [&str; 3] = ["host.docker.internal", "host.containers.internal", "host.pier.internal"];

/// The names of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    /// Where the server listens.
    pub gateways: Vec<IpAddr>,
    /// Nothing is asked of the upstreams.
    pub internal: bool,
    names: BTreeMap<String, Vec<IpAddr>>,
    addresses: BTreeMap<IpAddr, String>,
}

/// Zones by id of their network.
pub type Index = BTreeMap<String, Zone>;

/// What a zone says to a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// This.
    Ours(Box<Message>),
    /// Ask the upstreams.
    Forward,
}

/// The index of all networks that serve names.
#[must_use]
pub fn index(networks: &[Network], endpoints: &[Endpoint]) -> Index {
    let serving = networks.iter().filter(|network| network.driver == Driver::Bridge && network.dns_enabled);
    let mut index: Index = serving.map(|network| (network.id.clone(), Zone::of(network))).collect();
    for endpoint in endpoints {
        if let Some(zone) = index.get_mut(&endpoint.network_id) {
            zone.add(endpoint);
        }
    }
    index
}

impl Zone {
    fn of(network: &Network) -> Self {
        let gateways: Vec<IpAddr> = network.subnets.iter().map(|subnet| subnet.gateway).collect();
        let names = HOST_NAMES.map(|name| (name.to_owned(), gateways.clone())).into();
        Self { gateways, internal: network.internal, names, addresses: BTreeMap::new() }
    }

    fn add(&mut self, endpoint: &Endpoint) {
        for name in &endpoint.names {
            let addresses = self.names.entry(name.to_ascii_lowercase()).or_default();
            for address in endpoint.addresses.iter().map(ipnet::IpNet::addr) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        if let Some(name) = endpoint.names.first() {
            for address in &endpoint.addresses {
                self.addresses.insert(address.addr(), name.to_ascii_lowercase());
            }
        }
    }

    /// What this zone says to a query.
    #[must_use]
    pub fn answer(&self, message: &Message) -> Answer {
        let [query] = message.queries.as_slice() else {
            return Answer::Ours(Box::new(reply(message, ResponseCode::FormErr, Vec::new())));
        };
        let known = message.metadata.op_code == OpCode::Query && query.query_class() == DNSClass::IN;
        match self.records(query).filter(|_| known) {
            Some(records) => Answer::Ours(Box::new(reply(message, ResponseCode::NoError, records))),
            None if self.internal || is_single_label(query.name()) => {
                Answer::Ours(Box::new(reply(message, ResponseCode::NXDomain, Vec::new())))
            }
            None => Answer::Forward,
        }
    }

    /// Records for a name of ours, perhaps none of that type; `None` for a name that is not ours.
    fn records(&self, query: &Query) -> Option<Vec<Record>> {
        let name = query.name();
        let record = |data| Record::from_rdata(name.clone(), TTL, data);
        if query.query_type() == RecordType::PTR {
            let address = name.parse_arpa_name().ok()?;
            let whole = address.prefix_len() == address.max_prefix_len();
            let target = self.addresses.get(&address.addr()).filter(|_| whole)?;
            let target = Name::from_ascii(format!("{target}.")).ok()?;
            return Some(vec![record(RData::PTR(PTR(target)))]);
        }
        let text = name.to_ascii().to_ascii_lowercase();
        let addresses = self.names.get(text.trim_end_matches('.'))?;
        let wanted = query.query_type();
        let fits = |address: &&IpAddr| match address {
            IpAddr::V4(_) => matches!(wanted, RecordType::A | RecordType::ANY),
            IpAddr::V6(_) => matches!(wanted, RecordType::AAAA | RecordType::ANY),
        };
        let data = |address: &IpAddr| match address {
            IpAddr::V4(ip) => record(RData::A(A(*ip))),
            IpAddr::V6(ip) => record(RData::AAAA(AAAA(*ip))),
        };
        Some(addresses.iter().filter(fits).map(data).collect())
    }
}

/// A name without a dot cannot be somewhere else: the upstreams are not bothered with it.
fn is_single_label(name: &Name) -> bool {
    name.num_labels() == 1
}

/// A reply without records.
#[must_use]
pub fn reply(to: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut message = Message::new(to.metadata.id, MessageType::Response, to.metadata.op_code);
    message.metadata.response_code = code;
    message.metadata.recursion_desired = to.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = code == ResponseCode::NoError;
    message.add_queries(to.queries.iter().cloned());
    message.add_answers(answers);
    message.edns.clone_from(&to.edns);
    message
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn zone(internal: bool) -> Zone {
        let mut zone = Zone { internal, ..Zone::default() };
        zone.names.insert("web".into(), vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]);
        zone.addresses.insert("10.1.0.2".parse().unwrap(), "web".into());
        zone
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        match zone.answer(&message) {
            Answer::Forward => None,
            Answer::Ours(reply) => {
                let data = reply.answers.iter().map(|record| record.data.to_string()).collect();
                Some((reply.metadata.response_code, data))
            }
        }
    }

    #[test]
    fn names_of_the_network_are_answered() {
        let ok = |data: &[&str]| Some((ResponseCode::NoError, data.iter().map(|s| (*s).to_owned()).collect()));
        assert_eq!(ask(&zone(false), "web.", RecordType::A), ok(&["10.1.0.2"]));
        assert_eq!(ask(&zone(false), "WEB.", RecordType::AAAA), ok(&["fd00::2"]));
        assert_eq!(ask(&zone(false), "web.", RecordType::MX), ok(&[]));
        assert_eq!(ask(&zone(false), "2.0.1.10.in-addr.arpa.", RecordType::PTR), ok(&["web."]));
    }

    #[test]
    fn other_names_go_upstream_unless_the_network_is_internal() {
        let missing = Some((ResponseCode::NXDomain, Vec::new()));
        assert_eq!(ask(&zone(false), "example.org.", RecordType::A), None);
        assert_eq!(ask(&zone(false), "nobody.", RecordType::A), missing);
        assert_eq!(ask(&zone(true), "example.org.", RecordType::A), missing);
        assert_eq!(ask(&zone(false), "9.0.1.10.in-addr.arpa.", RecordType::PTR), None);
    }
}
