//! Links that the kernel at hand may lack; and what tests of them share.
use crate::bed::{Guest, inside};
use anyhow::{Context, ensure};
use integration::{Outcome, Result};

#[test]
fn vlans_of_one_bridge() -> Result {
    inside("storage", "vlans_of_one_bridge", cases::vlans_of_one_bridge)
}

#[test]
fn a_bridge_of_ours_has_vlans() -> Result {
    inside("storage", "a_bridge_of_ours_has_vlans", cases::a_bridge_of_ours_has_vlans)
}

/// A script with `pier-network`'s directories; `ping NETNS ADDRESS`, which tries again, since the kernel takes up to a second
/// until it takes note of a link that is up (linkwatch), and IPv6 waits for that; `tell NETNS PROTOCOL PORT`, which starts a server
/// that says who asks; `ask NETNS PROTOCOL:ADDRESS:PORT`, which asks it; the namespace `host` is the machine's own.
pub fn sh(g: &Guest, script: &str) -> Result<Outcome> {
    g.sh(&format!(
        "export PIER_ROOT=$PWD/root PIER_RUN=$PWD/run
         at() {{ n=$1; shift; case $n in host) \"$@\";; *) ip netns exec $n \"$@\";; esac; }}
         ping() {{ for i in 1 2 3; do at $1 /pier/rootfs/bin/busybox ping -c1 -W1 $2 && return; done; return 1; }}
         tell() {{ ip netns exec $1 socat $2-LISTEN:$3,fork,reuseaddr,ipv6only=0 SYSTEM:'read q; echo from $SOCAT_PEERADDR' \
             </dev/null >/dev/null 2>&1 & echo $! >>pids; }}
         ask() {{ echo q | at $1 timeout 3 socat -T2 -,ignoreeof $2; }}
         {script}"
    ))
}

/// Namespaces `a`, `b`, and `out`, which is a neighbour of the machine: 198.51.100.1 and 2001:db8::1 here, .2 there.
pub const OUTSIDE: &str = "for n in a b out; do ip netns add $n; ip -n $n link set lo up; done
    ip link add up0 type veth peer name up0 netns out; ip link set up0 up; ip -n out link set up0 up
    for n in 1 2; do case $n in 1) at='ip';; 2) at='ip -n out';; esac
        $at addr add 198.51.100.$n/24 dev up0; $at -6 addr add 2001:db8::$n/64 dev up0 nodad; done\n";
/// Away with them, and with the servers.
pub const NO_OUTSIDE: &str =
    "[ ! -e pids ] || kill $(cat pids); for n in a b out; do ip netns del $n; done; ip link del up0 || true\n";

/// All that a test may not leave in the machine.
pub fn picture(g: &Guest) -> Result<String> {
    let look = "ip -o link | cut -d: -f2; ip -o addr | awk '{print $2, $4}'; ip route; ip -6 route; ip rule; nft list ruleset; ip netns";
    Ok(sh(g, look)?.ok()?.stdout)
}

/// Whom a server saw that tells; "-" when nothing was told.
pub fn seen(outcome: &Outcome) -> String {
    let line = outcome.stdout.lines().find_map(|line| line.strip_prefix("from "));
    let plain = line.unwrap_or("-").trim_matches(['[', ']']);
    plain.parse::<std::net::Ipv6Addr>().map_or(plain.to_owned(), |ip| ip.to_canonical().to_string())
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
        ports_are_in(g, &[("pa", 100), ("pb", 100), ("pc", 200), ("theirs", 1)])?;
        sh(g, "ping b 10.79.1.10")?.ok().context("in one VLAN")?;
        // Whatever address it takes, frames of another VLAN do not come.
        sh(g, "ip -n c addr add 10.79.1.12/24 dev eth0; ping c 10.79.1.10")?.fails().context("between VLANs")?;
        sh(g, "pier-network rm -f v100 v200 && ! ip link show pa")?.ok()?;
        sh(g, "for n in a b c; do ip netns del $n; done; ip link del theirs; ip link del br9")?.ok().map(drop)
    }
    /// A network of our own in a VLAN: who is put on its bridge by hand is in another one.
    pub fn a_bridge_of_ours_has_vlans(g: &Guest) -> Result {
        let begin = "set -e; modprobe -a bridge veth; for n in a b c; do ip netns add $n; ip -n $n link set lo up; done
            pier-network create v -o vlan=100 -o com.docker.network.bridge.name=v0 --subnet 10.79.3.0/24
            pier-network attach v /run/netns/a --owner a --host-interface pa --ip 10.79.3.10
            pier-network attach v /run/netns/b --owner b --host-interface pb --ip 10.79.3.11
            ip link add theirs type veth peer name eth0 netns c; ip link set theirs master v0 up
            ip -n c addr add 10.79.3.12/24 dev eth0; ip -n c link set eth0 up
            cat /sys/class/net/v0/bridge/vlan_filtering; pier-network check";
        sh(g, begin)?.ok()?.has("\n1\n").context("the bridge filters")?;
        ports_are_in(g, &[("pa", 100), ("pb", 100), ("theirs", 1)])?;
        sh(g, "ping b 10.79.3.10")?.ok().context("in one VLAN")?;
        sh(g, "ping c 10.79.3.10")?.fails().context("between VLANs")?;
        sh(g, "pier-network rm -f v && ! ip link show v0")?.ok()?;
        sh(g, "for n in a b c; do ip netns del $n; done; ip link del theirs || true")?.ok().map(drop)
    }

    fn ports_are_in(g: &Guest, wanted: &[(&str, u16)]) -> Result {
        for (port, id) in wanted {
            let vlans = sh(g, &format!("bridge -j vlan show dev {port}"))?.ok()?.json()?;
            let list = vlans[0]["vlans"].as_array().context("vlans")?.clone();
            ensure!(list.len() == 1 && list[0]["vlan"] == *id, "{port}: {vlans}");
            ensure!(list[0]["flags"] == serde_json::json!(["PVID", "Egress Untagged"]), "{port}: {vlans}");
        }
        Ok(())
    }
}
