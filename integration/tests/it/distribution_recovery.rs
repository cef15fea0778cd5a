//! A recovery that dies itself: the next one goes on.
use crate::distribution_crash::{Checked, Operation, images, recording_registry};
use crate::distribution_erofs::{AGAIN, SAME};
use anyhow::ensure;
use integration::crash::Ground;
use integration::tracer::Point;
use integration::{Result, isolated};

const OPEN: &[&str] = &["pier-distribution", "ls", "-q"];
/// As after a restart of the machine, before anybody looked: the layers and their images are of an earlier boot.
const BEFORE: &str = "cat /proc/sys/kernel/random/uuid >$DIR/boot; mount --bind $DIR/boot /proc/sys/kernel/random/boot_id
    pier-distribution pull -q 127.0.0.1:5001/app:1; pier-distribution --default-snapshotter erofs snapshot prepare c 127.0.0.1:5001/app:1 >/dev/null
    ls $PIER_ROOT/distribution/layers/*/image.erofs | wc -l >$DIR/images; cat /proc/sys/kernel/random/boot_id >was
    umount /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/random/uuid >$DIR/boot; mount --bind $DIR/boot /proc/sys/kernel/random/boot_id
    ! diff was $DIR/boot >/dev/null";

/// One before the first image is there, and each of those around the arrival of the others.
fn around_the_images(points: &[Point]) -> Vec<usize> {
    let arrivals =
        points.iter().enumerate().filter(|(_, point)| point.call == "rename" && point.path.contains("image.erofs"));
    let mut chosen: Vec<usize> = arrivals.flat_map(|(index, _)| [index, index + 1, index + 2]).collect();
    chosen.extend([points.len() / 4, points.len()]);
    chosen.retain(|n| (1..=points.len()).contains(n));
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[test]
fn images_of_layers_are_remade_after_a_recovery_that_died() -> Result {
    isolated!(|bed| {
        let notes = bed.sh("pier-distribution info")?.ok()?.out().to_owned();
        if let Some(why) = notes.lines().find_map(|line| line.strip_prefix("note: erofs: ")) {
            println!("skipped: images_of_layers_are_remade_after_a_recovery_that_died: {why}");
            return Ok(());
        }
        let _registry = recording_registry(bed)?;
        images(bed)?;
        let ground = Ground { bed, disk: None };
        let operation = Operation { name: "recovery", before: BEFORE, victim: OPEN, again: AGAIN, then: SAME };
        let done = ground.chosen_points(BEFORE, OPEN, around_the_images, || {
            // The next start, without a word of repair.
            ground.sh("set -e; pier-distribution ls -q >/dev/null; ls $PIER_ROOT/distribution/layers/*/image.erofs | wc -l | diff $DIR/images -
                 ! ls $PIER_ROOT/distribution/remount")?.ok()?;
            ground.verify(&operation)
        });
        ground.finish()?;
        let (points, killed) = done?;
        println!("{points} points, {killed} killed");
        ensure!(killed > 4, "{killed} runs were killed");
        bed.sh("umount /proc/sys/kernel/random/boot_id")?.ok().map(drop)
    })
}
