//! A cache of a registry that keeps to a size, and a quarantine that does not grow for ever.
use crate::distribution_server::{serve, upstream};
use anyhow::ensure;
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

const CACHE: &str = "127.0.0.1:5050";
const UPSTREAM: &str = "127.0.0.1:5002";

/// Images n:1 .. n:4 of 3 MiB each at the upstream, above a layer of 1 MiB that all of them have.
fn images(bed: &Bed) -> Result {
    bed.sh(&format!(
        "set -e; export PIER_ROOT=$DIR/maker; mkdir base; head -c 1048576 /dev/urandom >base/b; tar c -C base . >base.tar
         pier-distribution import -q base.tar base:1 >/dev/null
         for i in 1 2 3 4; do rm -rf f; mkdir f; head -c 3145728 /dev/urandom >f/f; tar c -C f . >f.tar
           pier-distribution mutate base:1 {UPSTREAM}/n:$i --append f.tar >/dev/null; pier-distribution push -q {UPSTREAM}/n:$i; done"
    ))?
    .ok()
    .map(drop)
}

fn copy(bed: &Bed, tag: &str) -> Result {
    bed.sh(&format!(
        "rm -rf o; skopeo copy -q --insecure-policy --src-tls-verify=false docker://{CACHE}/n:{tag} dir:o"
    ))?
    .ok()
    .map(drop)
}

/// The megabytes of the cache's blobs, and how often the upstream was asked for a layer.
fn state(bed: &Bed) -> Result<(u64, usize)> {
    let megabytes = bed.sh("du -sm --apparent-size x/distribution/blobs | cut -f1")?.ok()?.out().parse()?;
    let asked = bed.log("upstream").lines().filter(|line| line.contains("\"GET /v2/n/blobs/sha256:")).count();
    Ok((megabytes, asked))
}

#[test]
fn a_cache_keeps_what_was_asked_for_last() -> Result {
    isolated!(|bed| {
        let upstream = upstream(bed)?;
        images(bed)?;
        // What was pushed into the same directory before is not the cache's to give up.
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        let own = serve(bed, "own", CACHE, &["--registry-dir", "x/distribution"])?;
        bed.sh(&format!(
            "pier-distribution import -q {tar} {CACHE}/mine:1 && pier-distribution push -q {CACHE}/mine:1"
        ))?
        .ok()?;
        own.kill()?;
        let url = format!("http://{UPSTREAM}");
        let proxy = ["--registry-dir", "x/distribution", "--registry-proxy", &url, "--registry-proxy-keep", "8"];
        serve(bed, "cache", CACHE, &proxy)?;
        for tag in ["1", "2", "1", "3"] {
            copy(bed, tag)?;
            // Times are the file system's clock: some milliseconds.
            std::thread::sleep(Duration::from_millis(50));
        }
        // 1 + 3 * 3 MiB and the pushed one: the second image goes, for the first was asked for again.
        eventually(Duration::from_secs(20), || {
            let (megabytes, _) = state(bed)?;
            ensure!(megabytes <= 10, "{megabytes} MB");
            Ok(())
        })?;
        upstream.kill()?;
        for (tag, there) in [("1", true), ("3", true), ("2", false)] {
            let copied = copy(bed, tag);
            ensure!(copied.is_ok() == there, "{tag}: {copied:?}\n{}", bed.log("cache"));
        }
        bed.sh(&format!("skopeo copy -q --insecure-policy --src-tls-verify=false docker://{CACHE}/mine:1 dir:p"))?
            .ok()?;
        bed.sh("pier-distribution --root $PWD/x check")?.ok()?.has(", 0 damaged")
    })
}

#[test]
fn a_cache_works_on_while_it_shrinks() -> Result {
    isolated!(|bed| {
        let _upstream = upstream(bed)?;
        images(bed)?;
        let url = format!("http://{UPSTREAM}");
        serve(
            bed,
            "cache",
            CACHE,
            &["--registry-dir", "x/distribution", "--registry-proxy", &url, "--registry-proxy-keep", "1"],
        )?;
        for round in 0..2 {
            for tag in ["1", "2", "3", "4"] {
                copy(bed, tag)?;
                bed.sh(&format!("skopeo copy -q --insecure-policy --src-tls-verify=false docker://{UPSTREAM}/n:{tag} dir:p && diff -r o p; e=$?; rm -r p; exit $e"))?.ok()?;
            }
            eventually(Duration::from_secs(20), || {
                let (megabytes, _) = state(bed)?;
                ensure!(megabytes <= 1, "{megabytes} MB in round {round}");
                Ok(())
            })?;
        }
        // Asked for again after it went: both rounds, eight layers each.
        let (_, asked) = state(bed)?;
        ensure!(asked >= 16, "{asked}");
        bed.sh("pier-distribution --root $PWD/x check")?.ok()?.has(", 0 damaged")
    })
}

/// Thirty days, by the clock that the file system sees; `gc --quarantine` at once.
#[test]
fn the_quarantine_is_emptied() -> Result {
    isolated!(|bed| {
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        bed.sh(&format!(
            "set -e; pier-distribution import -q {tar} a:1; for b in root/distribution/blobs/sha256/*; do echo x >>$b; done
             pier-distribution check --repair || true; ls root/distribution/quarantine | grep sha256"
        ))?
        .ok()?;
        let bytes = |more: &str| -> Result<i64> {
            let report = bed.sh(&format!("pier-distribution gc --format json {more} | jq .reclaimed_bytes"))?;
            Ok(report.ok()?.out().parse()?)
        };
        let kept = "ls root/distribution/quarantine | wc -l";
        bytes("")?;
        bed.sh(kept)?.ok().and_then(|out| {
            ensure!(out.out() != "0", "young: it stays");
            Ok(())
        })?;
        ensure!(bytes("--dry-run --quarantine")? > 0);
        bed.sh(kept)?.ok().and_then(|out| {
            ensure!(out.out() != "0", "only said");
            Ok(())
        })?;
        ensure!(bytes("--quarantine")? > 0 && bytes("--dry-run --quarantine")? == 0);
        bed.sh(kept)?.ok()?.has("0")
    })
}
