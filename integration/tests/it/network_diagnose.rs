//! check, stats, diagnose: each difference and each cause is made, and has to be named.
use crate::network_place::{Place, outside, pier, remove_outside, upstream};
use anyhow::{Context, ensure};
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

fn bridge(bed: &Bed, network: &str) -> Result<String> {
    let found = pier(bed, &format!("inspect {network}"))?.ok()?.json()?;
    found[0]["bridge"].as_str().map(String::from).context("a bridge")
}

#[test]
fn every_difference_is_named_and_repaired_once() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", "-p 8080:80")?;
        let b = Place::on(bed, "blue", "b", "")?;
        let c = Place::on(bed, "blue", "c", "")?;
        a.answer(bed, "a", 80)?;
        ensure!(pier(bed, "check")?.ok()?.out().is_empty());
        let bridge = bridge(bed, "blue")?;
        // A link off its bridge, one that is gone, a namespace that is gone, a link that is nobody's.
        let link = |owner: &str| -> Result<String> {
            let found = pier(bed, &format!("endpoints --owner {owner} --format json"))?.ok()?.json()?;
            found[0]["host_interface"].as_str().map(String::from).context("a link")
        };
        let of_a = link("a")?;
        bed.sh(&format!("ip link set {of_a} nomaster; ip link add pv0123456789ab type veth peer name other; ip link set pv0123456789ab master {bridge}"))?.ok()?;
        bed.sh(&format!("ip link del {}", link("b")?))?.ok()?;
        c.end()?;
        eventually(Duration::from_secs(3), || pier(bed, "check")?.exits(1)?.with("namespace is gone").map(drop))?;
        let told = pier(bed, "check --format json")?.exits(1)?.json()?;
        let told: Vec<&str> = told.as_array().context("a list")?.iter().filter_map(|line| line.as_str()).collect();
        for cause in ["of a: link", "of b: link", "of c: its namespace", "pv0123456789ab: nobody's"] {
            ensure!(told.iter().any(|line| line.contains(cause)), "{cause} in {told:?}");
        }
        ensure!(told.len() == 4, "{told:?}");
        // Looking changed nothing.
        ensure!(pier(bed, "check --format json")?.exits(1)?.json()?.as_array().map(Vec::len) == Some(4));
        pier(bed, "check --repair")?.ok()?.with("nobody's; removed")?.has("put back")?;
        ensure!(pier(bed, "check")?.ok()?.out().is_empty());
        ensure!(pier(bed, "check --repair")?.ok()?.out().is_empty());
        b.ask(bed, "10.77.1.2:80")?.ok()?.has("hello a")?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn statistics_are_the_endpoints_own_view() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", "")?;
        let b = Place::on(bed, "blue", "b", "")?;
        a.spawn(bed, "sink", "exec socat -u TCP-LISTEN:80,reuseaddr OPEN:/dev/null")?;
        eventually(Duration::from_secs(3), || {
            b.sh(bed, "head -c 1000000 /dev/zero | socat -u - TCP:10.77.1.2:80")?.ok().map(drop)
        })?;
        let of = |owner: &str| -> Result<serde_json::Value> {
            Ok(pier(bed, &format!("stats --owner {owner} --format json"))?.ok()?.json()?[0].clone())
        };
        let (a, b) = (of("a")?, of("b")?);
        ensure!(a["rx_bytes"].as_u64() > Some(1_000_000) && a["tx_bytes"].as_u64() < Some(500_000), "{a}");
        ensure!(b["tx_bytes"].as_u64() > Some(1_000_000) && b["rx_packets"].as_u64() > Some(0), "{b}");
        pier(bed, "stats")?.ok()?.with("RX BYTES")?.has("eth0")?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn a_diagnosis_names_the_cause() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        upstream(bed, "127.0.0.51", 51)?;
        std::fs::write(bed.dir().join("resolv.conf"), "nameserver 127.0.0.51\n")?;
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let conf = format!("--resolv-conf {}", bed.dir().join("resolv.conf").display());
        let a = Place::on(bed, "blue", "a", &format!("-p 8080:80 -p 8081:81 {conf}"))?;
        a.answer(bed, "a", 80)?;
        a.spawn(bed, "lonely", "exec socat TCP-LISTEN:81,bind=127.0.0.1,fork EXEC:true")?;
        let wrong = |line: &str, check: &str, detail: &str| -> Result {
            let found = pier(bed, &format!("diagnose {line} --format json"))?.exits(1)?.json()?;
            let is = |f: &serde_json::Value| {
                f["check"] == check
                    && f["verdict"] == "failed"
                    && f["detail"].as_str().is_some_and(|d| d.contains(detail))
                    && f["hint"] != ""
            };
            ensure!(found.as_array().context("a list")?.iter().any(is), "{check} {detail} in {found:#}");
            Ok(())
        };
        eventually(Duration::from_secs(3), || wrong("a", "port", "loopback inside only"))?;
        bed.sh("kill $(pgrep -f '[L]ISTEN:81,bind')")?.ok()?;
        eventually(Duration::from_secs(3), || wrong("a", "port", "nobody listens"))?;
        a.spawn(bed, "late", "exec socat TCP-LISTEN:81,fork EXEC:true")?;
        eventually(Duration::from_secs(3), || pier(bed, "diagnose a")?.ok()?.without("failed").map(drop))?;
        pier(bed, &format!("diagnose {} --name open.example.org", a.path))?.ok()?.has("open.example.org")?;
        wrong("a --name none.example.org", "name", "none.example.org")?;
        std::fs::write(bed.dir().join("resolv.conf"), "nameserver 127.0.0.99\n")?;
        wrong("a", "upstream", ".")?;
        std::fs::write(bed.dir().join("resolv.conf"), "nameserver 127.0.0.51\n")?;
        // A host whose firewall drops what it forwards, and what comes to it from the bridges.
        bed.sh("nft add table ip host; nft 'add chain ip host forward { type filter hook forward priority 0; policy drop; }'")?.ok()?;
        pier(bed, "diagnose a --format json")?.with("chain forward of table ip host")?.has("warning")?;
        bed.sh("nft 'add chain ip host input { type filter hook input priority 0; policy drop; }'")?.ok()?;
        wrong("a", "gateway", "10.77.1.1")?;
        wrong("a", "resolver", "10.77.1.1")?;
        bed.sh("nft delete table ip host; sysctl -qw net.ipv4.ip_forward=0")?.ok()?;
        wrong("a", "forwarding", "ip_forward")?;
        a.sh(bed, "ip route del default")?.ok()?;
        wrong("a", "route", "10.77.1.1")?;
        a.sh(bed, "ip addr flush dev eth0")?.ok()?;
        wrong("a", "address", "10.77.1.2")?;
        a.sh(bed, "ip link set eth0 down")?.ok()?;
        wrong("a", "link", "eth0")?;
        bed.sh(&format!("ip link set {} down", bridge(bed, "blue")?))?.ok()?;
        wrong("a", "bridge", "pier-")?;
        a.end()?;
        eventually(Duration::from_secs(3), || wrong("a", "namespace", "gone"))?;
        pier(bed, "--error-format json diagnose nobody")?.exits(1)?.has("ENDPOINT_NOT_FOUND")?;
        pier(bed, "rm -f blue")?.ok()?;
        drop(there);
        remove_outside(bed)
    })
}
