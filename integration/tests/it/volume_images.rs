//! Content of images as volumes: fetched when it is missing, always, or never.
use integration::{Bed, Result, isolated};

/// An image `bb` in the store, and two in a registry that the store does not know.
fn images(bed: &Bed) -> Result<&'static str> {
    let registry = bed.registry()?;
    bed.sh(&format!(
        "set -e; pier-distribution import --change 'CMD [\"sh\"]' {} bb; mkdir c; echo one >c/f
         for n in 1 2; do tar c -C c . | pier-distribution import - {registry}/content:$n; pier-distribution push {registry}/content:$n; pier-distribution rm {registry}/content:$n; echo two >c/f; done",
        bed.fixture().busybox_tar()?.display()
    ))?
    .ok()?;
    Ok(registry)
}

#[test]
fn fetched_for_a_container() -> Result {
    isolated!(|bed| {
        let registry = images(bed)?;
        bed.serve("engine")?;
        let run = |flags: &str, pull: &str| {
            bed.sh(&format!("pier run --rm --network none {flags} --mount type=image,src={registry}/content:1,dst=/i{pull} bb cat /i/f"))
        };
        run("", ",pull=never")?.exits(125)?.with("resolve images of mounts")?.has("content:1")?;
        run("--pull never", "")?.exits(125)?.has("content:1")?;
        run("", ",pull=sometimes")?.exits(125)?.has("missing, always or never")?;
        bed.sh("pier volume ls -q; pier ps -aq; pier-distribution snapshot ls --format json")?.ok()?.has("[]")?;
        run("", "")?.ok()?.has("one")?;
        // It is there now; the name leads elsewhere in the registry since.
        bed.sh(&format!("pier-distribution copy docker://{registry}/content:2 docker://{registry}/content:1"))?.ok()?;
        run("", "")?.ok()?.has("one")?;
        run("--userns auto", ",pull=always")?.ok()?.has("two")?;
        bed.stop_registry()?;
        run("", ",pull=missing")?.ok()?.has("two")?;
        run("", ",pull=always")?.exits(125)?.has("cannot reach the registry").map(drop)
    })
}

#[test]
fn fetched_by_hand() -> Result {
    isolated!(|bed| {
        let registry = images(bed)?;
        bed.sh(&format!(
            "mkdir m; pier-volume create -d image -o image={registry}/content:1 -o pull=never v; pier-volume mount v m"
        ))?
        .exits(1)?
        .has("content:1")?;
        bed.sh(&format!(
            "set -e; pier-volume create -d image -o image={registry}/content:1 w; pier-volume mount w m; cat m/f; pier-volume umount m; \
             pier-volume create -d image -o image={registry}/content:2 -o pull=always x; pier-volume mount x m; cat m/f; pier-volume umount m; pier-volume rm w x v"
        ))?
        .ok()?
        .with("one\n")?
        .has("two\n")?;
        bed.sh("pier-volume create -d image -o image=a -o pull=now y")?
            .exits(1)?
            .has("missing, always or never")
            .map(drop)
    })
}
