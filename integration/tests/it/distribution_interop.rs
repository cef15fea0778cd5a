//! `pier-distribution` beside the field's tools, both ways: what one has written the other reads, with the same digests. Debian's
//! docker-registry lies between them.
use anyhow::ensure;
use integration::{Bed, Outcome, Result, eventually, isolated};
use std::time::Duration;

/// What every script begins with: names, and checks of their own.
const PRELUDE: &str = r#"
set -eu
R=127.0.0.1:5000
P=pier-distribution
digest() { $P digest "docker://$1"; }
fails() { if "$@"; then echo "succeeded: $*" >&2; exit 1; fi; }
same() { [ "$1" = "$2" ] || { echo "$3: $1 is not $2" >&2; exit 1; }; }
raw() { skopeo inspect --raw --tls-verify=false "docker://$1" | sha256sum | sed 's/ .*//; s/^/sha256:/'; }
id() { $P inspect --config "$1" | sha256sum | cut -c1-64; }
"#;

fn run(bed: &Bed, script: &str) -> Result<Outcome> {
    bed.sh(&format!("{PRELUDE}\n{script}"))?.ok()
}

/// Images of three platforms at the registry, app:amd64 and so on, and their index, app:multi.
fn three_platforms(bed: &Bed) -> Result {
    bed.registry()?;
    let tar = bed.fixture().busybox_tar()?;
    run(
        bed,
        &format!(
            "for p in amd64 arm64 s390x; do
               $P import -q --platform linux/$p --change 'CMD [\"sh\"]' --change \"ENV P=$p\" {} $R/app:$p
               $P push -q $R/app:$p
             done
             $P manifest create $R/app:multi $R/app:amd64 $R/app:arm64 $R/app:s390x
             $P manifest annotate $R/app:multi $R/app:arm64 --variant v8
             $P manifest push -q --rm $R/app:multi",
            tar.display()
        ),
    )?;
    Ok(())
}

fn installed(bed: &Bed, test: &str, program: &str) -> Result<bool> {
    let there = bed.sh(&format!("command -v {program}"))?.code == 0;
    if !there {
        println!("skipped: {test}: {program} is not installed");
    }
    Ok(there)
}

#[test]
fn skopeo() -> Result {
    isolated!(|bed| {
        three_platforms(bed)?;
        run(
            bed,
            r#"
            D=$(digest $R/app:multi)
            same $(raw $R/app:multi) $D "what skopeo sees"
            for t in oci:sk:m dir:$PWD/skd oci-archive:sk.tar:m; do
              skopeo copy -q --all --src-tls-verify=false docker://$R/app:multi $t
              $P copy -q --all --preserve-digests $t docker://$R/back:m
              same $(digest $R/back:m) $D "from skopeo's $t"
            done
            for t in oci:our:m dir:$PWD/ourd oci-archive:our.tar:m; do
              $P copy -q --all docker://$R/app:multi $t
              skopeo copy -q --all --dest-tls-verify=false $t docker://$R/sk:m
              same $(raw $R/sk:m) $D "skopeo's copy of our $t"
            done
            skopeo copy -q --src-tls-verify=false docker://$R/app:amd64 docker-archive:d.tar:app:1
            same $(id docker-archive:d.tar) $(id docker://$R/app:amd64) "the id in skopeo's docker archive"
            $P copy -q docker://$R/app:amd64 docker-archive:e.tar:app:2 --additional-tag app:3
            same $(skopeo inspect --config --raw docker-archive:e.tar:app:3 | sha256sum | cut -c1-64) $(id docker://$R/app:amd64) "the id in ours"
            $P copy -q --all --format v2s2 docker://$R/app:multi docker://$R/app:v2
            skopeo copy -q --all --src-tls-verify=false docker://$R/app:v2 dir:$PWD/v2
            same $(sha256sum <v2/manifest.json | cut -c1-64) $(digest $R/app:v2 | cut -c8-) "docker's types"
            "#,
        )?;
        run(
            bed,
            r#"
            skopeo sync --all --src-tls-verify=false --src docker --dest dir $R/app $PWD/skt 2>/dev/null
            $P sync --all -q dir:$PWD/skt docker://$R/from-skopeo
            same $(digest $R/from-skopeo/app:multi) $(digest $R/app:multi) "a tree that skopeo synced"
            $P sync --all -q --format json docker://$R/app dir:$PWD/ourt >lines
            same $(grep -c '"state":"copied"' lines) 5 "images synced"
            $P sync --all -q docker://$R/app dir:$PWD/ourt >lines
            same $(grep -c 'up to date' lines) 5 "images synced again"
            skopeo sync --all --dest-tls-verify=false --src dir --dest docker $PWD/ourt $R/to-skopeo 2>/dev/null
            same $(raw $R/to-skopeo/app:multi) $(digest $R/app:multi) "a tree that skopeo read"
            printf '%s:\n  tls-verify: false\n  images-by-tag-regex:\n    app: ^(multi|arm64)$\n' $R >sync.yml
            $P sync --all -q yaml:sync.yml docker://$R/listed
            same "$($P tags $R/listed/app | xargs)" "arm64 multi" "what the list names"
            "#,
        )?;
        Ok(())
    })
}

#[test]
fn umoci() -> Result {
    isolated!(|bed| {
        three_platforms(bed)?;
        run(
            bed,
            r#"
            umoci init --layout u && umoci new --image u:base && umoci unpack --image u:base b
            echo text >b/rootfs/file && ln b/rootfs/file b/rootfs/link
            umoci repack --image u:one b && umoci config --image u:one --config.env A=b
            D=$(jq -r '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == "one") | .digest' u/index.json)
            $P copy -q --preserve-digests oci:u:one docker://$R/u:1
            same $(digest $R/u:1) $D "umoci's image"
            $P copy -q oci:u@$D store:u:1 && $P export u:1 | tar tv | grep -q 'link link to file'
            $P copy -q docker://$R/app:multi oci:o:x
            umoci stat --image o:x >/dev/null && umoci unpack --image o:x ob
            mkdir ours && $P copy -q oci:o:x store:o:x && $P export o:x | tar x -C ours
            diff -r --no-dereference ours ob/rootfs
            umoci tag --image o:x y && $P digest oci:o:y
            "#,
        )?;
        Ok(())
    })
}

const PODMAN: &str = r#"
n=$(ulimit -Hn); printf '[containers]\ndefault_ulimits = ["nofile=%s:%s","nproc=%s:%s"]\n' $n $n $n $n >conf
export CONTAINERS_CONF=$PWD/conf
C() { podman --root $PWD/proot --runroot $PWD/prun --cgroup-manager cgroupfs --events-backend file --storage-driver overlay "$@"; }
"#;

#[test]
fn podman() -> Result {
    isolated!(|bed| {
        if !installed(bed, "podman", "podman")? {
            return Ok(());
        }
        three_platforms(bed)?;
        run(
            bed,
            &format!(
                r#"{PODMAN}
            C pull -q --tls-verify=false $R/app:amd64 >/dev/null
            same $(C image inspect -f '{{{{.Digest}}}}' $R/app:amd64) $(digest $R/app:amd64) "what podman pulled"
            C push -q --tls-verify=false --digestfile df $R/app:amd64 $R/pod:1
            same $(digest $R/pod:1) $(cat df) "what podman pushed"
            $P pull -q $R/pod:1 && $P push -q $R/pod:1 $R/pod:2
            same $(digest $R/pod:2) $(cat df) "what podman pushed, pushed again"
            C manifest create list && for p in amd64 arm64 s390x; do C manifest add --tls-verify=false list docker://$R/app:$p; done >/dev/null
            C manifest push -q --all --tls-verify=false --digestfile lf list docker://$R/list:1
            $P copy -q --all --preserve-digests docker://$R/list:1 oci:l:1
            same $($P digest oci:l:1) $(cat lf) "podman's index"
            C manifest rm list >/dev/null
            C save -q --format oci-archive -o p.tar $R/app:amd64 && $P load -q p.tar | grep -q loaded
            same $(id oci-archive:p.tar) $(id docker://$R/app:amd64) "the id in podman's archive"
            C rmi -f $R/app:amd64 >/dev/null
            $P copy -q docker://$R/app:amd64 oci-archive:o.tar:one && C load -q -i o.tar >/dev/null
            $P copy -q docker://$R/app:amd64 docker-archive:d.tar:one:1 && C load -q -i d.tar >/dev/null
            same $(C images -q --no-trunc | sort -u) sha256:$(id docker://$R/app:amd64) "what podman loaded"
            C rmi -fa >/dev/null"#
            ),
        )?;
        Ok(())
    })
}

#[test]
fn containerd() -> Result {
    isolated!(|bed| {
        if !installed(bed, "containerd", "containerd")? || !installed(bed, "containerd", "ctr")? {
            return Ok(());
        }
        three_platforms(bed)?;
        run(bed, "$P copy -q --dest-compress-format zstd docker://$R/app:amd64 docker://$R/app:zstd")?;
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\nroot = \"/run/c/root\"\n\
                      state = \"/run/c/state\"\n[grpc]\naddress = \"/run/c/sock\"\n";
        std::fs::write(bed.dir().join("c.toml"), config)?;
        let daemon = bed.spawn("containerd", bed.command("containerd").args(["-c", "c.toml"]))?;
        eventually(Duration::from_secs(20), || bed.sh("ctr -a /run/c/sock version")?.ok().map(drop))?;
        run(
            bed,
            r#"
            C() { ctr -a /run/c/sock images "$@"; }
            has() { C ls | awk -v n="$1" '$1 == n { print $3 }'; }
            D=$(digest $R/app:multi)
            C pull --plain-http --all-platforms $R/app:multi >/dev/null
            same $(has $R/app:multi) $D "what containerd pulled"
            C export --all-platforms c.tar $R/app:multi
            $P copy -q --all --preserve-digests oci-archive:c.tar:@0 docker://$R/ctr:1
            same $(digest $R/ctr:1) $D "what containerd exported"
            C push --plain-http $R/ctr:2 $R/app:multi >/dev/null
            same $(digest $R/ctr:2) $D "what containerd pushed"
            $P copy -q --all docker://$R/app:multi oci-archive:o.tar:v
            C import --all-platforms --base-name example.org/ours o.tar >/dev/null
            same $(has example.org/ours:v) $D "what containerd imported"
            $P copy -q docker://$R/app:amd64 store:$R/app:amd64 && $P save -q -o s.tar $R/app:amd64
            C rm $R/app:amd64 >/dev/null 2>&1 || true
            C import s.tar >/dev/null
            same $(has $R/app:amd64) $(digest $R/app:amd64) "what containerd imported of the store"
            C pull --plain-http $R/app:zstd >/dev/null
            same $(has $R/app:zstd) $(digest $R/app:zstd) "zstd layers at containerd"
            C ls -q | xargs ctr -a /run/c/sock images rm --sync >/dev/null
            "#,
        )?;
        daemon.stop()
    })
}

#[test]
fn docker() -> Result {
    isolated!(|bed| {
        if !installed(bed, "docker", "dockerd")? || !installed(bed, "docker", "/usr/bin/docker")? {
            return Ok(());
        }
        three_platforms(bed)?;
        std::fs::write(bed.dir().join("daemon.json"), "{}")?;
        let dir = bed.dir().display().to_string();
        let args = format!(
            "--data-root {dir}/d --exec-root /run/x -H unix:///run/docker.sock -p /run/d.pid --config-file {dir}/daemon.json \
             --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2 --iptables=false --bridge=none"
        );
        let daemon = bed.spawn("dockerd", bed.command("dockerd").args(args.split_whitespace()))?;
        let docker = "export DOCKER_HOST=unix:///run/docker.sock; C() { /usr/bin/docker \"$@\"; }";
        eventually(Duration::from_secs(30), || bed.sh(&format!("{docker}; C version"))?.ok().map(drop))?;
        run(
            bed,
            &format!(
                r#"{docker}
            C pull -q $R/app:multi >/dev/null
            same "$(C image inspect -f '{{{{index .RepoDigests 0}}}}' $R/app:multi)" $R/app@$(digest $R/app:multi) "what docker pulled"
            I=$(C image inspect -f '{{{{.Id}}}}' $R/app:multi)
            same $I sha256:$(id docker://$R/app:amd64) "its id"
            C tag $R/app:multi $R/dk:1 && C push -q $R/dk:1 >/dev/null
            $P copy -q --preserve-digests docker://$R/dk:1 oci:dk:1
            same $R/dk@$($P digest oci:dk:1) "$(C image inspect -f '{{{{range .RepoDigests}}}}{{{{println .}}}}{{{{end}}}}' $R/dk:1 | grep /dk@)" "what docker pushed"
            C save -o d.tar $R/app:multi && $P load -q d.tar | grep -q app:multi
            same sha256:$(id docker-archive:d.tar) $I "the id in docker's archive"
            C rmi -f $I >/dev/null
            $P copy -q docker://$R/app:amd64 docker-archive:o.tar:ours:1 && C load -q -i o.tar >/dev/null
            same $(C image inspect -f '{{{{.Id}}}}' ours:1) $I "what docker loaded"
            C rmi -f $I >/dev/null"#
            ),
        )?;
        daemon.stop()
    })
}

#[test]
fn zstd_layers() -> Result {
    isolated!(|bed| {
        three_platforms(bed)?;
        run(
            bed,
            &format!(
                r#"{PODMAN}
            $P copy -q --all --dest-compress-format zstd --dest-compress-level 9 docker://$R/app:multi docker://$R/z:1
            D=$(digest $R/z:1)
            $P inspect --raw docker://$R/app:multi >a; $P inspect --raw docker://$R/z:1 >b; fails cmp -s a b
            $P inspect docker://$R/z:1 --format '{{{{range .Layers}}}}{{{{.mediaType}}}}{{{{end}}}}' | grep -qx 'application/vnd.oci.image.layer.v1.tar+zstd'
            same $(id docker://$R/z:1) $(id docker://$R/app:amd64) "the config of the same layers"
            skopeo copy -q --all --src-tls-verify=false docker://$R/z:1 oci:sk:1
            $P copy -q --all oci:sk:1 docker://$R/z:2
            same $(digest $R/z:2) $D "through skopeo"
            mkdir gz zs; for t in app:multi:gz z:1:zs; do $P pull -q $R/${{t%:*}}; $P export $R/${{t%:*}} | tar x -C ${{t##*:}}; done
            diff -r --no-dereference gz zs
            C pull -q --tls-verify=false $R/z:1 >/dev/null && C rmi -fa >/dev/null
            $P copy -q --all --dest-compress-format gzip docker://$R/z:1 docker://$R/g:1
            $P copy -q --all --dest-compress-format none docker://$R/g:1 docker://$R/n:1
            $P copy -q --all --dest-compress-format gzip docker://$R/n:1 docker://$R/g:2
            same $(digest $R/g:1) $(digest $R/g:2) "gzip made twice"
            fails $P copy -q --all --preserve-digests --dest-compress-format zstd docker://$R/g:1 oci:x:1 2>err
            grep -q 'digests are to be preserved' err && fails test -e x
            fails $P copy -q --format v2s2 docker://$R/z:1 oci:x:1 2>err && grep -q zstd err"#
            ),
        )?;
        Ok(())
    })
}

#[test]
fn artifacts_and_their_referrers() -> Result {
    isolated!(|bed| {
        three_platforms(bed)?;
        run(
            bed,
            r#"
            echo '{"spdx":1}' >sbom.json; mkdir -p tree/deep; echo x >tree/deep/f
            $P artifact push -q $R/art:1 sbom.json:application/spdx+json tree --artifact-type application/vnd.test
            skopeo inspect --raw --tls-verify=false docker://$R/art:1 | jq -e '.artifactType == "application/vnd.test"
              and .config.mediaType == "application/vnd.oci.empty.v1+json"
              and .layers[0].annotations["org.opencontainers.image.title"] == "sbom.json"' >/dev/null
            $P artifact pull -q $R/art:1 -o out && cmp sbom.json out/sbom.json && diff -r tree out/tree
            D=$(digest $R/app:amd64)
            T=$(echo $D | tr : -)
            # Somebody else's entry in the fallback list stays.
            E=$(curl -sf -X POST -D- -o/dev/null http://$R/v2/app/blobs/uploads/ | tr -d '\r' | sed -n 's/^Location: //p')
            curl -sf -X PUT -H 'Content-Type: application/octet-stream' --data-binary '{}' "$E&digest=sha256:$(printf '{}' | sha256sum | cut -c1-64)" -o/dev/null
            jq -nc --arg d $D --argjson s $(skopeo inspect --raw --tls-verify=false docker://$R/app@$D | wc -c) '{schemaVersion:2,
              mediaType:"application/vnd.oci.image.manifest.v1+json",artifactType:"other/tool",
              config:{mediaType:"application/vnd.oci.empty.v1+json",digest:"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",size:2},
              layers:[{mediaType:"application/vnd.oci.empty.v1+json",digest:"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",size:2}],
              subject:{mediaType:"application/vnd.oci.image.manifest.v1+json",digest:$d,size:$s}}' | tr -d '\n' >other.json
            O=sha256:$(sha256sum <other.json | cut -c1-64)
            curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @other.json http://$R/v2/app/manifests/$O
            jq -nc --arg o $O --argjson s $(wc -c <other.json) '{schemaVersion:2,mediaType:"application/vnd.oci.image.index.v1+json",
              manifests:[{mediaType:"application/vnd.oci.image.manifest.v1+json",artifactType:"other/tool",digest:$o,size:$s}]}' >list.json
            curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.index.v1+json' --data-binary @list.json http://$R/v2/app/manifests/$T
            A=$($P artifact attach -q $R/app:amd64 sbom.json:application/spdx+json --artifact-type sbom/spdx -a tool=ours)
            curl -sf http://$R/v2/app/manifests/$T | jq -e --arg a $A --arg o $O '[.manifests[].digest] == [$o, $a]
              and .manifests[1].annotations.tool == "ours" and .manifests[1].artifactType == "sbom/spdx"' >/dev/null
            $P artifact discover $R/app:amd64 --format json | jq -e '.referrers | length == 2' >/dev/null
            $P artifact discover $R/app:amd64 --artifact-type sbom/spdx --format json | jq -e --arg a $A '.referrers[0].digest == $a' >/dev/null
            # What cosign keeps under a tag.
            $P artifact push -q $R/app:$T.sig sbom.json:application/vnd.dev.cosign.simplesigning.v1+json
            # About the referrer itself; everything follows a copy, through a layout and back.
            $P artifact attach -q $R/app@$A --artifact-type sign/x
            $P copy -q --referrers docker://$R/app:amd64 oci:l:1
            $P copy -q --referrers oci:l:1 docker://$R/moved:1
            same $(digest $R/moved:$T.sig) $(digest $R/app:$T.sig) "the signature"
            $P artifact discover $R/moved:1 --format json >moved.json
            $P artifact discover $R/app:amd64 --format json >here.json
            jq -S . here.json >a; jq -S . moved.json >b; cmp a b
            jq -e '[.referrers[].referrers[]?.artifactType] == ["sign/x"]' moved.json >/dev/null
            $P delete $R/app@$A && $P artifact discover $R/app:amd64 --format json | jq -e --arg o $O '[.referrers[].digest] == [$o]' >/dev/null
            "#,
        )?;
        Ok(())
    })
}

#[test]
fn sixty_layers() -> Result {
    isolated!(|bed| {
        three_platforms(bed)?;
        run(
            bed,
            &format!(
                r#"{PODMAN}
            mkdir l; for i in $(seq 60); do mkdir -p t/dir; echo $i >t/dir/$i; echo $i >t/same; tar cf l/$i.tar -C t dir/$i same; done
            $P mutate -q docker://$R/app:amd64 docker://$R/deep:1 $(for i in $(seq 60); do echo --append l/$i.tar; done)
            D=$(digest $R/deep:1)
            same $($P inspect docker://$R/deep:1 --format '{{{{len .Layers}}}}') 61 "layers"
            skopeo copy -q --src-tls-verify=false docker://$R/deep:1 oci:sk:1
            $P copy -q oci:sk:1 docker://$R/deep:2
            same $(digest $R/deep:2) $D "through skopeo"
            C pull -q --tls-verify=false $R/deep:1 >/dev/null
            same $(C image inspect -f '{{{{.Digest}}}}' $R/deep:1) $D "at podman"
            C rmi -fa >/dev/null
            umoci unpack --image sk:1 u
            $P pull -q $R/deep:1 && mkdir ours && $P export $R/deep:1 | tar x -C ours
            diff -r --no-dereference ours u/rootfs && same $(cat ours/same) 60 "the topmost"
            $P flatten -q docker://$R/deep:1 oci:f:1 && umoci unpack --image f:1 fu
            diff -r --no-dereference ours fu/rootfs
            same $($P inspect oci:f:1 --format '{{{{len .Layers}}}}') 1 "flattened"
            $P copy -q oci:f:1 store:flat:1 && $P diff flat:1 $R/deep:1 >changes && fails test -s changes"#
            ),
        )?;
        Ok(())
    })
}

#[test]
fn what_is_deleted_is_gone_and_the_rest_stays() -> Result {
    isolated!(|bed| {
        three_platforms(bed)?;
        run(
            bed,
            r#"
            $P copy -q docker://$R/app:amd64 docker://$R/del:a --additional-tag b
            $P delete $R/del:a
            same "$($P tags $R/del)" b "the other tag"
            $P copy -q docker://$R/del:b oci:still:1
            $P delete --manifest $R/del:b --format json | jq -e .digest >/dev/null
            fails $P digest $R/del:b 2>err; grep -q 'not found' err
            fails $P delete $R/del:b 2>err; grep -q 'not found' err
            $P catalog $R | grep -qx app
            "#,
        )?;
        let failed = bed.sh("pier-distribution --error-format json copy oci:nowhere oci:x")?.exits(1)?;
        ensure!(!bed.dir().join("x").exists(), "nothing is begun for a source that is not there: {failed}");
        Ok(())
    })
}
