//! Names: the cases of aardvark-dns's tests, and what an attach, a kill or an internal network must not break.
use crate::network_place::{NAMES, Place, outside, pier, remove_outside, upstream};
use anyhow::{Context, ensure};
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

/// From now on the host's upstreams are these. For programs started later, and for those that run.
fn resolv_conf(bed: &Bed, text: &str) -> Result<String> {
    let path = bed.dir().join("resolv.conf");
    std::fs::write(&path, text)?;
    Ok(format!("--resolv-conf {}", path.display()))
}

fn keeper_pid(bed: &Bed) -> Result<String> {
    let found = bed.sh("pgrep -f 'pier-network .*--run '$PIER_RUN' .*keep$'")?.ok()?;
    Ok(found.out().to_owned())
}

#[test]
fn two_on_one_network_find_each_other_without_a_daemon() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.77.1.0/24 --subnet fd77::/64")?.ok()?;
        let a = Place::on(bed, "blue", "a", "--name web --name Alias --service http=80")?;
        // At once: the attach waited for the name server.
        a.look(bed, "10.77.1.1", "web", "a")?.ok()?.has("10.77.1.2")?;
        let b = Place::on(bed, "blue", "b", "")?;
        eventually(Duration::from_secs(1), || a.look(bed, "10.77.1.1", "b", "a")?.ok()?.has("10.77.1.3"))?;
        for server in ["10.77.1.1", "fd77::1"] {
            b.look(bed, server, "web", "a")?.ok()?.has("10.77.1.2")?;
            b.look(bed, server, "ALIAS", "aaaa")?.ok()?.has("fd77::2")?;
            b.look(bed, server, "web.blue", "a")?.ok()?.has("10.77.1.2")?;
            b.look(bed, server, "10.77.1.2", "ptr")?.ok()?.has("web")?;
            b.look(bed, server, "fd77::2", "ptr")?.ok()?.has("web")?;
            b.look(bed, server, "_http._tcp.alias", "srv")?.ok()?.has("80 web")?;
            b.look(bed, server, "nobody", "a")?.fails()?;
        }
        for name in ["host.docker.internal", "host.containers.internal", "host.pier.internal"] {
            b.look(bed, "10.77.1.1", name, "a")?.ok()?.has("10.77.1.1")?;
        }
        b.sh(bed, &format!("python3 {NAMES} tcp 10.77.1.1 web"))?.ok()?.has("1")?;
        pier(bed, "detach --owner a")?.ok()?;
        eventually(Duration::from_secs(1), || b.look(bed, "10.77.1.1", "web", "a")?.fails().map(drop))?;
        // With the last one its keeper goes; what stays behind fails the test.
        keeper_pid(bed)?;
        pier(bed, "detach --owner b")?.ok()?;
        eventually(Duration::from_secs(2), || bed.sh("pgrep -f 'keep$'")?.exits(1).map(drop))?;
        pier(bed, "rm blue")?.ok().map(drop)
    })
}

#[test]
fn the_default_network_has_names_and_a_vanished_namespace_none() -> Result {
    isolated!(|bed| {
        let a = Place::on(bed, "bridge", "a", "")?;
        let b = Place::on(bed, "bridge", "b", "")?;
        let gateway = pier(bed, "inspect bridge")?.ok()?.json()?[0]["subnets"][0]["gateway"].clone();
        let gateway = gateway.as_str().context("a gateway")?;
        eventually(Duration::from_secs(1), || b.look(bed, gateway, "a", "a")?.ok().map(drop))?;
        a.end()?;
        eventually(Duration::from_secs(3), || b.look(bed, gateway, "a", "a")?.fails().map(drop))?;
        b.end()?;
        eventually(Duration::from_secs(3), || bed.sh("pgrep -f 'keep$'")?.exits(1).map(drop))?;
        pier(bed, "reconcile")?.ok()?.with("endpoint")?;
        pier(bed, "prune")?.ok().map(drop)
    })
}

#[test]
fn replicas_take_turns_and_the_unhealthy_wait() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let asker = Place::on(bed, "blue", "asker", "")?;
        let replicas: Vec<Place> = (1..=3)
            .map(|n| Place::on(bed, "blue", &format!("r{n}"), &format!("--name r{n} --name web")))
            .collect::<Result<_>>()?;
        ensure!(replicas.len() == 3);
        let ask = "busybox nslookup -type=a web 10.77.1.1 | grep '^Address' | sed -n '2,$s/.* //p' | tr '\\n' ' '";
        let firsts = || -> Result<std::collections::BTreeSet<String>> {
            (0..6)
                .map(|_| Ok(asker.sh(bed, ask)?.ok()?.out().split(' ').next().unwrap_or_default().to_owned()))
                .collect()
        };
        eventually(Duration::from_secs(1), || {
            ensure!(firsts()?.len() == 3, "they do not take turns");
            Ok(())
        })?;
        pier(bed, "health unhealthy --owner r2")?.ok()?;
        eventually(Duration::from_secs(1), || asker.sh(bed, ask)?.ok()?.without("10.77.1.4").map(drop))?;
        // Its own name has nobody else.
        asker.look(bed, "10.77.1.1", "r2", "a")?.ok()?.has("10.77.1.4")?;
        pier(bed, "endpoints --owner r2 --format json")?.ok()?.has("\"unhealthy\": true")?;
        pier(bed, "health healthy --owner r2")?.ok()?;
        eventually(Duration::from_secs(1), || asker.sh(bed, ask)?.ok()?.has("10.77.1.4"))?;
        pier(bed, "--error-format json health healthy --owner nobody")?.exits(1)?.has("ENDPOINT_NOT_FOUND")?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn networks_share_names_with_those_on_both_only() -> Result {
    isolated!(|bed| {
        for (name, net) in [("blue", 1), ("red", 2), ("green", 3)] {
            pier(bed, &format!("create {name} --subnet 10.77.{net}.0/24"))?.ok()?;
        }
        let a = Place::on(bed, "blue", "a", "")?;
        let b = Place::on(bed, "red", "b", "")?;
        let both = Place::on(bed, "blue", "both", "")?;
        let look = |place: &Place, net: u8, name: &str| place.look(bed, &format!("10.77.{net}.1"), name, "a");
        look(&both, 1, "b")?.fails()?;
        both.attach(bed, "red", "both", "")?;
        eventually(Duration::from_secs(1), || look(&both, 1, "b")?.ok()?.has("10.77.2.2"))?;
        look(&both, 2, "a")?.ok()?.has("10.77.1.2")?;
        look(&b, 2, "both")?.ok()?.has("10.77.2.3")?;
        look(&a, 1, "both")?.ok()?.has("10.77.1.3")?;
        look(&a, 1, "b")?.fails()?;
        // Another network's server is no way around it.
        look(&b, 1, "a")?.fails()?.with("REFUSED")?;
        // A third network, joined and left again.
        let c = Place::on(bed, "green", "c", "")?;
        look(&c, 3, "a")?.fails()?;
        c.attach(bed, "blue", "c", "")?;
        eventually(Duration::from_secs(1), || look(&c, 3, "a")?.ok()?.has("10.77.1.2"))?;
        pier(bed, "detach --owner c --network blue")?.ok()?;
        eventually(Duration::from_secs(1), || look(&c, 3, "a")?.fails().map(drop))?;
        pier(bed, "rm -f blue red green")?.ok().map(drop)
    })
}

#[test]
fn other_names_go_to_the_first_upstream_that_knows() -> Result {
    isolated!(|bed| {
        // One is not there, one says SERVFAIL or nothing, one knows.
        upstream(bed, "127.0.0.52", 52)?;
        let conf = resolv_conf(bed, "nameserver 127.0.0.51\nnameserver 127.0.0.52\n")?;
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", &conf)?;
        a.look(bed, "10.77.1.1", "example.org", "a")?.ok()?.has("192.0.2.52")?;
        a.look(bed, "10.77.1.1", "none.example.org", "a")?.fails()?.with("NXDOMAIN")?;
        a.look(bed, "10.77.1.1", "fail.example.org", "a")?.fails()?.with("SERVFAIL")?;
        // What cannot be an upstream's is not told to any.
        a.look(bed, "10.77.1.1", "nobody", "a")?.fails()?;
        a.look(bed, "10.77.1.1", "10.77.1.9", "ptr")?.fails()?;
        let log = bed.log("127.0.0.52");
        ensure!(log.contains("example.org") && !log.contains("nobody") && !log.contains("in-addr"), "{log}");
        // Too much for a datagram: truncated, then whole over TCP. As much as EDNS says: at once.
        a.sh(bed, &format!("python3 {NAMES} edns 10.77.1.1 big.example.org 4096"))?.ok()?.has("0 1")?;
        a.sh(bed, &format!("python3 {NAMES} tcp 10.77.1.1 big.example.org"))?.ok()?.has("40")?;
        a.sh(bed, &format!("python3 {NAMES} edns 10.77.1.1 a 4096"))?.ok()?.has("1 0 1232")?;
        // The host's file changes: no restart.
        let second = upstream(bed, "127.0.0.53", 53)?;
        resolv_conf(bed, "nameserver 127.0.0.53\n")?;
        a.look(bed, "10.77.1.1", "example.org", "a")?.ok()?.has("192.0.2.53")?;
        second.kill()?;
        let begun = std::time::Instant::now();
        a.look(bed, "10.77.1.1", "example.org", "a")?.fails()?;
        ensure!(begun.elapsed() < Duration::from_secs(6), "took {:?}", begun.elapsed());
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn upstreams_of_a_network_and_of_an_endpoint_come_first() -> Result {
    isolated!(|bed| {
        for last in [51, 52, 53, 54] {
            upstream(bed, &format!("127.0.0.{last}"), last)?;
        }
        let conf = resolv_conf(bed, "nameserver 127.0.0.51\n")?;
        pier(bed, "create blue --subnet 10.77.1.0/24 --dns 127.0.0.52 --dns-search lan --dns-option ndots:2")?.ok()?;
        let a = Place::new(bed, "a")?;
        let line = format!("attach blue {} --owner a {conf}", a.path);
        pier(bed, &line)?.ok()?.with("\"lan\"")?.has("ndots:2")?;
        let own = Place::on(bed, "blue", "own", "--dns 127.0.0.53 --dns-search own")?;
        a.look(bed, "10.77.1.1", "example.org", "a")?.ok()?.has("192.0.2.52")?;
        eventually(Duration::from_secs(1), || own.look(bed, "10.77.1.1", "example.org", "a")?.ok()?.has("192.0.2.53"))?;
        own.look(bed, "10.77.1.1", "a", "a")?.ok()?.has("10.77.1.2")?;
        pier(bed, "update blue --dns-add 127.0.0.54 --dns-drop 127.0.0.52")?.ok()?;
        eventually(Duration::from_secs(1), || a.look(bed, "10.77.1.1", "example.org", "a")?.ok()?.has("192.0.2.54"))?;
        pier(bed, "update blue --dns-drop 127.0.0.54")?.ok()?;
        eventually(Duration::from_secs(1), || a.look(bed, "10.77.1.1", "example.org", "a")?.ok()?.has("192.0.2.51"))?;
        pier(bed, "--error-format json update nowhere --dns-add 1.1.1.1")?.exits(1)?.has("NETWORK_NOT_FOUND")?;
        pier(bed, "create mute --disable-dns")?.ok()?;
        pier(bed, "--error-format json update mute --dns-add 1.1.1.1")?.exits(1)?.has("INVALID_ARGUMENT")?;
        pier(bed, "rm -f blue mute")?.ok().map(drop)
    })
}

#[test]
fn a_link_local_upstream_is_asked_by_its_link() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        there.sh(bed, "ip -6 addr add fe80::53/64 dev up0 nodad")?.ok()?;
        there.spawn(bed, "linklocal", &format!("exec python3 {NAMES} serve fe80::53%up0 7"))?;
        eventually(Duration::from_secs(5), || {
            bed.log("linklocal").contains("ready").then_some(()).context("not ready")
        })?;
        let conf = resolv_conf(bed, "nameserver fe80::53%up0\n")?;
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", &conf)?;
        eventually(Duration::from_secs(5), || a.look(bed, "10.77.1.1", "example.org", "a")?.ok()?.has("192.0.2.7"))?;
        pier(bed, "rm -f blue")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn an_internal_network_tells_no_upstream_anything() -> Result {
    isolated!(|bed| {
        upstream(bed, "127.0.0.51", 51)?;
        let conf = resolv_conf(bed, "nameserver 127.0.0.51\n")?;
        pier(bed, "create den --internal --subnet 10.77.1.0/24 --subnet fd77::/64 --dns 127.0.0.51")?.ok()?;
        pier(bed, "create blue --subnet 10.77.2.0/24")?.ok()?;
        let a = Place::on(bed, "den", "a", &format!("--dns 127.0.0.51 {conf}"))?;
        let both = Place::on(bed, "den", "both", "")?;
        both.attach(bed, "blue", "both", "")?;
        for server in ["10.77.1.1", "fd77::1"] {
            for kind in ["a", "aaaa", "ptr", "mx", "ns", "txt", "srv"] {
                a.look(bed, server, "secret.example.org", kind)?;
                both.look(bed, server, "secret.example.org", kind)?;
            }
            a.look(bed, server, "secret.example.org", "a")?.fails()?.with("NXDOMAIN")?;
        }
        a.sh(bed, &format!("python3 {NAMES} tcp 10.77.1.1 secret.example.org"))?;
        // Through the other network's server, and as the one that may.
        a.look(bed, "10.77.2.1", "secret.example.org", "a")?.fails()?;
        // Who has another way out is sent there, and gets its answer there.
        eventually(Duration::from_secs(1), || {
            both.look(bed, "10.77.1.1", "secret.example.org", "a")?.fails()?.with("REFUSED").map(drop)
        })?;
        let log = bed.log("127.0.0.51");
        ensure!(!log.contains("secret"), "{log}");
        both.look(bed, "10.77.2.1", "open.example.org", "a")?.ok()?.has("192.0.2.51")?;
        pier(bed, "rm -f den blue")?.ok().map(drop)
    })
}

#[test]
fn a_port_that_is_taken_is_served_when_it_is_free() -> Result {
    isolated!(|bed| {
        bed.spawn("udp", bed.command("socat").args(["UDP-LISTEN:53,reuseaddr", "EXEC:cat"]))?;
        let tcp = bed.spawn("tcp", bed.command("socat").args(["TCP-LISTEN:53,fork,reuseaddr", "EXEC:cat"]))?;
        eventually(Duration::from_secs(3), || bed.sh("ss -lntu | grep -c :53")?.ok()?.has("2"))?;
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        // The endpoint is whole all the same; the log says what is wrong.
        let a = Place::on(bed, "blue", "a", "")?;
        a.look(bed, "10.77.1.1", "a", "a")?.without("10.77.1.2")?;
        let log = std::fs::read_to_string(bed.run().join("network/keeper.log"))?;
        ensure!(log.contains("10.77.1.1") && log.contains("in use"), "{log}");
        bed.sh("kill $(pgrep -x socat)")?;
        drop(tcp);
        // Each look that is refused takes some seconds.
        eventually(Duration::from_secs(20), || a.look(bed, "10.77.1.1", "a", "a")?.ok()?.has("10.77.1.2"))?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn no_query_fails_for_a_second_whoever_is_killed() -> Result {
    isolated!(|bed| {
        let daemon = bed.serve("network")?;
        pier(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let a = Place::on(bed, "blue", "a", "")?;
        let load = format!("exec python3 {NAMES} load 10.77.1.1 a 1000 8");
        let asking = a.spawn(bed, "load", &load)?;
        std::thread::sleep(Duration::from_secs(1));
        // The daemon alone, then the keeper, then both.
        daemon.kill()?;
        std::thread::sleep(Duration::from_millis(500));
        let daemon = bed.serve("network")?;
        let keeper = keeper_pid(bed)?;
        bed.sh(&format!("kill -9 {keeper}"))?.ok()?;
        std::thread::sleep(Duration::from_secs(1));
        let keeper = keeper_pid(bed)?;
        bed.sh(&format!("kill -9 {keeper}"))?.ok()?;
        daemon.kill()?;
        bed.serve("network")?;
        eventually(Duration::from_secs(15), || {
            bed.log("load").contains("longest").then_some(()).context("it still asks")
        })?;
        println!("{}", bed.log("load"));
        let log = bed.log("load");
        let gap = log.trim().rsplit(' ').next().and_then(|gap| gap.parse::<f64>().ok()).context("a gap")?;
        ensure!(gap < 1.0 && log.contains("of 8000"), "{log}");
        drop(asking);
        // One that is attached meanwhile is found within a second.
        let _b = Place::on(bed, "blue", "b", "")?;
        eventually(Duration::from_secs(1), || a.look(bed, "10.77.1.1", "b", "a")?.ok().map(drop))?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn the_keeper_holds_nothing_of_who_started_it() -> Result {
    isolated!(|bed| {
        pier(bed, "create blue")?.ok()?;
        let a = Place::new(bed, "a")?;
        // A descriptor, a pipe and a directory of the caller: the pipe ends with the attach.
        let line =
            format!("exec 7>$DIR/held; pier-network attach blue {} --owner a | cat >/dev/null; echo done", a.path);
        bed.sh(&format!("timeout 10 bash -c '{line}'"))?.ok()?.has("done")?;
        let keeper = keeper_pid(bed)?;
        let open = bed.sh(&format!("ls -l /proc/{keeper}/fd /proc/{keeper}/cwd; cat /proc/{keeper}/stat"))?.ok()?;
        open.without("held")?;
        let session = bed.sh(&format!("cut -d' ' -f6 /proc/{keeper}/stat"))?.ok()?;
        ensure!(session.out() == keeper, "it is of the session {} of its caller", session.out());
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn containers_use_their_names_health_and_own_servers() -> Result {
    isolated!(|bed| {
        upstream(bed, "127.0.0.52", 52)?;
        upstream(bed, "127.0.0.53", 53)?;
        let image = bed.fixture().busybox_tar()?;
        bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} bb", image.display()))?.ok()?;
        bed.serve("engine")?;
        bed.sh("pier network create blue --subnet 10.77.1.0/24 --dns 127.0.0.52")?.ok()?;
        let run = "pier run -d --network blue --network-alias web";
        bed.sh(&format!("{run} --name good bb sleep 1000"))?.ok()?;
        let check = "--health-cmd 'test ! -e /sick' --health-interval 1s --health-retries 1";
        bed.sh(&format!("{run} --name sick {check} --dns 127.0.0.53 --dns-search lan bb sleep 1000"))?.ok()?;
        let look = |name: &str| bed.sh(&format!("pier exec good nslookup -type=a {name}"));
        eventually(Duration::from_secs(1), || look("web")?.ok()?.with("10.77.1.2")?.has("10.77.1.3"))?;
        bed.sh("pier exec sick touch /sick")?.ok()?;
        eventually(Duration::from_secs(15), || look("web")?.ok()?.without("10.77.1.3").map(drop))?;
        bed.sh("pier exec sick rm /sick")?.ok()?;
        eventually(Duration::from_secs(15), || look("web")?.ok()?.has("10.77.1.3"))?;
        // The network's server, the container's own, and what the file says.
        look("example.org")?.ok()?.has("192.0.2.52")?;
        let own = bed.sh("pier exec sick nslookup -type=a example.org; pier exec sick cat /etc/resolv.conf")?.ok()?;
        own.with("192.0.2.53")?.with("nameserver 10.77.1.1")?.has("search lan")?;
        bed.sh("pier network update blue --dns-add 127.0.0.53 --dns-drop 127.0.0.52")?.ok()?;
        eventually(Duration::from_secs(1), || look("example.org")?.ok()?.has("192.0.2.53"))?;
        bed.sh("pier exec good cat /etc/hosts")?.ok()?.has("host.containers.internal")?;
        bed.sh("pier rm -f sick")?.ok()?;
        eventually(Duration::from_secs(1), || look("sick")?.fails().map(drop))?;
        bed.sh("pier rm -f good; pier network rm blue")?.ok()?;
        // What is open to everybody is said.
        bed.sh("pier network create -o host_binding=127.0.0.1 shy && pier run -d --name shy --network shy -p 8080:80 bb sleep 1000")?.ok()?;
        bed.sh("pier info 2>&1")?.ok()?.without("every address")?;
        bed.sh("pier port shy")?.ok()?.has("127.0.0.1:8080")?;
        bed.sh("pier run -d --name bold -p 8081:80 bb sleep 1000")?.ok()?;
        bed.sh("pier info 2>&1")?.ok()?.has("bold is published at every address")?;
        bed.sh("pier rm -f shy bold; pier network rm shy")?.ok().map(drop)
    })
}
