#![allow(clippy::unwrap_used)]
use super::*;
use crate::model::{Dns, Driver, NamedPort, Protocol, Subnet};

fn network(name: &str, subnet: &str, internal: bool) -> Network {
    let subnet = subnet.parse().unwrap();
    Network {
        id: name.into(),
        name: name.into(),
        driver: Driver::Bridge,
        subnets: vec![Subnet { gateway: crate::ipam::first_usable(&subnet), subnet, range: None }],
        internal,
        dns_enabled: true,
        ..Network::default()
    }
}

fn endpoint(network: &str, netns: &str, address: &str, names: &[&str]) -> Endpoint {
    Endpoint {
        id: format!("{network}-{netns}"),
        network_id: network.into(),
        netns_path: netns.into(),
        addresses: vec![format!("{address}/24").parse().unwrap()],
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Endpoint::default()
    }
}

fn example() -> Index {
    let networks = [
        network("blue", "10.1.0.0/24", false),
        network("red", "10.2.0.0/24", false),
        network("den", "10.3.0.0/24", true),
        Network {
            options: [("forward_short_names".to_owned(), "true".to_owned())].into(),
            ..network("open", "10.4.0.0/24", false)
        },
    ];
    let mut web = endpoint("blue", "/a", "10.1.0.2", &["one", "web"]);
    web.services = vec![NamedPort { name: "http".into(), protocol: Protocol::Tcp, port: 80 }];
    let mut own = endpoint("blue", "/own", "10.1.0.7", &["own"]);
    own.dns = Dns { servers: vec!["9.9.9.9".parse().unwrap()], ..Dns::default() };
    let endpoints = [
        web,
        endpoint("blue", "/b", "10.1.0.3", &["two", "web"]),
        endpoint("red", "/c", "10.2.0.2", &["other"]),
        endpoint("den", "/d", "10.3.0.2", &["hermit"]),
        endpoint("den", "/both", "10.3.0.3", &["both"]),
        endpoint("red", "/both", "10.2.0.3", &["both"]),
        own,
        endpoint("open", "/o", "10.4.0.2", &["o"]),
    ];
    index(&networks, &endpoints)
}

type Said = Result<(ResponseCode, Vec<String>), Vec<String>>;

fn ask(index: &Index, (network, from): (&str, &str), name: &str, kind: RecordType, turn: usize) -> Said {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    match index.answer(network, from.parse().unwrap(), &message, turn) {
        Answer::Forward(to) => Err(to.iter().map(ToString::to_string).collect()),
        Answer::Ours(reply) => {
            Ok((reply.metadata.response_code, reply.answers.iter().map(|record| record.data.to_string()).collect()))
        }
    }
}

fn ok(data: &[&str]) -> Said {
    Ok((ResponseCode::NoError, data.iter().map(|text| (*text).to_owned()).collect()))
}

const A: RecordType = RecordType::A;
const MISSING: Said = Ok((ResponseCode::NXDomain, Vec::new()));
const REFUSED: Said = Ok((ResponseCode::Refused, Vec::new()));
const BLUE: (&str, &str) = ("blue", "10.1.0.3");

#[test]
fn names_of_the_network_are_answered() {
    let index = example();
    assert_eq!(ask(&index, BLUE, "one.", A, 0), ok(&["10.1.0.2"]));
    assert_eq!(ask(&index, BLUE, "ONE.blue.", A, 0), ok(&["10.1.0.2"]));
    assert_eq!(ask(&index, BLUE, "one.", RecordType::MX, 0), ok(&[]));
    assert_eq!(ask(&index, BLUE, "one.", RecordType::AAAA, 0), ok(&[]));
    assert_eq!(ask(&index, BLUE, "2.0.1.10.in-addr.arpa.", RecordType::PTR, 0), ok(&["one."]));
    assert_eq!(ask(&index, BLUE, "_http._tcp.web.", RecordType::SRV, 0), ok(&["0 0 80 one."]));
    assert_eq!(ask(&index, BLUE, "host.containers.internal.", A, 0), ok(&["10.1.0.1"]));
    assert_eq!(ask(&index, BLUE, "other.", A, 0), MISSING);
    assert_eq!(ask(&index, BLUE, "9.0.1.10.in-addr.arpa.", RecordType::PTR, 0), MISSING);
}

#[test]
fn replicas_rotate_and_the_unhealthy_wait() {
    let mut index = example();
    assert_eq!(ask(&index, BLUE, "web.", A, 0), ok(&["10.1.0.2", "10.1.0.3"]));
    assert_eq!(ask(&index, BLUE, "web.", A, 1), ok(&["10.1.0.3", "10.1.0.2"]));
    let mut sick = endpoint("blue", "/sick", "10.1.0.9", &["sick", "web"]);
    sick.unhealthy = true;
    index.zones.get_mut("blue").unwrap().add(&sick);
    assert_eq!(ask(&index, BLUE, "web.", A, 2), ok(&["10.1.0.2", "10.1.0.3"]));
    // A name that has nothing else is still found: what is half broken may yet answer.
    assert_eq!(ask(&index, BLUE, "sick.", A, 0), ok(&["10.1.0.9"]));
}

#[test]
fn a_namespace_sees_all_its_networks_and_a_stranger_none() {
    let index = example();
    assert_eq!(ask(&index, ("den", "10.3.0.3"), "other.", A, 0), ok(&["10.2.0.2"]));
    assert_eq!(ask(&index, ("red", "10.2.0.3"), "hermit.", A, 0), ok(&["10.3.0.2"]));
    assert_eq!(ask(&index, ("den", "10.3.0.2"), "other.", A, 0), MISSING);
    assert_eq!(ask(&index, ("blue", "10.2.0.2"), "one.", A, 0), REFUSED);
    assert_eq!(ask(&index, ("blue", "10.1.0.200"), "one.", A, 0), ok(&["10.1.0.2"]));
}

#[test]
fn other_names_go_upstream_but_never_from_an_internal_network() {
    let index = example();
    assert_eq!(ask(&index, BLUE, "example.org.", A, 0), Err(vec![]));
    assert_eq!(ask(&index, ("blue", "10.1.0.7"), "example.org.", A, 0), Err(vec!["9.9.9.9".into()]));
    assert_eq!(ask(&index, BLUE, "org.", RecordType::DS, 0), Err(vec![]));
    assert_eq!(ask(&index, BLUE, "nas.", A, 0), MISSING);
    assert_eq!(ask(&index, ("open", "10.4.0.2"), "nas.", A, 0), Err(vec![]));
    assert_eq!(ask(&index, ("open", "10.4.0.2"), "o.", A, 0), ok(&["10.4.0.2"]));
    assert_eq!(ask(&index, ("den", "10.3.0.2"), "example.org.", A, 0), MISSING);
    assert_eq!(ask(&index, ("den", "10.3.0.3"), "example.org.", A, 0), REFUSED);
}

#[test]
fn edns_is_answered_with_edns_and_a_newer_version_refused() {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("one.").unwrap(), A));
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    let Answer::Ours(reply) = example().answer("blue", "10.1.0.3".parse().unwrap(), &message, 0) else { panic!() };
    let back = Message::from_vec(&reply.to_vec().unwrap()).unwrap();
    // 16 has two names, RFC 6891 and RFC 8945.
    assert_eq!(u16::from(back.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!(back.edns.unwrap().max_payload(), PAYLOAD);
}
