//! `pier-distribution` and registries: behind what cuts, slows and lies; with mirrors, certificates and credentials.
mod configured;
mod keeper;
mod offline;
mod proxy;
mod server;
mod toxic;

use anyhow::ensure;
use integration::{Bed, Result, isolated};
use proxy::Proxy;

/// Makes an image with one layer of `mib` MiB that do not compress.
fn random_image(bed: &Bed, name: &str, mib: u64) -> Result {
    bed.sh(&format!(
        "mkdir -p r && head -c {mib}M /dev/urandom >r/data && tar c -C r . | pier-distribution import - {name} && rm -r r"
    ))?
    .ok()
    .map(drop)
}

/// Size of the image and where to cut, in bytes: 12 and 1 MiB, or PIER_CUT_MIB and a fortieth of it.
fn sizes() -> (u64, u64) {
    let asked: Option<u64> = std::env::var("PIER_CUT_MIB").ok().and_then(|text| text.parse().ok());
    (asked.unwrap_or(12), asked.map_or(1 << 20, |mib| (mib << 20) / 40))
}

fn little_more(what: &str, passed: u64, mib: u64) -> Result {
    let ratio = passed as f64 / (mib << 20) as f64;
    println!("{what}: {passed} bytes, {ratio:.3} of the image");
    ensure!((1.0..1.1).contains(&ratio), "{what}: {passed} bytes passed for {mib} MiB");
    Ok(())
}

#[test]
fn a_pull_finishes_though_every_connection_is_cut() -> Result {
    isolated!(|bed| {
        let (mib, cut) = sizes();
        let registry = bed.registry()?;
        random_image(bed, &format!("{registry}/big:1"), mib)?;
        bed.sh(&format!("pier-distribution push {registry}/big:1"))?.ok()?;
        let proxy = Proxy::start(registry, cut)?;
        bed.sh(&format!("pier-distribution --root other pull {}/big:1", proxy.address))?.ok()?;
        little_more("pull", proxy.take_down(), mib)?;
        bed.sh("pier-distribution --root other check")?.ok()?.has(", 0 damaged")
    })
}

#[test]
fn a_push_finishes_though_every_connection_is_cut() -> Result {
    isolated!(|bed| {
        let (mib, cut) = sizes();
        random_image(bed, "big:1", mib)?;
        // Docker's registry forgets an upload whose connection broke, the other one keeps it.
        let docker = bed.registry()?.to_string();
        let keeper = keeper::start(&bed.dir().join("keeper"))?;
        for (what, upstream) in [("docker-registry", &docker), ("a registry that keeps uploads", &keeper.address)] {
            let proxy = Proxy::start(upstream, cut)?;
            bed.sh(&format!("pier-distribution push big:1 {}/big:1", proxy.address))?.ok()?;
            little_more(&format!("push to {what}"), proxy.take_up(), mib)?;
        }
        bed.sh("ls $PIER_ROOT/distribution/pushes")?.ok()?.without("json")?;
        bed.sh(&format!("pier-distribution --root other pull {docker}/big:1"))?.ok()?;
        Ok(())
    })
}

#[test]
fn a_push_that_was_killed_is_gone_on_with() -> Result {
    isolated!(|bed| {
        let (mib, _) = sizes();
        random_image(bed, "big:1", mib)?;
        let keeper = keeper::start(&bed.dir().join("keeper"))?;
        // The first push ends with the proxy, which lets half of the image through and then nobody.
        let half = (mib << 20) / 2;
        let proxy = Proxy::limited(&keeper.address, half)?;
        let push = bed.spawn(
            "push",
            bed.command("pier-distribution").args(["push", "big:1", &format!("{}/big:1", proxy.address)]),
        )?;
        integration::eventually(std::time::Duration::from_secs(60), || {
            ensure!(proxy.up() >= half, "{} of {half} bytes", proxy.up());
            Ok(())
        })?;
        push.kill()?;
        let before = proxy.take_up();
        proxy.open();
        bed.sh(&format!("pier-distribution push big:1 {}/big:1", proxy.address))?.ok()?;
        little_more("push, killed and begun again", before + proxy.take_up(), mib)
    })
}

#[test]
fn referrers_are_listed_under_the_fallback_tag_and_taken_out() -> Result {
    isolated!(|bed| {
        let registry = bed.registry()?;
        random_image(bed, &format!("{registry}/r:1"), 1)?;
        let digest =
            bed.sh(&format!("pier-distribution push --format json {registry}/r:1"))?.ok()?.json()?["digest"].clone();
        let digest = digest.as_str().unwrap_or_default().to_string();
        // An artifact about it, made with curl; copying it by digest is what writes the list.
        let script = format!(
            r#"set -e
            put() {{ curl -sf -X PUT -H "Content-Type: application/vnd.oci.image.manifest.v1+json" --data-binary @$1 http://{registry}/v2/$2; }}
            printf '{{}}' >empty; E=sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
            L=$(curl -sfi -X POST http://{registry}/v2/from/blobs/uploads/ | tr -d '\r' | sed -n 's/^Location: //p')
            curl -sf -X PUT -H "Content-Type: application/octet-stream" --data-binary @empty "$L&digest=$E"
            SIZE=$(curl -sf -H 'Accept: application/vnd.oci.image.manifest.v1+json' http://{registry}/v2/r/manifests/{digest} | wc -c)
            printf '{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"text/note","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"'$E'","size":2}},"layers":[],"subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":'$SIZE'}},"annotations":{{"a":"b"}}}}' >note
            put note from/manifests/note
            pier-distribution copy docker://{registry}/from:note docker://{registry}/r:note
            curl -sf -H 'Accept: application/vnd.oci.image.index.v1+json' http://{registry}/v2/r/manifests/$(echo {digest} | tr : -)"#
        );
        bed.sh(&script)?.ok()?.with("text/note")?.has("\"a\":\"b\"")
    })
}
