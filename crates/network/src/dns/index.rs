//! What is asked for, by whom, and what the networks know of it. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

use super::zone::Zone;
use crate::model::{Endpoint, Network};

/// EDNS answer size over UDP that passes every path unfragmented, in bytes (dnsflagday.net/2020).
const PAYLOAD: u16 = 1232;

/// A namespace on a network: what it may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Client {
    /// Ids of the networks that its namespace is on, this one first.
    zones: Vec<String>,
    /// What it is forwarded to; empty: what the network says.
    upstreams: Vec<IpAddr>,
    /// One of its networks forwards.
    way_out: bool,
}

/// All networks that serve names, and who is on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    zones: BTreeMap<String, Zone>,
    clients: BTreeMap<(String, IpAddr), Client>,
}

/// What is said to a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// This.
    Ours(Box<Message>),
    /// Ask these upstreams; none: the host's.
    Forward(Vec<IpAddr>),
}

/// The index of the networks that serve names and have somebody to serve.
#[must_use]
pub fn index(networks: &[Network], endpoints: &[Endpoint]) -> Index {
    let serves = |network: &&Network| !network.name_servers().is_empty();
    let used = |network: &&Network| endpoints.iter().any(|endpoint| endpoint.network_id == network.id);
    let serving = networks.iter().filter(serves).filter(used);
    let mut index = Index {
        zones: serving.map(|network| (network.id.clone(), Zone::of(network))).collect(),
        clients: BTreeMap::new(),
    };
    let mut places: BTreeMap<&std::path::Path, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        if let Some(zone) = index.zones.get_mut(&endpoint.network_id) {
            zone.add(endpoint);
            places.entry(&endpoint.netns_path).or_default().push(endpoint);
        }
    }
    for together in places.values() {
        index.add_clients(together);
    }
    index
}

impl Index {
    /// Where to listen, and for which network: every gateway of every zone.
    #[must_use]
    pub fn gateways(&self) -> BTreeMap<IpAddr, String> {
        self.zones.iter().flat_map(|(id, zone)| zone.gateways.iter().map(|ip| (*ip, id.clone()))).collect()
    }

    /// The VRF that a network is in; empty: none.
    #[must_use]
    pub fn vrf(&self, network: &str) -> &str {
        self.zones.get(network).map(|zone| zone.vrf.as_str()).unwrap_or_default()
    }

    /// Endpoints of one namespace: each sees the others' networks too.
    fn add_clients(&mut self, together: &[&Endpoint]) {
        let way_out = together.iter().any(|e| self.zones.get(&e.network_id).is_some_and(|zone| !zone.internal));
        for endpoint in together {
            let others = together.iter().filter(|other| other.network_id != endpoint.network_id);
            let zones = std::iter::once(endpoint).chain(others).map(|e| e.network_id.clone()).collect();
            let client = Client { zones, upstreams: endpoint.dns.servers.clone(), way_out };
            for address in &endpoint.addresses {
                self.clients.insert((endpoint.network_id.clone(), address.addr()), client.clone());
            }
        }
    }

    /// What is said to a query that came in on a network, from this address. `turn` rotates replicas.
    #[must_use]
    pub fn answer(&self, network: &str, from: IpAddr, message: &Message, turn: usize) -> Answer {
        let say = |code| Answer::Ours(Box::new(reply(message, code, Vec::new())));
        let [query] = message.queries.as_slice() else { return say(ResponseCode::FormErr) };
        if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return say(ResponseCode::BADVERS);
        }
        let (Some(zone), Some(client)) = (self.zones.get(network), self.client(network, from)) else {
            return say(ResponseCode::Refused);
        };
        if message.metadata.op_code != OpCode::Query {
            return say(ResponseCode::NotImp);
        }
        let mut seen = client.zones.iter().filter_map(|id| self.zones.get(id));
        if query.query_class() == DNSClass::IN
            && let Some(records) = seen.find_map(|zone| zone.records(query, turn))
        {
            return Answer::Ours(Box::new(reply(message, ResponseCode::NoError, records)));
        }
        if self.is_ours_alone(zone, query) {
            return say(ResponseCode::NXDomain);
        }
        match (zone.internal, client.way_out) {
            // An internal network's socket never forwards. A namespace with another way out is sent on to that one's.
            (true, true) => say(ResponseCode::Refused),
            (true, false) => say(ResponseCode::NXDomain),
            (false, _) if client.upstreams.is_empty() => Answer::Forward(zone.upstreams.clone()),
            (false, _) => Answer::Forward(client.upstreams),
        }
    }

    /// Who asks. Addresses of the network without an endpoint (the host, one that just came) see this network only;
    /// nobody else is answered.
    fn client(&self, network: &str, from: IpAddr) -> Option<Client> {
        if let Some(client) = self.clients.get(&(network.to_owned(), from)) {
            return Some(client.clone());
        }
        let here = self.zones.get(network)?.subnets.iter().any(|subnet| subnet.contains(&from));
        here.then(|| Client { zones: vec![network.to_owned()], ..Client::default() })
    }

    /// Nothing that an upstream could know: a name of one label, unless the network says otherwise, and an address of
    /// one of the networks.
    fn is_ours_alone(&self, zone: &Zone, query: &Query) -> bool {
        let name = query.name();
        match query.query_type() {
            RecordType::A | RecordType::AAAA => name.num_labels() == 1 && !zone.forwards_short_names,
            RecordType::PTR => name.parse_arpa_name().is_ok_and(|net| {
                self.zones.values().flat_map(|zone| &zone.subnets).any(|subnet| subnet.contains(&net.addr()))
            }),
            _ => false,
        }
    }
}

/// A reply with these records, and with EDNS exactly if the query has it (RFC 6891, 6.1.1).
#[must_use]
pub fn reply(to: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut message = Message::new(to.metadata.id, MessageType::Response, to.metadata.op_code);
    message.metadata.response_code = code;
    message.metadata.recursion_desired = to.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = code == ResponseCode::NoError;
    message.add_queries(to.queries.iter().cloned());
    message.add_answers(answers);
    if let Some(theirs) = &to.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD).set_version(0).set_dnssec_ok(theirs.flags().dnssec_ok);
        edns.set_rcode_high((u16::from(code) >> 4) as u8);
        message.set_edns(edns);
    }
    message
}

/// A name as the records keep it: lower case, no dot at the end.
#[must_use]
pub(super) fn text(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
