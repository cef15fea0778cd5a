//! What belongs to an image goes along with it: through archives, the store and registries, when it is asked for.
use crate::distribution_server::{serve, upstream};
use anyhow::ensure;
use integration::{Bed, Result, isolated};

pub const REGISTRY: &str = "127.0.0.1:5002";
/// A registry of ours, which has a list of referrers of its own.
pub const OURS: &str = "127.0.0.1:5050";

/// An image at Debian's registry with a signature beside it, one that refers to it, and an artifact that refers to the latter.
pub fn signed(bed: &Bed) -> Result {
    upstream(bed)?;
    serve(bed, "ours", OURS, &["--registry-dir", "ours.d"])?;
    let tar = bed.fixture().busybox_tar()?.display().to_string();
    bed.sh(&format!(
        "set -e; export COSIGN_PASSWORD=word; pier-distribution key generate --output good
         pier-distribution --root maker import -q {tar} {REGISTRY}/bb:1; pier-distribution --root maker push -q {REGISTRY}/bb:1
         pier-distribution sign --key good.key {REGISTRY}/bb:1; pier-distribution sign --key good.key --referrer {REGISTRY}/bb:1
         echo words >note.txt; pier-distribution artifact attach --artifact-type test/note {REGISTRY}/bb:1 note.txt"
    ))?
    .ok()
    .map(drop)
}

/// The trust policy that asks for this key, of every transport.
pub fn verified(bed: &Bed, location: &str) -> Result {
    bed.sh(&format!("pier-distribution verify --key good.pub --identity {REGISTRY}/bb:1 {location}"))?.ok().map(drop)
}

/// How many manifests there are, the image's own included.
pub fn referrers(bed: &Bed, location: &str) -> Result<usize> {
    let found = bed.sh(&format!("pier-distribution artifact discover --format json {location}"))?.ok()?.json()?;
    Ok(found.to_string().matches("\"digest\"").count())
}

#[test]
fn they_travel_with_copy_save_and_load() -> Result {
    isolated!(|bed| {
        signed(bed)?;
        let image = format!("{REGISTRY}/bb:1");
        let here = referrers(bed, &format!("docker://{image}"))?;
        ensure!(here >= 3, "{here}: the image, a signature, a note");
        // Not by themselves, as with copy.
        bed.sh(&format!("set -e; pier-distribution copy docker://{image} oci-archive:bare.tar:v1; pier-distribution copy docker://{image} store:bare:1
             pier-distribution save -o bare2.tar bare:1"))?.ok()?;
        for tar in ["bare.tar", "bare2.tar"] {
            bed.sh(&format!("pier-distribution verify --key good.pub oci-archive:{tar}"))?.exits(1)?;
        }
        bed.sh(&format!(
            "set -e; c='pier-distribution copy --referrers'; $c docker://{image} oci-archive:a.tar:v1; $c docker://{image} oci:lay:v1
             $c docker://{image} store:{image}; pier-distribution save --referrers -o s.tar {image}
             pier-distribution --root two load --referrers -i s.tar; pier-distribution --root two save --referrers --format oci-dir -o lay2 {image}
             pier-distribution --root two copy --referrers store:{image} docker://{OURS}/again/bb:1"
        ))?
        .ok()?;
        for location in ["oci-archive:a.tar:v1", "oci:lay:v1", "oci-archive:s.tar", "oci:lay2"] {
            verified(bed, location)?;
            ensure!(referrers(bed, location)? == here, "{location}");
        }
        verified(bed, &format!("docker://{OURS}/again/bb:1"))?;
        ensure!(referrers(bed, &format!("docker://{OURS}/again/bb:1"))? == here);
        // Byte for byte: the digests are the same.
        bed.sh("digests() { tar tf $1 | grep blobs/sha256/. | sort; }; digests s.tar >a; (cd lay2; find blobs -type f | sort) >b; diff a b")?
            .ok()?;
        // skopeo reads the image of an archive that has signatures in it.
        bed.sh("skopeo copy -q --insecure-policy oci-archive:a.tar:v1 dir:o")?.ok()?;
        bed.sh("pier-distribution save --referrers --format docker-archive -o d.tar bare:1")?
            .fails()?
            .has("referrers are kept by")?;
        bed.sh(&format!("pier-distribution copy --referrers docker://{image} dir:none || ls none"))?
            .fails()?
            .has("referrers are kept by")
            .map(drop)
    })
}

/// They are the image's: kept, counted and checked with it, gone with it, back with a lost database.
#[test]
fn the_store_keeps_them_as_long_as_the_image() -> Result {
    isolated!(|bed| {
        signed(bed)?;
        let image = format!("{REGISTRY}/bb:1");
        let blobs = "ls root/distribution/blobs/sha256 | wc -l";
        bed.sh(&format!("pier-distribution pull -q {image}"))?.ok()?;
        let bare: usize = bed.sh(blobs)?.ok()?.out().parse()?;
        bed.sh(&format!(
            "set -e; pier-distribution copy --referrers docker://{image} store:{image}; pier-distribution gc >/dev/null"
        ))?
        .ok()?;
        let all: usize = bed.sh(blobs)?.ok()?.out().parse()?;
        ensure!(all >= bare + 6, "{bare} {all}: two signatures and a note, each a manifest and what it names");
        // A pull of the same image takes nothing away; a lost database brings all of it back.
        bed.sh(&format!(
            "set -e; pier-distribution pull -q {image}; rm root/distribution/store.db*; pier-distribution gc >/dev/null
             pier-distribution check; pier-distribution save --referrers -o s.tar {image}"
        ))?
        .ok()?
        .has(", 0 damaged")?;
        verified(bed, "oci-archive:s.tar")?;
        let lost =
            "f=$(grep -l simplesigning root/distribution/blobs/sha256/* | head -1); rm $f; pier-distribution check";
        bed.sh(lost)?.exits(3)?.has("blobs are missing")?;
        bed.sh(&format!(
            "pier-distribution copy --referrers docker://{image} store:{image} && pier-distribution check"
        ))?
        .ok()?
        .has(", 0 damaged")?;
        bed.sh(&format!("pier-distribution rm {image} >/dev/null; {blobs}"))?.ok()?.has("0")
    })
}

/// Made by skopeo and cosign themselves.
#[test]
fn signatures_of_skopeo_and_cosign_travel() -> Result {
    isolated!(|bed| {
        let test = "signatures_of_skopeo_and_cosign_travel";
        let Some(bin) = crate::distribution_trust::newer(test) else { return Ok(()) };
        signed(bed)?;
        let cosign =
            |verb: &str, image: &str| format!("COSIGN_PASSWORD=word {bin}/cosign {verb} --allow-http-registry {image}");
        let image = format!("{OURS}/theirs:1");
        bed.sh(&format!(
            "set -e; mkdir rd; printf 'default-docker:\n  use-sigstore-attachments: true\n' >rd/default.yaml; printf word >word
             COSIGN_PASSWORD=word {bin}/cosign generate-key-pair --output-key-prefix theirs
             {bin}/skopeo --registries.d rd --insecure-policy copy -q --sign-by-sigstore-private-key theirs.key --sign-passphrase-file word \
               --src-tls-verify=false --dest-tls-verify=false docker://{REGISTRY}/bb:1 docker://{image}
             export COSIGN_EXPERIMENTAL=1; {}
             echo '{{}}' >p; {}
             pier-distribution copy --referrers docker://{image} oci-archive:t.tar:v1
             pier-distribution copy --referrers oci-archive:t.tar:v1 store:{image}; pier-distribution save --referrers -o u.tar {image}
             pier-distribution --root two load --referrers -i u.tar; pier-distribution --root two copy --referrers store:{image} docker://{OURS}/back:1",
            cosign("sign --key theirs.key --tlog-upload=false -y --registry-referrers-mode=oci-1-1", &image),
            cosign("attest --key theirs.key --tlog-upload=false -y --type https://x.io/t --predicate p", &image),
        ))?
        .ok()?;
        bed.sh(&cosign("verify --key theirs.pub --insecure-ignore-tlog=true", &format!("{OURS}/back:1")))?.ok()?;
        bed.sh(&format!(
            "COSIGN_EXPERIMENTAL=1 {}",
            cosign(
                "verify --key theirs.pub --insecure-ignore-tlog=true --experimental-oci11",
                &format!("{OURS}/back:1")
            )
        ))?
        .ok()?;
        bed.sh(&cosign(
            "verify-attestation --key theirs.pub --insecure-ignore-tlog=true --type https://x.io/t",
            &format!("{OURS}/back:1"),
        ))?
        .ok()?;
        bed.sh(&format!("pier-distribution verify --key theirs.pub --identity {image} {OURS}/back:1"))?.ok().map(drop)
    })
}

/// A copy that is refused, or finds nothing, leaves nothing where it was to write.
#[test]
fn a_copy_that_fails_before_the_first_byte_leaves_nothing() -> Result {
    isolated!(|bed| {
        signed(bed)?;
        std::fs::write(bed.dir().join("no.json"), r#"{"default":[{"type":"reject"}]}"#)?;
        let verbs = [
            format!("--error-format json copy docker://{REGISTRY}/none:1 TO"),
            format!("copy --platform linux/s390x docker://{OURS}/index:1 TO"),
            format!("copy docker://{REGISTRY}/bb:1 TO --trust-policy no.json"),
            "copy oci:nowhere:1 TO".to_owned(),
        ];
        for to in ["dir:out", "oci:out:v1", "oci-archive:out:v1", "docker-archive:out:a:1"] {
            for verb in &verbs {
                let policy = if verb.contains("no.json") { "PIER_POLICY=no.json " } else { "" };
                let verb = verb.replace("TO", to).replace(" --trust-policy no.json", "");
                bed.sh(&format!(
                    "{policy}pier-distribution {verb}; e=$?; ls -A | grep -E '^out|pier-' && exit 9; exit $e"
                ))?
                .exits(1)?;
            }
        }
        // And what is there stays as it is.
        bed.sh(&format!("pier-distribution copy docker://{REGISTRY}/bb:1 oci:lay:v1; find lay | sort >a; pier-distribution copy docker://{REGISTRY}/none:1 oci:lay:v2; find lay | sort >b; diff a b && \
             pier-distribution copy docker://{REGISTRY}/bb:1 dir:lay2/deep && ls lay2/deep/manifest.json"))?
            .ok()
            .map(drop)
    })
}
