//! One image of several: save, load, history and inspect of another platform's than the name means.
use integration::{Bed, Result, isolated};

/// `two:1`: an index of an image for linux/amd64 (this host's) and one for linux/arm64, whose file `a` says which.
pub fn two(bed: &Bed) -> Result {
    bed.sh(
        "set -e; mkdir fs; for p in amd64 arm64; do echo $p >fs/a; tar c -C fs . >$p.tar
           pier-distribution import -q --platform linux/$p -c \"LABEL of=$p\" $p.tar $p:1 >/dev/null; done
         pier-distribution manifest create list:1 store:amd64:1 store:arm64:1; pier-distribution manifest push list:1 oci:lay:two:1
         pier-distribution copy --all oci:lay:two:1 store:two:1; pier-distribution rm amd64:1 arm64:1 >/dev/null",
    )?
    .ok()
    .map(drop)
}

#[test]
fn each_is_seen_and_saved_by_itself() -> Result {
    isolated!(|bed| {
        two(bed)?;
        bed.serve("engine")?;
        for (platform, other) in [("amd64", "arm64"), ("arm64", "amd64")] {
            let of = format!("--platform linux/{platform}");
            bed.sh(&format!("pier-distribution inspect {of} -f '{{{{.config.config.Labels.of}}}}' two:1"))?
                .ok()?
                .has(platform)?;
            bed.sh(&format!("pier image inspect {of} -f '{{{{.Architecture}}}} {{{{.Config.Labels.of}}}}' two:1"))?
                .ok()?
                .has(&format!("{platform} {platform}"))?;
            bed.sh(&format!("pier-distribution inspect --raw {of} two:1 | jq -e .config"))?.ok()?;
            bed.sh(&format!(
                "set -e; pier-distribution history {of} --no-trunc --format json two:1 | grep -c digest; pier history {of} two:1 | grep -c Imported"
            ))?
            .ok()?;
            // Each kind of archive, by each door, has that image and no other.
            bed.sh(&format!(
                "set -e; pier save {of} -o c.tar two:1; pier-distribution save -q {of} --format docker-archive -o d.tar two:1
                 pier-distribution save -q {of} -o o.tar two:1; pier save {of} --format oci-archive -o p.tar two:1; cmp c.tar d.tar; cmp o.tar p.tar
                 tar xOf c.tar manifest.json | jq -c '.[].RepoTags, length'; tar tf o.tar | grep -c blobs/sha256/.
                 for t in c o; do rm -rf r; pier-distribution --root r load -q {of} -i $t.tar; pier-distribution --root r check
                 pier-distribution --root r export two:1 | tar xO a; done"
            ))?
            .ok()?
            .with("[\"two:1\"]\n1\n3")?
            .has(&format!("{platform}\n"))?;
            for tar in ["c.tar", "o.tar"] {
                let refused =
                    format!("docker.io/library/two:1 has no image for linux/{other}; there are: linux/{platform}");
                bed.sh(&format!("rm -rf r; pier-distribution --root r load -q --platform linux/{other} -i {tar}"))?
                    .fails()?
                    .has(&refused)?;
                // Nothing of it is an image, and nothing stays.
                bed.sh("pier-distribution --root r ls -q; pier-distribution --root r gc >/dev/null; find r/distribution/blobs -type f")?
                    .ok()
                    .and_then(|out| { anyhow::ensure!(out.out().is_empty(), "{out}"); Ok(()) })?;
            }
        }
        // What makes something of an image takes that one, too.
        bed.sh("set -e; p='--platform linux/arm64'; pier-distribution copy $p store:two:1 oci:x:1; pier-distribution digest $p store:two:1 >a; pier-distribution digest oci:x:1 | diff a -
             pier-distribution flatten $p two:1 flat:1 >/dev/null; pier-distribution mutate $p -c 'LABEL more=1' two:1 more:1 >/dev/null
             for i in flat more; do pier-distribution inspect -f '{{.platform}} {{.config.config.Labels.of}}' $i:1; done")?
            .ok()?
            .has("linux/arm64 arm64\nlinux/arm64 arm64")?;
        // Of an archive with both: the host's without the flag, the wanted one with it.
        bed.sh("set -e; pier-distribution save -q -o all.tar two:1; pier load -q --platform linux/arm64 -i all.tar
             pier inspect -f '{{.Architecture}}' two:1; pier-distribution --root s load -q -i all.tar; pier-distribution --root s inspect -f '{{.platform}}' two:1")?
            .ok()?
            .with("Loaded image: two:1\narm64\n")?
            .has("\nlinux/amd64")?;
        for verb in ["save -o x.tar", "history", "image inspect"] {
            bed.sh(&format!("pier {verb} --platform linux/s390x two:1"))?
                .exits(1)?
                .has("has no image for linux/s390x; there are: linux/amd64, linux/arm64")?;
        }
        bed.sh("pier save --platform many/parts/of/it -o x.tar two:1 || ls x.tar")?.fails().map(drop)
    })
}

/// An archive says what it likes: an empty one is an error, and what is in a header stays off the terminal.
#[test]
fn archives_without_an_image() -> Result {
    isolated!(|bed| {
        bed.sh("echo '[]' >manifest.json; tar cf e.tar manifest.json; pier-distribution load -i e.tar")?
            .fails()?
            .has("there is no image in it")?;
        bed.sh(r#"printf '{"imageLayoutVersion":"1.0.0"}' >oci-layout; printf '{"schemaVersion":2,"manifests":[]}' >index.json; mkdir -p blobs
            tar cf l.tar oci-layout index.json blobs; pier-distribution load -i l.tar"#)?
            .fails()?
            .has("there is no image in it")?;
        bed.sh(r"(head -c 148 /dev/zero | tr '\0' x; printf '\033[2J\007\377\377'; head -c 400 /dev/zero) >bad.tar; pier-distribution load -i bad.tar 2>said; e=$?; ! grep -P '[\x1b\x07]' said || exit 9; cat said; exit $e")?
            .exits(1)?
            .has("is not an image archive or layout")
    })
}

/// What lies beside is there as long as its blobs are: a pull of one platform has one.
#[test]
fn a_platform_that_did_not_come_is_missing() -> Result {
    isolated!(|bed| {
        two(bed)?;
        bed.sh("set -e; pier-distribution --root s load -q lay; pier-distribution --root s inspect --platform linux/amd64 two:1 >/dev/null")?.ok()?;
        for (verb, to) in [
            ("inspect", ""),
            ("history", ""),
            ("digest --full-ref", ""),
            ("save -o x.tar", ""),
            ("copy", "dir:x"),
            ("flatten", "flat:1"),
            ("mutate", "new:1"),
        ] {
            let place = if verb.starts_with("digest") { "store:" } else { "" };
            let from = if to == "dir:x" { "store:" } else { place };
            bed.sh(&format!("pier-distribution --root s {verb} --platform linux/arm64 {from}two:1 {to}; e=$?; ls x* && exit 9; exit $e"))?
                .exits(1)?
                .has("there are: linux/amd64")?;
        }
        // Of an index in an index.
        bed.sh(
            r#"set -e; I=application/vnd.oci.image.index.v1+json
            jq -c --arg t $I '{schemaVersion: 2, mediaType: $t, manifests: [.manifests[0] | del(.annotations)]}' lay/index.json | tr -d '\n' >outer
            o=$(sha256sum outer | cut -d' ' -f1); cp outer lay/blobs/sha256/$o
            jq -c --arg d sha256:$o --argjson s $(stat -c %s outer) '.manifests[0] += {digest: $d, size: $s}' lay/index.json >new; mv new lay/index.json
            pier-distribution copy --all oci:lay:two:1 store:deep:1; pier-distribution inspect --platform linux/arm64 -f '{{.platform}}' deep:1
            pier-distribution save -q --platform linux/arm64 -o deep.tar deep:1; pier-distribution --root t load -q -i deep.tar
            pier-distribution --root t export deep:1 | tar xO a"#,
        )?
        .ok()?
        .has("linux/arm64\nloaded image: docker.io/library/deep:1\narm64")
    })
}

/// Its blobs go; the names stay, for the other one; with the last one goes the image.
#[test]
fn one_platform_is_removed() -> Result {
    isolated!(|bed| {
        two(bed)?;
        bed.serve("engine")?;
        let left = |name: &str, platform: &str| {
            let gone = if platform == "amd64" { "arm64" } else { "amd64" };
            bed.sh(&format!(
                "set -e; pier-distribution gc --abandoned >/dev/null; pier-distribution check; pier-distribution inspect -f '{{{{.platform}}}}' {name}
                 pier-distribution save -q -o l.tar {name}; tar tf l.tar | grep -c blobs/sha256/.; pier-distribution export {name} | tar xO a
                 ! pier-distribution history --platform linux/{gone} {name} 2>/dev/null"
            ))?
            .ok()?
            .with(", 0 damaged")?
            .has(&format!("\nlinux/{platform}\n3\n{platform}"))
        };
        bed.sh("pier rmi --platform linux/s390x two:1")?.exits(1)?.has("there are: linux/amd64, linux/arm64")?;
        // One beside the one that the name means; another record of the same index keeps what it has.
        bed.sh("set -e; pier rmi --no-prune --platform linux/arm64 two:1 | grep -c '^Deleted: sha256:'; pier images -q two")?.ok()?.has("1\n")?;
        left("two:1", "amd64")?;
        bed.sh("set -e; pier-distribution copy --all oci:lay:two:1 store:two:1; pier tag two:1 also:1; pier-distribution inspect --platform linux/arm64 two:1 >/dev/null
             pier-distribution rm --platform linux/amd64 two:1")?
            .ok()?
            .has("deleted: sha256:")?;
        left("two:1", "arm64")?;
        left("also:1", "arm64")?;
        // What a container is made of stays, unless forced.
        bed.sh("set -e; pier-distribution copy --all oci:lay:two:1 store:two:1; pier create --name c --network none two:1 x >/dev/null
             pier rmi --platform linux/amd64,linux/arm64 two:1")?
            .exits(1)?
            .has("snapshots")?;
        bed.sh("pier rm c >/dev/null; pier rmi --platform linux/amd64,linux/arm64 two:1; pier rmi also:1; pier images -aq; pier-distribution gc --abandoned >/dev/null; find root/distribution/blobs -type f")?
            .ok()
            .and_then(|out| {
                let lines = out.out().lines().filter(|line| !line.starts_with("Deleted") && !line.starts_with("Untagged"));
                anyhow::ensure!(lines.count() == 0, "{out}");
                Ok(())
            })
    })
}
