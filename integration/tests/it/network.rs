//! `pier-network`: hand-made namespaces, wired and unwired by the program alone and by its daemon.
use anyhow::{Context, ensure};
use integration::{Bed, Daemon, Outcome, Result, eventually, isolated};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// A network namespace that nobody but the test made, kept by a sleeping process.
pub(crate) struct Netns {
    pub(crate) path: String,
}

impl Netns {
    pub(crate) fn new(bed: &Bed, name: &str) -> Result<Self> {
        let daemon: Daemon = bed.spawn(name, bed.command("unshare").args(["--net", "sleep", "1000"]))?;
        let path = format!("/proc/{}/ns/net", daemon.pid());
        let own = std::fs::read_link("/proc/self/ns/net")?;
        eventually(Duration::from_secs(5), || {
            ensure!(std::fs::read_link(&path)? != own, "{name} is not unshared yet");
            Ok(())
        })?;
        let netns = Self { path };
        netns.sh(bed, "ip link set lo up")?.ok()?;
        Ok(netns)
    }

    pub(crate) fn sh(&self, bed: &Bed, script: &str) -> Result<Outcome> {
        bed.exec("nsenter", &[format!("--net={}", self.path).as_str(), "sh", "-c", script])
    }

    /// Answers "hello NAME" on TCP port 80 and on UDP port 53, both families.
    pub(crate) fn answer(&self, bed: &Bed, name: &str) -> Result {
        for (kind, listen) in [("tcp", "TCP6-LISTEN:80,fork,reuseaddr"), ("udp", "UDP6-RECVFROM:53,fork,reuseaddr")] {
            let mut command = bed.command("nsenter");
            command.arg(format!("--net={}", self.path)).args(["socat", &format!("{listen},ipv6only=0")]);
            bed.spawn(&format!("{kind}-{name}"), command.arg(format!("SYSTEM:read q; echo hello {name}")))?;
        }
        let local = || self.sh(bed, "socat -T1 - TCP:127.0.0.1:80 </dev/null")?.ok()?.has("hello");
        eventually(Duration::from_secs(5), local)
    }

    /// What a TCP server says to this namespace.
    pub(crate) fn ask(&self, bed: &Bed, address: &str) -> Result<Outcome> {
        self.sh(bed, &tcp(address))
    }
}

pub(crate) fn tcp(address: &str) -> String {
    format!("timeout 2 socat -T2 - TCP:{address},connect-timeout=1 </dev/null")
}

/// The bed as a host with a neighbour: 198.51.100.1 and 2001:db8::1 here, .2 there.
pub(crate) fn outside(bed: &Bed) -> Result<Netns> {
    let there = Netns::new(bed, "outside")?;
    let pid = there.path.split('/').nth(2).context("pid")?;
    bed.sh(&format!(
        "ip link add up0 type veth peer name up0 netns {pid} && ip addr add 198.51.100.1/24 dev up0 && \
                     ip -6 addr add 2001:db8::1/64 dev up0 nodad && ip link set up0 up"
    ))?
    .ok()?;
    there
        .sh(
            bed,
            "ip addr add 198.51.100.2/24 dev up0; ip -6 addr add 2001:db8::2/64 dev up0 nodad; ip link set up0 up",
        )?
        .ok()?;
    Ok(there)
}

pub(crate) fn remove_outside(bed: &Bed) -> Result {
    bed.sh("ip link del up0")?.ok().map(drop)
}

pub(crate) fn pier(bed: &Bed, line: &str) -> Result<Outcome> {
    bed.sh(&format!("pier-network {line}"))
}

/// Attaches and gives the IPv4 address.
pub(crate) fn attach(bed: &Bed, network: &str, netns: &Netns, owner: &str, more: &str) -> Result<String> {
    let endpoint = pier(bed, &format!("attach {network} {} --owner {owner} {more}", netns.path))?.ok()?.json()?;
    let address = endpoint["addresses"][0].as_str().context("an address")?;
    Ok(address.split('/').next().unwrap_or_default().to_owned())
}

#[test]
fn hand_made_namespaces_talk_and_nothing_stays() -> Result {
    isolated!(|bed| {
        let (a, b) = (Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        let picture = "ip -o link; ip route; ip -6 route; nft list ruleset";
        let before = bed.sh(picture)?.ok()?.stdout;
        pier(bed, "create blue")?.ok()?;
        let address = attach(bed, "blue", &a, "a", "-p 8080:80")?;
        attach(bed, "blue", &b, "b", "")?;
        a.answer(bed, "a")?;
        b.ask(bed, &format!("{address}:80"))?.ok()?.has("hello a")?;
        bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a")?;
        ensure!(attach(bed, "blue", &a, "a", "-p 8080:80")? == address, "a second attach is another endpoint");
        pier(bed, "rm blue")?.exits(1)?.with("a, b")?.has("Hint:")?;
        pier(bed, "detach --owner a")?.ok()?;
        pier(bed, "detach --owner a")?.ok()?;
        pier(bed, "detach --owner b")?.ok()?;
        a.sh(bed, "ip link show eth0")?.fails()?;
        pier(bed, "rm blue")?.ok()?;
        let after = bed.sh(picture)?.ok()?.stdout;
        ensure!(before == after, "before:\n{before}\nafter:\n{after}");
        Ok(())
    })
}

#[test]
fn a_published_port_is_reached_from_everywhere() -> Result {
    isolated!(|bed| {
        let (there, a, b) = (outside(bed)?, Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        pier(bed, "create blue --ipv6")?.ok()?;
        let address = attach(bed, "blue", &a, "a", "-p 8080:80 -p 5353:53/udp -p 80:80 -p 127.0.0.1:9090:80")?;
        attach(bed, "blue", &b, "b", "")?;
        a.answer(bed, "a")?;
        for at in ["127.0.0.1:8080", "198.51.100.1:8080", "[2001:db8::1]:8080", "127.0.0.1:80", "127.0.0.1:9090"] {
            bed.sh(&tcp(at))?.ok().context("from the host")?.has("hello a")?;
        }
        for at in ["198.51.100.1:8080", "[2001:db8::1]:8080", "198.51.100.1:80"] {
            there.ask(bed, at)?.ok().context("from outside")?.has("hello a")?;
            a.ask(bed, at)?.ok().context("from itself")?.has("hello a")?;
            b.ask(bed, at)?.ok().context("from a neighbour")?.has("hello a")?;
        }
        for at in ["UDP:127.0.0.1:5353", "UDP:198.51.100.1:5353"] {
            bed.sh(&format!("echo q | socat -T1 - {at}"))?.ok()?.has("hello a")?;
        }
        there.sh(bed, "echo q | socat -T1 - UDP:198.51.100.1:5353")?.ok()?.has("hello a")?;
        // What is not published is not reached, not even by a neighbour who knows the way; nor is what is on loopback.
        there.ask(bed, "198.51.100.1:9090")?.fails()?;
        there.sh(bed, &format!("ip route add {address} via 198.51.100.1"))?.ok()?;
        there.ask(bed, &format!("{address}:80"))?.fails()?;
        there.sh(bed, "ip route del 127.0.0.0/8 table local; ip route add 127.0.0.1 via 198.51.100.1; true")?.ok()?;
        there.ask(bed, "127.0.0.1:9090,bind=198.51.100.2")?.fails()?;
        // Live changes.
        pier(bed, "unpublish $(pier-network endpoints --owner a --format json | sed -n 's/.*\"id\": \"\\(.*\\)\",/\\1/p') 8080:80")?
            .ok()?;
        bed.sh(&tcp("127.0.0.1:8080"))?.fails()?;
        bed.sh(&tcp("127.0.0.1:80"))?.ok()?;
        pier(bed, "rm -f blue")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn a_client_that_sent_before_reaches_what_is_published_after() -> Result {
    isolated!(|bed| {
        let (there, a) = (outside(bed)?, Netns::new(bed, "a")?);
        a.answer(bed, "a")?;
        pier(bed, "create blue")?.ok()?;
        let send = "echo q | socat -T1 - UDP:198.51.100.1:5353,sourceport=4000";
        there.sh(bed, send)?.without("hello")?;
        attach(bed, "blue", &a, "second", "-p 5353:53/udp")?;
        // A flow that lingers is kept alive by each try.
        eventually(Duration::from_secs(5), || there.sh(bed, send)?.ok()?.has("hello a"))?;
        pier(bed, "rm -f blue")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn networks_are_kept_apart() -> Result {
    isolated!(|bed| {
        let (there, a, b, c) = (outside(bed)?, Netns::new(bed, "a")?, Netns::new(bed, "b")?, Netns::new(bed, "c")?);
        for line in ["create blue", "create red", "create den --internal"] {
            pier(bed, line)?.ok()?;
        }
        let blue = attach(bed, "blue", &a, "a", "")?;
        attach(bed, "red", &b, "b", "-p 8081:80")?;
        let den = attach(bed, "den", &c, "c", "")?;
        for netns in [&a, &b, &c, &there] {
            netns.answer(bed, "someone")?;
        }
        b.ask(bed, &format!("{blue}:80"))?.fails()?;
        a.ask(bed, &format!("{den}:80"))?.fails()?;
        a.ask(bed, "198.51.100.1:8081")?.ok().context("a published port of another network")?;
        a.ask(bed, "198.51.100.2:80")?.ok().context("the way out")?;
        c.sh(
            bed,
            "ip route add default via $(ip -o -4 addr show eth0 | sed 's/.*inet \\(.*\\)\\.[0-9]*\\/24.*/\\1/').1",
        )?
        .ok()?;
        c.ask(bed, "198.51.100.2:80")?.fails()?;
        c.ask(bed, &format!("{blue}:80"))?.fails()?;
        bed.sh(&tcp(&format!("{den}:80")))?.ok().context("the host reaches an internal network")?;
        for name in ["blue", "red", "den"] {
            pier(bed, &format!("rm -f {name}"))?.ok()?;
        }
        remove_outside(bed)
    })
}

#[test]
fn names_are_looked_up_on_their_own_network() -> Result {
    isolated!(|bed| {
        let (a, b, c) = (Netns::new(bed, "a")?, Netns::new(bed, "b")?, Netns::new(bed, "c")?);
        std::fs::write(bed.dir().join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        bed.serve_with("network", &["--resolv-conf", &bed.dir().join("resolv.conf").display().to_string()])?;
        pier(bed, "create blue --ipv6 --subnet 10.77.1.0/24 --subnet fd77::/64")?.ok()?;
        pier(bed, "create red --subnet 10.77.2.0/24")?.ok()?;
        attach(bed, "blue", &a, "a", "--name web --name Alias")?;
        attach(bed, "blue", &b, "b", "")?;
        attach(bed, "red", &c, "c", "")?;
        let ask = |netns: &Netns, gateway: &str, name: &str, kind: &str| {
            netns.sh(bed, &format!("timeout 3 busybox nslookup -type={kind} {name} {gateway}"))
        };
        eventually(Duration::from_secs(1), || ask(&b, "10.77.1.1", "web", "a")?.ok()?.has("10.77.1.2"))?;
        ask(&b, "10.77.1.1", "alias", "a")?.ok()?.has("10.77.1.2")?;
        ask(&b, "10.77.1.1", "web", "aaaa")?.ok()?.has("fd77::2")?;
        ask(&b, "fd77::1", "web", "a")?.ok()?.has("10.77.1.2")?;
        ask(&b, "10.77.1.1", "2.1.77.10.in-addr.arpa", "ptr")?.ok()?.has("web")?;
        ask(&b, "10.77.1.1", "host.docker.internal", "a")?.ok()?.has("10.77.1.1")?;
        ask(&c, "10.77.2.1", "web", "a")?.fails()?;
        // Nobody listens on the upstream's address: the answer is quick all the same.
        let begun = std::time::Instant::now();
        ask(&b, "10.77.1.1", "example.org", "a")?.fails()?;
        ensure!(begun.elapsed() < Duration::from_millis(2500), "took {:?}", begun.elapsed());
        pier(bed, "detach --owner a")?.ok()?;
        eventually(Duration::from_secs(1), || ask(&b, "10.77.1.1", "web", "a")?.fails().map(drop))?;
        pier(bed, "rm -f blue red")?.ok().map(drop)
    })
}

#[test]
fn a_killed_daemon_loses_nothing_and_leaves_nothing() -> Result {
    isolated!(|bed| {
        let (a, b) = (Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        let daemon = bed.serve("network")?;
        pier(bed, "create blue")?.ok()?;
        let address = attach(bed, "blue", &a, "a", "-p 8080:80")?;
        attach(bed, "blue", &b, "b", "")?;
        a.answer(bed, "a")?;
        daemon.kill()?;
        bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a")?;
        // While nobody looks: the rules are flushed, a link and the bridge are removed.
        bed.sh("nft flush ruleset; ip link del $(ip -o link show type bridge | sed 's/^[0-9]*: \\([^:]*\\):.*/\\1/')")?
            .ok()?;
        b.sh(bed, "ip link del eth0")?.ok()?;
        let daemon = bed.serve("network")?;
        eventually(Duration::from_secs(3), || b.ask(bed, &format!("{address}:80"))?.ok()?.has("hello a"))?;
        bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a")?;
        // While it runs, a flush is mended within a second.
        bed.sh("nft flush ruleset")?.ok()?;
        eventually(Duration::from_secs(1), || bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a"))?;
        pier(bed, "reconcile")?.ok()?;
        pier(bed, "rm -f blue")?.ok()?;
        daemon.stop()
    })
}

#[test]
fn an_attach_that_fails_or_dies_is_undone() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        pier(bed, "create blue")?.ok()?;
        let fake = |body: &str| -> Result {
            let path = bed.dir().join("fake/nft");
            std::fs::create_dir_all(bed.dir().join("fake"))?;
            // The keeper's guard is the real one's.
            let real = "[ \"$1\" = -i ] && exec /usr/sbin/nft -i";
            std::fs::write(&path, format!("#!/bin/sh\n{real}\n{body}\n"))?;
            Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?)
        };
        let attach = format!("pier-network attach blue {} --owner a -p 8080:80", a.path);
        fake("echo no way >&2; exit 1")?;
        bed.sh(&format!("PATH=$DIR/fake:$PATH {attach}"))?.fails()?.has("no way")?;
        ensure!(bed.leftovers().is_empty() || !bed.leftovers().contains("link"), "{}", bed.leftovers());
        a.sh(bed, "ip link show eth0")?.fails()?;
        // Killed in the middle: the bridge is there, neither the rules nor the pair are.
        fake("echo $$ >$DIR/pid; mv $DIR/pid $DIR/reached; exec sleep 1000")?;
        bed.sh(&format!(
            "PATH=$DIR/fake:$PATH {attach} & pid=$!; while [ ! -e reached ]; do sleep 0.01; done; \
                         kill -9 $pid $(cat reached)"
        ))?;
        bed.sh("ip link show type bridge")?.ok()?.has("pier-")?;
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        pier(bed, "reconcile")?.ok()?.has("half attached")?;
        a.sh(bed, "ip link show eth0")?.fails()?;
        pier(bed, "reconcile")?.ok()?.without("endpoint")?;
        bed.sh(&attach)?.ok()?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn ports_in_use_are_named() -> Result {
    isolated!(|bed| {
        let (a, b) = (Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        bed.spawn("listener", bed.command("socat").args(["TCP-LISTEN:7000,fork,reuseaddr", "EXEC:echo host"]))?;
        eventually(Duration::from_secs(5), || bed.sh(&tcp("127.0.0.1:7000"))?.ok()?.has("host"))?;
        pier(bed, "create blue")?.ok()?;
        attach(bed, "blue", &a, "first", "-p 8080:80 -p 9000-9100:9000-9100")?;
        let refused = |ports: &str, why: &str| {
            pier(bed, &format!("--error-format json attach blue {} --owner second {ports}", b.path))?
                .exits(1)?
                .with("PORT_IN_USE")?
                .has(why)
        };
        refused("-p 8080:80", "first")?;
        refused("-p 127.0.0.1:9050:80", "first")?;
        refused("-p 7000:80", "7000")?;
        refused("-p 6990-7010:6990-7010", "7000")?;
        b.sh(bed, "ip link show eth0")?.fails()?;
        let free = pier(bed, &format!("attach blue {} --owner second -p 80 -p 8080:80/udp", b.path))?.ok()?.json()?;
        ensure!(free["ports"][0]["host_port"].as_u64() > Some(1023), "{free}");
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn bad_input_is_named_and_changes_nothing() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        pier(bed, "create blue --subnet 10.50.0.0/24")?.ok()?;
        let here = "/proc/self/ns/net";
        for (line, reason) in [
            ("inspect nowhere".to_owned(), "NETWORK_NOT_FOUND"),
            ("create blue".into(), "NETWORK_EXISTS"),
            ("create red --subnet 10.50.0.128/25".into(), "SUBNET_OVERLAP"),
            ("create red --subnet 10.50.0.1/24".into(), "INVALID_ARGUMENT"),
            ("create -d unheard-of red".into(), "INVALID_ARGUMENT"),
            ("create -d macvlan red".into(), "INVALID_ARGUMENT"),
            ("create ../red".into(), "INVALID_ARGUMENT"),
            ("rm bridge".into(), "NETWORK_PREDEFINED"),
            (format!("attach nowhere {} --owner a", a.path), "NETWORK_NOT_FOUND"),
            ("attach blue /etc/passwd --owner a".into(), "NETNS_INVALID"),
            ("attach blue /nowhere --owner a".into(), "NETNS_INVALID"),
            (format!("attach blue {here} --owner a"), "NETNS_INVALID"),
            (format!("attach blue {} --owner a --ip 10.51.0.1", a.path), "INVALID_ARGUMENT"),
            (format!("attach blue {} --owner a --ip 10.50.0.1", a.path), "INVALID_ARGUMENT"),
            (format!("attach blue {} --owner a --mac-address 01:00:00:00:00:01", a.path), "INVALID_ARGUMENT"),
            (format!("attach blue {} --owner a -p 80:0", a.path), "INVALID_ARGUMENT"),
            (format!("attach blue {} --owner a -p 203.0.113.9:80:80", a.path), "ADDRESS_NOT_LOCAL"),
            ("ns create a/b".into(), "INVALID_ARGUMENT"),
            ("ns create a --sysctl kernel.hostname=x".into(), "INVALID_ARGUMENT"),
            ("publish 123 80:80".into(), "ENDPOINT_NOT_FOUND"),
        ] {
            pier(bed, &format!("--error-format json {line}"))?.exits(1)?.with(reason)?;
        }
        attach(bed, "blue", &a, "a", "--ip 10.50.0.9")?;
        let taken = format!("--error-format json attach blue {} --owner b --ip 10.50.0.9", a.path);
        pier(bed, &taken)?.exits(1)?.has("ADDRESS_IN_USE")?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn namespaces_by_key_come_and_go() -> Result {
    isolated!(|bed| {
        let path = pier(bed, "ns create web --sysctl net.ipv4.ip_forward=1")?.ok()?.out().to_owned();
        ensure!(pier(bed, "ns create web")?.ok()?.out() == path, "not idempotent");
        let inside = format!("nsenter --net={path} sh -c 'ip -o link show lo; cat /proc/sys/net/ipv4/ip_forward'");
        bed.sh(&inside)?.ok()?.with("LOWER_UP")?.with("\n1")?;
        pier(bed, "ns create bad --sysctl net.nothing.at.all=1")?.fails()?;
        pier(bed, "ns ls")?.ok()?.with("web")?.without("bad")?;
        pier(bed, &format!("attach bridge {path} --owner web"))?.ok()?;
        pier(bed, "attach host --owner web")?.ok()?;
        pier(bed, "attach none --owner web")?.ok()?;
        pier(bed, "ns rm web")?.ok()?;
        pier(bed, "ns rm web")?.ok()?;
        pier(bed, "endpoints --network bridge --format json")?.ok()?.has("[]")?;
        pier(bed, "detach --owner web")?.ok()?;
        pier(bed, "prune")?.ok().map(drop)
    })
}
