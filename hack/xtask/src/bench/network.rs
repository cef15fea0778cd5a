//! `pier-network` against netavark, and CNI's bridge with portmap: one endpoint with one published port, made and undone;
//! fifty at once; traffic through a published port; what the processes that stay take of memory.
use super::arena::{Arena, Side, command_lines, pss_kib};
use super::run::start_docker;
use anyhow::Result;

/// netavark's own configuration of one network with one port; `$N` makes the address.
const NETAVARK: &str = r#"netavark() { sed "s/ADDRESS/10.202.$((N / 200)).$((N % 200 + 2))/; s/PORT/${PORT:-18202}/; s/ID/c$N/g" <<'END' | /usr/lib/podman/netavark --config $DIR/netavark $1 $2 >/dev/null
{"container_id": "ID", "container_name": "ID",
 "port_mappings": [{"container_port": 80, "host_ip": "", "host_port": PORT, "protocol": "tcp", "range": 1}],
 "networks": {"n": {"static_ips": ["ADDRESS"], "interface_name": "eth0"}},
 "network_info": {"n": {"name": "n", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
  "driver": "bridge", "network_interface": "nv0", "subnets": [{"subnet": "10.202.0.0/16", "gateway": "10.202.0.1"}],
  "ipv6_enabled": false, "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"}}}}
END
}; mkdir -p $DIR/netavark;"#;

/// CNI's reference plugins in a chain, as a runtime runs them.
const CNI: &str = r#"cni() { export CNI_COMMAND=$1 CNI_CONTAINERID=c$N CNI_NETNS=$2 CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni
 B="{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"bridge\",\"bridge\":\"cni0\",\"isGateway\":true,\"ipMasq\":true,\"ipam\":{\"type\":\"host-local\",\"dataDir\":\"$DIR/cni\",\"ranges\":[[{\"subnet\":\"10.203.0.0/16\"}]],\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}}"
 P='{"cniVersion":"1.0.0","name":"n","type":"portmap","runtimeConfig":{"portMappings":[{"hostPort":'${PORT:-18203}',"containerPort":80,"protocol":"tcp"}]},"prevResult":'
 if [ $1 = ADD ]; then R=$(echo "$B" | /usr/lib/cni/bridge); echo "$R" >$DIR/cni-result$N; echo "$P$R}" | /usr/lib/cni/portmap >/dev/null
 else echo "$P$(cat $DIR/cni-result$N)}" | /usr/lib/cni/portmap; echo "$B" | /usr/lib/cni/bridge; fi; };"#;

/// What makes each side's endpoint in the namespace `n`, and what undoes it.
struct Peer {
    name: &'static str,
    prelude: &'static str,
    attach: &'static str,
    detach: &'static str,
}

const PEERS: [Peer; 3] = [
    Peer {
        name: "pier-network",
        prelude: "",
        attach: "pier-network attach n /run/netns/n --owner c -p 18201:80 >/dev/null",
        detach: "pier-network detach --owner c >/dev/null",
    },
    Peer {
        name: "netavark",
        prelude: NETAVARK,
        attach: "netavark setup /run/netns/n",
        detach: "netavark teardown /run/netns/n",
    },
    Peer { name: "CNI bridge + portmap", prelude: CNI, attach: "cni ADD /run/netns/n", detach: "cni DEL /run/netns/n" },
];

/// Attach, detach, many at once, throughput.
pub fn run(arena: &Arena) -> Result<()> {
    arena.sh("mkdir -p /run/netns")?;
    // One endpoint is there throughout: a machine that runs containers has its bridge and its holder of ports.
    arena.sh("pier-network create n --subnet 10.201.0.0/16 && ip netns add keep && pier-network attach n /run/netns/keep --owner keep -p 18299:80")?;
    let there: Vec<&Peer> = PEERS.iter().filter(|peer| installed(arena, peer)).collect();
    let sides = |script: &dyn Fn(&Peer) -> [String; 3]| -> Vec<Side> {
        let side = |peer: &&Peer| {
            let [before, script, after] = script(peer).map(|text| format!("{} {text}", peer.prelude));
            Side { name: peer.name.into(), before, script, after }
        };
        there.iter().map(side).collect()
    };
    let attach =
        |peer: &Peer| ["ip netns add n".into(), peer.attach.into(), format!("{}; ip netns del n", peer.detach)];
    arena.race("attach with one published port", 15, &sides(&attach))?;
    let detach =
        |peer: &Peer| [format!("ip netns add n; {}", peer.attach), peer.detach.into(), "ip netns del n".into()];
    arena.race("detach", 15, &sides(&detach))?;
    many(arena, &there)?;
    throughput(arena, &there)?;
    memory(arena)?;
    arena.sh("pier-network rm -f n; ip netns del keep").map(drop)
}

fn installed(arena: &Arena, peer: &Peer) -> bool {
    let test = match peer.name {
        "netavark" => "test -x /usr/lib/podman/netavark",
        "pier-network" => "true",
        _ => "test -x /usr/lib/cni/bridge",
    };
    let there = arena.has(test);
    if !there {
        println!("{} is left out: it is not installed", peer.name);
    }
    there
}

/// The host's CPUs are the same for all: what one side waits for, another does meanwhile.
fn many(arena: &Arena, peers: &[&Peer]) -> Result<()> {
    let each = |what: &str| format!("for i in $(seq 50); do ( {what} ) & done; wait");
    let side = |peer: &&Peer| {
        let [attach, detach] = [peer.attach, peer.detach].map(|text| {
            let text = text.replace("netns/n", "netns/m$i").replace("--owner c", "--owner m$i");
            format!("N=$((N * 50 + i)); PORT=$((19000 + i)); {}", text.replace("18201", "$PORT"))
        });
        let before = format!("{} for i in $(seq 50); do ip netns add m$i; done", peer.prelude);
        let after = format!("{} for i in $(seq 50); do ( {detach} ); ip netns del m$i; done", peer.prelude);
        Side { name: peer.name.into(), before, script: format!("{} {}", peer.prelude, each(&attach)), after }
    };
    arena.race("50 attaches at once, each with a port", 3, &peers.iter().map(side).collect::<Vec<_>>())
}

/// A way to a server in a namespace: what makes it, what undoes it, and where a client connects to.
struct Way {
    name: String,
    make: String,
    client: String,
    undo: String,
}

/// A second each, client and server on a CPU of their own; still single ones differ by half on a shared machine.
const RATES: usize = 21;
/// From where the client comes: the host itself, and a neighbour whose packets the host routes.
const CLIENTS: [(&str, &str); 2] = [("the host", ""), ("a neighbour", "nsenter --net=/run/netns/neighbour ")];
const NEIGHBOUR: &str = "ip netns add neighbour && ip link add nb0 type veth peer name eth0 netns neighbour && \
    ip addr add 192.0.2.1/24 dev nb0 && ip link set nb0 up && ip -n neighbour addr add 192.0.2.2/24 dev eth0 && \
    ip -n neighbour link set eth0 up && ip -n neighbour route add default via 192.0.2.1";

/// Gigabits a second, median of [`RATES`] rounds that take turns: over a bridge that nobody has rules for, and through a
/// published port at an address of the host. With the kernel's own congestion control: where BBR is the default, its
/// timer would be measured.
fn throughput(arena: &Arena, peers: &[&Peer]) -> Result<()> {
    if !arena.has("command -v iperf3") {
        println!("throughput is left out: iperf3 is not installed");
        return Ok(());
    }
    arena.sh(&format!("ip addr add 198.51.100.7/32 dev lo && {NEIGHBOUR}"))?;
    let mut ways = vec![bare_bridge()];
    for (number, peer) in peers.iter().enumerate() {
        let netns = format!("t{number}");
        let own = |text: &str| {
            let text =
                text.replace("netns/n", &format!("netns/{netns}")).replace("--owner c", &format!("--owner {netns}"));
            format!("N=19{number}; PORT=1820{}; {} {text}", number + 1, peer.prelude)
        };
        ways.push(Way {
            name: format!("{}, published", peer.name),
            make: format!("ip netns add {netns}; {}", own(peer.attach)),
            client: format!("-c 198.51.100.7 -p 1820{}", number + 1),
            undo: format!("{}; ip netns del {netns}", own(peer.detach)),
        });
    }
    for (number, way) in ways.iter().enumerate() {
        arena.sh(&way.make)?;
        let netns = if number == 0 { "bare".to_owned() } else { format!("t{}", number - 1) };
        arena.spawn(&format!("iperf3-{netns}"), &format!("nsenter --net=/run/netns/{netns} iperf3 -s -p 80"))?;
    }
    let docker = "docker -H unix://$DIR/d.sock";
    let container =
        format!("{docker} import $BUSYBOX_TAR bench && {docker} run -d --name bench -p 18209:80 bench sleep 1000");
    if start_docker(arena, &container) {
        arena.spawn(
            "iperf3-docker",
            &format!("nsenter --net=/proc/$({docker} inspect -f '{{{{.State.Pid}}}}' bench)/ns/net iperf3 -s -p 80"),
        )?;
        ways.push(Way {
            name: "docker, published".into(),
            make: String::new(),
            client: "-c 198.51.100.7 -p 18209".into(),
            undo: format!("{docker} rm -f bench"),
        });
    }
    for (from, enter) in CLIENTS {
        for way in &ways {
            arena.wait_for(&format!("{enter}timeout 5 iperf3 {} -n 64K", way.client))?;
        }
        print_rates(arena, &ways, from, enter)?;
    }
    ways.iter().try_for_each(|way| arena.sh(&way.undo).map(drop))?;
    arena.sh("ip addr del 198.51.100.7/32 dev lo; ip netns del neighbour").map(drop)
}

fn bare_bridge() -> Way {
    Way {
        name: "bare bridge".into(),
        make: "ip netns add bare && ip link add bare0 type bridge && ip addr add 10.204.0.1/24 dev bare0 && ip link set bare0 up && \
               ip link add barev type veth peer name eth0 netns bare && ip link set barev master bare0 up && \
               ip -n bare addr add 10.204.0.2/24 dev eth0 && ip -n bare link set eth0 up && \
               ip -n bare route add default via 10.204.0.1"
            .into(),
        client: "-c 10.204.0.2 -p 80".into(),
        undo: "ip netns del bare; ip link del bare0".into(),
    }
}

fn print_rates(arena: &Arena, ways: &[Way], from: &str, enter: &str) -> Result<()> {
    let mut rates = vec![Vec::new(); ways.len()];
    for _ in 0..RATES {
        for (way, rates) in ways.iter().zip(&mut rates) {
            let client = format!("{enter}timeout 20 iperf3 {} -C cubic -A 0,1 -t 1 -J", way.client);
            let rate = arena.sh(&format!("{client} | jq '.end.sum_received.bits_per_second / 1e9'"))?;
            rates.push(rate.trim().parse::<f64>()?);
        }
    }
    println!("\nthroughput from {from}, Gbit/s (n={RATES})\n| way | median | to the bare bridge's |\n|---|---|---|");
    let mut bare = 0.0;
    for (way, rates) in ways.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        if bare == 0.0 {
            bare = rates[RATES / 2];
        }
        println!("| {} | {:.1} | {:.2} |", way.name, rates[RATES / 2], rates[RATES / 2] / bare);
    }
    Ok(())
}

/// The processes of a stack with 500 endpoints, each with a port and a name.
fn memory(arena: &Arena) -> Result<()> {
    arena.sh(
        "for i in $(seq 500); do ip netns add k$i; pier-network attach n /run/netns/k$i --owner k$i --name k$i -p $((20000 + i)):80 >/dev/null; done",
    )?;
    arena.spawn("pier-network", "pier-network serve")?;
    arena.wait_for("test -S $PIER_RUN/network.sock && pier-network check")?;
    println!("\n500 endpoints, each with a port and a name (PSS, KiB)\n| process | PSS |\n|---|---|");
    for (name, words) in
        [("daemon", "serve"), ("keeper: names, the firewall's guard", "keep"), ("holder of ports", "hold-ports")]
    {
        let of = |line: &[String]| line[0].ends_with("pier-network") && line.iter().any(|word| word == words);
        let pids: Vec<u32> = command_lines().into_iter().filter(|(_, line)| of(line)).map(|(pid, _)| pid).collect();
        println!("| {name} | {} |", pss_kib(&pids));
    }
    arena.sh("pier-network rm -f n && pier-network create n --subnet 10.201.0.0/16 && for i in $(seq 500); do ip netns del k$i; done")
        .map(drop)
}
