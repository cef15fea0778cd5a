//! What belongs to an image of the store is offered with it by `serve --registry`, and pushed with it when that is asked for.
use crate::distribution_referrers::{OURS, REGISTRY, referrers, signed, verified};
use crate::distribution_server::serve;
use anyhow::ensure;
use integration::{Bed, Result, isolated};

/// The store itself, as a registry.
const OFFERED: &str = "127.0.0.1:5051";

#[test]
fn signatures_are_offered_with_the_image() -> Result {
    isolated!(|bed| {
        signed(bed)?;
        let here = referrers(bed, &format!("docker://{REGISTRY}/bb:1"))?;
        bed.sh(&format!("pier-distribution copy --referrers docker://{REGISTRY}/bb:1 store:off:1"))?.ok()?;
        serve(bed, "offered", OFFERED, &[])?;
        let image = format!("docker://{OFFERED}/off:1");
        verified(bed, &image)?;
        ensure!(referrers(bed, &image)? == here, "the signature, the note");
        // The tag alone, and the list of referrers alone.
        bed.sh(&format!(
            "pier-distribution tags {OFFERED}/off; d=$(pier-distribution digest {image})
             curl -fsS http://{OFFERED}/v2/off/referrers/$d | jq -r .manifests[].artifactType"
        ))?
        .ok()?
        .with("1\nsha256-")?
        .with(".sig\n")?
        .with("cosign.artifact.sig")?
        .has("test/note")?;
        bed.sh(&format!("pier-distribution copy --referrers {image} oci:lay:v1; skopeo list-tags --tls-verify=false docker://{OFFERED}/off"))?
            .ok()?
            .has(".sig")?;
        verified(bed, "oci:lay:v1")?;
        ensure!(referrers(bed, "oci:lay:v1")? == here);
        gone(bed, &image)
    })
}

/// What is deleted there is the image's no more, also after the database was lost.
fn gone(bed: &Bed, image: &str) -> Result {
    let attached = "pier-distribution inspect off:1 | jq '.attached | length'";
    let before: usize = bed.sh(attached)?.ok()?.out().parse()?;
    bed.sh(&format!(
        "set -eu; d=$(pier-distribution digest {image}); sig=$(pier-distribution tags {OFFERED}/off | grep sig$)
         pier-distribution delete {OFFERED}/off:$sig; pier-distribution tags {OFFERED}/off | grep sig$ && exit 1
         r=$(curl -fsS http://{OFFERED}/v2/off/referrers/$d | jq -r '.manifests[] | select(.artifactType | test(\"cosign\")).digest')
         pier-distribution delete {OFFERED}/off@$r; curl -fsS http://{OFFERED}/v2/off/referrers/$d | jq '.manifests | length'"
    ))?
    .ok()?
    .has("1")?;
    ensure!(bed.sh(attached)?.ok()?.out().parse::<usize>()? + 2 == before);
    bed.sh(&format!("pier-distribution verify --key good.pub {image}"))?.exits(1)?;
    bed.sh(&format!("rm root/distribution/store.db*; {attached}; pier-distribution check"))?
        .ok()?
        .with(&(before - 2).to_string())?
        .has(", 0 damaged")
}

#[test]
fn signatures_are_pushed_when_that_is_asked_for() -> Result {
    isolated!(|bed| {
        signed(bed)?;
        bed.serve("engine")?;
        bed.sh(&format!(
            "set -e; pier-distribution copy --referrers docker://{REGISTRY}/bb:1 store:{OURS}/one:1; for n in two three; do pier tag {OURS}/one:1 {OURS}/$n:1; done
             pier-distribution push -q {OURS}/one:1; pier-distribution push -q --referrers {OURS}/two:1; pier push -q --referrers {OURS}/three:1"
        ))?
        .ok()?;
        bed.sh(&format!("pier-distribution verify --key good.pub docker://{OURS}/one:1"))?.exits(1)?;
        let here = referrers(bed, &format!("docker://{REGISTRY}/bb:1"))?;
        for name in ["two", "three"] {
            verified(bed, &format!("docker://{OURS}/{name}:1"))?;
            ensure!(referrers(bed, &format!("docker://{OURS}/{name}:1"))? == here, "{name}");
        }
        Ok(())
    })
}

/// cosign and skopeo verify what the store offers, and cosign signs it there.
#[test]
fn cosign_and_skopeo_verify_what_the_store_offers() -> Result {
    isolated!(|bed| {
        let test = "cosign_and_skopeo_verify_what_the_store_offers";
        let Some(bin) = crate::distribution_trust::newer(test) else { return Ok(()) };
        signed(bed)?;
        let cosign = |verb: &str, image: &str| {
            format!("COSIGN_PASSWORD=word COSIGN_EXPERIMENTAL=1 {bin}/cosign {verb} --allow-http-registry {image}")
        };
        let (image, offered) = (format!("{REGISTRY}/bb:1"), format!("{OFFERED}/off:1"));
        bed.sh(&format!(
            "set -e; COSIGN_PASSWORD=word {bin}/cosign generate-key-pair --output-key-prefix theirs; echo '{{}}' >p
             {}; {}; {}; pier-distribution copy --referrers docker://{image} store:off:1",
            cosign("sign --key theirs.key --tlog-upload=false -y", &image),
            cosign("sign --key theirs.key --tlog-upload=false -y --registry-referrers-mode=oci-1-1", &image),
            cosign("attest --key theirs.key --tlog-upload=false -y --type https://x.io/t --predicate p", &image),
        ))?
        .ok()?;
        serve(bed, "offered", OFFERED, &[])?;
        let verify = "verify --key theirs.pub --insecure-ignore-tlog=true";
        bed.sh(&cosign(verify, &offered))?.ok()?;
        bed.sh(&cosign(&format!("{verify} --experimental-oci11"), &offered))?.ok()?;
        let attested = "verify-attestation --key theirs.pub --insecure-ignore-tlog=true --type https://x.io/t";
        bed.sh(&cosign(attested, &offered))?.ok()?;
        bed.sh(&format!(
            "set -e; mkdir rd; printf 'default-docker:\n  use-sigstore-attachments: true\n' >rd/default.yaml
             for k in theirs bad; do printf '{{\"default\":[{{\"type\":\"reject\"}}],\"transports\":{{\"docker\":{{\"{OFFERED}\":[{{\"type\":\"sigstoreSigned\",\
               \"keyPath\":\"%s\",\"signedIdentity\":{{\"type\":\"exactRepository\",\"dockerRepository\":\"{REGISTRY}/bb\"}}}}]}}}}}}' $PWD/$k.pub >$k.json; done
             export COSIGN_PASSWORD=word; pier-distribution key generate --output bad; pier-distribution key generate --output more"
        ))?
        .ok()?;
        let skopeo = |policy: &str| {
            format!(
                "rm -rf o; {bin}/skopeo --registries.d rd --policy {policy} copy -q --src-tls-verify=false docker://{offered} dir:o"
            )
        };
        bed.sh(&skopeo("theirs.json"))?.ok()?;
        bed.sh(&skopeo("bad.json"))?.fails()?;
        // One more signature beside those that are there.
        bed.sh(&cosign("sign --key more.key --tlog-upload=false -y", &offered))?.ok()?;
        bed.sh(&cosign("verify --key more.pub --insecure-ignore-tlog=true", &offered))?.ok()?;
        bed.sh(&cosign(verify, &offered))?.ok()?;
        // What was pushed there about the image goes along with it, too.
        bed.sh(
            "set -e; pier-distribution save --referrers -o s.tar off:1; for k in theirs more; do pier-distribution verify --key $k.pub --identity 127.0.0.1:5051/off oci-archive:s.tar || \
               pier-distribution verify --key $k.pub --identity 127.0.0.1:5002/bb oci-archive:s.tar; done",
        )?
        .ok()
        .map(drop)
    })
}
