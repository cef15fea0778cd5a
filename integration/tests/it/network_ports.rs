//! Published ports: held, reached from everywhere, many of them.
use crate::network::{Netns, attach, outside, pier, remove_outside, tcp};
use anyhow::{Context, ensure};
use integration::{Bed, Result, eventually, isolated};
use std::time::{Duration, Instant};

/// The pid of the process that holds the ports; an error when there is none.
fn holder(bed: &Bed) -> Result<u32> {
    let script = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = pier-ports ] && grep -qv Z $p/stat && \
                  [ -n \"$(readlink $p/exe)\" ] && echo ${p#/proc/}; done; true";
    bed.sh(script)?.ok()?.out().parse().context("no holder of ports")
}

fn bind(bed: &Bed, kind: &str, address: &str, port: u16) -> Result<integration::Outcome> {
    let family = if address.contains(':') { "AF_INET6" } else { "AF_INET" };
    let script = format!(
        "import socket; s = socket.socket(socket.{family}, socket.SOCK_{kind}); \
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if '{kind}' == 'STREAM' else 0); s.bind(('{address}', {port}))"
    );
    bed.exec("python3", &["-c", &script])
}

#[test]
fn a_published_port_is_held_for_as_long_as_it_is_published() -> Result {
    isolated!(|bed| {
        let (a, b) = (Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        pier(bed, "create blue --ipv6")?.ok()?;
        attach(bed, "blue", &a, "a", "-p 8080:80 -p 5353:53/udp -p 127.0.0.1:9090:80")?;
        a.answer(bed, "a")?;
        let refused = |kind: &str, address: &str, port: u16| {
            bind(bed, kind, address, port)?
                .fails()
                .context(format!("{kind} {address} {port}"))?
                .has("Address already in use")
        };
        for address in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            refused("STREAM", address, 8080)?;
            refused("DGRAM", address, 5353)?;
        }
        refused("STREAM", "127.0.0.1", 9090)?;
        bind(bed, "STREAM", "127.0.0.2", 9090)?.ok().context("another address is free")?;
        bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a")?;
        // Whoever holds it answers nobody.
        bed.sh(&tcp("[::1]:8080"))?.fails()?.has("refused")?;
        let first = holder(bed)?;
        // The daemon comes and goes; the holder stays. It is killed; the next reconcile starts it again.
        let daemon = bed.serve("network")?;
        daemon.kill()?;
        ensure!(holder(bed)? == first, "the holder went with the daemon");
        bed.sh(&format!("kill -9 {first}"))?.ok()?;
        eventually(Duration::from_secs(2), || bind(bed, "STREAM", "127.0.0.1", 8080)?.ok())?;
        pier(bed, "reconcile")?.ok()?;
        refused("STREAM", "127.0.0.1", 8080)?;
        ensure!(holder(bed)? != first, "the holder has the pid of a dead one");
        // Published and withdrawn live: the socket follows.
        let id =
            pier(bed, "endpoints --owner a --format json")?.ok()?.json()?[0]["id"].as_str().context("id")?.to_owned();
        pier(bed, &format!("unpublish {id} 8080:80"))?.ok()?;
        bind(bed, "STREAM", "127.0.0.1", 8080)?.ok()?;
        pier(bed, &format!("publish {id} 8081:80"))?.ok()?;
        refused("STREAM", "127.0.0.1", 8081)?;
        // A program that listens is named, and nothing is changed by the attempt.
        bed.spawn("listener", bed.command("socat").args(["TCP-LISTEN:7000,fork,reuseaddr", "EXEC:echo host"]))?;
        eventually(Duration::from_secs(5), || bed.sh(&tcp("127.0.0.1:7000"))?.ok()?.has("host"))?;
        pier(bed, &format!("publish {id} 8082:80 7000:80"))?.exits(1)?.with("socat (pid")?.has("7000")?;
        bind(bed, "STREAM", "127.0.0.1", 8082)?.ok().context("what was asked together is not held")?;
        let attach = format!("attach blue {} --owner b -p 8083:80 -p 7000:80", b.path);
        pier(bed, &attach)?.exits(1)?.has("socat (pid")?;
        bind(bed, "STREAM", "127.0.0.1", 8083)?.ok()?;
        b.sh(bed, "ip link show eth0")?.fails()?;
        pier(bed, "rm -f blue")?.ok()?;
        for port in [8081, 9090] {
            bind(bed, "STREAM", "127.0.0.1", port)?.ok()?;
        }
        eventually(Duration::from_secs(2), || {
            ensure!(holder(bed).is_err(), "the holder stays with nothing to hold");
            Ok(())
        })
    })
}

#[test]
fn ten_thousand_ports_are_one_change() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        pier(bed, "create blue")?.ok()?;
        let begun = Instant::now();
        let range = "-p 20000-24999:20000-24999 -p 25000-29999:25000-29999/udp";
        let address = attach(bed, "blue", &a, "a", range)?;
        let took = begun.elapsed();
        let holder = holder(bed)?;
        // Its own memory; the rest are pages of the program's file.
        let kib = bed.sh(&format!("awk '/^Anonymous/{{print $2}}' /proc/{holder}/smaps_rollup"))?.ok()?;
        let kib: u64 = kib.out().parse()?;
        let elements = bed
            .sh("nft list map inet $(nft list tables | sed -n '/_guard/!s/.*inet //p') range4 | grep -c ' : '")?
            .ok()?;
        println!("10,000 ports: {took:?}, {kib} KiB in the holder, {} lines of elements", elements.out());
        ensure!(took < Duration::from_secs(1), "took {took:?}");
        ensure!(kib < 5 * 1024, "{kib} KiB");
        bind(bed, "STREAM", "127.0.0.1", 24999)?.fails()?;
        bind(bed, "DGRAM", "127.0.0.1", 29999)?.fails()?;
        let mut server = bed.command("nsenter");
        server.arg(format!("--net={}", a.path)).args(["socat", "TCP-LISTEN:24998,fork,reuseaddr", "SYSTEM:echo last"]);
        bed.spawn("last", &mut server)?;
        eventually(Duration::from_secs(5), || bed.sh(&tcp(&format!("{address}:24998")))?.ok()?.has("last"))?;
        bed.sh(&tcp("127.0.0.1:24998"))?.ok()?.has("last")?;
        let begun = Instant::now();
        pier(bed, "detach --owner a")?.ok()?;
        ensure!(begun.elapsed() < Duration::from_secs(1), "detach took {:?}", begun.elapsed());
        bind(bed, "STREAM", "127.0.0.1", 24999)?.ok()?;
        pier(bed, "rm blue")?.ok().map(drop)
    })
}

/// Tells each client the address it is seen by, on TCP port 80 and UDP port 53, both families.
fn tell(bed: &Bed, netns: &Netns) -> Result {
    for (kind, listen) in [("tcp", "TCP6-LISTEN:80,fork,reuseaddr"), ("udp", "UDP6-RECVFROM:53,fork,reuseaddr")] {
        let mut command = bed.command("nsenter");
        command.arg(format!("--net={}", netns.path)).args(["socat", &format!("{listen},ipv6only=0")]);
        bed.spawn(&format!("tell-{kind}"), command.arg("SYSTEM:read q; echo from $SOCAT_PEERADDR"))?;
    }
    eventually(Duration::from_secs(5), || {
        netns.sh(bed, "echo q | socat -T1 - TCP:127.0.0.1:80")?.ok()?.has("from")?;
        netns.sh(bed, "echo q | socat -T1 - UDP:127.0.0.1:53")?.ok()?.has("from")
    })
}

/// The address that the server saw, or "-".
fn seen(outcome: &integration::Outcome) -> String {
    let line = outcome.stdout.lines().find_map(|line| line.strip_prefix("from "));
    let plain = line.unwrap_or("-").trim_matches(['[', ']']);
    match plain.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => ip.to_canonical().to_string(),
        Err(_) => plain.to_owned(),
    }
}

#[test]
fn every_way_to_a_published_port() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        println!(
            "| driver | protocol | family | outside | host | loopback | other | hairpin |\n|---|---|---|---|---|---|---|---|"
        );
        for driver in ["bridge", "veth", "overlay"] {
            let (a, b) = (Netns::new(bed, &format!("a-{driver}"))?, Netns::new(bed, &format!("b-{driver}"))?);
            let subnets = "--subnet 10.80.0.0/24 --subnet fd80::/64";
            pier(bed, &format!("create net -d {driver} {subnets}"))?.ok()?;
            attach(bed, "net", &a, "a", "-p 8080:80 -p 5353:53/udp -p 9999:99/sctp")?;
            attach(bed, "net", &b, "b", "")?;
            tell(bed, &a)?;
            for (protocol, port) in [("TCP", 8080), ("UDP", 5353)] {
                for (family, host, loopback, outside) in [
                    ("IPv4", "198.51.100.1", "127.0.0.1", "198.51.100.2"),
                    ("IPv6", "[2001:db8::1]", "[::1]", "2001:db8::2"),
                ] {
                    let ask = |address: &str| format!("echo q | timeout 3 socat -T1 - {protocol}:{address}:{port}");
                    let row = [
                        seen(&there.sh(bed, &ask(host))?),
                        seen(&bed.sh(&ask(host))?),
                        seen(&bed.sh(&ask(loopback))?),
                        seen(&b.sh(bed, &ask(host))?),
                        seen(&a.sh(bed, &ask(host))?),
                    ];
                    println!("| {driver} | {protocol} | {family} | {} |", row.join(" | "));
                    ensure!(row[0] == outside, "the source address is not kept: {row:?}");
                    // The kernel cannot route an answer to ::1 back (no route_localnet for IPv6).
                    let reached = row.iter().filter(|cell| *cell != "-").count();
                    ensure!(
                        reached == if family == "IPv4" { 5 } else { 4 } && (family == "IPv4" || row[2] == "-"),
                        "{row:?}"
                    );
                }
            }
            pier(bed, "rm -f net")?.ok()?;
        }
        let sctp =
            bed.exec("python3", &["-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)"])?;
        if sctp.code != 0 {
            println!(
                "skipped: every_way_to_a_published_port (SCTP traffic): this kernel has no SCTP sockets; the rules are set"
            );
        }
        remove_outside(bed)
    })
}

#[test]
fn endpoints_of_many_at_once_and_killed_daemons_share_no_address() -> Result {
    isolated!(|bed| {
        let count: usize = std::env::var("PIER_ENDPOINTS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
        pier(bed, "create blue --subnet 10.81.0.0/16")?.ok()?;
        let mut daemon = bed.serve("network")?;
        // Eight workers; each makes a namespace, attaches with a port, checks, logs the lease, and detaches.
        let script = "n=$1; end=$2; while [ $n -le $end ]; do \
              p=$(pier-network ns create c$n) || exit 1; \
              a=$(pier-network attach blue $p --owner c$n -p $((10000+n)):80 | jq -r '.addresses[0]') || exit 1; \
              echo \"$(date +%s%N) + $a c$n\" >>$DIR/leases; \
              nsenter --net=$p ip -4 addr show eth0 | grep -q \"$a\" || { echo c$n: $a is not set; exit 1; }; \
              echo \"$(date +%s%N) - $a c$n\" >>$DIR/leases; \
              [ $((n % 2)) = 0 ] || pier-network detach --owner c$n >/dev/null || exit 1; \
              pier-network ns rm c$n >/dev/null || exit 1; n=$((n+1)); done";
        std::fs::write(bed.dir().join("worker.sh"), script)?;
        let each = count.div_ceil(8);
        let run = format!(
            "for w in 0 1 2 3 4 5 6 7; do bash worker.sh $((w*{each}+1)) $(((w+1)*{each})) >w$w.out 2>&1 & echo $! >w$w.pid; \
             done; fail=0; for p in $(cat w?.pid); do wait $p || fail=1; done; echo $fail >finished.tmp; mv finished.tmp finished"
        );
        let workers = bed.spawn("workers", bed.command("bash").arg("-c").arg(&run))?;
        let mut kills = 0;
        while !bed.dir().join("finished").exists() {
            std::thread::sleep(Duration::from_millis(150));
            daemon.kill()?;
            kills += 1;
            daemon = bed.serve("network")?;
        }
        ensure!(workers.pid() > 0 && bed.sh("cat finished")?.out() == "0", "{}", bed.sh("cat w?.out")?);
        // No two have an address at one moment.
        let overlap = "sort -n leases | awk '$2==\"+\"{ if (has[$3]) { print \"shared\", $3, $4, has[$3]; exit 1 } has[$3]=$4 } \
                       $2==\"-\"{ delete has[$3] }'";
        bed.sh(overlap)?.ok()?;
        let leases = bed.sh("grep -c + leases")?.ok()?;
        println!("{} endpoints, {kills} kills of the daemon", leases.out());
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        bed.sh("ip -o link | grep -E ' pv[0-9a-f]{12}'")?.fails()?;
        bed.sh("nft list ruleset | grep -E '10\\.81\\.[0-9.]+ \\. 80'")?.fails()?;
        ensure!(holder(bed).is_err(), "ports are still held");
        daemon.stop()?;
        pier(bed, "rm blue")?.ok().map(drop)
    })
}
