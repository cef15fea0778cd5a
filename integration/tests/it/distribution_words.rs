//! `pier-distribution` in the words of those who come from docker, podman and skopeo.
use integration::{Result, isolated};

#[test]
fn names_with_a_transport_several_removals_and_platforms() -> Result {
    isolated!(|bed| {
        let registry = bed.registry()?;
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        bed.sh(&format!(
            "set -e; pier-distribution import -q {tar} a:1; pier-distribution push -q a:1 docker://{registry}/a:1
             pier-distribution pull -q docker://{registry}/a:1; for i in 2 3; do pier-distribution tag a:1 a:$i; done"
        ))?
        .ok()?;
        // One that is not there does not keep the others.
        bed.sh("pier-distribution rm a:2 none:1 a:3 none:2")?
            .exits(1)?
            .with("untagged: docker.io/library/a:2")?
            .with("untagged: docker.io/library/a:3")?
            .with("remove none:1: no such image")?
            .has("remove none:2")?;
        bed.sh("pier-distribution rm --format json a:1 none:1 2>/dev/null | jq -c .untagged")?.has("a:1")?;
        bed.sh(&format!("pier-distribution inspect --platform linux/s390x {registry}/a:1"))?.exits(1)?.has("s390x")?;
        bed.sh(&format!("pier-distribution inspect --platform linux/amd64 {registry}/a:1 | jq -r .platform"))?
            .ok()?
            .has("linux/amd64")
    })
}
