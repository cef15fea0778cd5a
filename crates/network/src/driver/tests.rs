#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::model::{NewSubnet, Subnet};

fn net(driver: Driver, subnets: &[&str], options: &[(&str, &str)]) -> Network {
    let subnet = |text: &&str| -> Subnet {
        crate::ipam::check(&NewSubnet { subnet: (*text).into(), ..NewSubnet::default() }).unwrap()
    };
    Network {
        id: "0123456789abcdef".repeat(4),
        name: "blue".into(),
        bridge: if driver.has_bridge() { "pier-01234567".into() } else { String::new() },
        driver,
        subnets: subnets.iter().map(subnet).collect(),
        options: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect::<BTreeMap<_, _>>(),
        ..Network::default()
    }
}

fn web(network: &Network, addresses: &[&str]) -> Endpoint {
    Endpoint {
        id: "fedcba9876543210".repeat(4),
        interface: "eth0".into(),
        host_interface: if network.driver.has_parent() { String::new() } else { "pv00".into() },
        mac_address: "02:fe:dc:ba:98:76".into(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        gateways: network.subnets.iter().map(|subnet| subnet.gateway).collect(),
        ..Endpoint::default()
    }
}

fn plan(network: &Network, addresses: &[&str], host: &HostView) -> Vec<String> {
    let changes = super::network(network, host).into_iter().chain(wire(network, &web(network, addresses), host));
    changes.map(|change| change.to_string()).collect()
}

fn host() -> HostView {
    HostView { forwarding4: true, table: true, ..HostView::default() }
}

#[test]
fn names_are_read_as_they_are_written() {
    for name in ["bridge", "veth", "macvlan", "ipvlan", "vlan", "overlay", "host", "none", "cni", "rootless", "weave"] {
        let driver = Driver::from(name.to_owned());
        assert_eq!(driver.to_string(), name);
        assert_eq!(serde_json::to_string(&driver).unwrap(), format!("{name:?}"));
        assert_eq!(serde_json::from_str::<Driver>(&format!("{name:?}")).unwrap(), driver);
    }
    assert_eq!(Driver::from(String::new()), Driver::Bridge);
    assert_eq!(Driver::from("null".to_owned()), Driver::None);
}

#[test]
fn a_child_needs_no_more_than_its_parent() {
    let blue = net(Driver::Macvlan, &["192.0.2.0/24"], &[("parent", "eth7")]);
    let host = HostView { parent: true, ..host() };
    assert_eq!(
        plan(&blue, &["192.0.2.9/24"], &host),
        [
            "make macvlan eth0 on eth7",
            "set net/ipv6/conf/eth0/accept_ra to 0",
            "add address 192.0.2.9/24 to eth0",
            "set eth0 up",
            "add default route by 192.0.2.1 on eth0",
        ]
    );
    assert!(guarded(&blue, &[]).is_empty() && links(&blue).is_empty());
    assert!(check(&blue).is_ok());
}

#[test]
fn a_tagged_parent_is_made_when_it_is_not_there() {
    let blue = net(Driver::Ipvlan, &["192.0.2.0/24"], &[("parent", "eth7.10"), ("ipvlan_mode", "l3")]);
    let lines = plan(&blue, &["192.0.2.9/24"], &host());
    assert_eq!(lines[..2], ["make eth7.10, VLAN 10 on eth7", "make ipvlan eth0 on eth7.10"]);
    let there = HostView { parent: true, ..host() };
    assert_eq!(plan(&blue, &["192.0.2.9/24"], &there)[0], "make ipvlan eth0 on eth7.10");
    match &wire(&blue, &web(&blue, &[]), &there)[0] {
        Change::Child { kind: crate::plan::Child::Ipvlan { mode }, mac, .. } => {
            assert_eq!((mode.as_str(), *mac), ("l3", None));
        }
        other => panic!("{other}"),
    }
    for name in ["eth7", "eth7.", ".10", "eth7.0", "eth7.4095", "eth7.x"] {
        assert_eq!(subinterface(name), None, "{name}");
    }
}

#[test]
fn a_vlan_has_its_tag() {
    let blue = net(Driver::Vlan, &["192.0.2.0/24"], &[("parent", "eth7"), ("id", "30")]);
    assert!(check(&blue).is_ok());
    match &wire(&blue, &web(&blue, &[]), &host())[0] {
        Change::Child { kind, .. } => assert_eq!(*kind, crate::plan::Child::Vlan { id: 30 }),
        other => panic!("{other}"),
    }
}

#[test]
fn tags_on_a_bridge_of_others_are_switched_on_first() {
    let options = [("mode", "unmanaged"), ("com.docker.network.bridge.name", "yours"), ("vlan", "100")];
    let blue = net(Driver::Bridge, &["10.1.0.0/24"], &options);
    let lines = plan(&blue, &["10.1.0.2/24"], &HostView { bridge_mtu: Some(1500), ..host() });
    let at = |line: &str| lines.iter().position(|other| other == line);
    let bridge = &blue.bridge;
    assert!(
        at(&format!("filter VLANs on {bridge}")).is_some_and(|at| lines[at + 1] == "put pv00 in VLAN 100"),
        "{lines:?}"
    );
    let own = net(Driver::Bridge, &["10.1.0.0/24"], &[("vlan", "100")]);
    let lines = plan(&own, &["10.1.0.2/24"], &host());
    assert!(!lines.iter().any(|line| line.starts_with("filter")) && lines.contains(&"put pv00 in VLAN 100".to_owned()));
}

#[test]
fn a_pair_alone_is_routed() {
    let blue = net(Driver::Veth, &["10.1.0.0/24"], &[]);
    assert_eq!(
        plan(&blue, &["10.1.0.2/32"], &host()),
        [
            "make veth pair pv00, eth0",
            "set net/ipv4/conf/pv00/route_localnet to 1",
            "set net/ipv4/conf/pv00/rp_filter to 2",
            "set net/ipv6/conf/pv00/accept_ra to 0",
            "add address 10.1.0.1/32 to pv00",
            "add route 10.1.0.2/32 on pv00",
            "set net/ipv6/conf/eth0/accept_ra to 0",
            "add address 10.1.0.2/32 to eth0",
            "set eth0 up",
            "add route 10.1.0.1/32 on eth0",
            "add default route by 10.1.0.1 on eth0",
        ]
    );
    let seen = guarded(&blue, &[web(&blue, &["10.1.0.2/32"])]);
    assert_eq!((seen[0].bridge.as_str(), seen[0].subnets[0].subnet), ("pv00", "10.1.0.2/32".parse().unwrap()));
}

#[test]
fn an_overlay_is_a_bridge_with_peers() {
    let mut blue = net(Driver::Overlay, &["10.1.0.0/24"], &[("vni", "77"), ("local", "192.0.2.1")]);
    blue.peers = vec!["192.0.2.2".parse().unwrap(), "192.0.2.3".parse().unwrap()];
    let view = HostView { uplink_mtu: Some(1500), ..host() };
    let lines = plan(&blue, &["10.1.0.2/24"], &view);
    assert!(lines.contains(&"make vxlan px-01234567 (77) on pier-01234567".to_owned()), "{lines:?}");
    assert!(lines.contains(&"add peer 192.0.2.3 to px-01234567".to_owned()), "{lines:?}");
    let mtu = super::network(&blue, &view).into_iter().find_map(|change| match change {
        Change::Bridge { mtu, .. } => Some(mtu),
        _ => None,
    });
    assert_eq!(mtu, Some(1450));
    let wanted: Vec<IpAddr> = vec!["192.0.2.3".parse().unwrap(), "192.0.2.4".parse().unwrap()];
    let lines: Vec<String> = change_peers(&blue, &wanted).iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["add peer 192.0.2.4 to px-01234567", "remove peer 192.0.2.2 of px-01234567"]);
    assert_eq!(links(&blue), ["px-01234567", "pier-01234567"]);
}

#[test]
fn a_bridge_of_somebody_else_is_left_as_it_is() {
    let mut blue =
        net(Driver::Bridge, &["192.0.2.0/24"], &[("mode", "unmanaged"), (crate::model::OPTION_BRIDGE_NAME, "br0")]);
    blue.bridge = "br0".into();
    assert!(check(&blue).is_ok() && super::network(&blue, &host()).is_empty() && links(&blue).is_empty());
    assert!(guarded(&blue, &[web(&blue, &["192.0.2.9/24"])]).is_empty());
    assert_eq!(plan(&blue, &["192.0.2.9/24"], &host())[0], "make veth pair pv00, eth0");
}

#[test]
fn a_bridge_in_a_vrf_joins_it_before_it_has_addresses() {
    let blue = net(Driver::Bridge, &["10.1.0.0/24"], &[("vrf", "blue0")]);
    let lines: Vec<String> = super::network(&blue, &host()).iter().map(ToString::to_string).collect();
    let at = |wanted: &str| lines.iter().position(|line| line == wanted).unwrap();
    assert!(at("make bridge pier-01234567") < at("put pier-01234567 on blue0"));
    assert!(at("put pier-01234567 on blue0") < at("add address 10.1.0.1/24 to pier-01234567"));
}

#[test]
fn what_was_asked_for_comes_before_what_others_have() {
    let asked = net(Driver::Bridge, &["10.1.0.0/24"], &[("mtu", "1300")]);
    let view = HostView { bridge_mtu: Some(9001), ..host() };
    for (network, wanted) in [(&asked, 1300), (&net(Driver::Bridge, &["10.1.0.0/24"], &[]), 9001)] {
        let made = wire(network, &web(network, &["10.1.0.2/24"]), &view);
        assert!(matches!(made[0], Change::Veth { mtu, .. } if mtu == wanted), "{:?}", made[0]);
    }
}

#[test]
fn a_macvlan_says_how_much_is_delivered_at_once() {
    let blue = net(Driver::Macvlan, &["192.0.2.0/24"], &[("parent", "eth7"), ("bclim", "-1"), ("mode", "source")]);
    assert!(check(&blue).is_ok());
    let kind = crate::plan::Child::Macvlan { mode: "source".into(), broadcast_limit: Some(-1) };
    assert!(matches!(&wire(&blue, &web(&blue, &[]), &host())[0], Change::Child { kind: is, .. } if *is == kind));
}

#[test]
fn bad_options_are_named() {
    for (driver, options, why) in [
        (Driver::Macvlan, vec![], "option parent"),
        (
            Driver::Macvlan,
            vec![("parent", "eth0"), ("mode", "fast")],
            "known are bridge, private, vepa, passthru, source",
        ),
        (Driver::Macvlan, vec![("parent", "eth0"), ("bclim", "-2")], "packets a second"),
        (Driver::Ipvlan, vec![("parent", "eth0"), ("bclim", "5")], "packets a second"),
        (Driver::Bridge, vec![("vrf", "a/b")], "name of a VRF"),
        (Driver::Ipvlan, vec![("parent", "eth0"), ("ipvlan_mode", "l4")], "known are l2, l3, l3s"),
        (Driver::Vlan, vec![("parent", "eth0")], "needs its tag"),
        (Driver::Vlan, vec![("parent", "eth0"), ("id", "5000")], "needs its tag"),
        (Driver::Overlay, vec![("vni", "0")], "from 1 to 16777215"),
        (Driver::Overlay, vec![("encrypted", "")], "-o key-file"),
        (Driver::Overlay, vec![("encrypted", "yes"), ("key-file", "/k")], "true and false"),
        (Driver::Overlay, vec![("encrypted", ""), ("key-file", "/k")], "-o local"),
        (Driver::Overlay, vec![("encrypted", ""), ("key-file", "k")], "absolute path"),
        (Driver::Overlay, vec![("key-file", "/k")], "-o encrypted"),
        (Driver::Overlay, vec![("encrypted", ""), ("key-file", "/k"), ("local", "::")], "one host"),
        (Driver::Overlay, vec![("local", "here")], "not an IP address"),
        (Driver::Bridge, vec![("mtu", "20")], "from 68 to 65535"),
        (Driver::Bridge, vec![("mode", "unmanaged")], "needs the bridge's name"),
        (Driver::Bridge, vec![("vlan", "0")], "from 1 to 4094"),
    ] {
        let error = check(&net(driver, &[], &options)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
