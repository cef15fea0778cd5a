//! Routes, case by case: static ones of each kind, default ones wanted or not, metrics.
use crate::network_place::{Place, outside, pier, remove_outside};
use anyhow::ensure;
use integration::{Bed, Result, isolated};

fn routes(bed: &Bed, place: &Place) -> Result<String> {
    Ok(place.sh(bed, "ip route; ip -6 route")?.ok()?.stdout)
}

/// A second link in the namespace, which is nobody's.
fn second_link(bed: &Bed, place: &Place) -> Result {
    place
        .sh(
            bed,
            "ip link add other type veth peer name end && ip link set other addrgenmode none && \
             ip link set end addrgenmode none && ip link set end up && ip link set other up && ip addr add 10.91.0.10/24 dev other && ip -6 addr add fd91::2/64 dev other nodad",
        )?
        .ok()
        .map(drop)
}

const KINDS: &str = "--route 10.89.0.0/24,10.71.0.9 --route 10.90.0.0/24,10.71.0.10,7 --route 10.92.0.0/24,10.91.0.1 \
                     --route 10.93.0.0/24,blackhole --route 10.94.0.0/24,unreachable,8 --route 10.95.0.0/24,prohibit \
                     --route fd89::/64,fd71::ac02 --route fd92::/64,fd91::30 --route fd93::/64,blackhole \
                     --route fd94::/64,unreachable --route fd95::/64,prohibit --route 10.96.0.0/24";
const SHOWN: [&str; 12] = [
    "10.89.0.0/24 via 10.71.0.9 dev eth0",
    "10.90.0.0/24 via 10.71.0.10 dev eth0 proto static metric 7",
    "10.92.0.0/24 via 10.91.0.1 dev other",
    "blackhole 10.93.0.0/24",
    "unreachable 10.94.0.0/24 proto static metric 8",
    "prohibit 10.95.0.0/24",
    "fd89::/64 via fd71::ac02 dev eth0",
    "fd92::/64 via fd91::30 dev other",
    "blackhole fd93::/64",
    "unreachable fd94::/64",
    "prohibit fd95::/64",
    "10.96.0.0/24 dev eth0",
];

#[test]
fn static_routes_of_each_kind_come_and_go() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        let subnets = "--subnet 10.71.0.0/24 --subnet fd71::/64";
        // A network's, an endpoint's; on a bridge, on a macvlan.
        for (name, create, attach) in [
            ("of-network", format!("create of-network {subnets} {KINDS}"), ""),
            ("of-endpoint", format!("create of-endpoint {subnets}"), KINDS),
            ("child", format!("create child -d macvlan -o parent=up0 {subnets} {KINDS}"), ""),
        ] {
            pier(bed, &create)?.ok()?;
            let a = Place::new(bed, name)?;
            second_link(bed, &a)?;
            let before = routes(bed, &a)?;
            a.attach(bed, name, "a", attach)?;
            let during = routes(bed, &a)?;
            for wanted in SHOWN {
                ensure!(during.contains(wanted), "{name}: {wanted} is not in\n{during}");
            }
            // The kernel does what they say.
            a.sh(bed, "busybox ping -c 1 -w 1 10.95.0.1")?.fails()?;
            a.sh(bed, "ip route get 10.94.0.1")?.fails()?.has("No route to host")?;
            pier(bed, "detach --owner a")?.ok()?;
            let after = routes(bed, &a)?;
            ensure!(before == after, "{name}: before\n{before}\nafter\n{after}");
            pier(bed, &format!("rm {name}"))?.ok()?;
            a.end()?;
        }
        drop(there);
        remove_outside(bed)
    })
}

#[test]
fn routes_of_a_failed_attach_are_taken_back() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.71.0.0/24")?.ok()?;
        let a = Place::new(bed, "a")?;
        let before = routes(bed, &a)?;
        let line = "--route 10.93.0.0/24,blackhole --route 10.94.0.0/24,prohibit --route 10.92.0.0/24,192.0.2.77";
        let attach = format!("--error-format json attach blue {} --owner a {line}", a.path);
        pier(bed, &attach)?.exits(1)?.with("KERNEL_REFUSED")?.has("10.92.0.0/24,192.0.2.77")?;
        let after = routes(bed, &a)?;
        ensure!(before == after, "before\n{before}\nafter\n{after}");
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn a_route_of_two_endpoints_goes_with_the_last() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.71.0.0/24 --route 10.93.0.0/24,blackhole")?.ok()?;
        pier(bed, "create red --subnet 10.72.0.0/24 --route 10.93.0.0/24,blackhole")?.ok()?;
        let a = Place::on(bed, "blue", "a", "")?;
        a.attach(bed, "red", "a", "")?;
        // Somebody's own, which happens to lead to the same nowhere: it is not ours to take.
        a.sh(bed, "ip route add blackhole 10.94.0.0/24")?.ok()?;
        for (gone, stays) in [("blue", true), ("red", false)] {
            pier(bed, &format!("detach --owner a --network {gone}"))?.ok()?;
            let shown = routes(bed, &a)?;
            ensure!(shown.contains("blackhole 10.93.0.0/24") == stays, "after {gone}: {shown}");
            ensure!(shown.contains("blackhole 10.94.0.0/24"), "after {gone}: {shown}");
        }
        pier(bed, "rm blue red")?.ok().map(drop)
    })
}

#[test]
fn default_routes_are_left_alone_where_that_is_asked_for() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        let subnets = "--subnet 10.71.0.0/24 --subnet fd71::/64";
        for (create, attach) in [
            ("", "--no-default-route"),
            ("-o no_default_route=true", ""),
            ("--internal", ""),
            ("-d macvlan -o parent=up0 -o no_default_route=true", ""),
            ("-d macvlan -o parent=up0 --internal", ""),
            ("-d macvlan -o parent=up0", "--no-default-route"),
        ] {
            pier(bed, &format!("create blue {subnets} {create}"))?.ok()?;
            let a = Place::on(bed, "blue", "a", attach)?;
            let shown = routes(bed, &a)?;
            ensure!(
                !shown.contains("default") && shown.contains("10.71.0.0/24 dev eth0"),
                "{create} {attach}: {shown}"
            );
            // It does not inherit one either.
            pier(bed, "create red --subnet 10.72.0.0/24")?.ok()?;
            a.attach(bed, "red", "a", "")?;
            pier(bed, "detach --owner a --network red")?.ok()?;
            let shown = routes(bed, &a)?;
            ensure!(!shown.contains("default"), "{create} {attach}, inherited: {shown}");
            pier(bed, "rm -f blue red")?.ok()?;
            a.end()?;
        }
        pier(bed, "--error-format json create x -o no_default_route=1")?.exits(1)?.has("known are true and false")?;
        drop(there);
        remove_outside(bed)
    })
}

#[test]
fn a_metric_is_of_both_families() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        for driver in ["", "-d macvlan -o parent=up0"] {
            pier(bed, &format!("create blue {driver} --subnet 10.71.0.0/24 --subnet fd71::/64 -o metric=200"))?.ok()?;
            for (attach, wanted) in [("", "metric 200"), ("--metric 300", "metric 300")] {
                let a = Place::on(bed, "blue", "a", attach)?;
                let shown = a.sh(bed, "ip route show default; ip -6 route show default")?.ok()?.stdout;
                ensure!(shown.lines().count() == 2 && shown.matches(wanted).count() == 2, "{driver} {attach}: {shown}");
                pier(bed, "detach --owner a")?.ok()?;
                a.end()?;
            }
            pier(bed, "rm blue")?.ok()?;
        }
        pier(bed, "--error-format json create x -o metric=low")?.exits(1)?.has("a number is needed")?;
        drop(there);
        remove_outside(bed)
    })
}
