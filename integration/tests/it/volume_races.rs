//! What somebody who shares a volume does to it meanwhile: links in the place of files, mounts and references that a killed
//! process left.
use crate::volume_plugin::driver;
use integration::{Bed, Result, isolated};

/// `d/f` of the volume `v`, and `link`, which leads to a directory of the host with a file of that name.
const SHARED: &str = "set -e; pier-volume create v; mkdir secret; echo secret >secret/f; D=$(pier-volume inspect v | jq -r .[0].mountpoint)
    mkdir $D/d; echo own >$D/d/f; ln -s $DIR/secret $D/link";

/// Exchanges two names as fast as it can.
const EXCHANGE: &str = "import ctypes, sys
while True: ctypes.CDLL(None).renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2)";

fn exchanging(bed: &Bed, one: &str, other: &str) -> Result<integration::Daemon> {
    let data = bed.sh("pier-volume inspect v | jq -r .[0].mountpoint")?;
    let names = [one, other].map(|name| format!("{}/{name}", data.out()));
    bed.spawn("exchange", bed.command("python3").args(["-c", EXCHANGE]).args(names))
}

/// Every look is slowed down, so that what was looked at is another file by the time it is read.
const SLOW: &str =
    "strace -f -o /dev/null -e trace=statx,newfstatat,lstat -e inject=statx,newfstatat,lstat:delay_exit=3000";

#[test]
fn copies_of_a_volume_in_use_stay_inside() -> Result {
    isolated!(|bed| {
        bed.sh(SHARED)?.ok()?;
        let exchange = exchanging(bed, "d", "link")?;
        bed.sh(&format!("set -e; for n in $(seq 8); do {SLOW} pier-volume export v >$n.tar; {SLOW} pier-volume snapshot create v s$n; {SLOW} pier-volume clone v c$n; done >/dev/null"))?
            .ok()?;
        exchange.kill()?;
        bed.sh("for n in $(seq 8); do tar x -O -f $n.tar; pier-volume export c$n | tar x -O; done | sort | uniq -c; \
                find root/volume/volumes/v/ -path '*/snapshots/*' -type f -name f -exec cat {} + | sort -u")?
            .ok()?
            .with("own\nown")?
            .without("secret")?;
        Ok(())
    })
}

#[test]
fn a_file_is_read_when_it_is_one() -> Result {
    isolated!(|bed| {
        bed.sh(SHARED)?.ok()?;
        bed.sh("D=$(pier-volume inspect v | jq -r .[0].mountpoint); ln -s $DIR/secret/f $D/file; mkfifo $D/pipe; echo own >$D/plain")?
            .ok()?;
        for other in ["file", "pipe"] {
            let exchange = exchanging(bed, "plain", other)?;
            // A pipe would be waited for.
            bed.sh(&format!("set -e; for n in $(seq 8); do timeout 10 {SLOW} pier-volume export v | tar x -O --warning=none >>out; timeout 10 {SLOW} pier-volume clone v {other}$n; done >/dev/null; ! grep secret out"))?
                .ok()?;
            exchange.kill()?;
        }
        Ok(())
    })
}

#[test]
fn a_subpath_is_held() -> Result {
    isolated!(|bed| {
        bed.sh(SHARED)?.ok()?;
        bed.sh("pier-volume acquire v c /x --subpath d | tee mount; D=$(pier-volume inspect v | jq -r .[0].mountpoint); mv $D/d $D/e; mv $D/link $D/d; ls $D/d/; cat $(jq -r .source mount)/f")?
            .ok()?
            .has("f\nown")?;
        // After a reboot it is looked for again: not out of the volume.
        bed.sh("umount $(jq -r .source mount); pier-volume remount c")?.exits(1)?.has("it leaves the volume")?;
        bed.sh("D=$(pier-volume inspect v | jq -r .[0].mountpoint); rm $D/d; mv $D/e $D/d; pier-volume remount c && cat $(jq -r .source mount)/f; pier-volume acquire v c /x --subpath d | cmp - mount")?
            .ok()?
            .has("own")?;
        // Another directory for the same reference takes its place.
        bed.sh("D=$(pier-volume inspect v | jq -r .[0].mountpoint); mkdir $D/two; echo two >$D/two/f; cat $(pier-volume acquire v c /x --subpath two | jq -r .source)/f; ls run/volume | wc -l")?
            .ok()?
            .has("two\n1\n")?;
        bed.sh("pier-volume acquire v c /y --subpath d; pier-volume release c; ls -A run/volume; grep -c run/volume /proc/self/mounts; pier-volume rm v")?
            .ok()?
            .has("\n0\n")
    })
}

#[test]
fn a_restored_file_system_is_what_is_mounted_next() -> Result {
    isolated!(|bed| {
        bed.sh(&format!(
            "pier-distribution import --change 'CMD [\"sh\"]' {} bb",
            bed.fixture().busybox_tar()?.display()
        ))?
        .ok()?;
        bed.serve("engine")?;
        // The reference goes and the mount stays, as when a release is killed.
        bed.sh("set -e; run() { pier run --rm --network none -v v:/v bb sh -c \"$1\"; }; pier volume create --size 8m v; run 'echo one >/v/f'; pier volume snapshot create v s; run 'echo two >/v/f'
                pier create --name c -v v:/v bb >/dev/null; python3 -c 'import sqlite3; c = sqlite3.connect(\"root/volume/volume.db\"); c.execute(\"delete from refs\"); c.commit()'
                pier volume snapshot restore v s; run 'cat /v/f; echo three >/v/f'; run 'cat /v/f'; pier rm c; pier volume rm v")?
            .ok()?
            .has("one\nthree\n")
    })
}

#[test]
fn what_is_mended_is_named() -> Result {
    isolated!(|bed| {
        let drivers = [driver(bed, "one", "run/plugins")?, driver(bed, "two", "run/plugins")?];
        bed.sh("for d in one two; do pier-volume create -d $d v$d; pier-volume acquire v$d c /x; done")?.ok()?;
        drivers.iter().try_for_each(integration::Daemon::kill)?;
        bed.sh("pier-volume release c")?.exits(1)?.has("Unmount")?;
        std::fs::remove_file(bed.dir().join("run/plugins/one.sock"))?;
        driver(bed, "one", "run/plugins")?;
        bed.sh("pier-volume check --repair --format json | jq -r '\"\\(.kind) \\(.subject) \\(.repaired)\"'")?
            .with("owed-unmount vone true")?
            .has("owed-unmount vtwo false")
    })
}

/// A process at work with a driver's volume holds it: killed, the driver hears that it is done all the same.
#[test]
fn a_killed_export_gives_a_drivers_volume_back() -> Result {
    isolated!(|bed| {
        driver(bed, "toy", "run/plugins")?;
        bed.sh("set -e; pier-volume create -d toy v; head -c 1000000 /dev/zero >toy-data/v/f; mkfifo pipe; pier-volume export v >pipe & exec 3<pipe; head -c 1000 <&3 >/dev/null; kill -9 $!; wait $! || true
                pier-volume inspect v | jq -c '.[0].status.users, .[0].consumers'")?
            .ok()?
            .has("\"0\"\n[]")
    })
}
