#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use super::*;
use crate::model::{Driver, Subnet};

fn blue(subnets: &[(&str, &str)]) -> Network {
    Network {
        id: "0123456789abcdef".repeat(4),
        name: "blue".into(),
        driver: Driver::Bridge,
        subnets: subnets
            .iter()
            .map(|(subnet, gateway)| Subnet {
                subnet: subnet.parse().unwrap(),
                gateway: gateway.parse().unwrap(),
                range: None,
            })
            .collect(),
        internal: false,
        ipv6: false,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        created_at: String::new(),
        bridge: "pier-01234567".into(),
        dns_enabled: true,
        ..Network::default()
    }
}

fn web(addresses: &[&str], gateways: &[&str]) -> Endpoint {
    Endpoint {
        id: "fedcba9876543210".repeat(4),
        network_id: "0123456789abcdef".repeat(4),
        network_name: "blue".into(),
        owner: "web".into(),
        netns_path: "/run/netns/web".into(),
        netns_inode: 1,
        interface: "eth0".into(),
        host_interface: "pvfedcba987654".into(),
        mac_address: "02:fe:dc:ba:98:76".into(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        gateways: gateways.iter().map(|text| text.parse().unwrap()).collect(),
        ports: Vec::new(),
        names: Vec::new(),
        dns_servers: Vec::new(),
        ..Endpoint::default()
    }
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn the_first_endpoint_makes_the_bridge() {
    let host = HostView { uplink_mtu: Some(1400), ..HostView::default() };
    let changes = attach(&blue(&[("10.1.0.0/24", "10.1.0.1")]), &web(&["10.1.0.2/24"], &["10.1.0.1"]), &host);
    assert_eq!(
        lines(&changes),
        [
            "set net/ipv4/ip_forward to 1",
            "make bridge pier-01234567",
            "set net/ipv4/conf/pier-01234567/route_localnet to 1",
            "set net/ipv4/conf/pier-01234567/rp_filter to 2",
            "set net/ipv6/conf/pier-01234567/accept_ra to 0",
            "add address 10.1.0.1/24 to pier-01234567",
            "write the firewall table",
            "make veth pair pvfedcba987654, eth0",
            "set net/ipv6/conf/eth0/accept_ra to 0",
            "add address 10.1.0.2/24 to eth0",
            "set eth0 up",
            "add default route by 10.1.0.1 on eth0",
        ]
    );
    assert!(changes.iter().any(|change| matches!(change, Change::Veth { mtu: 1400, hairpin: false, .. })));
}

#[test]
fn a_second_endpoint_touches_only_its_own() {
    let host = HostView { bridge_mtu: Some(1500), table: true, forwarding4: true, ..HostView::default() };
    let changes = attach(&blue(&[("10.1.0.0/24", "10.1.0.1")]), &web(&["10.1.0.2/24"], &[]), &host);
    assert_eq!(
        lines(&changes),
        [
            "make veth pair pvfedcba987654, eth0",
            "set net/ipv6/conf/eth0/accept_ra to 0",
            "add address 10.1.0.2/24 to eth0",
            "set eth0 up"
        ]
    );
}

#[test]
fn published_ports_are_elements_of_the_table_there_is() {
    let host = HostView { bridge_mtu: Some(1500), table: true, forwarding4: true, ..HostView::default() };
    let endpoint = Endpoint { ports: vec!["8080:80".parse().unwrap()], ..web(&["10.1.0.2/24"], &[]) };
    let changes = attach(&blue(&[("10.1.0.0/24", "10.1.0.1")]), &endpoint, &host);
    let wanted = Elements::default().ports(&endpoint, &endpoint.ports);
    assert_eq!(changes.first(), Some(&Change::Elements(wanted)));
    let flushed = HostView { table: false, ..host };
    assert_eq!(attach(&blue(&[]), &endpoint, &flushed).first(), Some(&Change::Table));
}

#[test]
fn ipv6_forwarding_never_costs_the_host_its_routes() {
    let six = blue(&[("fd00:1::/64", "fd00:1::1")]);
    for (forwarding6, keys) in [
        (Forwarding6::On, vec![]),
        (Forwarding6::Off, vec!["set net/ipv6/conf/all/forwarding to 1"]),
        (
            Forwarding6::OffForceable,
            vec!["set net/ipv6/conf/default/force_forwarding to 1", "set net/ipv6/conf/all/force_forwarding to 1"],
        ),
        (Forwarding6::OffAdvertised, vec![]),
    ] {
        let host = HostView { forwarding6, bridge_mtu: Some(1500), table: true, ..HostView::default() };
        assert_eq!(lines(&network(&six, &host)), keys, "{forwarding6:?}");
    }
}

#[test]
fn an_internal_network_forwards_nothing() {
    let internal = Network { internal: true, ..blue(&[("10.1.0.0/24", "10.1.0.1"), ("fd00:1::/64", "fd00:1::1")]) };
    let host = HostView { forwarding6: Forwarding6::Off, ..HostView::default() };
    assert!(!lines(&network(&internal, &host)).iter().any(|line| line.contains("forward")));
}

#[test]
fn links_of_changes_can_be_taken_back() {
    let changes = attach(&blue(&[("10.1.0.0/24", "10.1.0.1")]), &web(&["10.1.0.2/24"], &[]), &HostView::default());
    let made: Vec<&str> = changes.iter().filter_map(Change::made_link).map(|(_, link)| link).collect();
    assert_eq!(made, ["pier-01234567", "pvfedcba987654"]);
    let inside = changes.iter().filter(|change| change.place() == Place::Inside).count();
    assert_eq!(inside, 3);
}
