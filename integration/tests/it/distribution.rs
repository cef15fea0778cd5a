//! `pier-distribution`: against Debian's registry, and beside skopeo, umoci and podman.
use integration::{Bed, Result, isolated};

/// Imports busybox and pushes it as `<registry>/bb:1`.
fn pushed(bed: &Bed) -> Result<&'static str> {
    let registry = bed.registry()?;
    let tar = bed.fixture().busybox_tar()?;
    bed.sh(&format!(
        "pier-distribution import --change 'CMD [\"sh\"]' --change 'ENV A=b' {} {registry}/bb:1 && \
         pier-distribution push {registry}/bb:1",
        tar.display()
    ))?
    .ok()?;
    Ok(registry)
}

#[test]
fn what_is_pushed_is_pulled_and_tagged() -> Result {
    isolated!(|bed| {
        let registry = pushed(bed)?;
        bed.sh(&format!("pier-distribution tags {registry}/bb"))?.ok()?.has("1")?;
        let id = bed.sh(&format!("pier-distribution inspect {registry}/bb:1"))?.ok()?.json()?["id"].clone();
        // What only this image needed goes with it.
        bed.sh(&format!("pier-distribution rm {registry}/bb:1"))?.ok()?.has("deleted: sha256:")?;
        bed.sh("find $PIER_ROOT/distribution/blobs -type f; ls $PIER_ROOT/distribution/layers")?.ok()?.without("/")?;
        let image = bed.sh(&format!("pier-distribution pull --format json {registry}/bb:1"))?.ok()?.json()?;
        anyhow::ensure!(image["id"] == id && image["config"]["config"]["Env"][0] == "A=b", "{image}");
        let short = id.as_str().unwrap_or_default().trim_start_matches("sha256:")[..12].to_owned();
        bed.sh(&format!("pier-distribution tag {short} other:2 && pier-distribution ls other --format json"))?
            .ok()?
            .has("docker.io/library/other:2")?;
        bed.sh("pier-distribution check")?.ok()?.has(", 0 damaged")
    })
}

#[test]
fn peers_read_what_was_pushed_and_the_other_way_round() -> Result {
    isolated!(|bed| {
        let registry = pushed(bed)?;
        bed.sh(&format!("skopeo inspect --tls-verify=false docker://{registry}/bb:1"))?.ok()?.has("A=b")?;
        bed.sh(&format!(
            "skopeo copy --src-tls-verify=false --dest-tls-verify=false docker://{registry}/bb:1 docker://{registry}/sk:2"
        ))?
        .ok()?;
        bed.sh(&format!("pier-distribution pull {registry}/sk:2 && pier-distribution export {registry}/sk:2 | tar t"))?
            .ok()?
            .has("bin/busybox")?;
        bed.sh(&format!(
            "skopeo copy --src-tls-verify=false docker://{registry}/bb:1 docker-archive:$DIR/sk.tar:sk:3"
        ))?
        .ok()?;
        bed.sh("pier-distribution load -i sk.tar && gzip -k sk.tar && pier-distribution load sk.tar.gz")?
            .ok()?
            .has("docker.io/library/sk:3")
    })
}

#[test]
fn a_saved_layout_unpacks_to_the_same_filesystem() -> Result {
    isolated!(|bed| {
        let registry = pushed(bed)?;
        bed.sh(&format!("pier-distribution save --format oci-dir -o layout {registry}/bb:1"))?.ok()?;
        bed.sh("umoci unpack --image layout:1 bundle")?.ok()?;
        bed.sh(&format!("mkdir ours && pier-distribution export {registry}/bb:1 | tar x -C ours"))?.ok()?;
        bed.sh("diff -r --no-dereference ours bundle/rootfs")?.ok()?;
        bed.sh(&format!("pier-distribution save --format docker-archive -o d.tar {registry}/bb:1"))?.ok()?;
        bed.sh("skopeo inspect --config docker-archive:d.tar")?.ok()?.has("A=b")?;
        bed.sh(&format!("pier-distribution save -o o.tar {registry}/bb:1"))?.ok()?;
        bed.sh("skopeo inspect --config oci-archive:o.tar:1")?.ok()?.has("A=b")
    })
}

#[test]
fn a_copy_to_a_layout_needs_no_store() -> Result {
    isolated!(|bed| {
        let registry = pushed(bed)?;
        bed.sh("rm -rf $PIER_ROOT")?.ok()?;
        bed.sh(&format!("pier-distribution copy docker://{registry}/bb:1 oci:layout:x && test ! -e $PIER_ROOT"))?
            .ok()?;
        bed.sh(&format!("pier-distribution copy oci:layout:x docker://{registry}/again:1"))?.ok()?;
        bed.sh(&format!("pier-distribution copy docker://{registry}/again:1 dir:$DIR/d && skopeo inspect dir:d"))?
            .ok()?;
        bed.sh(&format!("pier-distribution inspect docker://{registry}/again:1"))?.ok()?.has("A=b")?;
        bed.sh("test ! -e $PIER_ROOT")?.ok()?;
        Ok(())
    })
}

#[test]
fn a_full_disk_leaves_nothing_half_made() -> Result {
    isolated!(|bed| {
        let registry = pushed(bed)?;
        bed.sh("rm -rf $PIER_ROOT && mkdir small && mount -t tmpfs -o size=1500k none small")?.ok()?;
        let pull = format!("pier-distribution --root small --error-format json pull {registry}/bb:1");
        bed.sh(&pull)?.exits(1)?.has("NO_SPACE")?;
        bed.sh(
            "pier-distribution --root small ls --format json; ls small/distribution/layers small/distribution/staging",
        )?
        .ok()?
        .without("bb")?;
        bed.sh("mount -o remount,size=50m small")?.ok()?;
        bed.sh(&pull)?.ok()?;
        bed.sh("pier-distribution --root small check && umount small")?.ok()?.has(", 0 damaged")
    })
}

#[test]
fn a_snapshot_becomes_an_image() -> Result {
    isolated!(|bed| {
        let registry = pushed(bed)?;
        bed.sh(&format!(
            "mkdir m && eval $(pier-distribution snapshot prepare one {registry}/bb:1 | sed s,ROOTFS,m,) && \
             echo new >m/file && rm m/bin/cat && umount m"
        ))?
        .ok()?;
        bed.sh("pier-distribution snapshot diff one")?.ok()?.with("A /file")?.has("D /bin/cat")?;
        bed.sh(&format!("pier-distribution rm {registry}/bb:1"))?.exits(1)?.with("one")?.has("Hint: ")?;
        bed.sh("pier-distribution snapshot commit one --image new:1 --change 'CMD [\"x\"]'")?.ok()?;
        bed.sh("pier-distribution export new:1 | tar t")?.ok()?.with("file")?.without("bin/cat")?;
        bed.sh("pier-distribution snapshot rm one && pier-distribution snapshot ls --format json")?
            .ok()?
            .without("one")?;
        bed.sh(
            "pier-distribution rm new:1 && pier-distribution prune -a && find $PIER_ROOT/distribution/blobs -type f",
        )?
        .ok()?
        .without("/blobs/")?;
        Ok(())
    })
}
