//! `pier-network` against netavark, and CNI's bridge with portmap: one endpoint with one published port, made and undone;
//! fifty at once; traffic through a published port.
use super::arena::{Arena, Side};
use anyhow::Result;

/// netavark's own configuration of one network with one port; `$N` makes the address.
const NETAVARK: &str = r#"netavark() { sed "s/ADDRESS/10.202.$((N / 200)).$((N % 200 + 2))/" <<'END' | /usr/lib/podman/netavark --config $DIR/netavark $1 $2 >/dev/null
{"container_id": "c", "container_name": "c",
 "port_mappings": [{"container_port": 80, "host_ip": "", "host_port": 18202, "protocol": "tcp", "range": 1}],
 "networks": {"n": {"static_ips": ["ADDRESS"], "interface_name": "eth0"}},
 "network_info": {"n": {"name": "n", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
  "driver": "bridge", "network_interface": "nv0", "subnets": [{"subnet": "10.202.0.0/16", "gateway": "10.202.0.1"}],
  "ipv6_enabled": false, "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"}}}}
END
}; mkdir -p $DIR/netavark;"#;

/// CNI's reference plugins in a chain, as a runtime runs them.
const CNI: &str = r#"cni() { export CNI_COMMAND=$1 CNI_CONTAINERID=c$N CNI_NETNS=$2 CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni
 B="{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"bridge\",\"bridge\":\"cni0\",\"isGateway\":true,\"ipMasq\":true,\"ipam\":{\"type\":\"host-local\",\"dataDir\":\"$DIR/cni\",\"ranges\":[[{\"subnet\":\"10.203.0.0/16\"}]]}}"
 P='{"cniVersion":"1.0.0","name":"n","type":"portmap","runtimeConfig":{"portMappings":[{"hostPort":18203,"containerPort":80,"protocol":"tcp"}]},"prevResult":'
 if [ $1 = ADD ]; then R=$(echo "$B" | /usr/lib/cni/bridge); echo "$R" >$DIR/cni-result; echo "$P$R}" | /usr/lib/cni/portmap >/dev/null
 else echo "$P$(cat $DIR/cni-result)}" | /usr/lib/cni/portmap; echo "$B" | /usr/lib/cni/bridge; fi; };"#;

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
    many(arena)?;
    throughput(arena)?;
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

fn many(arena: &Arena) -> Result<()> {
    let before = "for i in $(seq 50); do ip netns add m$i; done";
    let script = "for i in $(seq 50); do pier-network attach n /run/netns/m$i --owner m$i -p $((19000+i)):80 >/dev/null & done; wait";
    let after = "for i in $(seq 50); do pier-network detach --owner m$i >/dev/null; ip netns del m$i; done";
    let side = Side { name: "pier-network".into(), before: before.into(), script: script.into(), after: after.into() };
    arena.race("50 attaches at once, each with a port", 3, &[side])
}

/// Gigabits a second, median of three: to the container's address over the bridge, and through the published port.
fn throughput(arena: &Arena) -> Result<()> {
    if !arena.has("command -v iperf3") {
        println!("throughput is left out: iperf3 is not installed");
        return Ok(());
    }
    arena.sh("ip netns add t && pier-network attach n /run/netns/t --owner t -p 18205:5201 >$DIR/t.json")?;
    arena.spawn("iperf3", "nsenter --net=/run/netns/t iperf3 -s")?;
    let address = arena.sh("jq -r '.addresses[0]' $DIR/t.json | cut -d/ -f1")?;
    let address = address.trim();
    arena.wait_for(&format!("iperf3 -c {address} -t 0.2"))?;
    println!("\nthroughput, Gbit/s\n| way | median of 3 |\n|---|---|");
    let mut medians = Vec::new();
    for (name, to) in
        [("the bridge", format!("-c {address}")), ("127.0.0.1, published", "-c 127.0.0.1 -p 18205".into())]
    {
        let mut rates = Vec::new();
        for _ in 0..3 {
            let text = arena.sh(&format!("iperf3 {to} -t 2 -J | jq '.end.sum_received.bits_per_second / 1e9'"))?;
            rates.push(text.trim().parse::<f64>().unwrap_or(0.0));
        }
        rates.sort_by(f64::total_cmp);
        println!("| {name} | {:.1} |", rates[1]);
        medians.push(rates[1]);
    }
    println!("published / bridge: {:.2}", medians[1] / medians[0]);
    arena.sh("pier-network detach --owner t >/dev/null; ip netns del t").map(drop)
}
