//! The names of one network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;

use super::index::text;
use crate::model::{Endpoint, Network};

/// How long an answer may be kept, in seconds: not at all, endpoints come and go.
const TTL: u32 = 0;
/// The host, as docker and podman call it.
const HOST_NAMES: [&str; 3] = ["host.docker.internal", "host.containers.internal", "host.pier.internal"];

/// One endpoint behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Replica {
    addresses: Vec<IpAddr>,
    /// Its own name, for SRV.
    target: String,
    /// For SRV.
    port: u16,
    healthy: bool,
}

/// The names of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    /// Where the server listens.
    pub gateways: Vec<IpAddr>,
    /// The VRF that those are addresses of; empty: none.
    pub vrf: String,
    /// Whose questions are answered.
    pub subnets: Vec<IpNet>,
    /// Nothing is asked of the upstreams.
    pub internal: bool,
    /// What the network forwards to; empty: the host's.
    pub upstreams: Vec<IpAddr>,
    /// Names of one label that are not ours are asked of the upstreams.
    pub forwards_short_names: bool,
    /// `.` and the network's name: `web.blue` is `web` of `blue`.
    suffix: String,
    names: BTreeMap<String, Vec<Replica>>,
    services: BTreeMap<String, Vec<Replica>>,
    addresses: BTreeMap<IpAddr, String>,
}

impl Zone {
    /// The zone of a network without endpoints: the host's names.
    #[must_use]
    pub fn of(network: &Network) -> Self {
        let gateways = network.name_servers();
        let host = Replica { addresses: gateways.clone(), target: String::new(), port: 0, healthy: true };
        Self {
            gateways,
            vrf: network.vrf().to_owned(),
            subnets: network.subnets.iter().map(|subnet| subnet.subnet).collect(),
            internal: network.internal,
            upstreams: network.dns.servers.clone(),
            forwards_short_names: network.forwards_short_names(),
            suffix: format!(".{}", network.name.to_ascii_lowercase()),
            names: HOST_NAMES.map(|name| (name.to_owned(), vec![host.clone()])).into(),
            ..Self::default()
        }
    }

    /// Adds what an endpoint is called.
    pub fn add(&mut self, endpoint: &Endpoint) {
        let addresses: Vec<IpAddr> = endpoint.addresses.iter().map(IpNet::addr).collect();
        let Some(target) = endpoint.names.first().map(|name| name.to_ascii_lowercase()) else { return };
        let replica =
            |port| Replica { addresses: addresses.clone(), target: target.clone(), port, healthy: !endpoint.unhealthy };
        for name in endpoint.names.iter().map(|name| name.to_ascii_lowercase()) {
            for service in &endpoint.services {
                let key = format!("_{}._{}.{name}", service.name, service.protocol);
                self.services.entry(key).or_default().push(replica(service.port));
            }
            self.names.entry(name).or_default().push(replica(0));
        }
        self.addresses.extend(addresses.iter().map(|ip| (*ip, target.clone())));
    }

    /// Records for a name of ours, perhaps none of that type; `None` for a name that is not ours. Replicas come in
    /// another order each turn, those that are not healthy only when no other is there.
    #[must_use]
    pub(super) fn records(&self, query: &Query, turn: usize) -> Option<Vec<Record>> {
        let name = query.name();
        let record = |data| Record::from_rdata(name.clone(), TTL, data);
        if query.query_type() == RecordType::PTR {
            let address = name.parse_arpa_name().ok()?;
            let whole = address.prefix_len() == address.max_prefix_len();
            let target = self.addresses.get(&address.addr()).filter(|_| whole)?;
            return Some(vec![record(RData::PTR(PTR(absolute(target)?)))]);
        }
        let full = text(name);
        let short = full.strip_suffix(&self.suffix).unwrap_or(&full);
        let of = |map: &BTreeMap<String, Vec<Replica>>| {
            map.get(&full).or_else(|| map.get(short)).map(|replicas| healthy(replicas, turn))
        };
        if let Some(replicas) = of(&self.services) {
            let srv = |replica: &Replica| Some(RData::SRV(SRV::new(0, 0, replica.port, absolute(&replica.target)?)));
            let wanted = matches!(query.query_type(), RecordType::SRV | RecordType::ANY);
            return Some(replicas.iter().filter(|_| wanted).filter_map(srv).map(record).collect());
        }
        let addresses = of(&self.names)?.into_iter().flat_map(|replica| replica.addresses);
        Some(addresses.filter_map(|ip| address(ip, query.query_type())).map(record).collect())
    }
}

/// In this turn's order, without those that should not be used while others can be.
fn healthy(replicas: &[Replica], turn: usize) -> Vec<Replica> {
    let mut chosen: Vec<Replica> = replicas.iter().filter(|replica| replica.healthy).cloned().collect();
    if chosen.is_empty() {
        chosen = replicas.to_vec();
    }
    let start = turn % chosen.len().max(1);
    chosen.rotate_left(start);
    chosen
}

fn address(ip: IpAddr, wanted: RecordType) -> Option<RData> {
    match ip {
        IpAddr::V4(ip) if matches!(wanted, RecordType::A | RecordType::ANY) => Some(RData::A(A(ip))),
        IpAddr::V6(ip) if matches!(wanted, RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(ip))),
        _ => None,
    }
}

fn absolute(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{name}.")).ok()
}
