//! Links that the kernel at hand may lack.
use crate::bed::{Guest, inside};
use anyhow::{Context, ensure};
use integration::{Outcome, Result};

macro_rules! tests {
    ($($test:ident;)*) => {
        $(#[test] fn $test() -> Result { inside("storage", stringify!($test), cases::$test) })*
    };
}

tests! {
    vlans_of_one_bridge;
}

/// A script with `pier-network`'s directories, and `ping NETNS ADDRESS`.
fn sh(g: &Guest, script: &str) -> Result<Outcome> {
    g.sh(&format!(
        "export PIER_ROOT=$PWD/root PIER_RUN=$PWD/run\n\
         ping() {{ ip netns exec $1 /pier/rootfs/bin/busybox ping -c1 -W2 $2; }}\n{script}"
    ))
}

mod cases {
    use super::*;

    /// Two networks on a bridge that somebody else made, each in a VLAN of its own.
    pub fn vlans_of_one_bridge(g: &Guest) -> Result {
        let begin = "set -e; modprobe -a bridge veth; ip link add br9 type bridge; ip addr add 10.79.1.1/16 dev br9
            ip link set br9 up; ip link add theirs type veth peer name far; ip link set theirs master br9 up
            for n in a b c; do ip netns add $n; ip -n $n link set lo up; done
            ON='-o mode=unmanaged -o com.docker.network.bridge.name=br9'
            pier-network create v100 --subnet 10.79.1.0/24 $ON -o vlan=100
            pier-network create v200 --subnet 10.79.2.0/24 $ON -o vlan=200
            pier-network attach v100 /run/netns/a --owner a --host-interface pa --ip 10.79.1.10
            pier-network attach v100 /run/netns/b --owner b --host-interface pb --ip 10.79.1.11
            pier-network attach v200 /run/netns/c --owner c --host-interface pc --ip 10.79.2.10
            cat /sys/class/net/br9/bridge/vlan_filtering";
        sh(g, begin)?.ok()?.with("\n1\n").context("the bridge filters")?;
        for (port, id) in [("pa", 100), ("pb", 100), ("pc", 200), ("theirs", 1)] {
            let vlans = sh(g, &format!("bridge -j vlan show dev {port}"))?.ok()?.json()?;
            let list = vlans[0]["vlans"].as_array().context("vlans")?.clone();
            ensure!(list.len() == 1 && list[0]["vlan"] == id, "{port}: {vlans}");
            ensure!(list[0]["flags"] == serde_json::json!(["PVID", "Egress Untagged"]), "{port}: {vlans}");
        }
        sh(g, "ping b 10.79.1.10")?.ok().context("in one VLAN")?;
        // Whatever address it takes, frames of another VLAN do not come.
        sh(g, "ip -n c addr add 10.79.1.12/24 dev eth0; ping c 10.79.1.10")?.fails().context("between VLANs")?;
        sh(g, "pier-network rm -f v100 v200 && ! ip link show pa")?.ok()?;
        sh(g, "for n in a b c; do ip netns del $n; done; ip link del theirs; ip link del br9")?.ok().map(drop)
    }
}
