#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use super::*;
use crate::model::{Driver, Endpoint, Network, OPTION_MASQUERADE, Subnet};

fn network(bridge: &str, subnets: &[&str]) -> Network {
    let subnet = |text: &&str| {
        let subnet = text.parse().unwrap();
        Subnet { gateway: crate::ipam::first_usable(&subnet), subnet, range: None }
    };
    Network {
        id: "0".repeat(64),
        name: bridge.into(),
        driver: Driver::Bridge,
        subnets: subnets.iter().map(subnet).collect(),
        internal: false,
        ipv6: false,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        created_at: String::new(),
        bridge: bridge.into(),
        dns_enabled: true,
        ..Network::default()
    }
}

fn endpoint(addresses: &[&str], ports: &[&str]) -> Endpoint {
    Endpoint {
        id: "1".repeat(64),
        network_id: "0".repeat(64),
        network_name: "blue".into(),
        owner: "web".into(),
        netns_path: "/run/netns/web".into(),
        netns_inode: 1,
        interface: "eth0".into(),
        host_interface: "pv111111111111".into(),
        mac_address: String::new(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        gateways: Vec::new(),
        ports: ports.iter().map(|text| text.parse().unwrap()).collect(),
        names: Vec::new(),
        dns_servers: Vec::new(),
        ..Endpoint::default()
    }
}

fn ports(addresses: &[&str], list: &[&str]) -> String {
    let endpoint = endpoint(addresses, list);
    addition("t", &Elements::default().ports(&endpoint, &endpoint.ports))
}

#[test]
fn a_source_on_the_way_out_takes_the_place_of_masquerading() {
    let mut blue = network("br0", &["10.1.0.0/24", "fd00::/64"]);
    blue.options = [("outbound_addr4", "192.0.2.9"), ("com.docker.network.host_ipv6", "2001:db8::9")]
        .map(|(key, value)| (key.into(), value.into()))
        .into();
    let text = addition("t", &Elements::default().network(&blue));
    assert!(text.contains("outbound4 { 10.1.0.0/24 : 192.0.2.9 }"), "{text}");
    assert!(text.contains("outbound6 { fd00::/64 : 2001:db8::9 }") && !text.contains("masquerade"), "{text}");
}

#[test]
fn a_network_is_a_handful_of_elements() {
    let elements = Elements::default().network(&network("br0", &["10.1.0.0/24", "fd00::/64"]));
    assert_eq!(
        addition("t", &elements),
        "add element inet t bridges { \"br0\" }\n\
         add element inet t masquerade4 { 10.1.0.0/24 }\n\
         add element inet t masquerade6 { fd00::/64 }\n\
         add element inet t own4 { \"br0\" . 10.1.0.0/24 }\n\
         add element inet t own6 { \"br0\" . fd00::/64 }\n\
         add element inet t same { \"br0\" . \"br0\" }\n"
    );
}

#[test]
fn options_of_a_network_choose_its_sets() {
    let with = |change: fn(&mut Network)| {
        let mut network = network("br0", &["10.1.0.0/24"]);
        change(&mut network);
        addition("t", &Elements::default().network(&network))
    };
    let internal = with(|network| network.internal = true);
    assert!(internal.contains("internal {") && !internal.contains("masquerade4"), "{internal}");
    assert!(with(|n| drop(n.options.insert("isolate".into(), "strict".into()))).contains("strict {"));
    assert!(with(|n| drop(n.options.insert("isolate".into(), "false".into()))).contains("open {"));
    assert!(!with(|n| drop(n.options.insert(OPTION_MASQUERADE.into(), "false".into()))).contains("masquerade4"));
}

#[test]
fn equal_ranges_are_one_element_however_long() {
    assert_eq!(
        ports(&["10.1.0.2/24"], &["10000-19999:10000-19999"]),
        "add element inet t range4 { tcp . 0.0.0.0/0 . 10000-19999 : 10.1.0.2 }\n"
    );
    assert_eq!(ports(&["10.1.0.2/24"], &["7000-7999:8000-8999"]).matches(" . 0.0.0.0/0 . ").count(), 1000);
}

#[test]
fn a_port_is_published_in_the_families_it_fits() {
    let both = ["10.1.0.2/24", "fd00::2/64"];
    assert_eq!(
        ports(&both, &["8080:80"]),
        "add element inet t publish4 { tcp . 0.0.0.0/0 . 8080 : 10.1.0.2 . 80 }\n\
         add element inet t publish6 { tcp . ::/0 . 8080 : fd00::2 . 80 }\n"
    );
    assert_eq!(
        ports(&both, &["127.0.0.1:53:53/udp"]),
        "add element inet t range4 { udp . 127.0.0.1 . 53 : 10.1.0.2 }\n"
    );
    assert_eq!(ports(&both, &["[::]:53:53/udp"]), "add element inet t range6 { udp . ::/0 . 53 : fd00::2 }\n");
    assert_eq!(ports(&["10.1.0.2/24"], &["[::]:53:53/udp"]), "");
}

#[test]
fn what_was_added_is_what_is_removed() {
    let endpoint = endpoint(&["10.1.0.2/24"], &["8080:80"]);
    let elements = Elements::default().ports(&endpoint, &endpoint.ports);
    assert_eq!(addition("t", &elements).replace("add ", "delete "), removal("t", &elements));
}

#[test]
fn the_whole_table() {
    let endpoint = endpoint(&["10.1.0.2/24"], &["8080:80"]);
    let elements = Elements::default().network(&network("br0", &["10.1.0.0/24"])).ports(&endpoint, &endpoint.ports);
    insta::assert_snapshot!(ruleset("pier", &elements, &[]));
}
