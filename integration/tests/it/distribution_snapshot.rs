//! `pier-distribution`: snapshots on the file systems that people have, and of images with very many layers.
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};

/// More than fit into a page of mount options. The kernel takes 500: `PIER_SNAPSHOT_LAYERS=500`.
const LAYERS: usize = 120;

/// A store on a new file system in a file, mounted at `disk`, with an image `big:1` of one file of 16 MiB.
fn disk(bed: &Bed, mkfs: &str) -> Result {
    bed.sh(&format!(
        "set -e; truncate -s 600M file && {mkfs} file && mkdir -p disk && mount -o loop file disk
         export PIER_ROOT=$DIR/disk/root
         mkdir -p fs/d; head -c 16777216 /dev/urandom >fs/big; echo a >fs/d/a; echo b >fs/d/b
         setfattr -n user.k -v v fs/d/a; tar c --xattrs --owner=0 --group=0 -C fs . >fs.tar
         pier-distribution import -q fs.tar big:1"
    ))?
    .ok()
    .map(drop)
}

fn on(bed: &Bed, script: &str) -> Result<integration::Outcome> {
    bed.sh(&format!("set -eo pipefail; export PIER_ROOT=$DIR/disk/root; {script}"))
}

/// Write, delete, replace; diff, commit, and the same tree from the new image.
fn round(bed: &Bed, snapshotter: &str) -> Result {
    let (mount, fs, umount) = match snapshotter {
        "overlay" => ("mkdir -p m; eval $(pier-distribution snapshot mounts s | sed s,ROOTFS,m,)", "m", "umount m"),
        _ => ("true", "$(echo $PIER_ROOT/distribution/snapshots/*/fs)", "true"),
    };
    on(
        bed,
        &format!(
            "pier-distribution snapshot prepare s big:1 --snapshotter {snapshotter} >/dev/null; {mount}; fs={fs}
             echo new >$fs/new; rm -r $fs/d; mkdir $fs/d; echo c >$fs/d/c
             printf x | dd of=$fs/big conv=notrunc status=none; {umount}; pier-distribution snapshot diff s"
        ),
    )?
    .ok()?
    .with("A /new")?
    .with("C /big")?
    .has("A /d/c")
    .with_context(|| format!("diff of {snapshotter}"))?;
    on(
        bed,
        &format!(
            "pier-distribution snapshot commit s --image {snapshotter}:1 --consume >/dev/null
             pier-distribution export {snapshotter}:1 >out.tar; tar t -f out.tar; tar xO -f out.tar big >b; head -c 1 b
             pier-distribution check && pier-distribution snapshot ls --format json"
        ),
    )?
    .ok()?
    .with("new")?
    .with(", 0 damaged")?
    .with("d/c")?
    .without("d/b")?
    .without("snapshotter")
    .map(drop)
    .with_context(|| format!("commit of {snapshotter}"))
}

fn both(bed: &Bed, mkfs: &str) -> Result {
    disk(bed, mkfs)?;
    round(bed, "overlay")?;
    round(bed, "copy")
}

fn unmounted(bed: &Bed, done: Result) -> Result {
    bed.sh("umount -q m; umount disk; rm file")?;
    done
}

#[test]
fn on_ext4() -> Result {
    isolated!(|bed| unmounted(bed, both(bed, "mkfs.ext4 -q -F")))
}

#[test]
fn on_xfs_copies_share_blocks() -> Result {
    isolated!(|bed| unmounted(bed, both(bed, "mkfs.xfs -q -f -m reflink=1").and_then(|()| copies_share_blocks(bed))))
}

#[test]
fn on_btrfs_copies_share_blocks() -> Result {
    isolated!(|bed| unmounted(bed, both(bed, "mkfs.btrfs -q -f").and_then(|()| copies_share_blocks(bed))))
}

/// Ten copies of 16 MiB take less than one.
fn copies_share_blocks(bed: &Bed) -> Result {
    let used = "sync -f disk; df --output=used -B1 disk | tail -1";
    let before: u64 = on(bed, used)?.ok()?.out().parse()?;
    on(
        bed,
        "for i in 1 2 3 4 5 6 7 8 9 10; do pier-distribution snapshot prepare c$i big:1 --snapshotter copy >/dev/null; done",
    )?
    .ok()?;
    let after: u64 = on(bed, used)?.ok()?.out().parse()?;
    ensure!(after < before + (16 << 20), "{} bytes more", after - before);
    on(bed, "for f in $PIER_ROOT/distribution/snapshots/*/fs/big; do cmp $f fs/big; done")?.ok().map(drop)
}

/// More lower directories than a page of mount options can name, mounted by the shim; the last layer wins.
#[test]
fn more_layers_than_a_page_of_options() -> Result {
    isolated!(|bed| {
        let layers = std::env::var("PIER_SNAPSHOT_LAYERS").map_or(Ok(LAYERS), |n| n.parse())?;
        let base = bed.fixture().busybox_tar()?;
        bed.sh(&format!(
            r#"set -e; mkdir -p lay/blobs/sha256; cd lay
            put() {{ d=$(sha256sum $1 | cut -c-64); cp $1 blobs/sha256/$d; }}
            ids=; descs=; m=application/vnd.oci.image
            add() {{
                put $1; ids="$ids${{ids:+,}}\"sha256:$d\""; size=$(stat -c %s $1)
                descs="$descs${{descs:+,}}{{\"mediaType\":\"$m.layer.v1.tar\",\"digest\":\"sha256:$d\",\"size\":$size}}"
            }}
            add {}
            mkdir ../l
            for i in $(seq 2 {layers}); do
                echo $i >../l/last; echo $i >../l/f$i; tar c -C ../l last f$i >../l.tar; add ../l.tar
            done
            echo "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{\"Cmd\":[\"sh\"]}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[$ids]}}}}" >../config
            put ../config; size=$(stat -c %s ../config)
            config="{{\"mediaType\":\"$m.config.v1+json\",\"digest\":\"sha256:$d\",\"size\":$size}}"
            echo "{{\"schemaVersion\":2,\"mediaType\":\"$m.manifest.v1+json\",\"config\":$config,\"layers\":[$descs]}}" >../manifest
            put ../manifest; size=$(stat -c %s ../manifest)
            name="\"annotations\":{{\"org.opencontainers.image.ref.name\":\"many:1\"}}"
            echo '{{"imageLayoutVersion":"1.0.0"}}' >oci-layout
            echo "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"$m.manifest.v1+json\",\"digest\":\"sha256:$d\",\"size\":$size,$name}}]}}" >index.json
            cd .. && pier-distribution load -q lay"#,
            base.display()
        ))?
        .ok()?;
        bed.serve("engine")?;
        bed.sh("pier run --rm --network none many:1 sh -c 'cat /last; ls / | grep -c ^f; echo w >/w && cat /w'")?
            .ok()?
            .has(&format!("{layers}\n{}\nw", layers - 1))
    })
}
