//! What a container may do on a network of its own without rights over it: also in a user namespace, where the network belongs
//! to the machine's root.
use crate::network::tcp;
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

fn engine(bed: &Bed) -> Result {
    bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} bb", bed.fixture().busybox_tar()?.display()))?
        .ok()?;
    bed.serve("engine").map(drop)
}

const WEB: &str = "sh -c 'while :; do echo served | nc -l -p 80; done'";

#[test]
fn ports_below_1024_are_published() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        for (name, flags, port) in
            [("a", "--userns auto", 18080), ("b", "-u www", 18081), ("c", "--userns auto -u www", 18082)]
        {
            bed.sh(&format!("pier run -d --name {name} {flags} -p {port}:80 bb {WEB}"))?.ok()?;
            eventually(Duration::from_secs(5), || {
                bed.sh(&tcp(&format!("127.0.0.1:{port}")))?.ok()?.has("served")?;
                Ok(())
            })?;
        }
        // From one to the other, by its name, after a restart of the container too.
        bed.sh("pier restart -t 0 a; pier run --rm --userns auto bb sh -c 'sleep 0.5; nc a 80 </dev/null'")?
            .ok()?
            .has("served")?;
        bed.sh("pier rm -f a b c").map(drop)
    })
}

/// One echo by a socket for which no capability is needed (icmp(7)): busybox's ping knows only the other kind.
const PING: &str = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.settimeout(2); \
    s.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]), (sys.argv[1], 0)); print('answer', s.recv(64)[0])";

#[test]
fn ping_needs_no_privilege() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run -d --name a bb sleep 100")?.ok()?;
        for (flags, enter) in [("--userns auto", "-U -n"), ("-u www --cap-drop ALL", "-n")] {
            bed.sh(&format!(
                "pier run -d --name b {flags} bb sleep 100 >/dev/null; pid=$(pier inspect b --format '{{{{.State.Pid}}}}')
                 to=$(pier inspect a --format '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}}')
                 nsenter -t $pid {enter} --setuid 33 --setgid 33 python3 -c \"{PING}\" $to; e=$?; pier rm -f b; exit $e"
            ))?
            .ok()?
            .has("answer 0")?;
        }
        bed.sh("pier rm -f a").map(drop)
    })
}

#[test]
fn settings_of_its_network() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        let ttl = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/net/ipv4/ip_unprivileged_port_start";
        for flags in ["", "--userns auto", "--userns auto --network none"] {
            bed.sh(&format!("pier run --rm {flags} --sysctl net.ipv4.ip_default_ttl=42 bb {ttl}"))?
                .ok()?
                .has("42\n0")?;
            bed.sh(&format!("pier run --rm {flags} --sysctl net.ipv4.ip_unprivileged_port_start=80 bb {ttl}"))?
                .ok()?
                .has("64\n80")?;
        }
        bed.sh(ttl)?.ok()?.has("64\n1024")?;
        bed.sh("pier run -d --name a bb sleep 100 >/dev/null; pier run --rm --userns auto --network container:a --sysctl net.ipv4.ip_default_ttl=42 bb true")?
            .exits(125)?
            .has("whose network it is")?;
        bed.sh("pier run --rm --userns auto --network container:a bb cat /proc/sys/net/ipv4/ip_unprivileged_port_start; pier rm -f a")?
            .ok()?
            .has("0\n")
            .map(drop)
    })
}
