//! Cold pulls from Debian's registry over plain HTTP, to a layout and into the store (unpacked), of a realistic image (about
//! 300 MB in six layers) and of one of 60 small layers; beside the peers, and beside the floor: decompression and tar alone,
//! two layers at once. Each run on a fresh file system: deleting and making files on one ext4 again and again measures its
//! inode allocator. The blocks under it were written before: a thin disk is slow the first time. The loop device under it
//! behaves as a disk does: no page cache of its own, and no scheduler (some machines give loop devices BFQ, with which each
//! first sync waits 20 ms). What is read lies in the page cache: some machines give idle memory back early.
//!
//! Nobody else syncs what was unpacked; the floor is given once as it is and once with the sync that makes it last.
use super::arena::{Arena, Side};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;

const ROUNDS: usize = 5;
const DISK: &str = "mkdir -p $DIR/disk; dd if=/dev/zero of=$DIR/disk.img bs=1M count=6000 conv=fsync status=none";
const FRESH: &str = "mkfs.ext4 -q -F -E lazy_itable_init=0,nodiscard $DIR/disk.img && \
    L=$(losetup -f --show --direct-io=on $DIR/disk.img) && mount $L $DIR/disk && \
    echo none >/sys/block/$(basename $L)/queue/scheduler && sync -f $DIR/disk; \
    find $DIR/registry $DIR/big $DIR/small -name data -o -name '*.gz' 2>/dev/null | xargs -r cat >/dev/null; ";
const GONE: &str = "umount -d $DIR/disk";

/// What a Debian machine with a Rust tool chain has: packages, big libraries, many small files, sources, noise.
const REALISTIC: &str = "mkdir -p big && cd big && cp $DEBIAN_TAR 1.tar && \
    tar -cf 2.tar -C / $(cd / && find usr/lib -type f -size +1500k -name '*.so*' | sort | head -39) && \
    tar -cf 3.tar -C / usr/share/doc && \
    (cd ~root/.cargo/registry/src/*/ && find . -type f | sort | head -13000 | tar -cf $DIR/big/4.tar -T -) && \
    tar -cf 5.tar -C / $(cd / && ls -d usr/lib/python3* usr/share/perl*) && \
    head -c 36M /dev/urandom >noise && tar -cf 6.tar noise && rm noise";
const SMALL: &str = "mkdir -p small && cd small && for i in $(seq 60); do mkdir d$i; for j in $(seq 20); do \
    head -c $((j*300)) /dev/urandom | base64 >d$i/$j; done; tar -cf $i.tar d$i; rm -r d$i; done";

/// Everything.
pub fn run(arena: &Arena) -> Result<()> {
    arena.registry()?;
    arena.sh(DISK)?;
    for (name, make) in [("big", REALISTIC), ("small", SMALL)] {
        arena.sh(make)?;
        layout(arena, name)?;
        arena.sh(&format!(
            "skopeo copy -q --insecure-policy --dest-tls-verify=false oci:$DIR/{name}-layout:1 docker://$REG/{name}:1"
        ))?;
        copies(arena, name)?;
        pulls(arena, name)?;
        pushes(arena, name)?;
        memory(arena, name)?;
    }
    Ok(())
}

fn side(name: &str, script: &str) -> Side {
    Side { before: FRESH.into(), after: GONE.into(), ..Side::new(name, script) }
}

fn copies(arena: &Arena, image: &str) -> Result<()> {
    let ours = format!("pier-distribution --root $DIR/disk/r copy docker://$REG/{image}:1 oci:$DIR/disk/out:1");
    let skopeo =
        format!("skopeo copy -q --insecure-policy --src-tls-verify=false docker://$REG/{image}:1 oci:$DIR/disk/out:1");
    let sides = [side("pier-distribution copy", &ours), side("skopeo copy", &skopeo)];
    arena.race(&format!("{image}: copy to an OCI layout"), ROUNDS, &sides)
}

fn pulls(arena: &Arena, image: &str) -> Result<()> {
    let podman = format!(
        "podman --root $DIR/disk/p --runroot $DIR/disk/pr --cgroup-manager cgroupfs --storage-driver overlay pull -q --tls-verify=false $REG/{image}:1"
    );
    let mut sides = vec![
        side("pier-distribution pull", &format!("pier-distribution --root $DIR/disk/r pull $REG/{image}:1")),
        side("podman pull", &podman),
    ];
    let containerd = Side {
        before: format!(
            "{FRESH} printf 'version=2\\ndisabled_plugins=[\"io.containerd.grpc.v1.cri\"]\\n' >$DIR/c.toml; \
             containerd --config $DIR/c.toml --root $DIR/disk/c --state $DIR/c-state --address $DIR/c.sock >/dev/null 2>&1 & echo $! >$DIR/c.pid; \
             for i in $(seq 100); do ctr -a $DIR/c.sock version >/dev/null 2>&1 && break; sleep 0.1; done"
        ),
        script: format!("ctr -a $DIR/c.sock images pull --plain-http $REG/{image}:1"),
        after: format!("kill $(cat $DIR/c.pid); while [ -d /proc/$(cat $DIR/c.pid) ]; do sleep 0.1; done; {GONE}"),
        name: "containerd (ctr images pull)".into(),
    };
    let docker = Side {
        before: format!(
            "{FRESH} echo {{}} >$DIR/docker.json; dockerd --data-root $DIR/disk/d --exec-root $DIR/d-exec -H unix://$DIR/dp.sock -p $DIR/dp.pid \
             --config-file $DIR/docker.json --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2 --iptables=false --bridge=none >/dev/null 2>&1 & \
             for i in $(seq 100); do docker -H unix://$DIR/dp.sock version >/dev/null 2>&1 && break; sleep 0.1; done"
        ),
        script: format!("docker -H unix://$DIR/dp.sock pull -q $REG/{image}:1"),
        after: format!("p=$(cat $DIR/dp.pid); kill $p; while [ -d /proc/$p ]; do sleep 0.1; done; {GONE}"),
        name: "docker pull".into(),
    };
    for peer in [containerd, docker] {
        let works = arena.sh(&format!("{}; {}", peer.before, peer.script));
        let after = arena.sh(&peer.after);
        match works.and(after) {
            Ok(_) => sides.push(peer),
            Err(error) => println!("{} is left out: {error:#}", peer.name),
        }
    }
    let inflate = if arena.has("command -v igzip") { "igzip" } else { "gzip" };
    let floor = format!(
        "for t in $(ls $DIR/{image}/*.gz | xargs ls -S); do echo $t; done | xargs -P2 -I{{}} sh -c \
         'd=$DIR/disk/$(basename {{}}); mkdir $d; {inflate} -dc {{}} | tar -xp --numeric-owner -C $d -f -'"
    );
    sides.push(side(&format!("floor: {inflate} and tar"), &floor));
    sides.push(side(&format!("floor: {inflate}, tar and sync"), &format!("{floor}; sync -f $DIR/disk")));
    arena.race(&format!("{image}: pull with unpacking"), ROUNDS, &sides)
}

/// To a second registry, empty each time.
fn pushes(arena: &Arena, image: &str) -> Result<()> {
    if !arena.has("curl -sf http://127.0.0.1:5001/v2/") {
        arena.sh("sed 's/5000/5001/; s:/registry}:/registry2}:' $DIR/registry.yml >$DIR/registry2.yml")?;
        arena.spawn("registry2", "docker-registry serve $DIR/registry2.yml")?;
        arena.wait_for("curl -sf http://127.0.0.1:5001/v2/")?;
    }
    arena.sh(&format!("pier-distribution --root $DIR/push pull -q $REG/{image}:1"))?;
    let ours =
        format!("pier-distribution --root $DIR/push copy store:$REG/{image}:1 docker://127.0.0.1:5001/{image}:$N");
    let skopeo = format!(
        "skopeo copy -q --insecure-policy --dest-tls-verify=false oci:$DIR/{image}-layout:1 docker://127.0.0.1:5001/{image}:$N"
    );
    let side =
        |name: &str, script: &str| Side { before: "rm -rf $DIR/registry2/docker".into(), ..Side::new(name, script) };
    let sides = [side("pier-distribution push", &ours), side("skopeo push", &skopeo)];
    arena.race(&format!("{image}: push"), ROUNDS, &sides)
}

/// The kernel's own figure of the largest resident set.
fn memory(arena: &Arena, image: &str) -> Result<()> {
    println!("\n{image}: peak memory, KiB\n| what | peak |\n|---|---|");
    for (what, command) in [
        ("pull", format!("pull -q $REG/{image}:1")),
        ("copy", format!("copy docker://$REG/{image}:1 oci:$DIR/disk/out:1")),
    ] {
        let script = format!(
            "{FRESH} env time -o $DIR/peak -f %M pier-distribution --root $DIR/disk/r {command} >/dev/null 2>&1; {GONE}; cat $DIR/peak"
        );
        println!("| {what} | {} |", arena.sh(&script)?.trim());
    }
    Ok(())
}

/// An OCI layout `<name>-layout` of the archives in `<name>`, which are left compressed.
fn layout(arena: &Arena, name: &str) -> Result<()> {
    let out = arena.dir.join(format!("{name}-layout"));
    std::fs::create_dir_all(out.join("blobs/sha256"))?;
    let list = arena.sh(&format!(
        "cd {name}; for t in $(ls *.tar | sort -n); do sha256sum $t; gzip -6n $t; sha256sum $t.gz; stat -c '%s' $t.gz; \
         cp $t.gz $DIR/{name}-layout/blobs/sha256/$(sha256sum <$t.gz | cut -d' ' -f1); done"
    ))?;
    let words: Vec<&str> = list.split_whitespace().collect();
    let (mut ids, mut layers) = (Vec::new(), Vec::new());
    for line in words.chunks_exact(5) {
        ids.push(format!("sha256:{}", line[0]));
        layers.push(descriptor("layer.v1.tar+gzip", line[2], line[4].parse().context("a size")?));
    }
    let config =
        json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}});
    let config = put(arena, &out, "config.v1+json", &config)?;
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers});
    let mut manifest = put(arena, &out, "manifest.v1+json", &manifest)?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(out.join("index.json"), index.to_string())?;
    Ok(std::fs::write(out.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?)
}

fn put(arena: &Arena, out: &Path, kind: &str, document: &Value) -> Result<Value> {
    let text = document.to_string();
    std::fs::write(out.join("document"), &text)?;
    let digest = arena.sh(&format!(
        "cd {}; d=$(sha256sum <document | cut -d' ' -f1); mv document blobs/sha256/$d; echo $d",
        out.display()
    ))?;
    Ok(descriptor(kind, digest.trim(), text.len()))
}

fn descriptor(kind: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size})
}
