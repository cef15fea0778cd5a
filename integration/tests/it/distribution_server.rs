//! `pier-distribution serve --registry`: the distribution specification's four categories by curl, Debian's clients, crashes.
use integration::{Bed, Daemon, Result, eventually, isolated};
use std::time::Duration;

const ADDRESS: &str = "127.0.0.1:5050";
/// "ada" with the password "secret".
pub const USERS: &str = "ada:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Starts a registry with more arguments, and waits until it answers.
pub fn serve(bed: &Bed, name: &str, address: &str, args: &[&str]) -> Result<Daemon> {
    let mut command = bed.command("pier-distribution");
    command.args(["serve", "--registry-only", "--registry", address]).args(args);
    let daemon = bed.spawn(name, &mut command)?;
    eventually(Duration::from_secs(10), || {
        std::net::TcpStream::connect(address).map_err(|e| anyhow::anyhow!("{e}\n{}", bed.log(name)))?;
        Ok(())
    })?;
    Ok(daemon)
}

/// A shell library for the specification's requests: `code CURL-ARGS` prints the status, the body goes to `body`, the headers to
/// `head`; `blob FILE` pushes a file and prints its digest; `manifest TAG CONFIG LAYER [EXTRA]` pushes a small manifest.
const SHELL: &str = r#"set -eu; R=http://127.0.0.1:5050/v2
code() { : >head; : >body; curl -sS -o body -D head -w '%{http_code}' "$@"; }
is() { [ "$1" = "$2" ] || { echo "got $1, expected $2"; cat head body; exit 1; }; }
header() { tr -d '\r' <head | sed -n "s/^$1: //Ip"; }
sha() { echo sha256:$(sha256sum <"$1" | cut -d' ' -f1); }
blob() { is $(code -X POST --data-binary @$1 -H 'Content-Type: application/octet-stream' "$R/$2/blobs/uploads/?digest=$(sha $1)") 201; sha $1; }
M=application/vnd.oci.image.manifest.v1+json
make() { printf '{"schemaVersion":2,"mediaType":"%s",%s"config":{"mediaType":"%s","digest":"%s","size":%s},"layers":[{"mediaType":"application/x","digest":"%s","size":%s}]}' \
  $M "${5:-}" "${4:-application/vnd.test.config}" $(sha $2) $(stat -c %s $2) $(sha $3) $(stat -c %s $3) >$1; }
put() { code -X PUT -H "Content-Type: $M" --data-binary @$1 "$R/$2/manifests/$3"; }
printf '{}' >config; head -c 300000 /dev/urandom >layer
"#;

fn sh(bed: &Bed, script: &str) -> Result {
    bed.sh(&format!("{SHELL}{script}"))?.ok().map(drop)
}

#[test]
fn blobs_are_pushed_in_every_way() -> Result {
    isolated!(|bed| {
        serve(bed, "registry", ADDRESS, &[])?;
        sh(
            bed,
            r#"D=$(sha layer)
            # POST then PUT; a wrong digest is refused and leaves nothing.
            is $(code -X POST $R/a/b/blobs/uploads/) 202; U=http://127.0.0.1:5050$(header location)
            is $(code -X PUT --data-binary @config "$U?digest=$D") 400; grep -q DIGEST_INVALID body
            is $(code -X PUT --data-binary @layer "$U?digest=$D") 404; grep -q BLOB_UPLOAD_UNKNOWN body
            is $(code $R/a/b/blobs/$D) 404; grep -q BLOB_UNKNOWN body
            is $(code -X POST $R/a/b/blobs/uploads/) 202; U=http://127.0.0.1:5050$(header location)
            is $(code -X PUT --data-binary @layer "$U?digest=$D") 201; is $(header docker-content-digest) $D
            is $(code $R/a/b/blobs/$D) 200; cmp body layer
            # Chunks in order; one out of order says where to go on.
            head -c 100000 layer >one; tail -c +100001 layer >two
            is $(code -X POST -H 'Content-Length: 0' $R/c/blobs/uploads/) 202; U=http://127.0.0.1:5050$(header location)
            is $(code -X PATCH -H 'Content-Range: 5-100004' --data-binary @one $U) 416; is $(header range) 0-0
            is $(code -X PATCH -H 'Content-Range: 0-99999' --data-binary @one $U) 202; is $(header range) 0-99999
            is $(code -X PATCH -H 'Content-Range: 0-99999' --data-binary @one $U) 416; is $(header range) 0-99999
            is $(code $U) 204; is $(header range) 0-99999
            is $(code $(echo $U | sed s,/c/,/other/,)) 404
            is $(code -X PUT -H 'Content-Range: 100000-299999' --data-binary @two "$U?digest=$D") 201
            is $(code $R/c/blobs/$D) 200; cmp body layer
            # A stream without ranges, as docker sends it; sha512; the empty blob.
            is $(code -X POST $R/d/blobs/uploads/?digest-algorithm=sha512) 202; U=http://127.0.0.1:5050$(header location)
            is $(code -X PATCH -T - $U <layer) 202; S=sha512:$(sha512sum <layer | cut -d' ' -f1)
            is $(code -X PUT -H 'Content-Length: 0' "$U?digest=$S") 201
            is $(code $R/d/blobs/$S) 200; cmp body layer
            : >empty; blob empty d
            is $(code -X POST "$R/d/blobs/uploads/?digest-algorithm=md5") 400
            # Cancel.
            is $(code -X POST $R/d/blobs/uploads/) 202; U=http://127.0.0.1:5050$(header location)
            is $(code -X DELETE $U) 204; is $(code $U) 404
            # Mounts: from a repository, from anywhere, and from where it is not.
            is $(code -X POST "$R/e/blobs/uploads/?mount=$D&from=a/b") 201; is $(code -I $R/e/blobs/$D) 200
            is $(code -X POST "$R/f/blobs/uploads/?mount=$D") 201; is $(code -I $R/f/blobs/$D) 200
            is $(code -X POST "$R/g/blobs/uploads/?mount=$D&from=d") 202; is $(code -I $R/g/blobs/$D) 404
            is $(code -X POST $R/UP/blobs/uploads/) 400; grep -q NAME_INVALID body"#,
        )?;
        bed.sh("pier-distribution check; ls $PIER_ROOT/distribution/uploads | wc -l")?
            .ok()?
            .with(", 0 damaged")?
            .has("1\n")
    })
}

#[test]
fn what_was_pushed_is_pulled_byte_for_byte_and_in_ranges() -> Result {
    isolated!(|bed| {
        serve(bed, "registry", ADDRESS, &[])?;
        sh(
            bed,
            r#"make m config layer
            is $(put m r v1) 404; grep -q MANIFEST_BLOB_UNKNOWN body
            D=$(blob layer r); blob config r; is $(put m r v1) 201; is $(header docker-content-digest) $(sha m)
            is $(code $R/r/manifests/v1) 200; cmp body m; is $(header content-type) $M
            is $(code $R/r/manifests/$(sha m)) 200; cmp body m
            is $(code -I $R/r/manifests/v1) 200; is $(header content-length) $(stat -c %s m)
            is $(code $R/r/manifests/v2) 404; grep -q MANIFEST_UNKNOWN body; is $(code $R/nothing/tags/list) 404
            is $(code -H 'Range: bytes=1000-1999' $R/r/blobs/$D) 206; tail -c +1001 layer | head -c 1000 | cmp - body
            is "$(header content-range)" "bytes 1000-1999/300000"
            is $(code -H 'Range: bytes=-5' $R/r/blobs/$D) 206; tail -c 5 layer | cmp - body
            is $(code -H 'Range: bytes=300000-' $R/r/blobs/$D) 416; is "$(header content-range)" "bytes */300000"
            is $(code -I $R/r/blobs/$D) 200; is $(header content-length) 300000; is $(header accept-ranges) bytes
            # Bad manifests: another digest, no JSON, both manifest and index, another type, too large.
            is $(put m r $(sha layer)) 400; grep -q DIGEST_INVALID body
            is $(put layer r x) 400; grep -q MANIFEST_INVALID body
            sed 's/"config"/"manifests":[],"config"/' m >both; is $(put both r x) 400
            sed 's/image.manifest/image.index/' m >lie; is $(put lie r x) 400
            (cat m; head -c 9000000 /dev/zero | tr '\0' ' ') >big; is $(put big r x) 413
            # Foreign layers need not be here; types and unknown fields are kept as they came.
            sed 's|"application/x"|"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","urls":["http://x/"]|' m |
              sed "s/$(sha layer)/$(sha both)/;s/^{/{\"x\": [1,  2],/" >foreign
            is $(put foreign r f) 201; is $(code $R/r/manifests/f) 200; cmp body foreign
            # Tags beside a digest.
            is $(put m r "$(sha m)?tag=t1&tag=t2") 201; is "$(header oci-tag | sort | xargs)" "t1 t2"
            is $(code $R/r/manifests/t2) 200; cmp body m"#,
        )
    })
}

#[test]
fn content_is_listed_in_pages() -> Result {
    isolated!(|bed| {
        serve(bed, "registry", ADDRESS, &[])?;
        sh(
            bed,
            r#"make m config layer; for r in a z/y; do blob layer $r; blob config $r; done
            for t in b a C d; do is $(put m a $t) 201; done; is $(put m z/y only) 201
            is $(code $R/a/tags/list) 200; is "$(jq -c .tags body)" '["C","a","b","d"]'
            is $(code "$R/a/tags/list?n=2") 200; is "$(jq -c .tags body)" '["C","a"]'
            NEXT=$(header link | sed 's/^<//;s/>.*//'); is $(code "http://127.0.0.1:5050$NEXT") 200
            is "$(jq -c .tags body)" '["b","d"]'; is "$(header link)" ""
            is $(code "$R/a/tags/list?n=0") 200; is "$(jq -c .tags body)" '[]'; is "$(header link)" ""
            is $(code "$R/a/tags/list?last=b") 200; is "$(jq -c .tags body)" '["d"]'
            is $(code "$R/a/tags/list?n=x") 400
            is $(code "$R/_catalog?n=1") 200; is "$(jq -c .repositories body)" '["a"]'
            is $(code "$R/_catalog?n=1&last=a") 200; is "$(jq -c .repositories body)" '["z/y"]'
            # Referrers: the type from artifactType or the config, annotations, a filter; the subject need not be here.
            S="\"subject\":{\"mediaType\":\"$M\",\"digest\":\"$(sha m)\",\"size\":9},\"annotations\":{\"k\":\"v\"},"
            make r1 config layer application/vnd.type.one "$S"; make r2 config layer x "\"artifactType\":\"t/two\",$S"
            is $(put r1 a $(sha r1)) 201; is $(header oci-subject) $(sha m); is $(put r2 a $(sha r2)) 201
            is $(code $R/a/referrers/$(sha m)) 200; is "$(header content-type)" application/vnd.oci.image.index.v1+json
            is "$(jq -r '[.manifests[]|.artifactType]|sort|join(" ")' body)" "application/vnd.type.one t/two"
            is "$(jq -r '.manifests[0].annotations.k' body)" v; is "$(header oci-filters-applied)" ""
            is $(code "$R/a/referrers/$(sha m)?artifactType=t%2Ftwo") 200
            is "$(jq -r '.manifests[].digest' body)" $(sha r2); is "$(header oci-filters-applied)" artifactType
            is $(code $R/a/referrers/$(sha layer)) 200; is "$(jq -c .manifests body)" '[]'
            is $(code $R/a/referrers/sha256:1) 400"#,
        )
    })
}

#[test]
fn what_is_deleted_is_gone_and_its_bytes_go_with_gc() -> Result {
    isolated!(|bed| {
        serve(bed, "registry", ADDRESS, &["--registry-dir", "x/distribution"])?;
        sh(
            bed,
            r#"make m config layer; for r in a b; do blob layer $r; blob config $r; is $(put m $r t) 201; is $(put m $r u) 201; done
            is $(code -X DELETE $R/a/manifests/t) 202; is $(code $R/a/manifests/t) 404; is $(code $R/a/manifests/u) 200
            is $(code -X DELETE $R/a/manifests/$(sha m)) 202; is $(code $R/a/manifests/u) 404; is $(code $R/a/manifests/$(sha m)) 404
            is $(code -X DELETE $R/a/manifests/$(sha m)) 404
            is $(code -X DELETE $R/a/blobs/$(sha layer)) 202; is $(code $R/a/blobs/$(sha layer)) 404
            is $(code -X DELETE $R/a/blobs/$(sha layer)) 404; is $(code $R/b/blobs/$(sha layer)) 200; cmp body layer"#,
        )?;
        let gc = "pier-distribution --root $PWD/x gc && find x/distribution/blobs -type f | wc -l";
        bed.sh(gc)?.ok()?.with("\n3\n")?;
        sh(
            bed,
            r#"make m config layer; is $(code -X DELETE $R/b/blobs/$(sha config)) 202
            D=$(curl -sI $R/b/manifests/t | tr -d '\r' | sed -n 's/docker-content-digest: //Ip'); is $(code -X DELETE $R/b/manifests/$D) 202
            for d in $(ls x/distribution/blobs/sha256); do for r in a b; do code -X DELETE $R/$r/blobs/sha256:$d; done; done >/dev/null"#,
        )?;
        bed.sh(gc)?.ok()?.has("\n0\n")
    })
}

/// A certificate for 127.0.0.1 that is its own authority, as `ca.crt` and `key`, and the users' file.
pub fn protected(bed: &Bed) -> Result<Daemon> {
    std::fs::write(bed.dir().join("users"), USERS)?;
    bed.sh(
        "mkdir certs && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=pier \
         -addext subjectAltName=IP:127.0.0.1 -keyout key -out certs/ca.crt",
    )?
    .ok()?;
    let args = ["--registry-tls-cert", "certs/ca.crt", "--registry-tls-key", "key", "--registry-htpasswd", "users"];
    // An address that is not loopback: our own client speaks plain HTTP to those.
    bed.sh("ip addr add 10.9.9.1/32 dev lo")?.ok()?;
    serve(bed, "registry", "0.0.0.0:5050", &args)
}

#[test]
fn debians_clients_push_and_pull_with_tls_and_a_password() -> Result {
    isolated!(|bed| {
        protected(bed)?;
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        bed.sh(&format!("pier-distribution import {tar} bb:1 && pier-distribution copy store:bb:1 oci:layout:bb"))?
            .ok()?;
        let skopeo = "skopeo --insecure-policy copy --quiet --preserve-digests";
        let access = |side: &str| format!("--{side}-creds ada:secret --{side}-cert-dir certs");
        let wrong =
            format!("{skopeo} --dest-creds ada:wrong --dest-cert-dir certs oci:layout:bb docker://{ADDRESS}/x/bb:1");
        bed.sh(&wrong)?.fails()?.has("authentication required")?;
        bed.sh(&format!("curl -sk -o /dev/null -w '%{{http_code}}' https://{ADDRESS}/v2/"))?.has("401")?;
        bed.sh(&format!("{skopeo} {} oci:layout:bb docker://{ADDRESS}/x/bb:1", access("dest")))?.ok()?;
        bed.sh(&format!("{skopeo} {} docker://{ADDRESS}/x/bb:1 oci:back:bb", access("src")))?.ok()?;
        bed.sh("diff <(cd layout/blobs/sha256; ls) <(cd back/blobs/sha256; ls)")?.ok()?;
        bed.sh(&format!("skopeo list-tags --creds ada:secret --cert-dir certs docker://{ADDRESS}/x/bb"))?
            .ok()?
            .has("\"1\"")?;
        bed.sh(&format!("skopeo delete --creds ada:secret --cert-dir certs docker://{ADDRESS}/x/bb:1"))?.ok()?;
        bed.sh(&format!("curl -sk -u ada:secret https://{ADDRESS}/v2/x/bb/tags/list"))?.ok()?.has("[]")?;
        let podman = "podman --root $DIR/p --runroot $DIR/pr --storage-driver vfs";
        bed.sh(&format!(
            "{podman} pull -q oci:layout:bb && {podman} tag $({podman} images -q) {ADDRESS}/x/bb:2 && \
             {podman} push -q --creds ada:secret --cert-dir certs {ADDRESS}/x/bb:2 && {podman} rmi -af && \
             {podman} pull -q --creds ada:secret --cert-dir certs {ADDRESS}/x/bb:2; E=$?; {podman} rmi -af; exit $E"
        ))?
        .ok()?;
        bed.sh("pier-distribution --root other pull --creds ada:secret --tls-skip-verify 10.9.9.1:5050/x/bb:2")?
            .ok()?;
        Ok(())
    })
}

#[test]
fn strangers_are_not_served_by_accident() -> Result {
    isolated!(|bed| {
        let serve = "pier-distribution serve --registry-only --registry 0.0.0.0:5051";
        bed.sh(serve)?.exits(1)?.with("no TLS certificate")?.has("--registry-open")?;
        std::fs::write(bed.dir().join("users"), "ada:$apr1$x\n")?;
        bed.sh("pier-distribution serve --registry-only --registry 127.0.0.1:0 --registry-htpasswd users")?
            .exits(1)?
            .with("line 1")?
            .has("htpasswd -B")
    })
}

#[test]
fn an_upload_goes_on_after_sigkill_and_twins_do_not_disturb_each_other() -> Result {
    isolated!(|bed| {
        let first = serve(bed, "registry", ADDRESS, &[])?;
        bed.sh("head -c 30000000 /dev/urandom >big")?.ok()?;
        let begin = r#"is $(code -X POST $R/a/blobs/uploads/) 202; echo http://127.0.0.1:5050$(header location) >url
            head -c 10000000 big >one; is $(code -X PATCH -H 'Content-Range: 0-9999999' -T one $(cat url)) 202
            (curl -s --limit-rate 4M -X PATCH -H 'Content-Range: 10000000-29999999' -T <(tail -c +10000001 big) $(cat url) || true) >/dev/null 2>&1 &
            sleep 1.5"#;
        sh(bed, begin)?;
        first.kill()?;
        serve(bed, "again", ADDRESS, &[])?;
        let resume = r#"is $(code $(cat url)) 204; AT=$(header range | cut -d- -f2); AT=$((AT+1)); [ $AT -gt 10000000 ] && [ $AT -lt 30000000 ]
            tail -c +$((AT+1)) big >rest; is $(code -X PATCH -H "Content-Range: $AT-29999999" --data-binary @rest $(cat url)) 202
            is $(code -X PUT -H 'Content-Length: 0' "$(cat url)?digest=$(sha big)") 201
            is $(code $R/a/blobs/$(sha big)) 200; cmp body big; rm one rest"#;
        sh(bed, resume)?;
        let twins = r#"D=$(sha layer); for i in 1 2 3 4 5 6; do (mkdir $i; cd $i; cp ../layer ../config .
              is $(code -X POST $R/t/blobs/uploads/) 202; U=http://127.0.0.1:5050$(header location)
              is $(code -X PUT --limit-rate 1M --data-binary @layer "$U?digest=$D") 201) & P="${P:-} $!"; done
            for p in $P; do wait $p; done; is $(code $R/t/blobs/$D) 200; cmp body layer; rm -r 1 2 3 4 5 6"#;
        sh(bed, twins)?;
        bed.sh("ls $PIER_ROOT/distribution/uploads; pier-distribution check; rm big body")?
            .ok()?
            .with(", 0 damaged")?;
        let left = std::fs::read_dir(bed.root().join("distribution/uploads"))?.count();
        anyhow::ensure!(left == 0, "{left} uploads are left");
        Ok(())
    })
}

#[test]
fn the_stores_images_are_offered_under_their_names() -> Result {
    isolated!(|bed| {
        serve(bed, "registry", ADDRESS, &[])?;
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        bed.sh(&format!("pier-distribution import {tar} quay.io/x/bb:1 && pier-distribution tag quay.io/x/bb:1 bb:2"))?
            .ok()?;
        bed.sh(&format!("curl -s http://{ADDRESS}/v2/_catalog"))?.ok()?.has(r#"["bb","quay.io/x/bb"]"#)?;
        for name in ["quay.io/x/bb:1", "library/bb:2", "bb:2"] {
            bed.sh(&format!(
                "rm -rf o && skopeo --insecure-policy copy --src-tls-verify=false docker://{ADDRESS}/{name} dir:o"
            ))?
            .ok()?;
        }
        // What is pushed there and pulled again on the same store copies no byte.
        bed.sh(&format!("skopeo --insecure-policy copy --dest-tls-verify=false dir:o docker://{ADDRESS}/new:1"))?
            .ok()?;
        bed.sh(&format!("pier-distribution pull {ADDRESS}/new:1 && pier-distribution check"))?
            .ok()?
            .with(", 0 damaged")?;
        bed.sh(&format!("rm -rf o; skopeo delete --tls-verify=false docker://{ADDRESS}/bb:2"))?.ok()?;
        bed.sh("pier-distribution ls --format json")?.ok()?.with("quay.io/x/bb:1")?.without("library/bb:2").map(drop)
    })
}

/// Debian's registry on 127.0.0.1:5002 with a log of every request.
pub fn upstream(bed: &Bed) -> Result<Daemon> {
    let storage = bed.dir().join("upstream.d").display().to_string();
    let config = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {storage}}}\n\
         http: {{addr: \"127.0.0.1:5002\"}}\n"
    );
    std::fs::write(bed.dir().join("upstream.yml"), config)?;
    let daemon = bed.spawn("upstream", bed.command("docker-registry").args(["serve", "upstream.yml"]))?;
    eventually(Duration::from_secs(10), || Ok(std::net::TcpStream::connect("127.0.0.1:5002").map(drop)?))?;
    Ok(daemon)
}

#[test]
fn a_cache_fetches_once_and_serves_when_the_upstream_is_down() -> Result {
    isolated!(|bed| {
        let daemon = upstream(bed)?;
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        bed.sh(&format!(
            "pier-distribution import {tar} 127.0.0.1:5002/bb:1 && pier-distribution push 127.0.0.1:5002/bb:1"
        ))?
        .ok()?;
        let proxy = ["--registry-dir", "x/distribution", "--registry-proxy", "http://127.0.0.1:5002"];
        serve(bed, "cache", ADDRESS, &proxy)?;
        let skopeo = format!("skopeo --insecure-policy copy -q --src-tls-verify=false docker://{ADDRESS}/bb:1");
        bed.sh(&format!(
            "for i in 1 2 3 4 5 6; do {skopeo} dir:o$i & P=\"$P $!\"; done; for p in $P; do wait $p || exit 1; done"
        ))?
        .ok()?;
        bed.sh("diff -r o1 o6")?.ok()?;
        let log = bed.log("upstream");
        let fetched = log.lines().filter(|line| line.contains("\"GET /v2/bb/blobs/sha256:")).count();
        anyhow::ensure!(fetched == 2, "{fetched} downloads of two blobs\n{log}");
        let status = |rest: &str| bed.sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' {rest}"));
        status(&format!("-X POST http://{ADDRESS}/v2/x/blobs/uploads/"))?.has("405")?;
        status(&format!("http://{ADDRESS}/v2/bb/manifests/none"))?.has("404")?;
        daemon.kill()?;
        bed.sh(&format!("{skopeo} dir:o7 && diff -r o1 o7"))?.ok()?;
        bed.sh("pier-distribution --root $PWD/x check")?.ok()?.has(", 0 damaged")
    })
}

/// A lost database costs a repository nothing that was pushed, and brings nothing back that was removed.
#[test]
fn repositories_survive_the_loss_of_the_database() -> Result {
    isolated!(|bed| {
        let registry = serve(bed, "registry", ADDRESS, &[])?;
        sh(
            bed,
            r#"make m config layer; blob config r; blob layer r; blob config s/t; blob layer s/t
            make n config layer application/vnd.test.other; make about config layer x '"subject":'"$(printf '{"mediaType":"%s","digest":"%s","size":%s}' $M $(sha m) $(stat -c %s m)),"
            for tag in v1 v2 moved gone; do is $(put m r $tag) 201; done; is $(put n r moved) 201; is $(put m s/t v1) 201
            is $(put about r $(sha about)) 201
            is $(code -X DELETE $R/r/manifests/gone) 202; is $(code -X DELETE $R/s/t/manifests/$(sha m)) 202; is $(put n s/t v3) 201"#,
        )?;
        registry.kill()?;
        bed.sh("rm $PIER_ROOT/distribution/store.db*; pier-distribution gc; pier-distribution check")?
            .ok()?
            .with(", 0 damaged")?;
        serve(bed, "registry-again", ADDRESS, &[])?;
        sh(
            bed,
            r#"for tag in v1 v2; do is $(code $R/r/manifests/$tag) 200; cmp body m; is $(header content-type) $M; done
            is $(code $R/r/manifests/moved) 200; cmp body n
            is $(code $R/r/manifests/gone) 404; is $(code $R/s/t/manifests/v1) 404; is $(code $R/s/t/manifests/v3) 200
            is $(code $R/r/referrers/$(sha m)) 200; grep -q $(sha about) body
            is $(code $R/r/blobs/$(sha config)) 200; is $(code $R/_catalog) 200; grep -q '"r","s/t"' body"#,
        )
    })
}
