//! 802.1Q tags on a bridge that somebody else made: two networks on one bridge, each in a VLAN of its own.
use crate::network_place::{Place, pier};
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};

const ON: &str = "-o mode=unmanaged -o com.docker.network.bridge.name=br9";

/// The bridge, and what the host has before anybody is attached.
fn bridge(bed: &Bed) -> Result<String> {
    bed.sh("ip link add br9 type bridge && ip addr add 10.79.1.1/16 dev br9 && ip link set br9 up")?.ok()?;
    pier(bed, &format!("create v100 --subnet 10.79.1.0/24 {ON} -o vlan=100"))?.ok()?;
    pier(bed, &format!("create v200 --subnet 10.79.2.0/24 {ON} -o vlan=200"))?.ok()?;
    links(bed)
}

fn links(bed: &Bed) -> Result<String> {
    Ok(bed.sh("ip -j link | jq -r '.[].ifname'")?.ok()?.stdout)
}

/// Whether the bridges of this kernel know VLANs.
fn has_vlans(bed: &Bed) -> Result<bool> {
    let try_it = "ip link add try9 type bridge && ip link set try9 type bridge vlan_filtering 1 && \
                  bridge vlan add dev try9 vid 9 self; e=$?; ip link del try9; exit $e";
    Ok(bed.sh(try_it)?.code == 0)
}

#[test]
fn two_networks_in_vlans_of_one_bridge() -> Result {
    isolated!(|bed| {
        let before = bridge(bed)?;
        let place = |name: &str| Place::new(bed, name);
        let (a, b, c) = (place("a")?, place("b")?, place("c")?);
        let line = format!("attach v100 {} --owner a", a.path);
        let plan = pier(bed, &format!("{line} --dry-run"))?.ok()?;
        plan.with("filter VLANs on br9")?.has("in VLAN 100")?;
        if has_vlans(bed)? {
            traffic(bed, [&a, &b, &c])?;
        } else {
            println!("skipped: two_networks_in_vlans_of_one_bridge, its traffic: this kernel has no VLANs on bridges");
            pier(bed, &line)?.exits(1)?.has("this kernel has no VLANs on bridges")?;
            a.sh(bed, "ip link show eth0")?.fails()?;
            pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
            ensure!(links(bed)? == before, "{before}\nis now\n{}", links(bed)?);
        }
        pier(bed, "rm -f v100 v200")?.ok()?;
        bed.sh("ip link del br9")?.ok().map(drop)
    })
}

fn traffic(bed: &Bed, [a, b, c]: [&Place; 3]) -> Result {
    a.attach(bed, "v100", "a", "--host-interface pa --ip 10.79.1.10")?;
    b.attach(bed, "v100", "b", "--host-interface pb --ip 10.79.1.11")?;
    c.attach(bed, "v200", "c", "--host-interface pc --ip 10.79.2.10")?;
    for (port, id) in [("pa", 100), ("pb", 100), ("pc", 200)] {
        let vlans = bed.sh(&format!("bridge -j vlan show dev {port}"))?.ok()?.json()?;
        let list = vlans[0]["vlans"].as_array().context("vlans")?.clone();
        ensure!(list.len() == 1 && list[0]["vlan"] == id, "{port}: {vlans}");
        ensure!(list[0]["flags"] == serde_json::json!(["PVID", "Egress Untagged"]), "{port}: {vlans}");
    }
    a.answer(bed, "a", 80)?;
    b.ask(bed, "10.79.1.10:80")?.ok()?.has("hello a")?;
    // Whatever addresses they take, frames of another VLAN do not come.
    c.sh(bed, "ip addr add 10.79.1.12/24 dev eth0")?.ok()?;
    c.ask(bed, "10.79.1.10:80")?.fails().map(drop)
}
