//! The firewall: what a flush by somebody else opens and breaks (nothing), the host's own rules first, policies.
use crate::network_place::{PROBE, Place, outside, pier, remove_outside, tcp};
use anyhow::{Context, ensure};
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

/// How long the flushes go on, in seconds.
fn seconds() -> u64 {
    std::env::var("PIER_FLUSH_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

fn said(bed: &Bed, name: &str, word: &str) -> Result<String> {
    let wait = Duration::from_secs(seconds() + 20);
    eventually(wait, || {
        let log = bed.log(name);
        ensure!(log.contains(word), "{name} does not say {word:?}: {log}");
        Ok(())
    })?;
    Ok(bed.log(name))
}

#[test]
fn a_flush_breaks_no_connection_and_opens_nothing() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        pier(bed, "create red --subnet 10.77.2.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", "-p 8080:80 -p 7007:7007 -p 127.0.0.1:9090:80")?;
        let b = Place::on(bed, "red", "b", "")?;
        a.answer(bed, "a", 80)?;
        a.spawn(bed, "echo", "exec socat TCP-LISTEN:7007,fork,reuseaddr EXEC:cat")?;
        eventually(Duration::from_secs(5), || a.sh(bed, "ss -lnt | grep -q :7007")?.ok().map(drop))?;
        // Something of the host that only the host may reach.
        bed.spawn(
            "own",
            bed.command("socat").args(["TCP-LISTEN:6060,bind=127.0.0.1,fork,reuseaddr", "EXEC:echo own"]),
        )?;
        bed.sh(&tcp("127.0.0.1:9090"))?.ok()?.has("hello a")?;
        // Neighbours who know the way to the endpoint and to the host's loopback.
        there.sh(bed, "ip route add 10.77.1.2 via 198.51.100.1")?.ok()?;
        for (place, gateway) in [(&there, "198.51.100.1"), (&b, "10.77.2.1")] {
            let way = format!(
                "ip route del table local 127.0.0.1; ip route del table local 127.0.0.0/8; ip route add 127.0.0.1 via {gateway}; true"
            );
            place.sh(bed, &way)?.ok()?;
        }
        let end = seconds();
        there.spawn(bed, "stream", &format!("exec python3 {PROBE} stream 198.51.100.1:7007 {end}"))?;
        // Nobody flushes before the connection is there that must not break.
        eventually(Duration::from_secs(10), || {
            ensure!(bed.log("stream").contains("begun"), "{}", bed.log("stream"));
            Ok(())
        })?;
        let closed = "127.0.0.1:9090 127.0.0.1:6060 10.77.1.2:80";
        there.spawn(bed, "neighbour", &format!("exec python3 {PROBE} {end} 198.51.100.1:9090 {closed}"))?;
        b.spawn(bed, "container", &format!("exec python3 {PROBE} {end} 10.77.2.1:9090 {closed}"))?;
        let until = std::time::Instant::now() + Duration::from_secs(end);
        let mut slowest = Duration::ZERO;
        while std::time::Instant::now() + Duration::from_secs(1) < until {
            std::thread::sleep(Duration::from_millis(300));
            bed.sh("nft flush ruleset")?.ok()?;
            let begun = std::time::Instant::now();
            eventually(Duration::from_secs(1), || there.ask(bed, "198.51.100.1:8080")?.ok()?.has("hello a"))?;
            slowest = slowest.max(begun.elapsed());
        }
        let (stream, neighbour, container) =
            (said(bed, "stream", "longest")?, said(bed, "neighbour", "tries")?, said(bed, "container", "tries")?);
        println!("slowest {slowest:?}\n{stream}{neighbour}{container}");
        for log in [&neighbour, &container] {
            let let_in = log.split_whitespace().filter(|word| word.contains('=') && !word.ends_with("=0"));
            ensure!(let_in.count() == 0, "{log}");
        }
        // Parts of the table are missed too.
        bed.sh("nft flush chain inet $(nft list tables | sed -n 's/table inet \\(pier[^ ]*\\)$/\\1/p' | grep -v guard) publish")?.ok()?;
        eventually(Duration::from_secs(1), || there.ask(bed, "198.51.100.1:8080")?.ok()?.has("hello a"))?;
        pier(bed, "rm -f blue red")?.ok()?;
        remove_outside(bed)
    })
}

/// What ufw has with "deny incoming", its chains folded together; forwarding to and from Pier's bridges is allowed.
const UFW: &str = "
table ip filter {
  chain INPUT { type filter hook input priority 0; policy drop;
    iifname lo accept
    ct state related,established accept
    ct state invalid drop
    icmp type echo-request accept
    jump user
  }
  chain user { tcp dport 22 accept; }
  chain FORWARD { type filter hook forward priority 0; policy drop;
    ct state related,established accept
    iifname \"pier*\" accept
    oifname \"pier*\" accept
  }
}
table ip6 filter {
  chain INPUT { type filter hook input priority 0; policy drop;
    iifname lo accept
    ct state related,established accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
    jump user
  }
  chain user { tcp dport 22 accept; }
}";

/// What firewalld has with the uplink in zone public and Pier's bridges in zone trusted, its chains folded together.
const FIREWALLD: &str = "
table inet firewalld {
  chain filter_INPUT { type filter hook input priority 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname lo accept
    ct state invalid drop
    jump user
    iifname \"pier*\" accept
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
  chain user { tcp dport 22 accept; }
  chain filter_FORWARD { type filter hook forward priority 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname \"pier*\" accept
    reject with icmpx admin-prohibited
  }
}";

#[test]
fn the_hosts_own_rules_come_first_where_they_are_asked_to() -> Result {
    isolated!(|bed| {
        for (rules, table) in [(UFW, "ip filter"), (FIREWALLD, "inet firewalld")] {
            let there = outside(bed)?;
            std::fs::write(bed.dir().join("rules"), rules)?;
            bed.sh("nft -f rules")?.ok()?;
            pier(bed, "create first --subnet 10.77.1.0/24 --subnet fd77::/64 -o host_first=true")?.ok()?;
            pier(bed, "create plain --subnet 10.77.2.0/24")?.ok()?;
            let a = Place::on(bed, "first", "a", "-p 8080:80 -p 5000-5009:5000-5009")?;
            let b = Place::on(bed, "plain", "b", "-p 8081:80")?;
            a.answer(bed, "a", 80)?;
            a.answer(bed, "a", 5005)?;
            b.answer(bed, "b", 80)?;
            let ask = |address: &str| there.ask(bed, address);
            // The plain network passes the host's rules by, as everybody's does.
            ask("198.51.100.1:8081")?.ok()?.has("hello b")?;
            for closed in ["198.51.100.1:8080", "198.51.100.1:5005", "[2001:db8::1]:8080"] {
                ask(closed)?.fails().with_context(|| format!("{closed} under {table}"))?;
            }
            // The host itself and an allow rule: reached, by the client's own address, without delay.
            bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a")?;
            bed.sh(&tcp("198.51.100.1:8080"))?.ok()?.has("hello a")?;
            bed.sh(&format!("nft add rule {table} user tcp dport {{ 8080, 5000-5009 }} accept"))?.ok()?;
            if table == "ip filter" {
                bed.sh("nft add rule ip6 filter user tcp dport 8080 accept")?.ok()?;
            }
            for open in ["198.51.100.1:8080", "198.51.100.1:5005", "[2001:db8::1]:8080"] {
                let begun = std::time::Instant::now();
                ask(open)?.ok().with_context(|| format!("{open} under {table}"))?.has("hello a")?;
                ensure!(begun.elapsed() < Duration::from_millis(700), "{open} took {:?}", begun.elapsed());
            }
            let peer = "exec socat TCP-LISTEN:5006,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR'";
            a.spawn(bed, &format!("peer-{}", &table[..2]), peer)?;
            eventually(Duration::from_secs(3), || ask("198.51.100.1:5006")?.ok()?.has("198.51.100.2"))?;
            // A rule that comes later closes it to new connections.
            bed.sh(&format!("nft insert rule {table} user tcp dport 8080 drop"))?.ok()?;
            ask("198.51.100.1:8080")?.fails()?;
            pier(bed, "rm -f first plain")?.ok()?;
            bed.sh("nft flush ruleset")?.ok()?;
            bed.sh("kill $(pgrep -x socat)")?;
            remove_outside(bed)?;
            a.end()?;
            b.end()?;
        }
        pier(bed, "--error-format json create x -o host_first=perhaps")?.exits(1)?.has("INVALID_ARGUMENT").map(drop)
    })
}

#[test]
fn policies_choose_by_label_who_talks_to_whom() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.77.1.0/24 --subnet fd77::/64")?.ok()?;
        pier(bed, "create red --subnet 10.77.2.0/24 -o isolate=false")?.ok()?;
        pier(bed, "create green --subnet 10.77.3.0/24 -o isolate=false")?.ok()?;
        let db = Place::on(bed, "blue", "db", "--label app=db --label tier=back")?;
        let web = Place::on(bed, "blue", "web", "--label app=web")?;
        let far = Place::on(bed, "red", "far", "--label app=db")?;
        let near = Place::on(bed, "green", "near", "--label app=web")?;
        for (place, port) in [(&db, 5432), (&db, 80), (&web, 80), (&far, 80)] {
            place.answer(bed, "x", port)?;
        }
        let open = |place: &Place, address: &str| place.ask(bed, address)?.ok()?.has("hello x").map(drop);
        let shut = |place: &Place, address: &str| place.ask(bed, address)?.fails().map(drop);
        let all = [(&web, "10.77.1.2:5432"), (&web, "10.77.1.2:80"), (&web, "[fd77::2]:80"), (&near, "10.77.2.2:80")];
        all.iter().try_for_each(|(place, address)| open(place, address))?;
        pier(bed, "policy create no-db deny --from app=web --to app=db")?.ok()?;
        // On one bridge and between two, in both families; the other way stays open.
        all.iter().try_for_each(|(place, address)| shut(place, address))?;
        open(&db, "10.77.1.3:80")?;
        // One that comes later is under it too, and one that goes is forgotten.
        let late = Place::on(bed, "blue", "late", "--label app=web")?;
        shut(&late, "10.77.1.2:80")?;
        pier(bed, "detach --owner late")?.ok()?;
        bed.sh("nft list ruleset")?.ok()?.without("10.77.1.4")?;
        // An exception has to come before.
        pier(bed, "policy rm no-db")?.ok()?;
        all.iter().try_for_each(|(place, address)| open(place, address))?;
        pier(bed, "policy create sql allow --from app=web --to tier=back --port 5432")?.ok()?;
        pier(bed, "policy create no-db deny --from app=web --to app")?.ok()?;
        open(&web, "10.77.1.2:5432")?;
        shut(&web, "10.77.1.2:80")?;
        // A flush takes neither.
        bed.sh("nft flush ruleset")?.ok()?;
        eventually(Duration::from_secs(1), || shut(&web, "10.77.1.2:80"))?;
        open(&web, "10.77.1.2:5432")?;
        for (line, reason) in [
            ("policy create sql deny", "POLICY_EXISTS"),
            ("policy create a/b deny", "INVALID_ARGUMENT"),
            ("policy create x deny --port 80:80", "INVALID_ARGUMENT"),
            ("policy rm nobody", "POLICY_NOT_FOUND"),
        ] {
            pier(bed, &format!("--error-format json {line}"))?.exits(1)?.has(reason)?;
        }
        pier(bed, "policy ls")?.ok()?.with("\"sql\"")?.has("5432")?;
        pier(bed, "policy rm sql no-db")?.ok()?;
        all.iter().try_for_each(|(place, address)| open(place, address))?;
        pier(bed, "rm -f blue red green")?.ok().map(drop)
    })
}
