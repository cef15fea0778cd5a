//! Addresses of a plugin in docker's IPAM protocol: given, given back, and owed while it hangs.
use crate::network_place::{Place, pier, tcp};
use anyhow::{Context, ensure};
use integration::{Bed, Daemon, Result, eventually, isolated};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/ipam-driver.py");
const SOCKET: &str = "/run/docker/plugins/toypam.sock";

fn driver(bed: &Bed) -> Result<Daemon> {
    let state = bed.dir().join("given.json");
    let daemon = bed.spawn("toypam", bed.command("python3").args([SCRIPT, SOCKET]).arg(state))?;
    eventually(Duration::from_secs(5), || Ok(std::os::unix::net::UnixStream::connect(SOCKET).map(drop)?))?;
    Ok(daemon)
}

/// What the plugin has given, by pool.
fn given(bed: &Bed) -> Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(bed.dir().join("given.json"))?)?)
}

fn addresses(bed: &Bed, pool: &str) -> Result<Vec<String>> {
    let all = given(bed)?;
    let mut addresses: Vec<String> = all[pool].as_object().context("a pool")?.keys().cloned().collect();
    addresses.sort();
    Ok(addresses)
}

#[test]
fn a_plugin_gives_addresses_and_gets_them_back() -> Result {
    isolated!(|bed| {
        pier(bed, "--error-format json create blue --ipam-driver toypam")?
            .exits(1)?
            .with("INVALID_ARGUMENT")?
            .has("no plugin of that name")?;
        let _driver = driver(bed)?;
        pier(bed, "create blue --ipv6 --ipam-driver toypam --ipam-opt zone=7 --aux-address printer=10.66.0.100")?
            .ok()?;
        let made = pier(bed, "inspect blue")?.ok()?.json()?[0].clone();
        ensure!(made["subnets"][0] == json!({"subnet": "10.66.0.0/24", "gateway": "10.66.0.1"}), "{made}");
        ensure!(made["subnets"][1] == json!({"subnet": "fd66::/64", "gateway": "fd66::1"}), "{made}");
        // A second network cannot have the same pool: what the plugin says is said, and nothing is left.
        pier(bed, "create red --ipam-driver toypam --subnet 10.66.0.0/24")?.exits(1)?.has("is in use")?;
        pier(bed, "create red --ipam-driver toypam --subnet 10.67.0.0/24 --subnet fd66::/64")?
            .exits(1)?
            .has("is in use")?;
        ensure!(given(bed)?.as_object().is_some_and(|pools| pools.len() == 2), "{}", given(bed)?);
        let (a, b) = (Place::new(bed, "a")?, Place::new(bed, "b")?);
        let first = a.attach(bed, "blue", "a", "--mac-address 02:00:00:00:00:66 -p 8080:80")?;
        ensure!(first == ["10.66.0.101", "fd66::64"], "{first:?}");
        ensure!(given(bed)?["10.66.0.0/24"]["10.66.0.101"] == "02:00:00:00:00:66", "{}", given(bed)?);
        let second = b.attach(bed, "blue", "b", "--ip 10.66.0.77")?;
        ensure!(second == ["10.66.0.77", "fd66::65"], "{second:?}");
        a.sh(bed, "ip route")?.ok()?.has("default via 10.66.0.1 dev eth0")?;
        a.answer(bed, "a", 80)?;
        b.ask(bed, "10.66.0.101:80")?.ok()?.has("hello a")?;
        bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a")?;
        // Refused by the plugin, or refused later by the host: given back.
        let c = Place::new(bed, "c")?;
        let line = |more: &str| format!("attach blue {} --owner c {more}", c.path);
        pier(bed, &line("--ip 10.66.0.77"))?.exits(1)?.has("10.66.0.77")?;
        pier(bed, &line("-p 8080:80"))?.exits(1)?;
        pier(bed, &line("--host-interface lo"))?.exits(1)?;
        pier(bed, &line("--route 10.1.0.0/16,192.0.2.9"))?.exits(1)?.has("192.0.2.9")?;
        ensure!(addresses(bed, "fd66::/64")?.len() == 3, "{}", given(bed)?);
        pier(bed, "detach --owner a")?.ok()?;
        ensure!(addresses(bed, "10.66.0.0/24")? == ["10.66.0.1", "10.66.0.100", "10.66.0.77"], "{}", given(bed)?);
        // The one that is free again is given again.
        ensure!(a.attach(bed, "blue", "a", "")? == first, "another address");
        pier(bed, "rm -f blue")?.ok()?;
        ensure!(given(bed)? == json!({}), "{}", given(bed)?);
        Ok(())
    })
}

#[test]
fn a_plugin_that_hangs_costs_its_own_call_and_is_paid_later() -> Result {
    isolated!(|bed| {
        let driver = driver(bed)?;
        pier(bed, "create slow --ipam-driver toypam -o timeout=2")?.ok()?;
        pier(bed, "create blue --subnet 10.71.0.0/24")?.ok()?;
        let (a, b) = (Place::new(bed, "a")?, Place::new(bed, "b")?);
        a.attach(bed, "slow", "a", "")?;
        driver.signal("STOP")?;
        let hung = bed.spawn("hung", bed.command("pier-network").args(["attach", "slow", &b.path, "--owner", "b"]))?;
        std::thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        b.attach(bed, "blue", "other", "--interface other0")?;
        pier(bed, "detach --owner other")?.ok()?;
        ensure!(begun.elapsed() < Duration::from_secs(1), "others waited {:?}", begun.elapsed());
        ensure!(hung.pid() > 0 && bed.log("hung").is_empty(), "the hung call ended early: {}", bed.log("hung"));
        eventually(Duration::from_secs(8), || {
            ensure!(bed.log("hung").contains("did not answer within 2s"), "{}", bed.log("hung"));
            Ok(())
        })?;
        // A detach is done; what the plugin is to get back waits for it, over reconciles and restarts.
        pier(bed, "detach --owner a")?.ok()?;
        a.sh(bed, "ip link show eth0")?.fails()?;
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        driver.signal("CONT")?;
        // A stopped server may have taken in what nobody waits for any more: its answer was lost, not its deed.
        eventually(Duration::from_secs(5), || {
            pier(bed, "reconcile")?.ok()?;
            let left = addresses(bed, "10.66.0.0/24")?;
            ensure!(!left.contains(&"10.66.0.100".to_owned()), "{left:?}");
            Ok(())
        })?;
        pier(bed, "rm -f slow blue")?.ok().map(drop)
    })
}
