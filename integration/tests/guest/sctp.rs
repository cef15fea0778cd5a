//! SCTP ports, published.
use crate::bed::{Guest, inside};
use crate::network::{NO_OUTSIDE, OUTSIDE, picture, seen, sh};
use anyhow::ensure;
use integration::Result;

#[test]
fn published_sctp_ports_are_reached_as_tcps_are() -> Result {
    inside("storage", "published_sctp_ports_are_reached_as_tcps_are", |g| {
        let before = picture(g)?;
        sh(g, &format!("set -e; modprobe -a sctp bridge veth\n{OUTSIDE}"))?.ok()?;
        for driver in ["bridge", "veth"] {
            every_way(g, driver)?;
        }
        ranges_come_and_go(g)?;
        sh(g, NO_OUTSIDE)?.ok()?;
        let after = picture(g)?;
        ensure!(before == after, "before\n{before}\nafter\n{after}");
        Ok(())
    })
}

/// Source addresses as the server sees them.
fn every_way(g: &Guest, driver: &str) -> Result {
    let begin = "pier-network attach net /run/netns/a --owner a -p 9999:99/sctp
        pier-network attach net /run/netns/b --owner b; tell a SCTP6 99; sleep 1";
    sh(g, &format!("set -e; pier-network create net -d {driver} --subnet 10.80.0.0/24 --subnet fd80::/64\n{begin}"))?
        .ok()?;
    println!("| driver | family | outside | host | loopback | other | hairpin |\n|---|---|---|---|---|---|---|");
    for (family, host, loopback, outside) in
        [("IPv4", "198.51.100.1", "127.0.0.1", "198.51.100.2"), ("IPv6", "[2001:db8::1]", "[::1]", "2001:db8::2")]
    {
        let mut row = Vec::new();
        for (netns, address) in [("out", host), ("host", host), ("host", loopback), ("b", host), ("a", host)] {
            row.push(seen(&sh(g, &format!("ask {netns} SCTP-CONNECT:{address}:9999"))?));
        }
        println!("| {driver} | {family} | {} |", row.join(" | "));
        ensure!(row[0] == outside, "the source address is not kept: {row:?}");
        // The kernel cannot route an answer to ::1 back (no route_localnet for IPv6).
        let missed: Vec<usize> = (0..row.len()).filter(|at| row[*at] == "-").collect();
        ensure!(missed == if family == "IPv4" { vec![] } else { vec![2] }, "{driver} {family}: {row:?}");
    }
    sh(g, "kill $(cat pids); rm pids; pier-network rm -f net")?.ok().map(drop)
}

/// Ports of a range, each withdrawn and given to another; a program that has one is named.
fn ranges_come_and_go(g: &Guest) -> Result {
    let begin = "set -e; pier-network create net --subnet 10.80.0.0/24; for n in a b; do tell $n SCTP6 9001; done
        pier-network attach net /run/netns/a --owner a -p 9000-9002:9000-9002/sctp; sleep 1";
    sh(g, begin)?.ok()?;
    // From one port, as many programs do: what the kernel knows of the first association must not bind the second.
    let from_one_port = |address: &str| -> Result {
        let asked =
            sh(g, "ask out SCTP-CONNECT:198.51.100.1:9001,sourceport=7777,reuseaddr; grep -c . /proc/net/sctp/eps")?;
        ensure!(seen(&asked) == "198.51.100.2", "{address}: {asked}");
        Ok(())
    };
    from_one_port("a")?;
    sh(g, "socat SCTP-LISTEN:9001 PIPE")?.fails()?.has("in use")?;
    let give = "set -e; pier-network detach --owner a
        pier-network attach net /run/netns/b --owner b -p 9000-9002:9000-9002/sctp";
    sh(g, give)?.ok()?;
    from_one_port("b")?;
    let withdraw = "pier-network unpublish $(pier-network endpoints --owner b --format json | jq -r '.[0].id') 9000-9002:9000-9002/sctp";
    sh(g, withdraw)?.ok()?;
    ensure!(seen(&sh(g, "ask out SCTP-CONNECT:198.51.100.1:9001")?) == "-");
    let taken = "socat SCTP-LISTEN:9001,fork PIPE >/dev/null 2>&1 </dev/null & sleep 1
        pier-network attach net /run/netns/a --owner a -p 9000-9002:9000-9002/sctp; e=$?; kill $!; exit $e";
    sh(g, taken)?.exits(1)?.with("9001")?.has("socat (pid")?;
    sh(g, "ip -n a link show eth0")?.fails()?;
    sh(g, "pier-network rm -f net")?.ok().map(drop)
}
