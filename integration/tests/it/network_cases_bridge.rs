//! Bridges, case by case: what is made is what is reported, MTU, addresses from ranges, hosts that are odd.
use crate::network_place::{Place, outside, pier, remove_outside, tcp};
use anyhow::{Context, ensure};
use integration::{Bed, Result, eventually, isolated};
use serde_json::Value;
use std::time::Duration;

/// A link with its details, of a namespace or of the host.
fn link(bed: &Bed, place: Option<&Place>, name: &str) -> Result<Value> {
    let script = format!("ip -j -d link show {name}");
    let shown = match place {
        Some(place) => place.sh(bed, &script)?,
        None => bed.sh(&script)?,
    };
    Ok(shown.ok()?.json()?[0].clone())
}

fn is_up(link: &Value) -> bool {
    link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"))
}

#[test]
fn what_is_made_is_what_is_reported() -> Result {
    isolated!(|bed| {
        for (subnet, address, gateway) in
            [("10.71.0.0/16", "10.71.0.2", "10.71.0.1"), ("fd71::/64", "fd71::2", "fd71::1")]
        {
            let mac = "aa:bb:cc:dd:ee:f0";
            let ipv4 = if subnet.contains(':') { "--disable-ipv4" } else { "" };
            pier(bed, &format!("create blue {ipv4} --subnet {subnet}"))?.ok()?;
            let a = Place::new(bed, "a")?;
            let attach = format!("attach blue {} --owner a --mac-address {mac} --ip {address}", a.path);
            let told = pier(bed, &attach)?.ok()?.json()?;
            let length = subnet.split('/').nth(1).context("a length")?;
            ensure!(told["addresses"][0] == format!("{address}/{length}") && told["gateways"][0] == gateway, "{told}");
            ensure!(told["mac_address"] == mac, "{told}");
            let inside = link(bed, Some(&a), "eth0")?;
            ensure!(inside["address"] == mac && is_up(&inside), "{inside}");
            ensure!(inside["linkinfo"]["info_kind"] == "veth", "{inside}");
            a.sh(bed, "ip addr show eth0")?.ok()?.has(&format!("{address}/{length}"))?;
            let bridge = pier(bed, "inspect blue")?.ok()?.json()?[0]["bridge"].as_str().context("a bridge")?.to_owned();
            let made = link(bed, None, &bridge)?;
            ensure!(is_up(&made) && made["linkinfo"]["info_kind"] == "bridge", "{made}");
            bed.sh(&format!("ip addr show {bridge}"))?.ok()?.has(&format!("{gateway}/{length}"))?;
            let host = link(bed, None, told["host_interface"].as_str().context("a link")?)?;
            ensure!(host["address"] != made["address"] && host["address"] != mac && host["master"] == bridge, "{host}");
            bed.sh(&format!("busybox ping -c 1 -w 3 {address}"))?.ok()?;
            a.sh(bed, &format!("busybox ping -c 1 -w 3 {gateway}"))?.ok()?;
            // Given back, and asked for again: the same address, the same MAC address.
            pier(bed, "detach --owner a")?.ok()?;
            let again = pier(bed, &attach)?.ok()?.json()?;
            ensure!(again["addresses"] == told["addresses"] && again["mac_address"] == mac, "{again}");
            bed.sh(&format!("busybox ping -c 1 -w 3 {address}"))?.ok().context("after it came back")?;
            pier(bed, "rm -f blue")?.ok()?;
            bed.sh(&format!("ip link show {bridge}"))?.fails()?;
            a.end()?;
        }
        Ok(())
    })
}

#[test]
fn the_one_who_stays_keeps_the_bridge() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.71.0.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", "")?;
        let b = Place::on(bed, "blue", "b", "-p 8080:80")?;
        b.answer(bed, "b", 80)?;
        pier(bed, "detach --owner a")?.ok()?;
        bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello b")?;
        bed.sh("nft list ruleset")?.ok()?.has("10.71.0.0/24")?;
        // A link that somebody removed by hand is no obstacle, and its rules go all the same.
        b.sh(bed, "ip link del eth0")?.ok()?;
        pier(bed, "detach --owner b")?.ok()?.without("Warning")?;
        bed.sh("nft list ruleset")?.ok()?.without("8080")?;
        pier(bed, "rm blue")?.ok()?;
        bed.sh("nft list ruleset; ip -o link show type bridge")?.ok()?.without("10.71")?.without("pier-")?;
        a.end()
    })
}

#[test]
fn the_hosts_end_has_the_name_it_was_given() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.71.0.0/24 -o com.docker.network.bridge.name=blue0")?.ok()?;
        let a = Place::on(bed, "blue", "a", "--host-interface my-veth")?;
        let made = link(bed, None, "my-veth")?;
        ensure!(is_up(&made) && made["linkinfo"]["info_kind"] == "veth" && made["master"] == "blue0", "{made}");
        pier(bed, "detach --owner a")?.ok()?;
        bed.sh("ip link show my-veth")?.fails()?;
        // Taken on the host, taken inside: named, nothing made, and what is there stays.
        bed.sh("ip link add taken type bridge")?.ok()?;
        let line = |more: &str| format!("--error-format json attach blue {} --owner a {more}", a.path);
        pier(bed, &line("--host-interface taken"))?.exits(1)?.with("KERNEL_REFUSED")?.has("taken")?;
        bed.sh("ip link show taken")?.ok()?;
        a.sh(bed, "ip link show eth0")?.fails()?;
        a.sh(bed, "ip link add eth0 type bridge")?.ok()?;
        pier(bed, &line("--interface eth0"))?.exits(1)?.with("eth0")?.has("has it already")?;
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        ensure!(bed.sh("ip -o link show type veth")?.out().is_empty());
        // Nobody's name: the next free one.
        pier(bed, &line(""))?.ok()?.has("\"eth1\"")?;
        bed.sh("ip link del taken")?.ok()?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

/// A link of the host with a default route in a table.
fn uplink(bed: &Bed, name: &str, mtu: u32, number: u8, table: &str) -> Result {
    bed.sh(&format!(
        "ip link add {name} type bridge && ip link set {name} mtu {mtu} up && ip addr add 192.168.{number}.1/24 dev {name} && \
         ip route add default via 192.168.{number}.2 dev {name} table {table}"
    ))?
    .ok()
    .map(drop)
}

#[test]
fn the_mtu_is_the_wish_then_the_bridges_then_the_uplinks() -> Result {
    isolated!(|bed| {
        let a = Place::new(bed, "a")?;
        // Tables other than main are others' business.
        uplink(bed, "up10", 1300, 10, "10")?;
        uplink(bed, "up1", 1400, 1, "main")?;
        uplink(bed, "up90", 1200, 90, "900")?;
        bed.sh("ip link add yours type bridge && ip link set yours mtu 9000 up")?.ok()?;
        let yours = "-o mode=unmanaged -o com.docker.network.bridge.name=yours --subnet 10.71.1.0/24";
        let own = "-o com.docker.network.bridge.name=own0 --subnet 10.71.0.0/24";
        for (options, bridge, inside, of_bridge) in [
            (own.to_owned(), "own0", 1400, 1400),
            (format!("{own} -o mtu=1350"), "own0", 1350, 1350),
            (format!("{own} -o com.docker.network.driver.mtu=2000"), "own0", 2000, 2000),
            (yours.to_owned(), "yours", 9000, 9000),
            (format!("{yours} -o mtu=1350"), "yours", 1350, 9000),
        ] {
            pier(bed, &format!("create blue {options}"))?.ok()?;
            a.attach(bed, "blue", "a", "--host-interface end0")?;
            let mtus = [link(bed, Some(&a), "eth0")?, link(bed, None, "end0")?, link(bed, None, bridge)?];
            let mtus = mtus.map(|link| link["mtu"].as_u64().unwrap_or_default());
            ensure!(mtus == [inside, inside, of_bridge], "{options}: {mtus:?}");
            pier(bed, "rm -f blue")?.ok()?;
        }
        bed.sh("ip link del up10; ip link del up1; ip link del up90; ip link del yours")?.ok().map(drop)
    })
}

#[test]
fn a_bridge_without_addresses_is_a_switch() -> Result {
    isolated!(|bed| {
        pier(bed, "create plain --ipam-driver none")?.ok()?;
        let made = pier(bed, "inspect plain")?.ok()?.json()?[0].clone();
        ensure!(made["dns_enabled"] == false && made["subnets"].as_array().is_some_and(Vec::is_empty), "{made}");
        let a = Place::on(bed, "plain", "a", "")?;
        let b = Place::on(bed, "plain", "b", "")?;
        ensure!(is_up(&link(bed, Some(&a), "eth0")?));
        a.sh(bed, "ip -4 addr show eth0; ip route")?.ok()?.without("inet")?.without("default")?;
        a.sh(bed, "ip addr add 10.71.0.2/24 dev eth0")?.ok()?;
        b.sh(bed, "ip addr add 10.71.0.3/24 dev eth0")?.ok()?;
        a.answer(bed, "a", 80)?;
        b.ask(bed, "10.71.0.2:80")?.ok()?.has("hello a")?;
        for (line, why) in [
            ("create x --ipam-driver none --subnet 10.71.0.0/24", "others know the subnets"),
            ("create x --ipam-driver dhcp", "on a network of others"),
            ("create x -d ipvlan -o parent=up0 --ipam-driver dhcp", "one MAC address"),
            ("create x --ipam-driver someDriver", "someDriver"),
        ] {
            pier(bed, &format!("--error-format json {line}"))?.exits(1)?.with("INVALID_ARGUMENT")?.has(why)?;
        }
        pier(bed, "rm -f plain")?.ok().map(drop)
    })
}

#[test]
fn addresses_come_from_the_range_and_run_out() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.71.0.0/24 --ip-range 10.71.0.20-10.71.0.22")?.ok()?;
        let places: Vec<Place> = (0..4).map(|n| Place::new(bed, &format!("n{n}"))).collect::<Result<_>>()?;
        for (place, wanted) in places.iter().zip(["10.71.0.20", "10.71.0.21", "10.71.0.22"]) {
            let given = place.attach(bed, "blue", wanted, "")?;
            ensure!(given == [wanted], "{given:?}");
        }
        let line = format!("attach blue {} --owner last", places[3].path);
        pier(bed, &format!("--error-format json {line}"))?.exits(1)?.has("SUBNET_FULL")?;
        // Asked for by name, outside the range: that is what static addresses are.
        pier(bed, &format!("{line} --ip 10.71.0.99"))?.ok()?.has("10.71.0.99/24")?;
        pier(bed, "detach --owner 10.71.0.21")?.ok()?;
        let back = places[1].attach(bed, "blue", "again", "")?;
        ensure!(back == ["10.71.0.21"], "{back:?}");
        pier(bed, "inspect blue")?.ok()?.has("\"range\": \"10.71.0.20-10.71.0.22\"")?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn several_addresses_of_one_family_and_of_two_subnets() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.71.0.0/24 --subnet 10.72.0.0/24 --subnet fd71::/64")?.ok()?;
        let a = Place::new(bed, "a")?;
        let given = a.attach(bed, "blue", "a", "--ip 10.71.0.5 --ip 10.72.0.9 --ip 10.71.0.15 --interface lan0")?;
        ensure!(given == ["10.71.0.5", "10.72.0.9", "10.71.0.15", "fd71::2"], "{given:?}");
        a.answer(bed, "a", 80)?;
        for address in ["10.71.0.5", "10.72.0.9", "10.71.0.15", "[fd71::2]"] {
            bed.sh(&tcp(&format!("{address}:80")))?.ok().context(address)?.has("hello a")?;
        }
        // Names of links do not depend on the order of joining.
        pier(bed, "create red --subnet 10.73.0.0/24")?.ok()?;
        a.attach(bed, "red", "a", "--interface aaa0 --no-default-route")?;
        a.sh(bed, "ip -4 -o addr show aaa0; ip -4 -o addr show lan0")?
            .ok()?
            .with("10.73.0.2/24")?
            .has("10.72.0.9/24")?;
        pier(bed, "rm -f blue red")?.ok().map(drop)
    })
}

#[test]
fn a_host_whose_proc_is_read_only_is_served_while_it_is_set() -> Result {
    isolated!(|bed| {
        let a = Place::new(bed, "a")?;
        // The program sees /proc read-only: nothing can be set by it.
        let within = |line: &str| {
            bed.sh(&format!(
                "unshare --mount --propagation private sh -c 'mount -o remount,bind,ro /proc && pier-network {line}'"
            ))
        };
        pier(bed, "create blue --subnet 10.71.0.0/24 -o com.docker.network.bridge.name=blue0")?.ok()?;
        bed.sh("echo 0 >/proc/sys/net/ipv4/ip_forward")?.ok()?;
        let attach = format!("attach blue {} --owner a", a.path);
        within(&format!("--error-format json {attach}"))?
            .exits(1)?
            .with("net/ipv4/ip_forward")?
            .has("Read-only file system")?;
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        bed.sh("ip link show blue0")?.fails()?;
        // What is so already is fine.
        bed.sh("cd /proc/sys/net && echo 1 >ipv4/ip_forward && echo 1 >ipv4/conf/default/route_localnet && \
             echo 2 >ipv4/conf/default/rp_filter && echo 0 >ipv6/conf/default/accept_ra")?
            .ok()?;
        a.sh(bed, "echo 0 >/proc/sys/net/ipv6/conf/default/accept_ra")?.ok()?;
        within(&attach)?.ok()?.has("10.71.0.3")?;
        within("detach --owner a")?.ok()?;
        pier(bed, "rm -f blue")?.ok()?;
        bed.sh("cd /proc/sys/net && echo 0 >ipv4/conf/default/route_localnet && echo 0 >ipv4/conf/default/rp_filter && echo 1 >ipv6/conf/default/accept_ra")?
            .ok()
            .map(drop)
    })
}

#[test]
fn a_host_without_ipv6_has_networks_with_it() -> Result {
    isolated!(|bed| {
        bed.sh(
            "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6",
        )?
        .ok()?;
        pier(bed, "create blue --disable-ipv4 --subnet fd71::/64")?.ok()?;
        let a = Place::new(bed, "a")?;
        a.sh(bed, "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")?.ok()?;
        a.attach(bed, "blue", "a", "")?;
        bed.sh("busybox ping -c 1 -w 3 fd71::2")?.ok()?;
        pier(bed, "rm -f blue")?.ok()?;
        bed.sh(
            "echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 0 >/proc/sys/net/ipv6/conf/default/disable_ipv6",
        )?
        .ok()
        .map(drop)
    })
}

#[test]
fn nobody_advertises_routes_to_who_was_given_addresses() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.71.0.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", "")?;
        a.sh(bed, "cat /proc/sys/net/ipv6/conf/eth0/accept_ra")?.ok()?.has("0")?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn a_bridge_goes_into_its_vrf_or_is_not_made() -> Result {
    isolated!(|bed| {
        let a = Place::new(bed, "a")?;
        pier(bed, "create blue --subnet 10.71.0.0/24 -o vrf=vrf7 -o com.docker.network.bridge.name=blue0")?.ok()?;
        pier(bed, &format!("attach blue {} --owner a", a.path))?.exits(1)?.with("vrf7")?.has("there is no link")?;
        bed.sh("ip link show blue0")?.fails()?;
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        if bed.sh("ip link add vrf7 type vrf table 77")?.code != 0 {
            println!("skipped: a_bridge_goes_into_its_vrf_or_is_not_made (traffic): this kernel has no VRF links");
            return pier(bed, "rm -f blue")?.ok().map(drop);
        }
        bed.sh("ip link set vrf7 up && ip link add up7 type bridge && ip link set up7 mtu 1300 master vrf7 up && ip addr add \
                192.168.7.1/24 dev up7 && ip route add default via 192.168.7.2 dev up7 table 77")?
            .ok()?;
        a.attach(bed, "blue", "a", "")?;
        let made = link(bed, None, "blue0")?;
        ensure!(made["master"] == "vrf7" && made["mtu"] == 1300, "{made}");
        pier(bed, "rm -f blue")?.ok()?;
        bed.sh("ip link del up7; ip link del vrf7")?.ok().map(drop)
    })
}

#[test]
fn packets_leave_with_the_source_they_were_given() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        // Deprecated (RFC 4862): the kernel never chooses it by itself.
        bed.sh("ip addr add 198.51.100.9/24 dev up0; ip -6 addr add 2001:db8::9/64 dev up0 nodad preferred_lft 0")?
            .ok()?;
        let tell = "exec socat TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0 SYSTEM:'echo from $SOCAT_PEERADDR'";
        there.spawn(bed, "tell", tell)?;
        eventually(Duration::from_secs(5), || there.ask(bed, "127.0.0.1:80")?.ok()?.has("from").map(drop))?;
        let subnets = "--subnet 10.71.0.0/24 --subnet fd71::/64";
        for (options, v4, v6) in [
            ("", "c633:6401", "2001:0db8:0000:0000:0000:0000:0000:0001"),
            (
                "-o outbound_addr4=198.51.100.9 -o outbound_addr6=2001:db8::9",
                "c633:6409",
                "2001:0db8:0000:0000:0000:0000:0000:0009",
            ),
            ("-o com.docker.network.host_ipv4=198.51.100.9", "c633:6409", "2001:0db8:0000:0000:0000:0000:0000:0001"),
        ] {
            pier(bed, &format!("create blue {subnets} {options}"))?.ok()?;
            let a = Place::on(bed, "blue", "a", "")?;
            for (server, source) in [("198.51.100.2:80", v4), ("[2001:db8::2]:80", v6)] {
                // A link that is new looks for its neighbours after a second.
                eventually(Duration::from_secs(5), || a.ask(bed, server)?.ok()?.has(source)).context(options)?;
            }
            pier(bed, "rm -f blue")?.ok()?;
            bed.sh("nft list ruleset")?.ok()?.without("198.51.100.9")?;
            a.end()?;
        }
        for option in ["outbound_addr4=fd00::1", "outbound_addr6=10.0.0.1", "outbound_addr4=0.0.0.0"] {
            pier(bed, &format!("--error-format json create x -o {option}"))?.exits(1)?.has("INVALID_ARGUMENT")?;
        }
        remove_outside(bed)
    })
}
