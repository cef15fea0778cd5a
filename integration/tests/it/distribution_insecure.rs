//! Registries that are reached without a certificate that counts, or without TLS: said in podman's, skopeo's and crane's words.
use crate::distribution_server::{protected, serve};
use integration::{Bed, Result, isolated};

/// An address of this machine that is not loopback: those are asked what they speak anyway.
const AWAY: &str = "10.9.9.1:5050";

fn image(bed: &Bed) -> Result {
    let tar = bed.fixture().busybox_tar()?.display().to_string();
    bed.sh(&format!("pier-distribution import -q {tar} {AWAY}/bb:1"))?.ok().map(drop)
}

#[test]
fn plain_http_only_when_that_is_allowed() -> Result {
    isolated!(|bed| {
        image(bed)?;
        bed.sh("ip addr add 10.9.9.1/32 dev lo")?.ok()?;
        serve(bed, "plain", AWAY, &["--registry-dir", "reg", "--registry-open"])?;
        for given in ["--tls-skip-verify", "--tls-verify"] {
            bed.sh(&format!("pier-distribution push -q {given} {AWAY}/bb:1"))?.exits(1)?.has("--plain-http")?;
        }
        bed.sh(&format!("pier-distribution push -q --insecure {AWAY}/bb:1"))?.ok()?;
        bed.sh(&format!("pier-distribution inspect --tls-verify=false docker://{AWAY}/bb:1"))?.ok()?;
        bed.sh(&format!("pier-distribution copy --src-tls-verify=false docker://{AWAY}/bb:1 oci:lay:1"))?.ok()?;
        bed.sh(&format!("pier-distribution copy --src-tls-verify=false oci:lay:1 docker://{AWAY}/bb:2"))?.exits(1)?;
        bed.sh(&format!("pier-distribution copy --dest-tls-verify=false oci:lay:1 docker://{AWAY}/bb:2"))?.ok()?;
        bed.sh(&format!(
            "pier-distribution copy --tls-verify=false --dest-tls-verify=true oci:lay:1 docker://{AWAY}/bb:2"
        ))?
        .exits(1)?;
        bed.sh(&format!("pier-distribution pull --insecure --tls-verify=false {AWAY}/bb:1"))?.exits(2)?;
        bed.serve("engine")?;
        bed.sh(&format!("pier pull -q --insecure {AWAY}/bb:2"))?.ok().map(drop)
    })
}

#[test]
fn any_certificate_only_when_that_is_allowed() -> Result {
    isolated!(|bed| {
        image(bed)?;
        protected(bed)?;
        let push = |given: &str| bed.sh(&format!("pier-distribution push -q --creds ada:secret {given} {AWAY}/bb:1"));
        push("")?.exits(1)?.has("certificate")?;
        push("--tls-verify")?.exits(1)?;
        for given in ["--insecure", "--tls-verify=false", "--tls-skip-verify"] {
            push(given)?.ok()?;
        }
        Ok(())
    })
}
