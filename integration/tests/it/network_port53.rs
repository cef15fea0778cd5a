//! A name server in a container: port 53 published on all addresses, beside the networks' own resolver.
use crate::network_place::{NAMES, Place, outside, remove_outside};
use anyhow::Context;
use integration::{Bed, Outcome, Result, eventually, isolated};
use std::time::Duration;

/// How `pier-network` is called: with the programs of the host, or with some of them.
struct Host<'a> {
    bed: &'a Bed,
    path: &'a str,
}

impl Host<'_> {
    fn pier(&self, line: &str) -> Result<Outcome> {
        self.bed.sh(&format!("p=$(command -v pier-network); exec env PATH={} $p {line}", self.path))
    }

    fn attach(&self, network: &str, name: &str, more: &str) -> Result<Place> {
        let place = Place::new(self.bed, name)?;
        self.pier(&format!("attach {network} {} --owner {name} {more}", place.path))?.ok()?;
        Ok(place)
    }

    /// The id of an owner's endpoint.
    fn id(&self, owner: &str) -> Result<String> {
        let all = self.pier(&format!("endpoints --owner {owner} --format json"))?.ok()?.json()?;
        Ok(all[0]["id"].as_str().context("id")?.to_owned())
    }
}

/// A server that says "hello dns" to whatever comes to port 53.
fn serve(bed: &Bed, place: &Place) -> Result {
    place.spawn(
        bed,
        "dns-udp",
        "exec socat UDP6-RECVFROM:53,fork,reuseaddr,ipv6only=0 SYSTEM:'read q; echo hello dns'",
    )?;
    place.answer(bed, "dns", 53)
}

fn udp(address: &str) -> String {
    format!("echo q | timeout 2 socat -T1 - UDP:{address}")
}

/// From a place, or from the host, the container answers here over both protocols.
fn reached(bed: &Bed, from: Option<&Place>, addresses: &[&str]) -> Result {
    for address in addresses {
        let tcp = crate::network_place::tcp(address);
        for script in [&udp(address), &tcp] {
            let said = match from {
                Some(place) => place.sh(bed, script)?,
                None => bed.sh(script)?,
            };
            said.ok().with_context(|| script.clone())?.has("hello dns")?;
        }
    }
    Ok(())
}

/// The resolver at this gateway knows the name, over both protocols.
fn named(bed: &Bed, place: &Place, gateway: &str, name: &str) -> Result {
    let kind = if gateway.contains(':') { "aaaa" } else { "a" };
    place.look(bed, gateway, name, kind)?.ok().with_context(|| format!("{name} at {gateway}"))?;
    if kind == "a" {
        let over_tcp = format!("python3 {NAMES} tcp {gateway} {name}");
        place.sh(bed, &over_tcp)?.ok().context(over_tcp)?.has("1")?;
    }
    Ok(())
}

const EVERYWHERE: [&str; 2] = ["198.51.100.1:53", "[2001:db8::1]:53"];
const BLUE: [&str; 2] = ["10.77.1.1", "fd77::1"];

/// What holds with the container `dns` of `blue` publishing port 53 on all addresses of the host.
fn traffic(host: &Host<'_>, options: &str) -> Result {
    let bed = host.bed;
    let there = outside(bed)?;
    host.pier(&format!("create blue --subnet 10.77.1.0/24 --subnet fd77::/64 {options}"))?.ok()?;
    // The first endpoint: the port is held before the resolver binds its own.
    let dns = host.attach("blue", "dns", "-p 53:53 -p 53:53/udp")?;
    serve(bed, &dns)?;
    let b = host.attach("blue", "b", "")?;
    let whole = || -> Result {
        reached(bed, Some(&there), &EVERYWHERE)?;
        reached(bed, None, &["127.0.0.1:53", EVERYWHERE[0], EVERYWHERE[1]])?;
        for place in [&b, &dns] {
            reached(bed, Some(place), &EVERYWHERE)?;
            BLUE.iter().try_for_each(|gateway| named(bed, place, gateway, "dns"))?;
        }
        Ok(())
    };
    eventually(Duration::from_secs(2), whole)?;
    // A network that comes later, and goes while its gateway is asked.
    host.pier(&format!("create green --subnet 10.77.2.0/24 --subnet fd78::/64 {options}"))?.ok()?;
    let c = host.attach("green", "c", "")?;
    for gateway in ["10.77.2.1", "fd78::1"] {
        named(bed, &c, gateway, "c")?;
    }
    host.pier("check")?.ok()?;
    host.pier("rm -f green")?.ok()?;
    whole().context("with another network gone")?;
    host.pier("check")?.ok()?;
    // Withdrawn and published again beside a resolver that is there, and in use.
    let id = host.id("dns")?;
    host.pier(&format!("unpublish {id} 53:53 53:53/udp"))?.ok()?;
    bed.sh(&udp("198.51.100.1:53"))?.without("hello")?;
    let open = b.spawn(bed, "open", "exec socat -T60 -,ignoreeof TCP:10.77.1.1:53")?;
    eventually(Duration::from_secs(2), || {
        bed.sh("ss -Hnt state established '( sport = 53 )' | grep .")?.ok().map(drop)
    })?;
    host.pier(&format!("publish {id} 53:53 53:53/udp"))?.ok()?;
    open.kill()?;
    whole().context("published live")?;
    host.pier("rm -f blue")?.ok()?;
    remove_outside(bed)?;
    [&there, &dns, &b, &c].iter().try_for_each(|place| place.end())?;
    bed.sh("kill $(pgrep -x socat)")?;
    eventually(Duration::from_secs(5), || bed.sh("pgrep -f 'pier-network .*keep$'")?.fails().map(drop))
}

#[test]
fn port_53_is_published_beside_the_resolver() -> Result {
    isolated!(|bed| {
        let host = Host { bed, path: "$PATH" };
        traffic(&host, "")?;
        traffic(&host, "-o host_first=true").context("host-first")
    })
}

#[test]
fn port_53_is_published_over_iptables() -> Result {
    isolated!(|bed| {
        for kind in ["nft", "legacy"] {
            if !crate::network_iptables::only_iptables(bed, kind)? {
                println!("skipped: port 53 over iptables-{kind}: this host or kernel has none");
                continue;
            }
            traffic(&Host { bed, path: "$DIR/only" }, "").with_context(|| format!("iptables-{kind}"))?;
            // What iptables-nft itself leaves.
            bed.sh("nft flush ruleset")?.ok()?;
        }
        Ok(())
    })
}

/// What binding says, with every flag that could get a socket in.
fn bind(bed: &Bed, kind: &str, address: &str) -> Result<Outcome> {
    let family = if address.contains(':') { "AF_INET6" } else { "AF_INET" };
    let script = format!(
        "import socket as s; x = s.socket(s.{family}, s.SOCK_{kind}); x.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1); \
         x.setsockopt(s.SOL_SOCKET, s.SO_REUSEPORT, 1); x.bind(('{address}', 53))"
    );
    bed.exec("python3", &["-c", &script])
}

#[test]
fn a_shared_port_is_nobody_elses() -> Result {
    isolated!(|bed| {
        let host = Host { bed, path: "$PATH" };
        // A bridge of others, whose addresses are known only when somebody is attached.
        bed.sh("ip link add br9 type bridge && ip addr add 10.79.1.1/24 dev br9 && ip link set br9 up")?.ok()?;
        host.pier("create blue --subnet 10.77.1.0/24")?.ok()?;
        let theirs = "-o mode=unmanaged -o com.docker.network.bridge.name=br9";
        host.pier(&format!("create theirs --subnet 10.79.1.0/24 {theirs}"))?.ok()?;
        let dns = host.attach("blue", "dns", "-p 53:53 -p 53:53/udp")?;
        serve(bed, &dns)?;
        let c = host.attach("theirs", "c", "--ip 10.79.1.9")?;
        eventually(Duration::from_secs(5), || named(bed, &c, "10.79.1.1", "c"))?;
        reached(bed, None, &["127.0.0.1:53"])?;
        for (kind, address) in
            [("STREAM", "0.0.0.0"), ("STREAM", "::"), ("DGRAM", "127.0.0.1"), ("DGRAM", "::"), ("STREAM", "10.77.1.1")]
        {
            let context = || format!("{kind} {address}");
            bind(bed, kind, address)?.fails().with_context(context)?.has("Address already in use")?;
        }
        // A second stack neither shares it nor is in the way of the first.
        let second = "--root $DIR/second --run $DIR/second.run";
        host.pier(&format!("{second} create red --subnet 10.78.1.0/24"))?.ok()?;
        let r = Place::new(bed, "r")?;
        let refused = host.pier(&format!("{second} attach red {} --owner r -p 53:53/udp", r.path))?;
        refused.exits(1)?.has("pier-ports (pid")?;
        // At a gateway itself the resolver is what listens.
        let id = host.id("dns")?;
        host.pier(&format!("unpublish {id} 53:53 53:53/udp"))?.ok()?;
        for protocol in ["udp", "tcp"] {
            let refused = host.pier(&format!("publish {id} 10.77.1.1:53:53/{protocol}"))?;
            refused.exits(1)?.with("10.77.1.1:53")?.has("pier-network (pid")?;
        }
        // A name server of the host is named, not ours.
        let own = "UDP-RECVFROM:53,bind=127.0.0.9,fork";
        let own = bed.spawn("own", bed.command("socat").args([own, "EXEC:echo own"]))?;
        eventually(Duration::from_secs(3), || bed.sh("ss -Hnlu src 127.0.0.9:53 | grep .")?.ok().map(drop))?;
        host.pier(&format!("publish {id} 53:53/udp"))?.exits(1)?.has("socat (pid")?;
        own.kill()?;
        eventually(Duration::from_secs(3), || host.pier(&format!("publish {id} 0.0.0.0:53:53/udp"))?.ok().map(drop))?;
        bed.sh(&udp("127.0.0.1:53"))?.ok()?.has("hello dns")?;
        for line in ["rm -f blue", "rm -f theirs", &format!("{second} rm -f red")] {
            host.pier(line)?.ok()?;
        }
        bed.sh("ip link del br9")?.ok().map(drop)
    })
}

#[test]
fn port_53_survives_a_flush_and_its_keepers() -> Result {
    isolated!(|bed| {
        let host = Host { bed, path: "$PATH" };
        let there = outside(bed)?;
        host.pier("create blue --subnet 10.77.1.0/24 --subnet fd77::/64")?.ok()?;
        let dns = host.attach("blue", "dns", "-p 53:53 -p 53:53/udp")?;
        serve(bed, &dns)?;
        let b = host.attach("blue", "b", "")?;
        let whole = || -> Result {
            reached(bed, Some(&there), &EVERYWHERE)?;
            BLUE.iter().try_for_each(|gateway| named(bed, &b, gateway, "dns"))
        };
        eventually(Duration::from_secs(2), whole)?;
        for _ in 0..3 {
            bed.sh("nft flush ruleset")?.ok()?;
            // Names never pass the table.
            named(bed, &b, "10.77.1.1", "dns").context("right after a flush")?;
            eventually(Duration::from_secs(1), whole).context("after a flush")?;
        }
        let daemon = bed.serve("network")?;
        // Each is started again while the other has its sockets.
        for who in ["-f 'pier-network .*keep$'", "-x pier-ports"] {
            bed.sh(&format!("kill -9 $(pgrep {who})"))?.ok()?;
            eventually(Duration::from_secs(5), || host.pier("reconcile")?.ok().map(drop))?;
            eventually(Duration::from_secs(5), || {
                bed.sh(&format!("pgrep {who}"))?.ok()?;
                whole()
            })
            .with_context(|| format!("{who} killed"))?;
        }
        bind(bed, "DGRAM", "0.0.0.0")?.fails()?;
        daemon.kill()?;
        host.pier("rm -f blue")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn a_dns_server_runs_in_a_container_as_with_docker() -> Result {
    isolated!(|bed| {
        crate::cli::engine(bed)?;
        // A program on that port, and somebody who asks the networks' resolver.
        let server = "sh -c 'while :; do echo served | nc -l -p 53; done'";
        bed.sh(&format!("pier run -d --name ns -p 53:53 -p 53:53/udp bb {server}"))?.ok()?;
        bed.sh("pier network create blue && pier run -d --name web --network blue bb sleep 1000")?.ok()?;
        let asked = || bed.sh(&crate::network_place::tcp("127.0.0.1:53"))?.ok()?.has("served");
        eventually(Duration::from_secs(10), asked)?;
        bed.sh("pier exec web nslookup web")?.ok()?.has("Address")?;
        bed.sh("pier run --rm --network blue bb nslookup -type=a web")?.ok()?.has("Address")?;
        bed.sh("pier port ns")?.ok()?.has("53/udp")?;
        bed.sh("pier rm -f ns web && pier network rm blue")?.ok().map(drop)
    })
}
