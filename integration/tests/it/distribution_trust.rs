//! Trust: policies in front of every way in, signatures made here and read by skopeo and cosign and the other way round,
//! attestations. The registry keeps a log, so that what a refused image cost can be counted.
use crate::distribution_server::{serve, upstream};
use integration::{Bed, Result, isolated};

const REGISTRY: &str = "127.0.0.1:5002";
/// A registry of ours, which has a list of referrers of its own.
const OURS: &str = "127.0.0.1:5050";

/// Makes the keys `good` and `bad`, policies that require `good`, and pushes an image without a signature.
fn ready(bed: &Bed) -> Result {
    upstream(bed)?;
    let tar = bed.fixture().busybox_tar()?.display().to_string();
    bed.sh(&format!(
        "export COSIGN_PASSWORD=word; printf word >word; for k in good bad; do pier-distribution key generate --output $k; done
         pier-distribution key generate --output ed --kind ed25519; stat -c %a good.key
         pier-distribution import --change 'CMD [\"echo\", \"ran\"]' {tar} {REGISTRY}/bb:1 && pier-distribution push {REGISTRY}/bb:1 &&
         pier-distribution rm {REGISTRY}/bb:1 && pier-distribution gc"
    ))?
    .ok()?
    .has("600")?;
    for key in ["good", "ed"] {
        let policy = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{
                 "{REGISTRY}":[{{"type":"sigstoreSigned","keyPath":"{key}.pub"}}],
                 "{OURS}":[{{"type":"sigstoreSigned","keyPath":"{key}.pub"}}],
                 "{REGISTRY}/free":[{{"type":"insecureAcceptAnything"}}]}}}}}}"#
        );
        std::fs::write(bed.dir().join(format!("{key}.json")), policy)?;
    }
    Ok(())
}

fn pull(policy: &str, image: &str) -> String {
    format!(
        "rm -rf fresh; pier-distribution --root $DIR/fresh --error-format json pull --trust-policy {policy} {image}"
    )
}

fn sign(key: &str, image: &str, more: &str) -> String {
    format!("COSIGN_PASSWORD=word pier-distribution sign --key {key}.key {more} {image}")
}

/// Fails unless the registry was asked for no layer since `from` bytes of its log, and the store is empty.
fn no_layer_was_asked_for(bed: &Bed, from: usize) -> Result {
    let log = bed.log("upstream");
    let layer = bed.sh(&format!("skopeo inspect --tls-verify=false docker://{REGISTRY}/bb:1"))?.ok()?.json()?;
    let layer = layer["Layers"][0].as_str().unwrap_or_default().to_owned();
    anyhow::ensure!(layer.starts_with("sha256:"), "no layer");
    let asked = log[from..].lines().filter(|line| line.contains(&layer)).count();
    anyhow::ensure!(asked == 0, "{asked} requests for the layer:\n{}", &log[from..]);
    let kept = bed.sh("find $DIR/fresh/distribution/{blobs,layers,ingest} -type f 2>/dev/null")?;
    anyhow::ensure!(kept.out().is_empty(), "kept: {}", kept.out());
    Ok(())
}

#[test]
fn what_is_not_signed_rightly_is_refused_before_a_layer_is_asked_for() -> Result {
    isolated!(|bed| {
        ready(bed)?;
        let from = bed.log("upstream").len();
        let image = format!("{REGISTRY}/bb:1");
        // Not signed.
        bed.sh(&pull("good.json", &image))?
            .exits(1)?
            .with("IMAGE_REJECTED")?
            .with("it is not signed")?
            .has(&format!("\\\"{REGISTRY}\\\""))?;
        bed.sh(&format!("PIER_POLICY=good.json pier-distribution copy docker://{image} dir:out"))?
            .exits(1)?
            .has("is not let in")?;
        // Signed by another key; the right key for another name; barred altogether.
        bed.sh(&sign("bad", &image, ""))?.ok()?;
        bed.sh(&pull("good.json", &image))?.exits(1)?.has("not by a key that counts")?;
        bed.sh(&sign("good", &image, &format!("--identity {REGISTRY}/other:1")))?.ok()?;
        bed.sh(&pull("good.json", &image))?.exits(1)?.has("is for the name")?;
        bed.sh(&format!("sed 's,{REGISTRY},q.io,' good.json >none.json; {}", pull("none.json", &image)))?
            .exits(1)?
            .has("it is rejected there")?;
        no_layer_was_asked_for(bed, from)?;
        // With a good signature beside the bad ones it comes; so does what needs none.
        bed.sh(&sign("good", &image, ""))?.ok()?;
        bed.sh(&pull("good.json", &image))?.ok()?;
        bed.sh(&format!("PIER_POLICY=good.json pier-distribution copy docker://{image} dir:out && rm -r out"))?.ok()?;
        bed.sh(&format!(
            "pier-distribution copy docker://{image} docker://{REGISTRY}/free:1 && {}",
            pull("good.json", &format!("{REGISTRY}/free:1"))
        ))?
        .ok()?;
        // Signatures themselves pass; an image does not pass by being called one.
        let tag = "$(curl -s http://127.0.0.1:5002/v2/bb/tags/list | jq -r '.tags[]' | grep sig)";
        bed.sh(&format!(
            "PIER_POLICY=good.json pier-distribution copy docker://{REGISTRY}/bb:{tag} dir:out && rm -r out"
        ))?
        .ok()?;
        bed.sh(&format!(
            "pier-distribution copy docker://{image} docker://{REGISTRY}/z:{tag} >/dev/null; T={tag}; {}",
            pull("good.json", &format!("{REGISTRY}/z:$T"))
        ))?
        .exits(1)?
        .has("it is not signed")?;
        // By digest any name of the repository will do.
        let digest =
            bed.sh(&format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{image}"))?.ok()?;
        bed.sh(&pull("good.json", &format!("{REGISTRY}/bb@{}", digest.out())))?.ok()?;
        Ok(())
    })
}

#[test]
fn an_altered_image_does_not_borrow_a_signature() -> Result {
    isolated!(|bed| {
        ready(bed)?;
        let image = format!("{REGISTRY}/bb:1");
        bed.sh(&sign("good", &image, ""))?.ok()?;
        // Another image under the same name, with the first one's signature copied to its own tag.
        bed.sh(&format!(
            "set -e; digest() {{ skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{image} | tr : -; }}
             OLD=$(digest); pier-distribution pull -q {image} >/dev/null; pier-distribution import --change 'ENV EVIL=1' \
             {} {image}; pier-distribution push {image}; NEW=$(digest); [ $OLD != $NEW ]
             skopeo --insecure-policy copy --src-tls-verify=false --dest-tls-verify=false docker://{REGISTRY}/bb:$OLD.sig docker://{REGISTRY}/bb:$NEW.sig",
            bed.fixture().busybox_tar()?.display()
        ))?
        .ok()?;
        let from = bed.log("upstream").len();
        bed.sh(&pull("good.json", &image))?.exits(1)?.has("the signature is for sha256:")?;
        no_layer_was_asked_for(bed, from)
    })
}

#[test]
fn run_and_build_are_behind_the_same_door() -> Result {
    isolated!(|bed| {
        ready(bed)?;
        let mut distribution = bed.command("pier-distribution");
        bed.spawn("distribution", distribution.args(["serve", "--trust-policy", "good.json"]))?;
        bed.serve("engine")?;
        let image = format!("{REGISTRY}/bb:1");
        let build = format!("mkdir -p c && printf 'FROM {image}\\nENV A=1\\n' >c/Dockerfile && pier build -t own:1 c");
        let from = bed.log("upstream").len();
        bed.sh(&format!("pier run --rm --network none {image}"))?.fails()?.has("is not let in")?;
        bed.sh(&build)?.fails()?.has("is not let in")?;
        no_layer_was_asked_for(bed, from)?;
        bed.sh(&sign("good", &image, ""))?.ok()?;
        bed.sh(&build)?.ok()?;
        bed.sh(&format!("pier run --rm --network none {image}"))?.ok()?.has("ran")
    })
}

#[test]
fn signatures_lie_beside_the_image_or_refer_to_it() -> Result {
    isolated!(|bed| {
        ready(bed)?;
        serve(bed, "ours", OURS, &["--registry-dir", "ours.d"])?;
        for (registry, key, more) in [(REGISTRY, "good", "--referrer"), (OURS, "ed", "--referrer"), (OURS, "good", "")]
        {
            let image = format!("{registry}/{key}/bb:1");
            bed.sh(&format!("pier-distribution copy docker://{REGISTRY}/bb:1 docker://{image}"))?.ok()?;
            let verify = format!("pier-distribution --error-format json verify --key bad.pub --key {key}.pub {image}");
            bed.sh(&verify)?.exits(1)?.has("SIGNATURE_INVALID")?;
            bed.sh(&sign(key, &image, more))?.ok()?;
            let found = bed.sh(&format!("{verify} --format json"))?.ok()?.json()?;
            anyhow::ensure!(
                found["name"] == image.as_str() && found["key"] == format!("{key}.pub").as_str(),
                "{found}"
            );
            let referrer = found["place"].as_str().unwrap_or_default().starts_with("referrer");
            anyhow::ensure!(referrer != more.is_empty(), "{found}");
            bed.sh(&pull(&format!("{key}.json"), &image))?.ok()?;
            bed.sh(&format!("pier-distribution verify --key bad.pub {image}"))?.exits(1)?.has("not by a key")?;
            bed.sh(&format!("{verify} --identity other.io/x:1"))?.exits(1)?.has("for the name")?;
        }
        bed.sh("pier-distribution key generate --output good")?.exits(1)?.has("good.key")?;
        bed.sh(&sign("good", &format!("{REGISTRY}/bb:1"), "").replace("=word", "=wrong"))?
            .exits(1)?
            .has("the passphrase is wrong")
    })
}

#[test]
fn a_layout_is_signed_and_verified_without_a_network() -> Result {
    isolated!(|bed| {
        ready(bed)?;
        bed.sh(&format!("pier-distribution copy docker://{REGISTRY}/bb:1 oci:layout:v1"))?.ok()?;
        let inside = "unshare -n sh -ec";
        for more in ["", "--referrer"] {
            let sign = sign("good", "oci:layout:v1", &format!("--identity r.io/x:1 {more}"));
            bed.sh(&format!(
                "{inside} '{sign}; pier-distribution verify --key good.pub --identity r.io/x:1 oci:layout:v1'"
            ))?
            .ok()?;
        }
        bed.sh("pier-distribution verify --key bad.pub oci:layout:v1")?.exits(1)?.has("not by a key")?;
        bed.sh(&sign("good", "oci:layout:v1", ""))?.exits(1)?.has("--identity")?;
        bed.sh("skopeo inspect oci:layout:v1 >/dev/null && umoci ls --layout layout")?.ok()?.has("v1")?;
        // What is no image is not in the way of the one that is.
        bed.sh("pier-distribution --root x copy oci:layout dir:d && pier-distribution --root x load layout")?
            .ok()?
            .has("loaded")
    })
}

/// What a policy says of other transports than registries holds for every verb that reads them.
#[test]
fn files_and_layouts_are_behind_the_door_too() -> Result {
    isolated!(|bed| {
        ready(bed)?;
        let image = format!("docker://{REGISTRY}/bb:1");
        let policy = r#"{"default":[{"type":"reject"}],"transports":{"oci":{"":[{"type":"sigstoreSigned","keyPath":"good.pub",
            "signedIdentity":{"type":"exactReference","dockerReference":"r.io/x:1"}}]}}}"#;
        std::fs::write(bed.dir().join("files.json"), policy)?;
        bed.sh(&format!(
            "set -e; for to in dir:d oci:layout:v1 oci-archive:oci.tar:v1 docker-archive:docker.tar:bb:1; do
                 pier-distribution copy {image} $to; done"
        ))?
        .ok()?;
        for verb in [
            "copy dir:d oci:out",
            "copy oci-archive:oci.tar:v1 oci:out",
            "copy docker-archive:docker.tar store:bb:1",
            "load --input oci.tar",
            "load --input docker.tar",
        ] {
            bed.sh(&format!("PIER_POLICY=files.json pier-distribution --root x {verb}"))?.exits(1)?.has("rejected")?;
        }
        for verb in ["copy oci:layout:v1 dir:out", "load layout", "flatten oci:layout:v1 oci:out:v1"] {
            bed.sh(&format!("PIER_POLICY=files.json pier-distribution --root x {verb}"))?
                .exits(1)?
                .has("not signed")?;
        }
        let kept = bed.sh("find x out -path '*blobs/*' -type f 2>/dev/null; pier-distribution --root x ls -q; true")?;
        anyhow::ensure!(kept.out().is_empty(), "kept: {kept}");
        bed.sh(&sign("good", "oci:layout:v1", "--identity r.io/x:1"))?.ok()?;
        for verb in ["copy oci:layout:v1 dir:out", "load --trust-policy files.json layout"] {
            bed.sh(&format!("PIER_POLICY=files.json pier-distribution --root x {verb}"))?.ok()?;
        }
        bed.sh("pier-distribution --root x ls -q | grep .")?.ok().map(drop)
    })
}

/// Where `hack/newer.sh` unpacked a skopeo and a cosign that know sigstore: Debian 12's skopeo and podman are built without.
pub fn newer(test: &str) -> Option<String> {
    let exe = std::env::current_exe().unwrap_or_default();
    let found = exe.ancestors().map(|dir| dir.join("sigstore/bin")).find(|dir| dir.join("cosign").exists());
    if found.is_none() {
        println!("skipped: {test}: hack/setup.sh found no skopeo and cosign that know sigstore");
    }
    found.map(|dir| dir.display().to_string())
}

/// What skopeo needs to read and write signatures of this form, and policies in its own reading.
fn containers(bed: &Bed) -> Result {
    bed.sh(&format!(
        "mkdir rd && printf 'default-docker:\n  use-sigstore-attachments: true\n' >rd/default.yaml
         for k in good bad; do printf '{{\"default\":[{{\"type\":\"reject\"}}],\"transports\":{{\"docker\":{{\"{REGISTRY}\":\
           [{{\"type\":\"sigstoreSigned\",\"keyPath\":\"%s\"}}]}}}}}}' $PWD/$k.pub >theirs-$k.json; done
         sed 's/good.pub\"/&,\"signedIdentity\":{{\"type\":\"matchRepository\"}}/' good.json >repository.json"
    ))?
    .ok()
    .map(drop)
}

#[test]
fn skopeo_accepts_what_is_signed_here_and_the_other_way_round() -> Result {
    isolated!(|bed| {
        let Some(bin) = newer("skopeo_accepts_what_is_signed_here_and_the_other_way_round") else { return Ok(()) };
        ready(bed)?;
        containers(bed)?;
        let image = format!("{REGISTRY}/bb:1");
        let theirs = |key: &str| {
            let skopeo = format!("{bin}/skopeo --registries.d rd --policy theirs-{key}.json copy -q");
            format!("rm -rf o; {skopeo} --src-tls-verify=false docker://{image} dir:o")
        };
        bed.sh(&theirs("good"))?.fails()?.has("signature")?;
        bed.sh(&sign("bad", &image, ""))?.ok()?;
        bed.sh(&theirs("good"))?.fails()?.has("signature")?;
        bed.sh(&sign("good", &image, ""))?.ok()?;
        bed.sh(&theirs("good"))?.ok()?;
        let image = format!("{REGISTRY}/s/bb:1");
        bed.sh(&format!(
            "{bin}/skopeo --registries.d rd --insecure-policy copy -q --sign-by-sigstore-private-key good.key --sign-passphrase-file word \
             --src-tls-verify=false --dest-tls-verify=false docker://{REGISTRY}/bb:1 docker://{image}"
        ))?
        .ok()?;
        bed.sh(&pull("good.json", &image))?.ok()?;
        bed.sh(&format!("pier-distribution verify --key bad.pub {image}"))?.exits(1)?;
        Ok(())
    })
}

#[test]
fn cosign_accepts_what_is_signed_here_and_the_other_way_round() -> Result {
    isolated!(|bed| {
        let Some(bin) = newer("cosign_accepts_what_is_signed_here_and_the_other_way_round") else { return Ok(()) };
        ready(bed)?;
        containers(bed)?;
        serve(bed, "ours", OURS, &["--registry-dir", "ours.d"])?;
        let image = format!("{OURS}/bb:1");
        let cosign =
            |verb: &str, image: &str| format!("COSIGN_PASSWORD=word {bin}/cosign {verb} --allow-http-registry {image}");
        bed.sh(&format!("pier-distribution copy docker://{REGISTRY}/bb:1 docker://{image}"))?.ok()?;
        // Ours, read by cosign.
        bed.sh(&sign("good", &image, ""))?.ok()?;
        bed.sh(&cosign("verify --key good.pub --insecure-ignore-tlog=true", &image))?.ok()?;
        bed.sh(&cosign("verify --key bad.pub --insecure-ignore-tlog=true", &image))?.fails()?;
        // Cosign's, read by us: its own key, its signature beside the image and as a referrer, its attestations in both forms.
        bed.sh(&format!("COSIGN_PASSWORD=word {bin}/cosign generate-key-pair --output-key-prefix theirs"))?.ok()?;
        let image = format!("{OURS}/theirs:1");
        bed.sh(&format!("pier-distribution copy docker://{REGISTRY}/bb:1 docker://{image}"))?.ok()?;
        bed.sh(&cosign("sign --key theirs.key --tlog-upload=false -y", &image))?.ok()?;
        bed.sh(&format!("pier-distribution verify --key theirs.pub {image}"))?.ok()?.has(".sig")?;
        bed.sh(&format!("sed 's/good.pub/theirs.pub/' repository.json >t.json; {}", pull("t.json", &image)))?.ok()?;
        bed.sh(&pull("repository.json", &image))?.exits(1)?.has("not by a key that counts")?;
        bed.sh(&sign("theirs", &image, "--identity other.io/x:1"))?.ok()?;
        let image = format!("{OURS}/referred:1");
        bed.sh(&format!("pier-distribution copy docker://{REGISTRY}/bb:1 docker://{image}"))?.ok()?;
        let referred = cosign("sign --key theirs.key --tlog-upload=false -y --registry-referrers-mode=oci-1-1", &image);
        bed.sh(&format!("export COSIGN_EXPERIMENTAL=1; {referred}"))?.ok()?;
        bed.sh(&format!("pier-distribution verify --key theirs.pub {image}"))?.ok()?.has("referrer")?;
        for more in ["", "--new-bundle-format"] {
            let attest = format!(
                "attest --key theirs.key --tlog-upload=false -y --type https://x.io/t{more} --predicate p {more}"
            );
            bed.sh(&format!("echo '{{}}' >p; {}", cosign(&attest, &image)))?.ok()?;
            let list = format!("pier-distribution attestation ls --predicate-type https://x.io/t{more}");
            bed.sh(&format!("{list} --key theirs.pub {image}"))?.ok()?.has("theirs.pub")?;
            bed.sh(&format!("{list} --key good.pub {image}"))?.exits(1)?;
        }
        Ok(())
    })
}

#[test]
fn indexes_are_vouched_for_as_a_whole_or_image_by_image() -> Result {
    isolated!(|bed| {
        ready(bed)?;
        serve(bed, "ours", OURS, &["--registry-dir", "ours.d"])?;
        let index = |name: &str| {
            format!(
                "set -e; pier-distribution copy docker://{REGISTRY}/bb:1 docker://{OURS}/{name}:one >/dev/null
                 R=http://{OURS}/v2/{name}; curl -s $R/manifests/one >m; D=sha256:$(sha256sum <m | cut -d' ' -f1)
                 printf '{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[{{\"mediaType\":\
                 \"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"%s\",\"size\":%s,\"platform\":{{\"os\":\"linux\",\"architecture\":\
                 \"amd64\"}}}}]}}' $D $(stat -c %s m) >i
                 curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.index.v1+json' --data-binary @i $R/manifests/1"
            )
        };
        for (name, wanted) in [("whole", "1"), ("each", "1")] {
            bed.sh(&index(name))?.ok()?;
            let image = format!("{OURS}/{name}:{wanted}");
            bed.sh(&pull("good.json", &image))?.exits(1)?.has("it is not signed")?;
            let signed = match name {
                "whole" => sign("good", &image, ""),
                // Only the image in it.
                _ => sign(
                    "good",
                    &format!("{OURS}/{name}@sha256:$(sha256sum <m | cut -d' ' -f1)"),
                    &format!("--identity {image}"),
                ),
            };
            bed.sh(&signed)?.ok()?;
            bed.sh(&pull("good.json", &image))?.ok()?;
        }
        Ok(())
    })
}

#[test]
fn attestations_are_listed_and_verified() -> Result {
    isolated!(|bed| {
        upstream(bed)?;
        serve(bed, "ours", OURS, &["--registry-dir", "ours.d"])?;
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        bed.sh(&format!("pier-distribution import {tar} {OURS}/a:1 && pier-distribution push {OURS}/a:1"))?.ok()?;
        // Signed by openssl, as cosign would: a DSSE envelope under the tag .att, the same as a referrer, a plain statement in an index.
        bed.sh(&format!(
            r#"set -e; R=http://{OURS}/v2/a; openssl ecparam -name prime256v1 -genkey -noout -out k; openssl ec -in k -pubout -out k.pub 2>/dev/null
            openssl ecparam -name prime256v1 -genkey -noout -out l; openssl ec -in l -pubout -out l.pub 2>/dev/null
            M=application/vnd.oci.image.manifest.v1+json; T=application/vnd.in-toto+json
            curl -sf $R/manifests/1 >m; H=$(sha256sum <m | cut -d' ' -f1); S=$(stat -c %s m)
            printf '{{"_type":"https://in-toto.io/Statement/v0.1","subject":[{{"name":"a","digest":{{"sha256":"%s"}}}}],"predicateType":"https://slsa.dev/provenance/v0.2","predicate":{{}}}}' $H >st
            printf 'DSSEv1 %d %s %d %s' ${{#T}} $T $(stat -c %s st) "$(cat st)" >pae; SIG=$(openssl dgst -sha256 -sign k pae | base64 -w0)
            printf '{{"payloadType":"%s","payload":"%s","signatures":[{{"keyid":"","sig":"%s"}}]}}' $T $(base64 -w0 st) $SIG >env
            push() {{ curl -sf -X POST -H 'Content-Type: application/octet-stream' --data-binary @$1 "$R/blobs/uploads/?digest=sha256:$(sha256sum <$1 | cut -d' ' -f1)"; }}
            d() {{ printf '{{"mediaType":"%s","digest":"sha256:%s","size":%s}}' $1 $(sha256sum <$2 | cut -d' ' -f1) $(stat -c %s $2); }}
            printf '{{}}' >c; push c; push env; push st
            printf '{{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}}' $M "$(d application/x c)" "$(d application/vnd.dsse.envelope.v1+json env)" >att
            curl -sf -X PUT -H "Content-Type: $M" --data-binary @att $R/manifests/sha256-$H.att
            printf '{{"schemaVersion":2,"mediaType":"%s","artifactType":"application/vnd.in-toto+json","config":%s,"layers":[%s],"subject":%s}}' $M \
              "$(d application/x c)" "$(d application/vnd.dsse.envelope.v1+json env)" "$(d $M m)" >ref
            curl -sf -X PUT -H "Content-Type: $M" --data-binary @ref $R/manifests/sha256:$(sha256sum <ref | cut -d' ' -f1)
            printf '{{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}}' $M "$(d application/x c)" "$(d $T st)" >bk
            curl -sf -X PUT -H "Content-Type: $M" --data-binary @bk $R/manifests/sha256:$(sha256sum <bk | cut -d' ' -f1)
            I=application/vnd.oci.image.index.v1+json
            A="$(d $M bk | sed 's/}}$/,"platform":{{"os":"unknown","architecture":"unknown"}},"annotations":{{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"sha256:'$H'"}}}}/')"
            printf '{{"schemaVersion":2,"mediaType":"%s","manifests":[%s,%s]}}' $I "$(d $M m)" "$A" >idx
            curl -sf -X PUT -H "Content-Type: $I" --data-binary @idx $R/manifests/idx"#
        ))?
        .ok()?;
        let list = |more: &str, tag: &str| {
            bed.sh(&format!("pier-distribution attestation ls --format json {more} {OURS}/a:{tag}"))
        };
        let all = list("--key k.pub", "1")?.ok()?.json()?;
        let good = |one: &serde_json::Value| one["verified_by"] == "k.pub" && one["names_subject"] == true;
        anyhow::ensure!(all.as_array().is_some_and(|all| all.len() == 2 && all.iter().all(good)), "{all}");
        list("--key l.pub", "1")?.exits(1)?.has("no attestation")?;
        let all = list("", "idx")?.ok()?.json()?;
        let plain = all.as_array().and_then(|all| all.iter().find(|one| one["signed"] == false)).cloned();
        anyhow::ensure!(plain.is_some_and(|one| one["names_subject"] == true), "{all}");
        bed.sh(&format!("pier-distribution attestation ls --key k.pub {OURS}/a:idx"))?
            .ok()?
            .has("https://slsa.dev/provenance/v0.2")
    })
}

#[test]
fn a_bad_policy_lets_nothing_in_and_says_where_it_is_bad() -> Result {
    isolated!(|bed| {
        ready(bed)?;
        let image = format!("{REGISTRY}/bb:1");
        for (text, words) in [
            (
                r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]}"#,
                "signedBy (GPG keys) is not supported",
            ),
            (r#"{"default":[{"type":"sigstoreSigned","keyPath":"nokey"}]}"#, "nokey"),
            (r#"{"default":[{"type":"whatever"}]}"#, "whatever"),
            ("{", "policy.json"),
        ] {
            std::fs::write(bed.dir().join("policy.json"), text)?;
            bed.sh(&pull("policy.json", &image))?.exits(1)?.with("POLICY_INVALID")?.has(words)?;
        }
        bed.sh(&pull("missing.json", &image))?.exits(1)?.has("missing.json")?;
        // Off by default; on by the file in its place.
        bed.sh(&pull("", &image).replace("--trust-policy", ""))?.ok()?;
        bed.sh(&format!(
            "mkdir e w && mount -t overlay -o lowerdir=/etc,upperdir=e,workdir=w none /etc || exit 9
             mkdir -p /etc/pier; cp good.json /etc/pier/policy.json; cp *.pub /etc/pier; {}; E=$?; umount /etc; rm -rf e w; exit $E",
            pull("", &image).replace("--trust-policy", "").replace("rm -rf fresh; ", "")
        ))?
        .exits(1)?
        .has("/etc/pier/policy.json")
    })
}
