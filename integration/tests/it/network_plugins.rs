//! `pier-network` and the drivers of others: CNI in both directions, docker's network-driver protocol, DHCP servers.
use crate::network::{Netns, attach, outside, pier, remove_outside, tcp};
use crate::runtime::PIER;
use crate::runtime_callers::{present, sweep, with_podman};
use anyhow::{Context, ensure};
use integration::{Bed, Outcome, Result, eventually, isolated};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// Debian's directory of CNI plugins.
const CNI: &str = "/usr/lib/cni";

fn has_cni(test: &str) -> bool {
    let there = std::path::Path::new(CNI).join("bridge").exists();
    if !there {
        println!("skipped: {test}: CNI plugins are not installed");
    }
    there
}

fn executable(bed: &Bed, name: &str, body: &str) -> Result {
    let path = bed.dir().join(name);
    std::fs::create_dir_all(path.parent().context("a directory")?)?;
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
    Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?)
}

#[test]
fn cni_plugins_carry_traffic_as_a_driver() -> Result {
    isolated!(|bed| {
        if !has_cni("cni_plugins_carry_traffic_as_a_driver") {
            return Ok(());
        }
        let (a, b) = (Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        let list = r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [
            {"type": "bridge", "bridge": "cni7", "isGateway": true, "ipMasq": true, "capabilities": {"ips": true, "mac": true},
             "ipam": {"type": "host-local", "dataDir": "DIR/leases", "ranges": [[{"subnet": "10.90.0.0/24"}]],
                      "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "tuning", "mtu": 1400}]}"#;
        std::fs::write(bed.dir().join("x.conflist"), list.replace("DIR", &bed.dir().display().to_string()))?;
        let create = format!("create chained -d cni -o conflist=x.conflist -o cni.path={CNI}");
        pier(bed, &create)?.ok()?;
        let first = attach(bed, "chained", &a, "a", "-p 8080:80 --mac-address 02:00:00:00:00:42")?;
        let second = attach(bed, "chained", &b, "b", "")?;
        ensure!(first.starts_with("10.90.0.") && first != second, "{first} {second}");
        ensure!(attach(bed, "chained", &a, "a", "-p 8080:80")? == first, "a second attach is another endpoint");
        let inside = a.sh(bed, "ip -o link show eth0; ip route")?.ok()?;
        inside.with("02:00:00:00:00:42")?.with("mtu 1400")?.has("default via 10.90.0.1")?;
        a.answer(bed, "a")?;
        bed.sh(&tcp(&format!("{first}:80")))?.ok().context("from the host")?.has("hello a")?;
        b.ask(bed, &format!("{first}:80"))?.ok().context("between two")?.has("hello a")?;
        b.ask(bed, "10.90.0.1:8080")?.ok().context("the published port")?.has("hello a")?;
        // A chain that fails at its end is undone from there.
        executable(
            bed,
            "plugins/broken",
            "[ $CNI_COMMAND = ADD ] || exit 0; echo '{\"code\":11,\"msg\":\"not today\"}'; exit 1",
        )?;
        let broken = list.replace("DIR", &bed.dir().display().to_string()).replace("tuning", "broken");
        std::fs::write(bed.dir().join("broken.conflist"), broken)?;
        let path = format!("{CNI}:{}/plugins", bed.dir().display());
        pier(bed, &format!("create broken -d cni -o conflist=broken.conflist -o cni.path={path}"))?.ok()?;
        pier(bed, &format!("attach broken {} --owner c --interface eth7 -p 8081:80", b.path))?
            .exits(1)?
            .has("not today")?;
        b.sh(bed, "ip link show eth7")?.fails()?;
        bed.sh("iptables-save -t nat | grep -- --dport.8081")?.fails()?;
        ensure!(bed.sh("ls leases/* | grep -c 10.90")?.out() == "2", "an address is still leased");
        pier(bed, "detach --owner a")?.ok()?;
        a.sh(bed, "ip link show eth0")?.fails()?;
        bed.sh("iptables-save -t nat | grep -- --dport.8080")?.fails()?;
        // A namespace that vanished: the plugins are told all the same.
        bed.sh(&format!("kill $(echo {} | cut -d/ -f3)", b.path))?.ok()?;
        eventually(Duration::from_secs(5), || pier(bed, "reconcile")?.ok()?.has("was dead"))?;
        pier(bed, "endpoints --format json")?.ok()?.has("[]")?;
        for (text, why) in [
            ("{}", "not one of"),
            (r#"{"cniVersion": "1.0.0", "plugins": [{"type": "../bridge"}]}"#, "not the type"),
            (r#"{"cniVersion": "1.0.0", "plugins": [{"type": "unheard-of"}]}"#, "is not in"),
            (r#"{"cniVersion": "1.0.0", "plugins": []}"#, "names no plugins"),
        ] {
            std::fs::write(bed.dir().join("bad.conflist"), text)?;
            pier(bed, "create bad -d cni -o conflist=bad.conflist")?.exits(1)?.has(why)?;
        }
        pier(bed, "rm chained broken")?.ok()?;
        bed.sh("ip link del cni7; nft flush ruleset")?.ok().map(drop)
    })
}

#[test]
fn a_container_runtime_calls_it_as_a_cni_plugin() -> Result {
    isolated!(|bed| {
        if !present(bed, "a_container_runtime_calls_it_as_a_cni_plugin", "podman")? {
            return Ok(());
        }
        let caller = with_podman(bed, PIER)?;
        let dir = bed.dir().display();
        let list = format!(
            r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [{{"type": "pier-network", "root": "{dir}/stack", "run": "{dir}/stack-run",
                "subnets": [{{"subnet": "10.91.0.0/24"}}], "capabilities": {{"portMappings": true, "ips": true, "mac": true}}}}]}}"#
        );
        std::fs::create_dir_all(bed.dir().join("net.d"))?;
        std::fs::write(bed.dir().join("net.d/pods.conflist"), list)?;
        let programs = bed.program("pier-network");
        let programs = programs.parent().context("a directory")?.display();
        caller
            .run(&format!(
                "printf '[network]\\nnetwork_backend = \"cni\"\\ncni_plugin_dirs = [\"{programs}\"]\\nnetwork_config_dir = \"%s/net.d\"\\n' $PWD >>conf"
            ))?
            .ok()?;
        let web = "sh -c 'while :; do printf \"HTTP/1.0 200 OK\\r\\n\\r\\nserved\\n\" | nc -l -p 80; done'";
        caller.run(&format!("C run -d --name web --network pods --ip 10.91.0.77 -p 18080:80 bb {web}"))?.ok()?;
        caller.eventually("curl -sf --max-time 2 http://127.0.0.1:18080/ | grep served")?;
        let own = "pier-network --root $DIR/stack --run $DIR/stack-run";
        bed.sh(&format!("{own} endpoints --format json"))?.ok()?.with("10.91.0.77")?.has("\"host_port\": 18080")?;
        caller.eventually("curl -sf --max-time 2 http://10.91.0.77/ | grep served")?;
        caller.run("C run --rm --network pods bb ip addr show eth0")?.ok()?.has("10.91.0.")?;
        caller.run("C rm -f -t 0 web")?.ok()?;
        bed.sh(&format!("{own} endpoints --format json"))?.ok()?.has("[]")?;
        bed.sh(&format!("{own} rm -f pods"))?.ok()?;
        sweep(bed)
    })
}

#[test]
fn the_cni_protocol_to_the_letter() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        let conf = |more: &str| format!(r#"{{"cniVersion": "1.0.0", "name": "blue", "type": "pier-network"{more}}}"#);
        let call = |command: &str, conf: &str| {
            bed.sh(&format!(
                "CNI_COMMAND={command} CNI_CONTAINERID=c1 CNI_NETNS={} CNI_IFNAME=net1 CNI_PATH=/x pier-network <<'END'\n{conf}\nEND",
                a.path
            ))
        };
        call("VERSION", &conf(""))?.ok()?.with("supportedVersions")?.has("1.1.0")?;
        call("STATUS", &conf(""))?.ok()?;
        let more = r#", "subnets": [{"subnet": "10.92.0.0/24"}, {"subnet": "fd92::/64"}],
                      "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}"#;
        let added = call("ADD", &conf(more))?.ok()?.json()?;
        ensure!(added["ips"][0]["address"] == "10.92.0.2/24" && added["ips"][0]["gateway"] == "10.92.0.1", "{added}");
        ensure!(added["interfaces"][1]["name"] == "net1" && added["interfaces"][1]["sandbox"] == a.path, "{added}");
        ensure!(added["ips"][0]["interface"] == 1 && added["ips"][0]["version"].is_null(), "{added}");
        ensure!(added["routes"][0]["dst"] == "0.0.0.0/0" && added["cniVersion"] == "1.0.0", "{added}");
        a.answer(bed, "a")?;
        bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a")?;
        call("CHECK", &conf(""))?.ok()?;
        a.sh(bed, "ip addr del 10.92.0.2/24 dev net1")?.ok()?;
        call("CHECK", &conf(""))?.exits(1)?.has("10.92.0.2")?;
        let keeps = r#", "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "net1"}]"#;
        call("GC", &conf(keeps))?.ok()?;
        a.sh(bed, "ip link show net1")?.ok()?;
        call("GC", &conf(r#", "cni.dev/valid-attachments": []"#))?.ok()?;
        a.sh(bed, "ip link show net1")?.fails()?;
        call("DEL", &conf(""))?.ok()?;
        call("DEL", &conf(""))?.ok()?;
        for (command, text, code) in [
            ("ADD", "nonsense".to_owned(), "\"code\":6"),
            ("ADD", conf("").replace("1.0.0", "9.0.0"), "\"code\":1,"),
            ("ADD", conf("").replace("blue", ""), "\"code\":7"),
            ("ADD", conf(r#", "prevResult": {}"#), "\"code\":7"),
            ("DANCE", conf(""), "\"code\":4"),
            ("CHECK", conf(""), "\"code\":100"),
            ("GC", conf(""), "\"code\":7"),
        ] {
            call(command, &text)?.exits(1)?.has(code)?;
        }
        let old = call("ADD", &conf("").replace("1.0.0", "0.3.1"))?.ok()?.json()?;
        ensure!(old["ips"][0]["version"] == "4" && old["ips"][1]["version"] == "6", "{old}");
        call("DEL", &conf(""))?.ok()?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn a_driver_in_dockers_protocol_carries_traffic_and_hangs_alone() -> Result {
    isolated!(|bed| {
        let (a, b, c) = (Netns::new(bed, "a")?, Netns::new(bed, "b")?, Netns::new(bed, "c")?);
        let script = std::path::absolute("fixtures/network-driver.py")?;
        let mut command = bed.command("python3");
        command.arg(&script).arg("/run/docker/plugins/toy.sock");
        pier(bed, "create toys -d toy")?.exits(1)?.has("no plugin of that name")?;
        let driver = bed.spawn("toy", &mut command)?;
        eventually(Duration::from_secs(5), || {
            std::os::unix::net::UnixStream::connect("/run/docker/plugins/toy.sock")?;
            Ok(())
        })?;
        pier(bed, "create toys -d toy --subnet 10.93.0.0/24 -o timeout=2")?.ok()?;
        pier(bed, "create blue --subnet 10.94.0.0/24")?.ok()?;
        let first = attach(bed, "toys", &a, "a", "")?;
        attach(bed, "toys", &b, "b", "--interface toy0")?;
        a.answer(bed, "a")?;
        b.ask(bed, &format!("{first}:80"))?.ok()?.has("hello a")?;
        bed.sh(&tcp(&format!("{first}:80")))?.ok()?.has("hello a")?;
        a.sh(bed, "ip route")?.ok()?.has("default via 10.93.0.1")?;
        // Hung: its own call ends in its time, and nobody else waits.
        driver.signal("STOP")?;
        let slow = bed.spawn("slow", bed.command("pier-network").args(["attach", "toys", &c.path, "--owner", "c"]))?;
        std::thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        attach(bed, "blue", &c, "c", "--interface other0")?;
        pier(bed, "detach --owner c --network blue")?.ok()?;
        ensure!(begun.elapsed() < Duration::from_secs(1), "others waited {:?}", begun.elapsed());
        ensure!(slow.pid() > 0 && bed.log("slow").is_empty(), "the hung call ended early: {}", bed.log("slow"));
        // At most: activate, the call, and what it takes to undo, each with its limit.
        eventually(Duration::from_secs(8), || {
            ensure!(bed.log("slow").contains("did not answer within 2s"), "{}", bed.log("slow"));
            Ok(())
        })?;
        driver.signal("CONT")?;
        eventually(Duration::from_secs(5), || {
            ensure!(pier(bed, "endpoints --owner c --format json")?.ok()?.out() == "[]", "still recorded");
            Ok(())
        })?;
        pier(bed, "rm toys")?.exits(1)?.has("a, b")?;
        pier(bed, "detach --owner a")?.ok()?;
        a.sh(bed, "ip link show eth0")?.fails()?;
        pier(bed, "rm -f toys")?.ok()?;
        bed.sh("ip -o link | grep -E ' p[yhc][0-9a-f]{8}'")?.fails()?;
        // Gone for good: by force the records go all the same.
        pier(bed, "create toys -d toy --subnet 10.93.0.0/24 -o timeout=2")?.ok()?;
        driver.kill()?;
        pier(bed, "rm toys")?.exits(1)?.has("driver toy")?;
        pier(bed, "rm -f toys")?.ok()?;
        bed.sh("ip link del $(ip -o link | sed -n 's/.* \\(py[0-9a-f]*\\):.*/\\1/p')")?.ok()?;
        pier(bed, "rm -f blue")?.ok().map(drop)
    })
}

#[test]
fn an_address_by_dhcp_is_leased_renewed_and_given_back() -> Result {
    isolated!(|bed| {
        let (there, a, b) = (outside(bed)?, Netns::new(bed, "a")?, Netns::new(bed, "b")?);
        let conf = format!(
            "start 198.51.100.50\nend 198.51.100.59\ninterface up0\nmax_leases 10\nlease_file {0}/udhcpd.leases\npidfile \
             {0}/udhcpd.pid\nauto_time 1\nmin_lease 2\noption subnet 255.255.255.0\noption router 198.51.100.2\noption dns \
             198.51.100.2\noption lease 6\n",
            bed.dir().display()
        );
        std::fs::write(bed.dir().join("udhcpd.conf"), conf)?;
        bed.sh("touch udhcpd.leases")?.ok()?;
        pier(bed, "create lan -d macvlan -o parent=up0 --ipam-driver dhcp")?.ok()?;
        // Nobody answers yet: an error in time, everything undone, and nobody else waited.
        let slow = bed.spawn("slow", bed.command("pier-network").args(["attach", "lan", &b.path, "--owner", "b"]))?;
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        pier(bed, "create blue --subnet 10.95.0.0/24")?.ok()?;
        attach(bed, "blue", &a, "a", "--no-default-route")?;
        ensure!(slow.pid() > 0 && begun.elapsed() < Duration::from_secs(5), "others waited {:?}", begun.elapsed());
        pier(bed, "reconcile")?.ok()?.without("half attached")?;
        eventually(Duration::from_secs(40), || {
            ensure!(bed.log("slow").contains("no DHCP server answered"), "{}", bed.log("slow"));
            Ok(())
        })?;
        b.sh(bed, "ip link show eth0")?.fails()?;
        let mut server = bed.command("nsenter");
        server.arg(format!("--net={}", there.path)).args(["busybox", "udhcpd", "-f", "udhcpd.conf"]);
        bed.spawn("udhcpd", &mut server)?;
        let daemon = bed.serve("network")?;
        let address = attach(bed, "lan", &b, "b", "")?;
        ensure!(address.starts_with("198.51.100.5"), "{address}");
        b.sh(bed, "ip route; ip addr show eth0")?
            .ok()?
            .with("default via 198.51.100.2")?
            .has(&format!("{address}/24"))?;
        there.answer(bed, "outside")?;
        b.ask(bed, "198.51.100.2:80")?.ok()?.has("hello outside")?;
        let ends = || -> Result<u64> {
            let endpoints = pier(bed, "endpoints --owner b --format json")?.ok()?.json()?;
            endpoints[0]["state"]["ends"].as_u64().context("no end of a lease")
        };
        let first = ends()?;
        eventually(Duration::from_secs(30), || {
            ensure!(ends()? > first, "not renewed");
            Ok(())
        })?;
        pier(bed, "detach --owner b")?.ok()?;
        b.sh(bed, "ip link show eth0")?.fails()?;
        // udhcpd tells of a lease that was given back by its end in the past.
        eventually(Duration::from_secs(20), || bed.sh("busybox dumpleases -f udhcpd.leases -r")?.ok()?.has("expired"))?;
        pier(bed, "rm -f lan blue")?.ok()?;
        daemon.stop()?;
        remove_outside(bed)
    })
}

/// A driver over gRPC: each endpoint is a pair whose host's end holds the gateway's address.
struct Toy;

fn ip(line: &str) -> std::result::Result<(), tonic::Status> {
    let output = std::process::Command::new("ip").args(line.split(' ')).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        other => Err(tonic::Status::internal(format!("ip {line}: {other:?}"))),
    }
}

mod toy {
    use super::{Toy, ip};
    use api::network_driver::v1::driver_service_server::DriverService;
    use api::network_driver::v1::*;
    use tonic::{Request, Response, Status};

    #[tonic::async_trait]
    impl DriverService for Toy {
        async fn get_info(&self, _: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
            Ok(Response::new(GetInfoResponse { version: "1".into() }))
        }
        async fn create_network(
            &self,
            request: Request<CreateNetworkRequest>,
        ) -> Result<Response<CreateNetworkResponse>, Status> {
            match request.get_ref().options.get("refuse") {
                Some(why) => Err(Status::failed_precondition(why)),
                None => Ok(Response::new(CreateNetworkResponse {})),
            }
        }
        async fn remove_network(
            &self,
            _: Request<RemoveNetworkRequest>,
        ) -> Result<Response<RemoveNetworkResponse>, Status> {
            Ok(Response::new(RemoveNetworkResponse {}))
        }
        async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
            let id = request.get_ref().endpoint_id[..8].to_owned();
            ip(&format!("link add gh{id} type veth peer name gc{id}"))?;
            ip(&format!("addr add 10.97.0.1/24 dev gh{id}"))?;
            ip(&format!("link set gh{id} up"))?;
            let route = Route { destination: "172.22.0.0/16".into(), gateway: "10.97.0.1".into() };
            Ok(Response::new(AttachResponse {
                link: format!("gc{id}"),
                addresses: vec!["10.97.0.77/24".into()],
                gateways: vec!["10.97.0.1".into()],
                routes: vec![route],
                ..Default::default()
            }))
        }
        async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
            let _ = ip(&format!("link del gh{}", &request.get_ref().endpoint_id[..8]));
            Ok(Response::new(DetachResponse {}))
        }
    }
}

#[test]
fn a_driver_over_grpc_carries_traffic() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        let drivers = bed.run().join("network/drivers");
        std::fs::create_dir_all(&drivers)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(drivers.join("toy.sock")) })?;
        let service = api::network_driver::v1::driver_service_server::DriverServiceServer::new(Toy);
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        pier(bed, "create toys -d toy --subnet 10.97.0.0/24 -o refuse=never")?.exits(1)?.has("never")?;
        pier(bed, "ls")?.ok()?.without("toys")?;
        pier(bed, "create toys -d toy --subnet 10.97.0.0/24")?.ok()?;
        let address = attach(bed, "toys", &a, "a", "")?;
        ensure!(address == "10.97.0.77", "{address}: the driver's choice is not kept");
        a.sh(bed, "ip route")?.ok()?.with("default via 10.97.0.1")?.has("172.22.0.0/16 via 10.97.0.1")?;
        a.answer(bed, "a")?;
        bed.sh(&tcp(&format!("{address}:80")))?.ok()?.has("hello a")?;
        pier(bed, "rm -f toys")?.ok()?;
        a.sh(bed, "ip link show eth0")?.fails()?;
        runtime.shutdown_background();
        Ok(())
    })
}

/// A network namespace of an ordinary user, who has `pier-network` in /run/u; it has to unmount /dev/net/tun in the end.
pub(crate) fn unprivileged(bed: &Bed) -> Result<String> {
    // The device of tunnels is root's on some machines.
    bed.sh(
        "mkdir -p /run/u && cp $(command -v pier-network) /run/u/ && mknod /run/u/tun c 10 200 && chmod 666 /run/u/tun && \
         touch /dev/net/tun && mount --bind /run/u/tun /dev/net/tun && chown -R 1000:1000 /run/u",
    )?
    .ok()?;
    let sandbox = bed.spawn("sandbox", bed.command("setpriv").args(USER).args(["unshare", "-Urn", "sleep", "1000"]))?;
    let path = format!("/proc/{}/ns/net", sandbox.pid());
    let own = std::fs::read_link("/proc/self/ns/net")?;
    eventually(Duration::from_secs(5), || {
        ensure!(std::fs::read_link(&path)? != own, "not unshared yet");
        Ok(())
    })?;
    Ok(path)
}

/// A verb of `pier-network` as that user.
pub(crate) fn as_user(bed: &Bed, path: &str, line: &str) -> Result<Outcome> {
    let user = USER.join(" ");
    bed.sh(&format!(
        "cd /run/u; PATH={path} PIER_ROOT=/run/u/root PIER_RUN=/run/u/run $(command -v setpriv) {user} ./pier-network \
         --error-format json {line}"
    ))
}

const USER: [&str; 3] = ["--reuid=1000", "--regid=1000", "--clear-groups"];

#[test]
fn an_unprivileged_users_namespace_is_wired() -> Result {
    isolated!(|bed| {
        if !present(bed, "an_unprivileged_users_namespace_is_wired", "pasta")? {
            return Ok(());
        }
        let there = outside(bed)?;
        // pasta takes addresses from the link of the default route.
        bed.sh("ip route add default via 198.51.100.2")?.ok()?;
        let path = unprivileged(bed)?;
        let user = |line: &str| as_user(bed, "$PATH", line);
        user("create mine -d rootless")?.ok()?;
        user(&format!("attach mine {path} --owner a -p 80:80"))?
            .exits(1)?
            .with("PORT_PRIVILEGED")?
            .has("ip_unprivileged_port_start")?;
        bed.spawn("listener", bed.command("socat").args(["TCP-LISTEN:7000,fork,reuseaddr", "EXEC:echo host"]))?;
        eventually(Duration::from_secs(5), || bed.sh(&tcp("127.0.0.1:7000"))?.ok()?.has("host"))?;
        user(&format!("attach mine {path} --owner a -p 7000:80"))?.exits(1)?.has("PORT_IN_USE")?;
        user("endpoints --format json")?.ok()?.has("[]")?;
        user(&format!("attach mine {path} --owner a -p 8080:80 --interface eth0"))?.ok()?;
        let a = Netns { path: path.clone() };
        a.sh(bed, "ip link set lo up")?.ok()?;
        let mut server = bed.command("nsenter");
        server.arg(format!("--net={path}")).args(["socat", "TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0"]);
        bed.spawn("server", server.arg("SYSTEM:read q; echo from $SOCAT_PEERADDR"))?;
        // The client's own address, as the server sees it.
        eventually(Duration::from_secs(5), || {
            there.sh(bed, "echo q | timeout 2 socat -T1 - TCP:198.51.100.1:8080")?.ok()?.has("c633:6402")
        })?;
        there.answer(bed, "outside")?;
        a.ask(bed, "198.51.100.2:80")?.ok().context("the way out")?.has("hello outside")?;
        user("detach --owner a")?.ok()?;
        bed.sh(&tcp("127.0.0.1:8080"))?.fails()?;
        bed.sh("pgrep -x pasta; pgrep -x pasta.avx2")?.fails()?;
        user("rm mine")?.ok()?;
        bed.sh("umount /dev/net/tun; ip route del default")?.ok()?;
        remove_outside(bed)
    })
}
