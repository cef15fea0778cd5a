//! Host-first publishing where nft is missing: the host's own iptables rules decide about published ports.
use crate::network_iptables::{iptables, only_iptables, pier};
use crate::network_place::{Place, outside, remove_outside, tcp};
use anyhow::{Context, ensure};
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

#[test]
fn the_hosts_iptables_come_first_where_they_are_asked_to() -> Result {
    isolated!(|bed| {
        for kind in ["nft", "legacy"] {
            if !only_iptables(bed, kind)? {
                println!("skipped: host-first over iptables-{kind}: this host or kernel has none");
                continue;
            }
            host_first(bed, kind).with_context(|| format!("iptables-{kind}"))?;
            bed.sh("nft flush ruleset")?.ok()?;
        }
        Ok(())
    })
}

/// What an administrator has: everything is refused that is not allowed by name.
fn deny_incoming(bed: &Bed) -> Result {
    iptables(bed, "-A INPUT -i lo -j ACCEPT")?;
    iptables(bed, "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")?;
    iptables(bed, "-A INPUT -m conntrack --ctstate INVALID -j DROP")?;
    bed.sh("PATH=$DIR/only ip6tables -A INPUT -p icmpv6 -j ACCEPT")?.ok()?;
    iptables(bed, "-N user")?;
    iptables(bed, "-A INPUT -j user")?;
    iptables(bed, "-P INPUT DROP")
}

fn host_first(bed: &Bed, kind: &str) -> Result {
    let there = outside(bed)?;
    deny_incoming(bed)?;
    pier(bed, "create first --subnet 10.77.1.0/24 --subnet fd77::/64 -o host_first=true")?.ok()?;
    pier(bed, "create plain --subnet 10.77.2.0/24")?.ok()?;
    let on = |network: &str, name: &str, more: &str| -> Result<Place> {
        let place = Place::new(bed, name)?;
        pier(bed, &format!("attach {network} {} --owner {name} {more}", place.path))?.ok()?;
        place.answer(bed, name, 80)?;
        Ok(place)
    };
    let a = on("first", "a", "-p 8080:80 -p 5000-5009:5000-5009 -p 5300:53/udp")?;
    let b = on("plain", "b", "-p 8081:80")?;
    a.answer(bed, "a5005", 5005)?;
    a.spawn(bed, "udp", "exec socat UDP6-RECVFROM:53,fork,reuseaddr,ipv6only=0 SYSTEM:'read q; echo hello a'")?;
    let ask = |address: &str| there.ask(bed, address);
    let udp = || there.sh(bed, "echo q | timeout 2 socat -T1 - UDP:198.51.100.1:5300");
    // The plain network passes the host's rules by, as everybody's does.
    ask("198.51.100.1:8081")?.ok()?.has("hello b")?;
    for closed in ["198.51.100.1:8080", "198.51.100.1:5005", "[2001:db8::1]:8080"] {
        ask(closed)?.fails().with_context(|| closed.to_owned())?;
    }
    udp()?.without("hello")?;
    // The host itself, and what it allows: reached, by the client's own address, without delay.
    for address in ["127.0.0.1:8080", "198.51.100.1:8080", "[2001:db8::1]:8080"] {
        bed.sh(&tcp(address))?.ok()?.has("hello a")?;
    }
    for ports in ["tcp --dport 8080", "tcp --dport 5000:5009", "udp --dport 5300"] {
        iptables(bed, &format!("-A user -p {ports} -j ACCEPT"))?;
    }
    for open in ["198.51.100.1:8080", "198.51.100.1:5005", "[2001:db8::1]:8080"] {
        let begun = std::time::Instant::now();
        ask(open)?.ok().with_context(|| open.to_owned())?.has("hello a")?;
        ensure!(begun.elapsed() < Duration::from_millis(700), "{open} took {:?}", begun.elapsed());
    }
    udp()?.ok()?.has("hello a")?;
    a.spawn(bed, "peer", "exec socat TCP-LISTEN:5006,fork,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR'")?;
    eventually(Duration::from_secs(3), || ask("198.51.100.1:5006")?.ok()?.has("198.51.100.2"))?;
    pier(bed, "check")?.ok()?;
    // Gone by somebody's hand, and back.
    iptables(bed, "-t security -F")?;
    let back = || ask("198.51.100.1:8080")?.ok()?.has("hello a");
    eventually(Duration::from_secs(5), back).context("after a flush")?;
    // A rule that comes later closes it to new connections.
    iptables(bed, "-I user -p tcp --dport 8080 -j DROP")?;
    ask("198.51.100.1:8080")?.fails()?;
    pier(bed, "rm -f first plain")?.ok()?;
    let left = bed.sh("for p in iptables ip6tables; do $DIR/only/$p-save; done | grep PIER; ip -br link | grep f0")?;
    ensure!(left.out().is_empty(), "left: {left}");
    for line in ["-P INPUT ACCEPT", "-F", "-X"] {
        iptables(bed, line)?;
    }
    bed.sh("kill $(pgrep -x socat)")?;
    remove_outside(bed)?;
    [&a, &b, &there].iter().try_for_each(|place| place.end())?;
    eventually(Duration::from_secs(5), || bed.sh("pgrep -f 'pier-network .*keep$'")?.fails().map(drop))?;
    println!("iptables-{kind}: host-first");
    Ok(())
}
