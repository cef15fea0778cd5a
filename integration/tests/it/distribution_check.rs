//! `pier-distribution check`: by itself it only looks.
use anyhow::ensure;
use integration::{Bed, Result, isolated};

/// Every name of the store with what stat(1) says of it. Not the working files of the database, nor the times of directories
/// that something was staged in and taken out of again.
const STATE: &str = r"state() { (cd root/distribution; find . -path './store.db*' -prune -o -path ./staging -prune -o -path ./trash -prune \
        -o -type d -printf '%p %i %m %u\n' -o -printf '%p %i %s %T@ %m %u\n' | sort); }";

fn unchanged(bed: &Bed, damage: &str, found: i32) -> Result {
    let script = format!(
        "{STATE}; set -u; L=$(echo root/distribution/layers/*/fs); {damage}; state >a; pier-distribution check >out; e=$?; state >b; diff a b || exit 99; exit $e"
    );
    bed.sh(&script)?.exits(found).map(drop)
}

#[test]
fn without_repair_nothing_is_changed() -> Result {
    isolated!(|bed| {
        bed.sh(
            "set -e; mkdir -p fs/d; echo one >fs/d/a; tar c -C fs . >fs.tar; pier-distribution import -q fs.tar bb:1
             pier-distribution snapshot prepare plain bb:1 >/dev/null",
        )?
        .ok()?;
        unchanged(bed, ":", 0)?;
        // Files that a repair would write: the records beside the objects, for a database that is lost some day.
        let records = "root/distribution/images/*.json root/distribution/layers/*/record.json";
        unchanged(bed, &format!("rm {records}"), 0)?;
        bed.sh(&format!("pier-distribution check --repair && ls {records}"))?.ok()?;
        unchanged(bed, "echo x >$L/d/extra", 3)?;
        bed.sh("pier-distribution check --repair")?.exits(3)?;
        // What a snapshot needs to be mounted.
        let made = bed.sh("pier-distribution --default-snapshotter erofs snapshot prepare c bb:1")?;
        if made.code != 0 {
            ensure!(made.stderr.contains("does not work here"), "{made}");
            println!("skipped: without_repair_nothing_is_changed: the images of erofs: {}", made.stderr.trim());
            return Ok(());
        }
        unchanged(bed, "rm root/distribution/layers/*/image.erofs", 3)?;
        bed.sh("grep 'snapshot c: .*image.erofs is missing' out || { cat out; false; }")?.ok()?;
        bed.sh("pier-distribution check --repair")?.exits(3)?.has("(repaired)")?;
        bed.sh("pier-distribution check && ls root/distribution/layers/*/image.erofs")?.ok().map(drop)
    })
}
