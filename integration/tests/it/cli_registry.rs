//! `pier`'s verbs on registries: search, manifest lists, pulls with what belongs to an image.
use crate::cli::engine;
use crate::distribution_platforms::two;
use crate::distribution_referrers::{OURS, REGISTRY, referrers, signed, verified};
use crate::distribution_server::serve;
use anyhow::ensure;
use integration::{Bed, Result, isolated};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

const SEARCHED: &str = "127.0.0.1:5070";
const RESULTS: &str = r#"{"num_results":4,"query":"red","results":[
 {"name":"library/redis","description":"A store\nof\u001b[31m keys, and of much more that no table has the place to tell","star_count":9000,"is_official":true},
 {"name":"ada/red","description":null,"star_count":0},
 {"name":"../escape","description":"","star_count":99999,"is_official":true},
 {"name":"ada/redder","description":"","star_count":12,"is_official":false,"is_automated":true}]}"#;

/// Answers searches as Docker Hub does, and writes down what was asked.
fn hub(bed: &Bed) -> Result {
    let listener = TcpListener::bind(SEARCHED)?;
    let log = bed.dir().join("asked");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut reader = BufReader::new(&stream);
            let _ = reader.read_line(&mut line);
            let mut rest = String::new();
            while reader.read_line(&mut rest).is_ok_and(|n| n > 2) {
                rest.clear();
            }
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            if let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(&log) {
                let _ = writeln!(file, "{path}");
            }
            let (status, body) = if path.starts_with("/v1/search") {
                ("200 OK", RESULTS.replace("null", "\"\""))
            } else {
                ("200 OK", "{}".to_owned())
            };
            let length = body.len();
            let _ = write!(
                &stream,
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    Ok(())
}

#[test]
fn search_as_docker_has_it() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        hub(bed)?;
        let table = bed.sh(&format!("pier search {SEARCHED}/red"))?.ok()?;
        let lines: Vec<&str> = table.out().lines().collect();
        ensure!(lines.len() == 4, "a name that cannot be pulled is left out: {table}");
        ensure!(lines[0].split_whitespace().eq(["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]), "{table}");
        ensure!(
            lines[1].contains("A store of [31m keys, and of much more that …  ") && lines[1].ends_with("9000    [OK]"),
            "{table}"
        );
        let names = |args: &str| -> Result<String> {
            Ok(bed
                .sh(&format!("pier search --format '{{{{.Name}}}}' {args} {SEARCHED}/red | xargs"))?
                .ok()?
                .out()
                .to_owned())
        };
        let redis = format!("{SEARCHED}/library/redis");
        ensure!(names("-f is-official=true")? == redis && names("--limit 1")? == redis, "{}", names("--limit 1")?);
        ensure!(names("-f stars=10 -f is-official=false")? == format!("{SEARCHED}/ada/redder"));
        ensure!(names("--filter is-automated=true")?.ends_with("redder"));
        bed.sh("set -e; grep -x '/v1/search?q=red&n=25' asked; grep -x '/v1/search?q=red&n=1' asked")?.ok()?;
        // The three doors, and Docker Hub itself by configuration.
        bed.sh(&format!("pier-distribution search --no-trunc {SEARCHED}/red; pier-distribution search --format json {SEARCHED}/red | jq -r '.[0].name'"))?
            .ok()?
            .with("A store of [31m keys, and of much more that no table has the place to tell")?
            .has(&redis)?;
        bed.sh(&format!("printf '[[registry]]\nprefix = \"docker.io\"\nlocation = \"{SEARCHED}\"\n' >r.conf; pier-distribution search --registries-conf r.conf red"))?
            .ok()?
            .has("\nredis ")?;
        for (args, why) in [
            ("--limit 101 x", "from 1 to 100"),
            ("-f is-official=perhaps x", "true or false"),
            ("-f colour=red x", "is-official, is-automated, stars"),
            ("https://h/x", "without a protocol"),
            ("''", "it is empty"),
        ] {
            bed.sh(&format!("pier search {args}"))?.exits(1)?.has(why)?;
        }
        Ok(())
    })
}

/// A registry without a search is looked through; one that tells nothing says so.
#[test]
fn search_of_a_catalog() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        serve(bed, "ours", OURS, &["--registry-dir", "ours.d"])?;
        bed.sh(&format!("set -e; for n in team/web team/worker other; do pier-distribution tag bb {OURS}/$n:1; pier push -q {OURS}/$n:1; done"))?.ok()?;
        bed.sh(&format!("pier search {OURS}/team/w --format '{{{{.Name}}}} {{{{.StarCount}}}}'"))?
            .ok()?
            .has(&format!("{OURS}/team/web 0\n{OURS}/team/worker 0"))?;
        bed.sh(&format!("pier search --format json {OURS}/ | wc -l; pier search {OURS}/none | wc -l"))?
            .ok()?
            .has("3\n1")?;
        bed.sh("pier search 127.0.0.1:9/x")?.exits(1)?.has("cannot reach the registry")
    })
}

#[test]
fn manifest_lists_as_docker_has_them() -> Result {
    isolated!(|bed| {
        two(bed)?;
        bed.serve("engine")?;
        serve(bed, "ours", OURS, &["--registry-dir", "ours.d"])?;
        bed.sh(&format!(
            "set -e; for p in amd64 arm64; do pier-distribution copy --platform linux/$p oci:lay:two:1 docker://{OURS}/app:$p; done
             pier manifest create {OURS}/app:1 {OURS}/app:amd64"
        ))?
        .ok()?
        .has(&format!("Created manifest list {OURS}/app:1"))?;
        let create = format!("pier manifest create {OURS}/app:1 {OURS}/app:arm64");
        bed.sh(&create)?.exits(1)?.has("--amend")?;
        bed.sh(&format!("{create} --amend"))?.ok()?;
        bed.sh(&format!("pier-distribution manifest create --amend {OURS}/app:1 {OURS}/app:arm64"))?.ok()?;
        let platforms = format!(
            "pier manifest inspect {OURS}/app:1 | jq -c '[.manifests[].platform | .architecture + (.variant // \"\")]'"
        );
        bed.sh(&platforms)?.ok()?.has(r#"["amd64","arm64"]"#)?;
        bed.sh(&format!("pier manifest annotate --variant v8 --os-features a,b {OURS}/app:1 {OURS}/app:arm64; {platforms}; pier manifest inspect {OURS}/app:1"))?
            .ok()?
            .with(r#"["amd64","arm64v8"]"#)?
            .has("\"os.features\"")?;
        bed.sh(&format!("pier manifest annotate --arch x {OURS}/app:1 {OURS}/app:none"))?.exits(1)?.has("app:none")?;
        // One of it, and the long form.
        bed.sh(&format!("pier manifest inspect {OURS}/app:1 {OURS}/app:arm64 | jq -r .config.mediaType; pier manifest inspect -v {OURS}/app:arm64 | jq -r '.Ref, .Descriptor.platform.architecture, (.Raw | @base64d | fromjson | .schemaVersion)'"))?
            .ok()?
            .has(&format!("application/vnd.oci.image.config.v1+json\n{OURS}/app:arm64\narm64\n2"))?;
        bed.sh(&format!("pier manifest push -p {OURS}/app:1 >digest; cat digest; pier-distribution digest {OURS}/app:1 | diff - digest"))?
            .ok()?
            .has("sha256:")?;
        // It is the registry's now, and forgotten here; an index without this host's platform can be looked at, too.
        bed.sh(&format!("{platforms}; pier manifest inspect -v {OURS}/app:1 | jq -c '[.[].Descriptor.platform.architecture]'; pier manifest rm {OURS}/app:1"))?
            .exits(1)?
            .with(r#"["amd64","arm64v8"]"#)?
            .with(r#"["amd64","arm64"]"#)?
            .has("app:1")?;
        bed.sh(&format!("set -e; pier manifest create {OURS}/arm:1 {OURS}/app:arm64 >/dev/null; pier manifest push {OURS}/arm:1 >/dev/null; pier manifest rm {OURS}/arm:1; pier manifest inspect {OURS}/arm:1 | jq -r '.manifests[].platform.architecture'"))?
            .ok()?
            .has("arm64")?;
        bed.sh(&format!("pier manifest inspect {OURS}/none:1"))?.exits(1)?.has("not found").map(drop)
    })
}

/// By every door; kept by garbage collection as long as the image, and no longer.
#[test]
fn a_pull_brings_what_belongs_to_the_image() -> Result {
    isolated!(|bed| {
        signed(bed)?;
        bed.serve("engine")?;
        let image = format!("{REGISTRY}/bb:1");
        let here = referrers(bed, &format!("docker://{image}"))?;
        for (pull, root) in [
            (format!("pier pull -q --referrers {image}"), "root"),
            (format!("pier-distribution --root two pull -q --referrers {image}"), "two"),
            (
                format!("pier-distribution --root three pull -q --all-platforms --no-unpack --referrers {image}"),
                "three",
            ),
        ] {
            bed.sh(&pull)?.ok()?;
            bed.sh(&format!(
                "set -e; export PIER_ROOT=$PWD/{root}; pier-distribution gc --abandoned >/dev/null; pier-distribution check; rm -f s.tar; pier-distribution save -q --referrers -o s.tar {image}"
            ))?
            .ok()?
            .has(", 0 damaged")?;
            verified(bed, "oci-archive:s.tar")?;
            ensure!(referrers(bed, "oci-archive:s.tar")? == here, "{root}");
        }
        // One that is here already gets them, too: the tag of a signature, and what refers to the image.
        bed.sh(&format!("set -e; export PIER_ROOT=$PWD/four; pier-distribution pull -q {image}; pier-distribution inspect {image} | jq -c '.attached'
             pier-distribution pull -q --referrers {image}; pier-distribution inspect {image} | jq '.attached | length'"))?
            .ok()?
            .with("[]\n")?
            .has(&format!("\n{here}"))?;
        bed.sh(&format!(
            "pier-distribution --root two rm {image} >/dev/null; find two/distribution/blobs -type f | wc -l"
        ))?
        .ok()?
        .has("0")?;
        // A signature that is damaged at the registry: the pull fails and leaves no image.
        bed.sh("for f in $(grep -rl simplesigning . --include=data 2>/dev/null | head -3); do echo x >>$f; done")?;
        bed.sh(&format!("pier-distribution --root five pull -q --referrers {image}; e=$?; pier-distribution --root five ls -q; exit $e"))?
            .fails()
            .and_then(|out| { ensure!(out.out().is_empty(), "{out}"); Ok(()) })
    })
}

/// Docker's `until`, by when a network was made; the same moment for all that is pruned, or nothing at all.
#[test]
fn prune_until() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("set -e; pier network create old --label keep=yes >/dev/null; pier network create older >/dev/null; sleep 1.1; date +%s >then; sleep 1.1; pier network create new >/dev/null
             pier create --name c --network none bb true >/dev/null")?
            .ok()?;
        let networks = || -> Result<String> {
            Ok(bed
                .sh("pier network ls -q --filter driver=bridge --format '{{.Name}}' | sort | xargs")?
                .ok()?
                .out()
                .to_owned())
        };
        let before = networks()?;
        for (until, why) in [("yesterday", "an age such as 24h"), ("-1h", "an age such as 24h")] {
            bed.sh(&format!(
                "pier system prune -f --filter until={until}; pier network prune -f --filter until={until}"
            ))?
            .exits(1)?
            .has(why)?;
        }
        bed.sh("pier system prune -f --filter until=1h --filter until=2h")?.exits(1)?.has("one is expected")?;
        ensure!(networks()? == before, "{}", networks()?);
        bed.sh("pier system prune -f --filter until=1h --filter label!=keep; pier ps -aq | wc -l")?.ok()?.has("\n1")?;
        ensure!(networks()? == before, "nothing is an hour old: {}", networks()?);
        bed.sh("pier system prune -f --filter until=$(cat then) --filter label!=keep")?
            .ok()?
            .with("older")?
            .without("new")?;
        bed.sh("pier network inspect old new >/dev/null; pier ps -aq | wc -l")?.ok()?.has("1")?;
        bed.sh("pier-network prune --filter until=$(cat then); pier network inspect -f '{{.Name}}' new; pier network inspect old")?
            .fails()?
            .has("new")?;
        bed.sh("sleep 1; pier network prune -f --filter until=0s")?.ok()?.has("new")?;
        bed.sh("pier system prune -f --filter until=0s; pier ps -aq | wc -l")?.ok()?.has("0")
    })
}
