//! Bridges in a VRF.
use crate::bed::{Guest, inside};
use crate::network::{NO_OUTSIDE, OUTSIDE, picture, seen, sh};
use anyhow::{Context, ensure};
use integration::Result;

#[test]
fn a_bridge_in_a_vrf_carries_traffic() -> Result {
    inside("storage", "a_bridge_in_a_vrf_carries_traffic", carries_traffic)
}

/// The uplink is in the VRF, with the default routes; the main table knows nothing of either.
const VRF: &str = "ip link add vrf7 type vrf table 77; ip link set vrf7 up; ip link set up0 mtu 1300 master vrf7
    ip -6 addr replace 2001:db8::1/64 dev up0 nodad
    ip route add table 77 unreachable default metric 4278198272; ip -6 route add table 77 unreachable default metric 4278198272
    ip route add table 77 default via 198.51.100.2; ip -6 route add table 77 default via 2001:db8::2
    ip -n out link set up0 mtu 1300; for n in c d e; do ip netns add $n; ip -n $n link set lo up; done
    tell out TCP6 80\n";

fn carries_traffic(g: &Guest) -> Result {
    let before = picture(g)?;
    sh(g, &format!("set -e; modprobe -a vrf bridge veth\n{OUTSIDE}{VRF}"))?.ok()?;
    let names = "com.docker.network.bridge.name";
    sh(
        g,
        &format!(
            "set -e
            pier-network create blue -o vrf=vrf7 -o {names}=blue0 --subnet 10.71.0.0/24 --subnet fd71::/64
            pier-network create red -o vrf=vrf7 -o {names}=red0 --subnet 10.72.0.0/24
            pier-network create inner -o vrf=vrf7 -o {names}=inner0 --subnet 10.73.0.0/24 --internal
            pier-network create green --subnet 10.74.0.0/24
            pier-network attach blue /run/netns/a --owner a -p 8080:80 -p 8081:80
            pier-network attach blue /run/netns/b --owner b
            pier-network attach red /run/netns/c --owner c
            pier-network attach inner /run/netns/d --owner d
            pier-network attach green /run/netns/e --owner e
            tell a TCP6 80
            # Whoever makes a way out of an internal network for itself does not get far.
            ip -n d route add default via 10.73.0.1"
        ),
    )?
    .ok()?;
    let bridge = sh(g, "ip -j link show blue0")?.ok()?.json()?[0].clone();
    ensure!(bridge["master"] == "vrf7" && bridge["mtu"] == 1300, "{bridge}");
    sh(g, "ip -n a link show eth0")?.ok()?.has("mtu 1300")?;
    sh(g, "ip route show table 77; ip -6 route show table 77")?
        .ok()?
        .with("10.71.0.0/24 dev blue0")?
        .has("fd71::/64 dev blue0")?;
    sh(g, "ip route; ip -6 route")?.ok()?.without("blue0")?.without("red0")?;
    sh(g, "pier-network check")?.ok()?;
    let mut wrong = Vec::new();
    for (netns, what, wanted) in [
        ("b", "TCP:10.71.0.2:80", "10.71.0.3"),
        ("b", "TCP:[fd71::2]:80", "fd71"),
        ("a", "TCP:198.51.100.2:80", "198.51.100.1"),
        ("a", "TCP:[2001:db8::2]:80", "2001:db8::1"),
        ("out", "TCP:198.51.100.1:8080", "198.51.100.2"),
        ("out", "TCP:[2001:db8::1]:8080", "2001:db8::2"),
        ("b", "TCP:198.51.100.1:8080", "10.71.0"),
        ("a", "TCP:198.51.100.1:8080", "10.71.0"),
        ("c", "TCP:198.51.100.1:8080", "10.72.0"),
        // Neighbours of the machine, other networks, and the main table do not get in.
        ("out", "TCP:10.71.0.2:80", "-"),
        ("c", "TCP:10.71.0.2:80", "-"),
        ("d", "TCP:10.71.0.2:80", "-"),
        ("d", "TCP:198.51.100.2:80", "-"),
        ("d", "TCP:198.51.100.1:8080", "-"),
        ("e", "TCP:10.71.0.2:80", "-"),
        ("host", "TCP:10.71.0.2:80", "-"),
    ] {
        sh(g, "ip -n out route replace 10.71.0.0/24 via 198.51.100.1")?.ok()?;
        let seen = seen(&sh(g, &format!("ask {netns} {what}"))?);
        let fine = seen == wanted || (wanted != "-" && seen.starts_with(wanted));
        println!("| vrf | {netns} | {what} | {seen} |");
        if !fine {
            wrong.push(format!("{netns} {what}: {seen:?} in place of {wanted}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    // Names are served in the VRF.
    for server in ["10.71.0.1", "fd71::1"] {
        let look = format!("at a timeout 8 /pier/rootfs/bin/busybox nslookup -type=a b {server}");
        integration::eventually(std::time::Duration::from_secs(10), || sh(g, &look)?.ok()?.has("10.71.0.3"))
            .context(server)?;
    }
    sh(g, "pier-network rm -f blue red inner green; ! ip link show blue0; for n in c d e; do ip netns del $n; done")?
        .ok()?;
    sh(
        g,
        &format!(
            "{NO_OUTSIDE} ip link del vrf7; ip route flush table 77; ip -6 route flush table 77; ip rule del pref 1000; ip -6 rule del pref 1000"
        ),
    )?;
    let after = picture(g)?;
    ensure!(before == after, "before\n{before}\nafter\n{after}");
    Ok(())
}
