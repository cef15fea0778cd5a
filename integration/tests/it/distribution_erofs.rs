//! Layers as erofs images: what a container has of them, what a crash leaves of their making, a damaged one.
use crate::distribution_crash::{Operation, campaign};
use anyhow::ensure;
use integration::crash::EXT4;
use integration::{Bed, Result, isolated};

const IMAGES: &str = "ls root/distribution/layers/*/image.erofs";

/// An engine whose snapshots are erofs, and an image `bb:1`; nothing when erofs does not work here.
fn engine(bed: &Bed) -> Result<bool> {
    let notes = bed.sh("pier-distribution info")?.ok()?.out().to_owned();
    if let Some(why) = notes.lines().find_map(|line| line.strip_prefix("note: erofs: ")) {
        println!("skipped: erofs: {why}");
        return Ok(false);
    }
    let tar = bed.fixture().busybox_tar()?;
    bed.sh(&format!("pier-distribution import -q {} bb:1", tar.display()))?.ok()?;
    let mut command = bed.command(bed.program("pierd"));
    bed.spawn("pierd", command.arg("serve").env("PIER_SNAPSHOTTER", "erofs"))?;
    integration::eventually(std::time::Duration::from_secs(10), || bed.sh("pier version")?.ok().map(drop))?;
    Ok(true)
}

/// The images are mounted for the container alone: nobody else sees a mount, and none is left, also after SIGKILL.
#[test]
fn images_are_mounted_in_no_place() -> Result {
    isolated!(|bed| {
        if !engine(bed)? {
            return Ok(());
        }
        bed.sh(IMAGES)?.fails()?;
        bed.sh("set -e; for i in 1 2 3; do pier run -d --name c$i --network none bb:1 sleep 100 >/dev/null; done
             grep -c erofs /proc/mounts || true; pier exec c1 sh -c 'grep overlay /proc/mounts | head -1; echo w >/w; cat /w'
             for p in $(pgrep -x pier-shim | head -1); do kill -9 $p; done; pier rm -f c1 c2 c3 >/dev/null
             grep -c erofs /proc/mounts || true")?
            .ok()?
            .with("0\noverlay / overlay")?
            .with("\nw\n0")?;
        ensure!(bed.sh(IMAGES)?.ok()?.stdout.lines().count() == 1, "one layer, one image");
        // In a user namespace; and the directory of the layer is not what the container reads.
        bed.sh("pier run --rm --network none --userns auto bb:1 sh -c 'stat -c \"%n %u:%g\" /bin; : >/own; stat -c %u /own; rm /bin/mv'
             b=$(echo root/distribution/layers/*/fs/bin); t=$(stat -c %y $b); mv $b/cat aside
             pier run --rm --network none bb:1 cat /etc/passwd; mv aside $b/cat; touch -d \"$t\" $b
             pier-distribution check")?
            .ok()?
            .with("/bin 0:0\n0\n")?
            .with("root:")?
            .has(", 0 damaged")
    })
}

/// A damaged image is named, set aside, made again for the snapshot that needs it, and counted as long as it is there.
#[test]
fn a_damaged_image_is_found_and_made_again() -> Result {
    isolated!(|bed| {
        if !engine(bed)? {
            return Ok(());
        }
        bed.sh("pier create --name c --network none bb:1 cat /etc/passwd >/dev/null")?.ok()?;
        let layers = "pier-distribution df --format json | jq .layers_bytes";
        let bytes = |script: &str| -> Result<u64> { Ok(bed.sh(script)?.ok()?.out().parse()?) };
        let with: u64 = bytes(layers)?;
        let image: u64 = bytes(&format!("stat -c %b $({IMAGES}) | awk '{{print $1 * 512}}'"))?;
        for damage in [
            // A byte of what a file holds; the superblock; half of it.
            "o=$(grep -obaF root: $I | head -1 | cut -d: -f1); printf R | dd of=$I bs=1 seek=$o conv=notrunc",
            "dd if=/dev/zero of=$I bs=1 seek=1024 count=128 conv=notrunc",
            "truncate -s $(( $(stat -c %s $I) / 2 )) $I",
        ] {
            bed.sh(&format!("set -e; I=$({IMAGES}); {damage}"))?.ok()?;
            bed.sh("pier-distribution check")?.exits(3)?.has("erofs image of layer sha256:")?;
            bed.sh("pier-distribution check --repair")?.exits(3)?.has("(repaired)")?;
            // The snapshot needs it: it is made again.
            bed.sh(IMAGES)?.ok()?;
            bed.sh("pier-distribution check")?.ok()?;
            bed.sh("pier start -a c")?.ok()?.has("root:")?;
            bed.sh("pier-distribution check")?.ok()?;
        }
        ensure!(bytes(layers)? == with && image > 100_000, "{with} {image}");
        bed.sh(&format!("rm $({IMAGES})"))?.ok()?;
        ensure!(bytes(layers)? == with - image, "the image is counted");
        bed.sh("pier rm c >/dev/null; pier-distribution gc --quarantine --format json | jq .reclaimed_bytes")?.ok()?;
        bed.sh("ls root/distribution/quarantine")?.ok().and_then(|out| {
            ensure!(out.out().is_empty(), "{out}");
            Ok(())
        })
    })
}

/// What cannot be is refused with a reason, before anything is made.
#[test]
fn holes_and_a_missing_program_are_said() -> Result {
    isolated!(|bed| {
        bed.sh("mkdir -p fs bin; truncate -s 8G fs/hole; tar c --sparse -C fs . >fs.tar; pier-distribution import -q fs.tar h:1")?.ok()?;
        bed.sh("pier-distribution --default-snapshotter erofs snapshot prepare s h:1")?
            .fails()?
            .has("holes cannot be kept")?;
        bed.sh("ls root/distribution/snapshots root/distribution/staging | grep -v : | grep . || echo nothing")?
            .has("nothing")?;
        bed.sh("D=$(command -v pier-distribution); PATH=$PWD/bin $D info")?
            .ok()?
            .has("mkfs.erofs(1) is not installed")?;
        bed.sh(
            "D=$(command -v pier-distribution); PATH=$PWD/bin $D --default-snapshotter erofs snapshot prepare s h:1",
        )?
        .fails()?
        .has("the erofs snapshotter does not work here")
    })
}

pub const AGAIN: &str = "pier-distribution snapshot prepare c 127.0.0.1:5001/app:1 >/dev/null || pier-distribution snapshot mounts c >/dev/null";
/// Content, not only names: of the snapshot, and of one more that is made now.
pub const SAME: &str = "pier-distribution snapshot prepare d 127.0.0.1:5001/app:1 >/dev/null
    for t in c d app; do rm -rf t.$t; mkdir t.$t; done
    for t in c d; do pier-distribution export --snapshot $t | tar x -C t.$t; done
    pier-distribution export 127.0.0.1:5001/app:1 | tar x -C t.app; diff -r t.c t.app && diff -r t.d t.app";

#[test]
fn a_layers_image_after_a_power_cut() -> Result {
    isolated!(|bed| {
        let operation = Operation {
            name: "prepare with erofs",
            before: "pier-distribution pull -q 127.0.0.1:5001/app:1; sync -f $PIER_ROOT",
            victim: &[
                "pier-distribution",
                "--default-snapshotter",
                "erofs",
                "snapshot",
                "prepare",
                "c",
                "127.0.0.1:5001/app:1",
            ],
            again: AGAIN,
            then: SAME,
        };
        campaign(bed, Some(EXT4), &[operation])
    })
}
