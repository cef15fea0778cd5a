//! Networks as docker's users have them: `pier network`, `pier run --network`, `pier update --publish-add`.
use crate::cli::engine;
use crate::network::tcp;
use anyhow::ensure;
use integration::{Result, eventually, isolated};
use std::time::Duration;

const WEB: &str = "sh -c 'while :; do echo served | nc -l -p 80; done'";

#[test]
fn ports_of_a_running_container_come_and_go() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh(&format!("pier run -d --name web -p 18080:80 bb {WEB}"))?.ok()?;
        let reached = |port: u16| {
            eventually(Duration::from_secs(5), || bed.sh(&tcp(&format!("127.0.0.1:{port}")))?.ok()?.has("served"))
        };
        reached(18080)?;
        bed.sh("pier update --publish-add 18081:80 --publish-rm 18080:80 web")?.ok()?;
        reached(18081)?;
        bed.sh(&tcp("127.0.0.1:18080"))?.fails()?;
        bed.sh("pier port web")?.ok()?.with("18081")?.without("18080")?;
        bed.sh("pier update --publish-rm 18080:80 web")?.fails()?.has("does not publish")?;
        bed.sh("pier update web")?.fails()?.has("nothing to change")?;
        // It stays so over a restart, and can be changed while it is stopped.
        bed.sh("pier restart -t 0 web")?.ok()?;
        reached(18081)?;
        bed.sh("pier stop -t 0 web && pier update --publish-add 18082:80 web && pier start web")?.ok()?;
        reached(18082)?;
        bed.sh("pier rm -f web")?.ok().map(drop)
    })
}

#[test]
fn networks_are_joined_and_left_with_dockers_flags() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh(
            "pier network create --subnet 10.98.1.0/24 --aux-address printer=10.98.1.2 --attachable one && \
             pier network create --subnet 10.98.2.0/24 --ip-range 10.98.2.64/28 two && \
             pier network create --ipv4=false --ipv6 six && pier network create --config-only --subnet 10.98.3.0/24 model && \
             pier network create --config-from model made && pier network create -d veth pairs",
        )?
        .ok()?;
        bed.sh("pier run -d --name c --network one bb sleep 1000")?.ok()?;
        let inside = |script: &str| bed.sh(&format!("pier exec c sh -c '{script}'"));
        inside("ip addr; ip route")?.ok()?.with("10.98.1.3/24")?.has("default via 10.98.1.1 dev eth0")?;
        bed.sh("pier network connect --gw-priority 9 --ip 10.98.2.70 --mac-address 02:00:00:00:00:70 --alias other \
             --driver-opt com.docker.network.endpoint.ifname=lan0 two c")?
            .ok()?;
        inside("ip addr show lan0; ip route")?
            .ok()?
            .with("02:00:00:00:00:70")?
            .with("10.98.2.70/24")?
            .has("default via 10.98.2.1 dev lan0")?;
        for network in ["six", "made", "pairs"] {
            bed.sh(&format!("pier network connect {network} c"))?.ok()?;
        }
        inside("ip addr")?.ok()?.with("10.98.3.2/24")?.has("inet6 fd")?;
        bed.sh("pier network disconnect two c")?.ok()?;
        inside("ip route")?.ok()?.has("default via 10.98.1.1 dev eth0")?;
        // All of it again at the next start.
        bed.sh("pier restart -t 0 c")?.ok()?;
        let routes = inside("ip route; ip addr")?.ok()?;
        ensure!(
            routes.stdout.contains("10.98.1.1")
                && routes.stdout.contains("10.98.3.")
                && !routes.stdout.contains("lan0"),
            "{routes}"
        );
        bed.sh("pier rm -f c && pier network rm one two six made model pairs")?.ok().map(drop)
    })
}
