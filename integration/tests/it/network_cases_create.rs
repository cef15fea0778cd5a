//! `create`, case by case: what a network is recorded as, and what is refused. Nothing is made on the host by it.
use crate::network_place::{Place, outside, pier, remove_outside};
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};
use serde_json::{Value, json};

fn inspect(bed: &Bed, name: &str) -> Result<Value> {
    Ok(pier(bed, &format!("inspect {name}"))?.ok()?.json()?[0].clone())
}

#[test]
fn a_network_is_recorded_as_it_was_asked_for() -> Result {
    isolated!(|bed| {
        let before = bed.sh("ip -o link; nft list ruleset")?.ok()?.stdout;
        for (line, wanted) in [
            ("", json!({"driver": "bridge", "internal": false, "ipv6": false, "dns_enabled": true})),
            ("--internal", json!({"internal": true, "dns_enabled": true})),
            ("--disable-dns", json!({"dns_enabled": false})),
            (
                "--label key1=value1 --label key2=value2 --label bare",
                json!({"labels": {"key1": "value1", "key2": "value2", "bare": ""}}),
            ),
            ("--subnet 10.100.0.0/24", json!({"subnets": [{"subnet": "10.100.0.0/24", "gateway": "10.100.0.1"}]})),
            (
                "--subnet 10.100.0.0/24 --gateway 10.100.0.50",
                json!({"subnets": [{"subnet": "10.100.0.0/24", "gateway": "10.100.0.50"}]}),
            ),
            (
                "--subnet 10.100.0.0/24 --ip-range 10.100.0.20-10.100.0.50",
                json!({"subnets": [{"subnet": "10.100.0.0/24", "gateway": "10.100.0.1", "range": "10.100.0.20-10.100.0.50"}]}),
            ),
            (
                "--subnet 10.100.0.0/24 --ip-range 10.100.0.128/25",
                json!({"subnets": [{"subnet": "10.100.0.0/24", "gateway": "10.100.0.1", "range": "10.100.0.128/25"}]}),
            ),
            (
                "--subnet fdcc::/64 --disable-ipv4",
                json!({"ipv6": true, "subnets": [{"subnet": "fdcc::/64", "gateway": "fdcc::1"}]}),
            ),
            ("--dns 192.0.2.8 --dns 192.0.2.1", json!({"dns": {"servers": ["192.0.2.8", "192.0.2.1"]}})),
            ("-o mtu=1500", json!({"options": {"mtu": "1500"}})),
            ("-o vlan=100", json!({"options": {"vlan": "100"}})),
            ("-o isolate=true", json!({"options": {"isolate": "true"}})),
            ("-o isolate=strict", json!({"options": {"isolate": "strict"}})),
            ("--ipam-driver none", json!({"dns_enabled": false, "subnets": [], "ipam": {"driver": "none"}})),
            (
                "-d macvlan -o parent=up0 --subnet 10.200.0.0/24 -o mode=bridge",
                json!({"driver": "macvlan", "dns_enabled": false, "subnets": [{"subnet": "10.200.0.0/24", "gateway": "10.200.0.1"}],
                       "options": {"mode": "bridge", "parent": "up0"}}),
            ),
            (
                "-d macvlan -o parent=up0 --ipam-driver dhcp",
                json!({"ipam": {"driver": "dhcp"}, "subnets": [], "dns_enabled": false}),
            ),
            (
                "-d ipvlan -o parent=up0 --subnet 10.200.0.0/24",
                json!({"driver": "ipvlan", "dns_enabled": false, "subnets": [{"subnet": "10.200.0.0/24", "gateway": "10.200.0.1"}]}),
            ),
            (
                "--subnet 10.100.0.0/24 --route 192.168.0.0/24,10.100.0.254",
                json!({"routes": [{"destination": "192.168.0.0/24", "gateway": "10.100.0.254"}]}),
            ),
            (
                "--route 10.89.0.0/24,blackhole,9",
                json!({"routes": [{"destination": "10.89.0.0/24", "metric": 9, "type": "blackhole"}]}),
            ),
        ] {
            let id = pier(bed, &format!("create blue {line}"))?.ok().context(line)?.out().to_owned();
            ensure!(id.len() == 64, "{id}");
            let made = inspect(bed, "blue")?;
            ensure!(made["id"] == id && made["name"] == "blue" && made["created_at"].is_string(), "{made}");
            for (key, value) in wanted.as_object().context("an object")? {
                let is = if key == "ipam" { json!({"driver": made[key]["driver"]}) } else { made[key].clone() };
                let is = if key == "dns" { json!({"servers": is["servers"]}) } else { is };
                ensure!(is == *value, "{line}: {key} is {is}, not {value}");
            }
            pier(bed, "rm blue")?.ok()?;
        }
        ensure!(bed.sh("ip -o link; nft list ruleset")?.ok()?.stdout == before, "create touched the host");
        Ok(())
    })
}

#[test]
fn subnets_are_free_ones_of_the_families_that_are_wanted() -> Result {
    isolated!(|bed| {
        let mut seen = std::collections::BTreeSet::new();
        for (line, families) in [
            ("", "4"),
            ("--internal", "4"),
            ("--ipv6", "46"),
            ("--ipv6 --subnet 10.100.0.0/24", "46"),
            ("--ipv6 --disable-ipv4", "6"),
            ("--subnet fdcc::/64", "6"),
        ] {
            let name = format!("n{}", seen.len());
            pier(bed, &format!("create {name} {line}"))?.ok()?;
            let made = inspect(bed, &name)?;
            let mut found = String::new();
            for subnet in made["subnets"].as_array().context("subnets")? {
                let text = subnet["subnet"].as_str().context("a subnet")?.to_owned();
                found.push(if text.contains(':') { '6' } else { '4' });
                ensure!(seen.insert(text.clone()), "{text} was given twice");
                ensure!(subnet["gateway"].is_string(), "{subnet}");
            }
            let mut sorted: Vec<char> = found.chars().collect();
            sorted.sort_unstable();
            ensure!(sorted.into_iter().collect::<String>() == families, "{line}: {made}");
        }
        // What the host has a route to is not free.
        let free = inspect(bed, "n0")?["subnets"][0]["subnet"].as_str().context("a subnet")?.to_owned();
        pier(bed, "rm n0")?.ok()?;
        bed.sh(&format!("ip link add used type bridge; ip link set used up; ip route add {free} dev used"))?.ok()?;
        pier(bed, "create again")?.ok()?;
        ensure!(inspect(bed, "again")?["subnets"][0]["subnet"] != free, "{free} is in use");
        pier(bed, &format!("--error-format json create x --subnet {free}"))?.exits(1)?.has("SUBNET_OVERLAP")?;
        bed.sh("ip link del used")?.ok()?;
        pier(bed, "prune")?.ok().map(drop)
    })
}

#[test]
fn a_network_that_cannot_be_is_named_and_not_made() -> Result {
    isolated!(|bed| {
        let _there = outside(bed)?;
        bed.sh("ip link add yours type bridge")?.ok()?;
        pier(bed, "create taken --subnet 10.1.2.0/23 -o com.docker.network.bridge.name=mine0")?.ok()?;
        let before = pier(bed, "ls --format json")?.ok()?.stdout;
        let bridge = "-o com.docker.network.bridge.name";
        for (line, reason, why) in [
            ("''", "INVALID_ARGUMENT", "network name"),
            ("'bad name!'", "INVALID_ARGUMENT", "allowed is"),
            ("taken", "NETWORK_EXISTS", "taken"),
            (&format!("x {bridge}=yours"), "INVALID_ARGUMENT", "the host has a link of that name"),
            (&format!("x {bridge}=mine0"), "INVALID_ARGUMENT", "has it"),
            (&format!("x {bridge}=much-too-long-a-name"), "INVALID_ARGUMENT", "1 to 15"),
            ("x --subnet 10.100.0.0/24 --gateway 10.200.0.1", "INVALID_ARGUMENT", "10.200.0.1"),
            ("x --gateway 10.200.0.1", "", "needs a --subnet"),
            ("x --subnet 10.100.0.0/24 --ip-range 10.200.0.0/25", "INVALID_ARGUMENT", "not inside"),
            ("x --subnet 10.100.0.0/24 --ip-range 10.200.0.20-10.200.0.30", "INVALID_ARGUMENT", "not inside"),
            ("x --subnet 10.100.0.0/24 --ip-range 10.100.0.30-10.100.0.20", "INVALID_ARGUMENT", "before its first"),
            ("x --subnet 10.1.3.248/30", "SUBNET_OVERLAP", "10.1.3.248/30"),
            ("x --subnet 10.1.2.0/23", "SUBNET_OVERLAP", "10.1.2.0/23"),
            ("x --subnet 10.5.2.0/23 --subnet 10.5.3.248/30", "SUBNET_OVERLAP", "of the same network"),
            ("x --subnet 10.100.0.0/24 --subnet 10.100.0.0/24", "SUBNET_OVERLAP", "of the same network"),
            ("x --subnet 192.168.77.0/32", "INVALID_ARGUMENT", "prefix length"),
            ("x --subnet 192.168.77.0/31", "INVALID_ARGUMENT", "prefix length"),
            ("x --subnet 10.100.0.0/24 --dns 10.100.0.1", "INVALID_ARGUMENT", "would ask itself"),
            ("x -o mtu=big", "INVALID_ARGUMENT", "mtu=big"),
            ("x -o vlan=4095", "INVALID_ARGUMENT", "vlan"),
            ("x -o isolate=maybe", "INVALID_ARGUMENT", "isolate=maybe"),
            ("x -o forward_short_names=maybe", "INVALID_ARGUMENT", "known are true and false"),
            ("x -o vrf=a/b", "INVALID_ARGUMENT", "vrf=a/b"),
            ("x --ipam-driver none --subnet 10.100.0.0/24", "INVALID_ARGUMENT", "others know the subnets"),
            ("x -d macvlan", "INVALID_ARGUMENT", "--opt parent=eth0"),
            ("x -d macvlan -o parent=up0 -o bclim=many", "INVALID_ARGUMENT", "bclim=many"),
            ("x -d ipvlan -o parent=up0 --ipam-driver dhcp", "INVALID_ARGUMENT", "one MAC address"),
        ] {
            let told = pier(bed, &format!("--error-format json create {line}"))?.exits(1).context(line.to_owned())?;
            told.with(reason).context(line.to_owned())?.has(why).context(line.to_owned())?;
        }
        // What clap reads itself.
        for line in [
            "x --dns nowhere",
            "x --route 10.89.0.0,10.0.0.1",
            "x --route 10.89.0.0/24,there",
            "x --route 10.89.0.0/24,blackhole,10.0.0.1",
        ] {
            pier(bed, &format!("create {line}"))?.exits(2).context(line)?;
        }
        ensure!(pier(bed, "ls --format json")?.ok()?.stdout == before, "a refused network is there");
        pier(bed, "rm taken")?.ok()?;
        bed.sh("ip link del yours")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn an_endpoint_that_cannot_be_is_named_and_not_made() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.100.0.0/24 --subnet 10.101.0.0/24")?.ok()?;
        let a = Place::new(bed, "a")?;
        for (line, why) in [
            ("--ip 10.102.0.5", "not in a subnet"),
            ("--ip 10.100.0.5 --ip 10.101.0.10 --ip 10.102.0.15", "10.102.0.15"),
            ("--ip 10.100.0.5 --ip 10.100.0.5", "asked for twice"),
            ("--ip 10.100.0.0", "reserved"),
            ("--ip 10.100.0.255", "reserved"),
            ("--ip 10.101.0.1", "reserved"),
            ("--name 'space 1'", "allowed are"),
            ("--name comma,1", "allowed are"),
            ("--name $'newline\\n2'", "allowed are"),
            ("--mac-address 123", "six hexadecimal bytes"),
            ("--interface much-too-long-a-name", "1 to 15"),
            ("--host-interface a/b", "1 to 15"),
            ("--dns 10.100.0.1", "would ask itself"),
            ("--mtu 20", "68 to 65535"),
            ("--service Http=80", "[a-z0-9-]+"),
        ] {
            let line = format!("--error-format json attach blue {} --owner a {line}", a.path);
            pier(bed, &line)?.exits(1)?.with("INVALID_ARGUMENT").with_context(|| line.clone())?.has(why)?;
        }
        pier(bed, "--error-format json update blue --dns-add 10.101.0.1")?.exits(1)?.has("would ask itself")?;
        a.sh(bed, "ip link show eth0")?.fails()?;
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        pier(bed, "rm blue")?.ok().map(drop)
    })
}

#[test]
fn programs_paths_need_not_be_text() -> Result {
    isolated!(|bed| {
        pier(bed, "--version")?.ok()?.has("pier-network ")?;
        bed.sh("pier-network --root $'/tmp/\\xff.root' --run $'/tmp/\\xff.run' ls")?.ok()?.has("bridge")?;
        bed.sh("rm -r $'/tmp/\\xff.root'; rm -rf $'/tmp/\\xff.run'")?.ok().map(drop)
    })
}
