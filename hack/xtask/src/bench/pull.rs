//! A cold pull of a five-layer image from Debian's registry over plain HTTP, each run on a fresh file system: deleting and
//! making files on one ext4 again and again measures its inode allocator.
use super::arena::{Arena, Side};
use anyhow::Result;

const FRESH: &str = "mkdir -p $DIR/disk; rm -f $DIR/disk.img; truncate -s 6G $DIR/disk.img; \
    mkfs.ext4 -q -E lazy_itable_init=0 $DIR/disk.img; mount -o loop $DIR/disk.img $DIR/disk";
const GONE: &str = "umount $DIR/disk; rm -f $DIR/disk.img";

/// To an OCI layout against skopeo, and into the store (unpacked) against podman.
pub fn run(arena: &Arena) -> Result<()> {
    arena.engine()?;
    arena.sh("mkdir -p ctx; for d in /usr/share/doc /usr/lib/python3 /usr/share/perl /usr/include; do \
           cp -a $d ctx/ 2>/dev/null || mkdir -p ctx/$(basename $d); done; \
         pier import $DEBIAN_TAR base:1 >/dev/null; \
         printf 'FROM base:1\\nCOPY doc /a\\nCOPY python3 /b\\nCOPY perl /c\\nCOPY include /d\\n' >ctx/Dockerfile; \
         pier build -q -t $REG/big:1 ctx && pier push $REG/big:1")?;
    let side = |name: &str, script: &str| Side { before: FRESH.into(), after: GONE.into(), ..Side::new(name, script) };
    arena.race(
        "copy to an OCI layout",
        5,
        &[
            side(
                "pier-distribution copy",
                "pier-distribution --root $DIR/disk/r copy docker://$REG/big:1 oci:$DIR/disk/out:1",
            ),
            side(
                "skopeo copy",
                "skopeo copy -q --insecure-policy --src-tls-verify=false docker://$REG/big:1 oci:$DIR/disk/out:1",
            ),
        ],
    )?;
    let podman = "podman --root $DIR/disk/p --runroot $DIR/disk/pr --cgroup-manager cgroupfs --storage-driver overlay pull -q --tls-verify=false $REG/big:1";
    arena.race(
        "pull with unpacking",
        5,
        &[
            side("pier-distribution pull", "pier-distribution --root $DIR/disk/r pull $REG/big:1"),
            side("podman pull", podman),
        ],
    )
}
