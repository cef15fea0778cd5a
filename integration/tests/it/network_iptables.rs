//! The firewall where nft is missing: the same traffic over iptables, in nf_tables and in the kernel's own tables.
use crate::network_place::{Place, outside, remove_outside, tcp};
use anyhow::{Context, ensure};
use integration::{Bed, Outcome, Result, eventually, isolated};
use std::time::Duration;

/// Programs that a host with iptables alone has: nft is none of them.
pub fn only_iptables(bed: &Bed, kind: &str) -> Result<bool> {
    let link = "rm -rf $DIR/only; mkdir $DIR/only; for p in iptables ip6tables; do for verb in '' -save -restore; do \
                ln -s $(command -v xtables-$KIND-multi) $DIR/only/$p$verb; done; done; PATH=$DIR/only iptables -t nat -S";
    Ok(bed.sh(&format!("KIND={kind}; {link}"))?.code == 0)
}

pub fn pier(bed: &Bed, line: &str) -> Result<Outcome> {
    bed.sh(&format!("p=$(command -v pier-network); exec env PATH=$DIR/only $p {line}"))
}

/// What an iptables of the host does.
pub fn iptables(bed: &Bed, line: &str) -> Result {
    bed.sh(&format!("for p in iptables ip6tables; do PATH=$DIR/only $p {line} || exit 1; done"))?.ok().map(drop)
}

fn on(bed: &Bed, network: &str, name: &str, more: &str) -> Result<Place> {
    let place = Place::new(bed, name)?;
    pier(bed, &format!("attach {network} {} --owner {name} {more}", place.path))?.ok()?;
    place.answer(bed, name, 80)?;
    Ok(place)
}

const KINDS: [&str; 2] = ["nft", "legacy"];

#[test]
fn the_same_traffic_passes_over_iptables() -> Result {
    isolated!(|bed| {
        for kind in KINDS {
            if !only_iptables(bed, kind)? {
                println!("skipped: iptables-{kind}: this host or kernel has none");
                continue;
            }
            traffic(bed, kind).with_context(|| format!("iptables-{kind}"))?;
        }
        Ok(())
    })
}

fn traffic(bed: &Bed, kind: &str) -> Result {
    let there = outside(bed)?;
    let chains = "for p in iptables ip6tables; do PATH=$DIR/only:$PATH $p-save | grep -E 'PIER|pier'; done";
    // What docker leaves, and a rule of the host's own.
    iptables(bed, "-P FORWARD DROP")?;
    iptables(bed, "-A FORWARD -p tcp --dport 2222 -j DROP")?;
    for line in [
        "blue --subnet 10.77.1.0/24 --subnet fd77::/64",
        "red --subnet 10.77.2.0/24",
        "den --subnet 10.77.3.0/24 --internal",
    ] {
        pier(bed, &format!("create {line}"))?.ok()?;
    }
    for (name, third, isolate) in [("open1", 4, "false"), ("open2", 5, "false"), ("strict", 6, "strict")] {
        pier(bed, &format!("create {name} --subnet 10.77.{third}.0/24 -o isolate={isolate}"))?.ok()?;
    }
    let ports = "-p 8080:80 -p 80:80 -p 9000-9001:79-80 -p 5353:53/udp -p 127.0.0.1:9090:80 -p 2222:2222";
    let a = on(bed, "blue", "a", ports)?;
    let (b, c) = (on(bed, "blue", "b", "")?, on(bed, "red", "c", "")?);
    let (den, strict) = (on(bed, "den", "den", "")?, on(bed, "strict", "strict", "-p 8082:80")?);
    let (o1, o2) = (on(bed, "open1", "o1", "")?, on(bed, "open2", "o2", "")?);
    pier(bed, "info")?.ok()?.with("firewall: iptables,")?;
    pier(bed, "check")?.ok()?;
    a.answer(bed, "a2222", 2222)?;
    a.spawn(bed, "udp", "exec socat UDP6-RECVFROM:53,fork,reuseaddr,ipv6only=0 SYSTEM:'read q; echo hello a'")?;
    there.answer(bed, "there", 80)?;
    let open = |place: &Place, address: &str| {
        place.ask(bed, address)?.ok().with_context(|| address.to_owned())?.has("hello").map(drop)
    };
    let shut =
        |place: &Place, address: &str| place.ask(bed, address)?.fails().with_context(|| address.to_owned()).map(drop);
    for address in [
        "127.0.0.1:8080",
        "198.51.100.1:8080",
        "[2001:db8::1]:8080",
        "127.0.0.1:80",
        "127.0.0.1:9001",
        "127.0.0.1:9090",
    ] {
        bed.sh(&tcp(address))?.ok().with_context(|| format!("{address} from the host"))?.has("hello a")?;
    }
    for place in [&there, &a, &b, &c] {
        for address in ["198.51.100.1:8080", "198.51.100.1:80", "198.51.100.1:9001"] {
            open(place, address)?;
        }
    }
    for place in [&there, &a, &b] {
        open(place, "[2001:db8::1]:8080")?;
    }
    for from in ["", "there"] {
        let ask = "echo q | socat -T1 - UDP:198.51.100.1:5353";
        let answer = if from.is_empty() { bed.sh(ask)? } else { there.sh(bed, ask)? };
        answer.ok()?.has("hello a")?;
    }
    // Between networks, and out.
    open(&b, "10.77.1.2:80")?;
    open(&o1, "10.77.5.2:80")?;
    open(&o2, "10.77.4.2:80")?;
    [&a, &c, &o1, &strict].iter().try_for_each(|place| open(place, "198.51.100.2:80"))?;
    let peer =
        there.spawn(bed, "peer", "exec socat TCP-LISTEN:81,reuseaddr,fork SYSTEM:'echo hello $SOCAT_PEERADDR'")?;
    eventually(Duration::from_secs(3), || a.ask(bed, "198.51.100.2:81")?.ok()?.has("198.51.100.1"))?;
    peer.kill()?;
    open(&there, "198.51.100.1:8082")?;
    for (place, address) in [
        (&c, "10.77.1.2:80"),
        (&a, "10.77.2.2:80"),
        (&o1, "10.77.1.2:80"),
        (&b, "198.51.100.1:8082"),
        (&strict, "198.51.100.1:8080"),
        (&den, "198.51.100.2:80"),
        (&a, "10.77.3.2:80"),
    ] {
        shut(place, address)?;
    }
    bed.sh(&tcp("10.77.3.2:80"))?.ok().context("the host reaches an internal network")?;
    // The host's own rule holds for a published port, and what is not published is not reached by who knows the way.
    shut(&there, "198.51.100.1:2222")?;
    bed.sh(&tcp("127.0.0.1:2222"))?.ok()?;
    there.sh(bed, "ip route add 10.77.1.2 via 198.51.100.1; ip route del table local 127.0.0.0/8; ip route del table local 127.0.0.1; ip route add 127.0.0.1 via 198.51.100.1; true")?.ok()?;
    shut(&there, "10.77.1.2:80")?;
    shut(&there, "127.0.0.1:9090,bind=198.51.100.2")?;
    flushes_are_mended(bed, &there)?;
    shut(&c, "10.77.1.2:80")?;
    // Live changes.
    let id = "$(pier-network endpoints --owner a --format json | jq -r '.[0].id')";
    pier(bed, &format!("unpublish {id} 8080:80"))?.ok()?;
    shut(&there, "198.51.100.1:8080")?;
    open(&there, "198.51.100.1:80")?;
    pier(bed, "detach --owner a")?.ok()?;
    shut(&there, "198.51.100.1:80")?;
    bed.sh(&format!("{chains} | grep 10.77.1.2"))?.fails()?;
    pier(bed, "rm -f blue red den open1 open2 strict")?.ok()?;
    let left = bed.sh(chains)?;
    ensure!(left.out().is_empty(), "left: {left}");
    iptables(bed, "-F")?;
    iptables(bed, "-P FORWARD ACCEPT")?;
    bed.sh("kill $(pgrep -x socat); nft flush ruleset; for p in iptables ip6tables; do for t in raw nat filter; do $p-legacy -t $t -F; done; done")?;
    [&a, &b, &c, &den, &strict, &o1, &o2].iter().try_for_each(|place| place.end())?;
    remove_outside(bed)?;
    // A host has one kind of iptables; the keeper that knows the other has to end first.
    eventually(Duration::from_secs(5), || bed.sh("pgrep -f 'pier-network .*keep$'")?.fails())?;
    println!("iptables-{kind}: all of it");
    there.end()
}

/// Somebody else flushes; it is back within a second.
fn flushes_are_mended(bed: &Bed, there: &Place) -> Result {
    for flush in ["-F FORWARD", "-t nat -F", "-t raw -F PREROUTING", "-F"] {
        iptables(bed, flush)?;
        // A try that meets closed doors must not take the second that is given.
        let ask = "timeout 1 socat -T1 - TCP:198.51.100.1:8080,connect-timeout=0.1 </dev/null";
        let back = || -> Result {
            there.sh(bed, ask)?.ok()?.has("hello a")?;
            pier(bed, "check")?.ok().map(drop)
        };
        eventually(Duration::from_secs(5), back).with_context(|| format!("after {flush}"))?;
    }
    Ok(())
}

#[test]
fn what_iptables_cannot_do_is_refused_by_name() -> Result {
    isolated!(|bed| {
        ensure!(only_iptables(bed, "nft")?, "no iptables-nft");
        pier(bed, "create blue --subnet 10.77.2.0/24")?.ok()?;
        let a = Place::new(bed, "a")?;
        let b = on(bed, "blue", "b", "--label app=db")?;
        let c = on(bed, "blue", "c", "--label app=web")?;
        let deny = "--error-format json policy create no-db deny --from app=web --to app=db --port 80";
        bed.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0")?.ok()?;
        pier(bed, deny)?.exits(1)?.with("FIREWALL_LACKS")?.has("bridge-nf-call-iptables")?;
        pier(bed, "policy ls")?.ok()?.without("no-db")?;
        let helps = "sysctl -w net.bridge.bridge-nf-call-iptables=1";
        pier(bed, "info")?.ok()?.with("lacks policies")?.has(helps)?;
        pier(bed, "diagnose b")?.with("lacks policies")?.has(helps)?;
        // With bridged packets in iptables, policies hold on one bridge as well.
        bed.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1")?.ok()?;
        pier(bed, deny)?.ok()?;
        pier(bed, "info")?.ok()?.without("lacks")?;
        b.answer(bed, "b81", 81)?;
        c.ask(bed, "10.77.2.2:80")?.fails()?;
        c.ask(bed, "10.77.2.2:81")?.ok()?;
        b.ask(bed, "10.77.2.3:80")?.ok()?;
        pier(bed, "policy create some allow --from app=web --to app=db --port 81")?.ok()?;
        pier(bed, "policy rm no-db")?.ok()?;
        c.ask(bed, "10.77.2.2:80")?.ok()?;
        pier(bed, "policy rm some")?.ok()?;
        pier(bed, "rm -f blue")?.ok()?;
        // Neither of both.
        bed.sh("rm -rf $DIR/only; mkdir $DIR/only")?.ok()?;
        pier(bed, "create red --subnet 10.77.3.0/24")?.ok()?;
        let attach = format!("--error-format json attach red {} --owner a -p 8080:80", a.path);
        pier(bed, &attach)?.exits(1)?.with("FIREWALL_MISSING")?;
        pier(bed, "rm red")?.ok()?;
        // What iptables-nft itself leaves.
        bed.sh("nft flush ruleset")?.ok()?;
        pier(bed, "--firewall ebtables ls")?.fails()?.has("iptables-legacy").map(drop)
    })
}

#[test]
fn another_firewall_takes_over_with_all_that_is_published() -> Result {
    isolated!(|bed| {
        ensure!(only_iptables(bed, "legacy")?, "no iptables-legacy");
        let a = Place::new(bed, "a")?;
        let own = |line: &str| bed.sh(&format!("pier-network {line}"));
        own("create blue --subnet 10.77.1.0/24")?.ok()?;
        own(&format!("attach blue {} --owner a -p 8080:80", a.path))?.ok()?;
        a.answer(bed, "a", 80)?;
        own("info")?.ok()?.has("firewall: nft,")?;
        let reached = || bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a").map(drop);
        reached()?;
        let tables = "nft list tables | grep pier";
        let chains = "iptables-legacy-save | grep PIER";
        own("--firewall iptables-legacy reconcile")?.ok()?;
        bed.sh(chains)?.ok()?;
        eventually(Duration::from_secs(2), || bed.sh(tables)?.fails())?;
        reached()?;
        // The others follow: a verb, and the keeper after a flush.
        own("info")?.ok()?.has("iptables-legacy")?;
        bed.sh("iptables-legacy -t nat -F")?.ok()?;
        eventually(Duration::from_secs(5), || own("check")?.ok())?;
        reached()?;
        bed.sh(tables)?.fails()?;
        own("--firewall nft reconcile")?.ok()?;
        bed.sh(chains)?.fails()?;
        reached()?;
        own("check")?.ok()?;
        // Dead after it said so and before it did anything: the next one does it.
        own("--firewall iptables-legacy reconcile")?.ok()?;
        bed.sh("echo nft iptables-legacy >$PIER_RUN/network/firewall")?.ok()?;
        own("reconcile")?.ok()?;
        bed.sh(chains)?.fails()?;
        reached()?;
        own("rm -f blue")?.ok()?;
        bed.sh(tables)?.fails().map(drop)
    })
}
