//! The tests of the tests: a leftover of each kind is found.
use integration::{Result, isolated};

#[test]
fn the_bed_is_alone() -> Result {
    isolated!(|bed| {
        bed.sh("ip -o link | wc -l")?.ok()?.has("1")?;
        bed.sh("ls /run; cat /proc/self/cgroup; echo $PIER_ROOT")?.ok()?.has(bed.root().to_str().unwrap_or("?"))
    })
}

#[test]
fn fixtures_run() -> Result {
    isolated!(|bed| {
        bed.fixture().bundle(&bed.dir().join("b"), &["echo", "hello"])?;
        bed.sh("runc --root $DIR/r run --bundle b one")?.ok()?.has("hello")
    })
}

#[test]
fn leftovers_are_found() -> Result {
    isolated!(|bed| {
        bed.sh("mkdir m && mount -t tmpfs none m && ip link add left0 type bridge && nft add table inet left && \
             mkdir /sys/fs/cgroup/pids/left && touch x.tmp; sleep 100 >/dev/null 2>&1 & echo $! >pid")?
            .ok()?;
        let left = bed.leftovers();
        for kind in ["mount ", "link left0", "nft table inet left", "cgroup ", "process ", "x.tmp"] {
            anyhow::ensure!(left.contains(kind), "{kind:?} not found in {left}");
        }
        bed.sh("kill $(cat pid); umount m; ip link del left0; nft delete table inet left; \
                rmdir /sys/fs/cgroup/pids/left; rm x.tmp")?
            .ok()?;
        Ok(())
    })
}
