//! What the keeper needs for many endpoints.
use crate::network_place::pier;
use anyhow::{Context, ensure};
use integration::{Result, isolated};

/// Endpoints; more by PIER_MEMORY_ENDPOINTS.
fn endpoints() -> u64 {
    std::env::var("PIER_MEMORY_ENDPOINTS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

#[test]
fn the_keeper_stays_small() -> Result {
    isolated!(|bed| {
        let count = endpoints();
        pier(bed, "create blue --subnet 10.77.0.0/16")?.ok()?;
        // Each attach wakes it, and it reads all records and links.
        let attach = format!(
            "mkdir -p /run/netns && mount -t tmpfs none /run/netns && for i in $(seq {count}); do ip netns add k$i && \
             pier-network attach blue /run/netns/k$i --owner k$i --name k$i -p $((20000 + i)):80 || exit 1; done"
        );
        bed.sh(&attach)?.ok()?;
        // Its own memory; the rest are pages of the program's file.
        let keeper = "$(pgrep -f 'pier-network .*--run '$PIER_RUN' .*keep$')";
        let kib = bed.sh(&format!("awk '/^Anonymous/{{print $2}}' /proc/{keeper}/smaps_rollup"))?.ok()?;
        let kib: u64 = kib.out().parse().context("Anonymous of the keeper")?;
        println!("{count} endpoints: {kib} KiB in the keeper");
        ensure!(kib < 4096 + count * 18, "{kib} KiB");
        pier(bed, "rm -f blue")?.ok()?;
        bed.sh("ip -all netns delete; umount /run/netns")?.ok().map(drop)
    })
}
