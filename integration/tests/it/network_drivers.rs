//! Drivers of `pier-network` beyond the plain bridge, with traffic.
use crate::network::{Netns, attach, outside, pier, remove_outside, tcp};
use anyhow::{Context, ensure};
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

/// Another "host": a namespace with a link to this one, where `pier-network` has a stack of its own.
struct Host {
    netns: Netns,
}

impl Host {
    fn pier(&self, bed: &Bed, line: &str) -> Result<integration::Outcome> {
        let script = format!("pier-network --root $DIR/other --run $DIR/other-run {line}");
        bed.exec("nsenter", &[&format!("--net={}", self.netns.path), "bash", "-c", &script])
    }
}

#[test]
fn a_macvlan_is_on_its_parents_network() -> Result {
    isolated!(|bed| {
        let (there, a, b) = (outside(bed)?, Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        let before = bed.sh("ip -o link | cut -d: -f2; nft list ruleset")?.ok()?.stdout;
        let subnet = "--subnet 198.51.100.0/24 --gateway 198.51.100.2 --ip-range 198.51.100.64/28 --aux-address \
                      printer=198.51.100.64";
        pier(bed, &format!("create lan -d macvlan -o parent=up0 {subnet}"))?.ok()?;
        let first = attach(bed, "lan", &a, "a", "--mac-address 02:00:00:00:00:99 --interface lan0")?;
        ensure!(first == "198.51.100.65", "{first}: the auxiliary address was given, or the range was left");
        attach(bed, "lan", &b, "b", "--ip 198.51.100.70 --ip 198.51.100.71")?;
        a.sh(bed, "ip -o link show lan0; ip route")?
            .ok()?
            .with("02:00:00:00:00:99")?
            .with("default via 198.51.100.2")?
            .ok()?;
        a.answer(bed, "a")?;
        there.answer(bed, "outside")?;
        there.ask(bed, &format!("{first}:80"))?.ok().context("from outside")?.has("hello a")?;
        a.ask(bed, "198.51.100.2:80")?.ok().context("to outside")?.has("hello outside")?;
        b.ask(bed, &format!("{first}:80,bind=198.51.100.71"))?.ok().context("between two")?.has("hello a")?;
        pier(bed, &format!("attach lan {} --owner c -p 80:80", a.path))?.exits(1)?.has("publishes no ports")?;
        let refused = format!("attach lan {} --owner c --ip 198.51.100.64", a.path);
        pier(bed, &refused)?.exits(1)?.has("set aside as \"printer\"")?;
        pier(bed, "create lan2 -d macvlan -o parent=up0 --subnet 198.51.100.0/25")?.exits(1)?.has("lan")?;
        // The link is lost: reconcile makes it again.
        b.sh(bed, "ip link del eth0")?.ok()?;
        pier(bed, "reconcile")?.ok()?.has("was gone; made again")?;
        b.ask(bed, &format!("{first}:80,bind=198.51.100.71"))?.ok()?.has("hello a")?;
        pier(bed, "detach --owner a")?.ok()?;
        a.sh(bed, "ip link show lan0")?.fails()?;
        pier(bed, "rm -f lan")?.ok()?;
        let after = bed.sh("ip -o link | cut -d: -f2; nft list ruleset")?.ok()?.stdout;
        ensure!(before == after, "before:\n{before}\nafter:\n{after}");
        remove_outside(bed)
    })
}

#[test]
fn links_this_kernel_lacks_are_named_and_leave_nothing() -> Result {
    isolated!(|bed| {
        let (_there, a) = (outside(bed)?, Netns::new(bed, "a")?);
        let mut lacking = 0;
        for (line, kind) in [
            ("create one -d ipvlan -o parent=up0 --subnet 192.0.2.0/24", "ipvlan"),
            ("create one -d vlan -o parent=up0 -o id=10 --subnet 192.0.2.0/24", "vlan"),
            ("create one -d macvlan -o parent=up0.20 --subnet 192.0.2.0/24", "vlan"),
        ] {
            pier(bed, line)?.ok()?;
            let outcome = pier(bed, &format!("attach one {} --owner a", a.path))?;
            if outcome.code == 0 {
                a.sh(bed, "ip -d link show eth0")?.ok()?;
                println!("skipped: links_this_kernel_lacks_are_named_and_leave_nothing: this kernel has {kind} links");
            } else {
                lacking += 1;
                outcome.exits(1)?.has(&format!("this kernel has no {kind} links"))?;
                a.sh(bed, "ip link show eth0")?.fails()?;
                pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
            }
            pier(bed, "rm -f one")?.ok()?;
            bed.sh("ip link show up0.20")?.fails()?;
        }
        println!("{lacking} of 3 kinds of links are not in this kernel");
        remove_outside(bed)
    })
}

#[test]
fn pairs_alone_are_routed_and_kept_apart() -> Result {
    isolated!(|bed| {
        let (there, a, b) = (outside(bed)?, Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        there.answer(bed, "outside")?;
        pier(bed, "create pairs -d veth --ipv6")?.ok()?;
        let first = attach(bed, "pairs", &a, "a", "-p 8080:80 -p 127.0.0.1:9090:80")?;
        attach(bed, "pairs", &b, "b", "")?;
        a.answer(bed, "a")?;
        for at in [format!("{first}:80"), "127.0.0.1:8080".into(), "127.0.0.1:9090".into(), "198.51.100.1:8080".into()]
        {
            bed.sh(&tcp(&at))?.ok().context(format!("from the host: {at}"))?.has("hello a")?;
        }
        for at in ["198.51.100.1:8080", "[2001:db8::1]:8080"] {
            there.ask(bed, at)?.ok().context("from outside")?.has("hello a")?;
            a.ask(bed, at)?.ok().context("hairpin")?.has("hello a")?;
            b.ask(bed, at)?.ok().context("another, by the published port")?.has("hello a")?;
        }
        b.ask(bed, "198.51.100.2:80")?.ok().context("the way out")?.has("hello outside")?;
        b.ask(bed, &format!("{first}:80"))?.fails().context("another, directly")?;
        pier(bed, "detach --owner a")?.ok()?;
        bed.sh(&tcp("127.0.0.1:8080"))?.fails()?;
        pier(bed, "rm -f pairs")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn an_overlay_joins_two_hosts() -> Result {
    isolated!(|bed| {
        let (there, a, b) = (outside(bed)?, Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        let other = Host { netns: there };
        let create = |range: &str, gateway: &str, more: &str| {
            format!("create mesh -d overlay --subnet 10.60.0.0/16 --ip-range {range} --gateway {gateway} {more}")
        };
        pier(bed, &create("10.60.1.0/24", "10.60.1.1", "--peer 198.51.100.2"))?.ok()?;
        // The other host is told of this one later.
        other.pier(bed, &create("10.60.2.0/24", "10.60.2.1", ""))?.ok()?;
        let here = attach(bed, "mesh", &a, "a", "")?;
        let endpoint = other.pier(bed, &format!("attach mesh {} --owner b", b.path))?.ok()?.json()?;
        ensure!(here == "10.60.1.0" && endpoint["addresses"][0] == "10.60.2.0/16", "{here} {endpoint}");
        a.answer(bed, "a")?;
        b.answer(bed, "b")?;
        b.ask(bed, "10.60.1.0:80")?.fails().context("before the other host knows this one")?;
        other.pier(bed, "peers mesh 198.51.100.1")?.ok()?;
        eventually(Duration::from_secs(5), || a.ask(bed, "10.60.2.0:80")?.ok()?.has("hello b"))?;
        b.ask(bed, "10.60.1.0:80")?.ok()?.has("hello a")?;
        // A packet as large as the link takes, whole.
        let large = "busybox ping -c 1 -w 3 -s 1422 10.60.2.0";
        a.sh(bed, "ip link show eth0")?.ok()?.has("mtu 1450")?;
        a.sh(bed, large)?.ok().context("a packet of 1450 bytes")?;
        // Forgotten on both sides, what was learned included.
        pier(bed, "peers mesh")?.ok()?;
        other.pier(bed, "peers mesh")?.ok()?;
        bed.sh("bridge fdb show | grep 198.51.100.2 | grep 00:00:00:00:00:00")?.fails()?;
        pier(bed, "rm -f mesh")?.ok()?;
        other.pier(bed, "rm -f mesh")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn somebody_elses_bridge_is_joined_and_left() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        bed.sh("ip link add br7 address 02:00:00:00:00:07 type bridge && ip addr add 192.0.2.1/24 dev br7 && ip link set br7 up")?.ok()?;
        let picture = "ip -o link | cut -d: -f2; ip -o -4 addr show br7; nft list ruleset";
        let before = bed.sh(picture)?.ok()?.stdout;
        let option = "-o mode=unmanaged -o com.docker.network.bridge.name";
        pier(bed, &format!("create yours {option}=br7 --subnet 192.0.2.0/24"))?.ok()?;
        let address = attach(bed, "yours", &a, "a", "")?;
        a.answer(bed, "a")?;
        bed.sh(&tcp(&format!("{address}:80")))?.ok()?.has("hello a")?;
        pier(bed, "rm -f yours")?.ok()?;
        let after = bed.sh(picture)?.ok()?.stdout;
        ensure!(before == after, "before:\n{before}\nafter:\n{after}");
        pier(bed, &format!("create none1 {option}=br8 --subnet 192.0.2.0/24"))?.ok()?;
        pier(bed, &format!("attach none1 {} --owner a", a.path))?.exits(1)?.has("br8")?;
        pier(bed, "rm -f none1")?.ok()?;
        bed.sh("ip link del br7")?.ok().map(drop)
    })
}

#[test]
fn the_highest_priority_is_the_default_route() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        for (name, number) in [("one", 1), ("two", 2), ("three", 3)] {
            pier(bed, &format!("create {name} --subnet 10.70.{number}.0/24"))?.ok()?;
        }
        let default = |wanted: &str| -> Result {
            let routes = a.sh(bed, "ip route show default")?.ok()?.stdout;
            ensure!(routes.lines().count() == 1 && routes.contains(wanted), "{wanted}: {routes}");
            Ok(())
        };
        attach(bed, "one", &a, "a", "")?;
        default("10.70.1.1")?;
        attach(bed, "two", &a, "a", "--gateway-priority 5 --route 172.20.0.0/16,10.70.2.9,7 --mtu 1400")?;
        default("10.70.2.1")?;
        a.sh(bed, "ip route; ip link show eth1")?
            .ok()?
            .with("172.20.0.0/16 via 10.70.2.9 dev eth1")?
            .has("mtu 1400")?;
        attach(bed, "three", &a, "a", "--gateway-priority 2")?;
        default("10.70.2.1")?;
        pier(bed, "detach --owner a --network two")?.ok()?;
        default("10.70.3.1")?;
        pier(bed, "detach --owner a --network three")?.ok()?;
        default("10.70.1.1")?;
        // A port published on a network that is not the default route, and strict checks of source addresses.
        bed.sh("echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter; ip addr add 203.0.113.1/24 dev lo")?.ok()?;
        attach(bed, "two", &a, "a", "--gateway-priority 9 -p 8080:80")?;
        a.answer(bed, "a")?;
        pier(bed, "detach --owner a --network one")?.ok()?;
        attach(bed, "one", &a, "a", "--gateway-priority 10 -p 8081:80")?;
        default("10.70.1.1")?;
        for port in [8080, 8081] {
            bed.sh(&tcp(&format!("203.0.113.1:{port},bind=203.0.113.1")))?.ok().context(port)?.has("hello a")?;
        }
        pier(bed, "detach --owner a --network two")?.ok()?;
        bed.sh("echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; ip addr del 203.0.113.1/24 dev lo")?.ok()?;
        // With a metric of its own it stands beside the other.
        attach(bed, "two", &a, "a", "--metric 300 --host-interface two-a")?;
        a.sh(bed, "ip route show default")?.ok()?.with("10.70.1.1")?.has("metric 300")?;
        bed.sh("ip -o link show two-a")?.ok()?;
        pier(bed, "rm -f one two three")?.ok().map(drop)
    })
}

#[test]
fn subnets_models_and_families() -> Result {
    isolated!(|bed| {
        let owners: Vec<Netns> = (0..3).map(|n| Netns::new(bed, &format!("n{n}"))).collect::<Result<_>>()?;
        // The second subnet is used when the first is full.
        pier(bed, "create many --subnet 10.71.0.0/30 --subnet 10.72.0.0/29 --subnet fd71::/64")?.ok()?;
        let first = attach(bed, "many", &owners[0], "a", "")?;
        let second = attach(bed, "many", &owners[1], "b", "")?;
        ensure!((first.as_str(), second.as_str()) == ("10.71.0.2", "10.72.0.2"), "{first} {second}");
        owners[0].answer(bed, "a")?;
        owners[1].ask(bed, "10.71.0.2:80")?.ok().context("from subnet to subnet")?.has("hello a")?;
        owners[1].sh(bed, "ip -6 addr show eth0")?.ok()?.has("fd71::3/64")?;
        // IPv6 alone.
        pier(bed, "create six --ipv6 --disable-ipv4")?.ok()?;
        let six = pier(bed, &format!("attach six {} --owner c -p 8080:80", owners[2].path))?.ok()?.json()?;
        ensure!(six["addresses"].as_array().map(Vec::len) == Some(1), "{six}");
        owners[2].answer(bed, "c")?;
        let address = six["addresses"][0].as_str().context("an address")?.replace("/64", "");
        ensure!(address.starts_with("fd"), "{address}: not a unique local address");
        bed.sh(&tcp(&format!("[{address}]:80")))?.ok()?.has("hello c")?;
        pier(bed, "create neither --disable-ipv4")?.exits(1)?.has("neither IPv4 nor IPv6")?;
        // Models.
        pier(bed, "create model --config-only --subnet 10.73.0.0/24 -o mtu=1300 --route 172.21.0.0/16,10.73.0.1")?
            .ok()?;
        pier(bed, &format!("attach model {} --owner c", owners[2].path))?.exits(1)?.has("only a model")?;
        pier(bed, "create made --config-from model")?.ok()?;
        attach(bed, "made", &owners[2], "c", "")?;
        owners[2].sh(bed, "ip route; ip link show eth1")?.ok()?.with("172.21.0.0/16 via 10.73.0.1")?.has("mtu 1300")?;
        pier(bed, "create other --config-from many")?.exits(1)?.has("--config-only")?;
        pier(bed, "rm -f many six made model")?.ok().map(drop)
    })
}

#[test]
fn a_dry_run_says_all_and_does_nothing() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        pier(bed, "create blue --subnet 10.74.0.0/24")?.ok()?;
        let before = bed.sh("ip -o link; nft list ruleset; pier-network endpoints --format json")?.ok()?.stdout;
        let attach = format!("attach blue {} --owner a -p 8080:80", a.path);
        let plan = pier(bed, &format!("{attach} --dry-run"))?.ok()?;
        let plan = plan.with("hold port 8080->80/tcp")?.with("make veth pair")?;
        plan.with("add address 10.74.0.2/24 to eth0")?.with("add default route by 10.74.0.1 on eth0")?.ok()?;
        let after = bed.sh("ip -o link; nft list ruleset; pier-network endpoints --format json")?.ok()?.stdout;
        ensure!(before == after, "before:\n{before}\nafter:\n{after}");
        pier(bed, &attach)?.ok()?.has("10.74.0.2")?;
        pier(bed, "detach --owner a --dry-run")?.ok()?.with("release port 8080->80/tcp")?.has("remove link pv")?;
        a.sh(bed, "ip link show eth0")?.ok()?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}
