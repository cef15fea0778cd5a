//! What others do for us, case by case: a DHCP server, a CNI plugin, slirp4netns, systemd, the host's own rules.
use crate::network_place::{Place, outside, pier, remove_outside, tcp};
use crate::network_plugins::{as_user, unprivileged};
use anyhow::{Context, ensure};
use integration::{Result, eventually, isolated};
use std::time::Duration;

#[test]
fn a_dhcp_server_is_told_the_name_and_the_address_asked_for() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        let dir = bed.dir().display();
        let conf = format!(
            "start 198.51.100.50\nend 198.51.100.59\ninterface up0\nmax_leases 10\nlease_file {dir}/leases\npidfile {dir}/pid\n\
             auto_time 1\nmin_lease 2\noption subnet 255.255.255.0\noption router 198.51.100.2\noption dns 198.51.100.2\n\
             option lease 600\n"
        );
        std::fs::write(bed.dir().join("udhcpd.conf"), conf)?;
        bed.sh("touch leases")?.ok()?;
        there.spawn(bed, "udhcpd", &format!("cd {dir} && exec busybox udhcpd -f udhcpd.conf"))?;
        pier(bed, "create lan -d macvlan -o parent=up0 --ipam-driver dhcp")?.ok()?;
        let a = Place::new(bed, "a")?;
        let mac = "02:00:00:00:00:51";
        let line = format!("attach lan {} --owner a --name foobar --name other --mac-address {mac}", a.path);
        let told = pier(bed, &line)?.ok()?.json()?;
        let address = told["addresses"][0].as_str().context("an address")?.to_owned();
        ensure!(address.starts_with("198.51.100.5") && told["gateways"][0] == "198.51.100.2", "{told}");
        ensure!(told["dns_servers"][0] == "198.51.100.2", "{told}");
        a.sh(bed, "ip addr show eth0")?.ok()?.has(&address)?;
        // Who has the lease, as the server knows it.
        eventually(Duration::from_secs(10), || {
            bed.sh("busybox dumpleases -f leases")?.ok()?.with(mac)?.has("foobar").map(drop)
        })?;
        pier(bed, "detach --owner a")?.ok()?;
        pier(bed, "rm lan")?.ok()?;
        remove_outside(bed)
    })
}

#[test]
fn a_device_of_the_host_is_handed_over_and_comes_back() -> Result {
    isolated!(|bed| {
        if !std::path::Path::new("/usr/lib/cni/host-device").exists() {
            println!("skipped: a_device_of_the_host_is_handed_over_and_comes_back: no CNI plugins are installed");
            return Ok(());
        }
        bed.sh("ip link add dev7 type veth peer name dev8")?.ok()?;
        let list = r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "host-device", "device": "dev7"}]}"#;
        std::fs::write(bed.dir().join("x.conflist"), list)?;
        pier(bed, "create device -d cni -o conflist=x.conflist -o cni.path=/usr/lib/cni")?.ok()?;
        let a = Place::new(bed, "a")?;
        let told = pier(bed, &format!("attach device {} --owner a --interface net1", a.path))?.ok()?.json()?;
        ensure!(told["interface"] == "net1", "{told}");
        a.sh(bed, "ip link show net1")?.ok()?;
        bed.sh("ip link show dev7")?.fails()?;
        pier(bed, "detach --owner a")?.ok()?;
        bed.sh("ip link show dev7")?.ok()?;
        pier(bed, "rm device")?.ok()?;
        bed.sh("ip link del dev7")?.ok().map(drop)
    })
}

#[test]
fn an_unprivileged_users_namespace_is_wired_by_slirp4netns() -> Result {
    isolated!(|bed| {
        if bed.sh("command -v slirp4netns")?.code != 0 {
            println!("skipped: an_unprivileged_users_namespace_is_wired_by_slirp4netns: it is not installed");
            return Ok(());
        }
        let there = outside(bed)?;
        there.answer(bed, "outside", 80)?;
        let path = unprivileged(bed)?;
        // The only helper in the user's PATH.
        bed.sh("mkdir -p /run/u/bin && ln -s $(command -v slirp4netns) /run/u/bin/")?.ok()?;
        let user = |line: &str| as_user(bed, "/run/u/bin", line);
        user("create mine -d rootless")?.ok()?;
        user(&format!("attach mine {path} --owner a -p 99:99/sctp"))?.exits(1)?;
        bed.sh("pgrep -x slirp4netns")?.fails()?;
        user(&format!("attach mine {path} --owner a -p 8080:80 -p 8090-8091:81-82 -p 5353:53/udp --interface eth0"))?
            .ok()?;
        let inside = |script: &str| bed.exec("nsenter", &[&format!("--net={path}"), "sh", "-c", script]);
        inside("ip link set lo up; ip addr show eth0")?.ok()?.has("10.0.2.100/24")?;
        for (name, listen) in [
            ("one", "TCP-LISTEN:80,fork,reuseaddr SYSTEM:'echo port 80'"),
            ("two", "TCP-LISTEN:82,fork,reuseaddr SYSTEM:'echo port 82'"),
            ("udp", "UDP-RECVFROM:53,fork SYSTEM:'read q; echo port 53'"),
        ] {
            let mut command = bed.command("nsenter");
            bed.spawn(name, command.arg(format!("--net={path}")).args(["sh", "-c", &format!("exec socat {listen}")]))?;
        }
        eventually(Duration::from_secs(5), || there.ask(bed, "198.51.100.1:8080")?.ok()?.has("port 80"))?;
        eventually(Duration::from_secs(5), || bed.sh(&tcp("127.0.0.1:8091"))?.ok()?.has("port 82"))?;
        let udp = "echo q | socat -T1 - UDP:198.51.100.1:5353";
        eventually(Duration::from_secs(5), || there.sh(bed, udp)?.ok()?.has("port 53"))?;
        inside(&tcp("198.51.100.2:80"))?.ok().context("the way out")?.has("hello outside")?;
        // The host's own loopback is not its neighbour's.
        bed.spawn("own", bed.command("socat").args(["TCP-LISTEN:6060,bind=127.0.0.1,fork", "EXEC:echo own"]))?;
        inside(&tcp("10.0.2.2:6060"))?.without("own")?;
        user("detach --owner a")?.ok()?;
        bed.sh("pgrep -x slirp4netns")?.fails()?;
        bed.sh(&tcp("127.0.0.1:8080"))?.fails()?;
        user("rm mine")?.ok()?;
        bed.sh("umount /dev/net/tun")?.ok()?;
        remove_outside(bed)
    })
}

/// What systemd does: bind, pass descriptor 3, start; and start again on the same socket.
const ACTIVATE: &str = "import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(8)
os.dup2(s.fileno(), 3)
while True:
    pid = os.fork()
    if pid == 0:
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
        os.execvp(sys.argv[2], sys.argv[2:])
    os.waitpid(pid, 0)
";

#[test]
fn a_socket_that_was_handed_over_outlives_the_daemon_and_so_do_names() -> Result {
    isolated!(|bed| {
        std::fs::write(bed.dir().join("activate.py"), ACTIVATE)?;
        std::fs::create_dir_all(bed.run())?;
        let socket = bed.run().join("network.sock");
        let mut command = bed.command("python3");
        bed.spawn("activated", command.arg("activate.py").arg(&socket).args(["pier-network", "serve"]))?;
        // A socket that is not there yet would make the engine start a daemon of its own.
        eventually(Duration::from_secs(5), || {
            ensure!(socket.exists(), "no socket yet");
            Ok(())
        })?;
        bed.serve("engine")?;
        bed.sh("pier network create --subnet 10.77.1.0/24 blue")?.ok()?;
        // The oldest: a child that is about to be another program has the same command line for a moment.
        let serving = || bed.sh("pgrep -of '^pier-network serve'");
        let first = serving()?.ok().with_context(|| bed.log("activated"))?.out().to_owned();
        let a = Place::on(bed, "blue", "a", "")?;
        a.look(bed, "10.77.1.1", "a", "a")?.ok()?.has("10.77.1.2")?;
        bed.sh(&format!("kill -9 {first}"))?.ok()?;
        a.look(bed, "10.77.1.1", "a", "a")?.ok()?.has("10.77.1.2")?;
        // Who asks meanwhile waits in the socket's queue: nobody is refused.
        bed.sh("pier network inspect blue")?.ok()?.has("10.77.1.0/24")?;
        let second = serving()?.ok()?.out().to_owned();
        ensure!(second != first, "one after the other: {first}, {second}");
        ensure!(socket.exists(), "the socket is its maker's to remove");
        bed.sh("pier network rm -f blue")?.ok()?;
        bed.sh("kill $(pgrep -f '[a]ctivate.py'); kill $(pgrep -f '^pier-network serve')")?;
        Ok(())
    })
}

/// A host that lets in what its chain `user` says, and no more.
const HOST_RULES: &str = "
table ip filter {
  chain user { }
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iifname lo accept
    jump user
  }
}
table ip6 filter {
  chain user { }
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    meta l4proto ipv6-icmp accept
    iifname lo accept
    jump user
  }
}
";

#[test]
fn udp_too_passes_the_hosts_rules_first() -> Result {
    isolated!(|bed| {
        let there = outside(bed)?;
        std::fs::write(bed.dir().join("rules"), HOST_RULES)?;
        bed.sh("nft -f rules")?.ok()?;
        pier(bed, "create first --subnet 10.77.1.0/24 --subnet fd77::/64 -o host_first=true")?.ok()?;
        let a = Place::on(bed, "first", "a", "-p 5353:53/udp -p 6000-6002:6000-6002/udp")?;
        for port in [53, 6001] {
            let listen =
                format!("exec socat UDP6-RECVFROM:{port},fork,ipv6only=0 SYSTEM:'read q; echo from $SOCAT_PEERADDR'");
            a.spawn(bed, &format!("udp{port}"), &listen)?;
        }
        eventually(Duration::from_secs(5), || a.sh(bed, "ss -Hlnu | wc -l")?.ok()?.has("2"))?;
        let ask = |address: &str| there.sh(bed, &format!("echo q | timeout 2 socat -T0.5 - UDP:{address}"));
        let all = ["198.51.100.1:5353", "198.51.100.1:6001", "[2001:db8::1]:5353"];
        for address in all {
            ask(address)?.without("from").with_context(|| format!("{address} is closed by the host"))?;
        }
        // The host itself always may.
        bed.sh("echo q | timeout 2 socat -T0.5 - UDP:198.51.100.1:5353")?.ok()?.has("from")?;
        for family in ["ip", "ip6"] {
            bed.sh(&format!("nft add rule {family} filter user udp dport {{ 5353, 6000-6002 }} accept"))?.ok()?;
        }
        for (address, client) in all.into_iter().zip(["c633:6402", "c633:6402", "2001:0db8"]) {
            // From the client's own address, the first packet included.
            ask(address)?.ok()?.has(client).with_context(|| format!("{address} is open"))?;
        }
        bed.sh("nft flush chain ip filter user")?.ok()?;
        // A flow that was let in goes on; a new one does not begin.
        ask("198.51.100.1:5353,sourceport=4711")?.without("from")?;
        pier(bed, "rm -f first")?.ok()?;
        bed.sh("nft delete table ip filter; nft delete table ip6 filter")?.ok()?;
        remove_outside(bed)
    })
}
