//! Proportional memory: what one running container costs beside its own processes, and what idle daemons cost.
use super::arena::{Arena, pids_of, pss_kib};
use anyhow::Result;

const CONTAINERS: usize = 50;

/// Shims against conmon, and the daemons.
pub fn run(arena: &Arena) -> Result<()> {
    arena.engine()?;
    arena.sh("pier ps && pier images && pier volume ls && pier network ls && pier builder du >/dev/null 2>&1; true")?;
    println!("\nIdle daemons (PSS, KiB)\n| program | PSS |\n|---|---|");
    let mut sum = 0;
    for name in ["pierd", "pier-supervisor", "pier-distribution", "pier-network", "pier-volume", "pier-builder"] {
        let pss = pss_kib(&pids_of(name));
        sum += pss;
        println!("| {name} | {pss} |");
    }
    println!("| all | {sum} |");
    let peers = ["dockerd", "containerd"].map(|n| (n, pids_of(n)));
    for (name, pids) in peers.iter().filter(|(_, p)| !p.is_empty()) {
        println!("| {name} (peer, after its benchmark) | {} |", pss_kib(pids));
    }
    arena.sh(&format!(
        "for i in $(seq {CONTAINERS}); do pier run -d --network none --name m$i $REG/busybox:1 sleep 1000; done"
    ))?;
    let shims = pids_of("pier-shim");
    println!("\n{CONTAINERS} running (PSS, KiB per container)\n| program | PSS |\n|---|---|");
    println!("| pier-shim | {} |", pss_kib(&shims) / shims.len().max(1) as u64);
    println!("| pier-supervisor after it | {} |", pss_kib(&pids_of("pier-supervisor")));
    arena.sh("pier rm -f $(pier ps -q)")?;
    if arena.has("$PODMAN pull -q --tls-verify=false $REG/busybox:1") {
        arena.sh(&format!(
            "for i in $(seq {CONTAINERS}); do $PODMAN run -d --network none $REG/busybox:1 sleep 1000; done"
        ))?;
        let conmons = pids_of("conmon");
        println!("| conmon (podman) | {} |", pss_kib(&conmons) / conmons.len().max(1) as u64);
        arena.sh("$PODMAN rm -f -t 0 -a")?;
    }
    Ok(())
}
