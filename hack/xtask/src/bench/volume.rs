//! `pier-volume` beside podman's and docker's volumes, tar(1) and `cp --reflink`: making and removing one; a copy, a kept state
//! and an export of 1 GiB on file systems that share blocks.
use super::arena::{Arena, Side};
use anyhow::Result;

/// A file system in a file; shared blocks make copies cheap on both.
const DISK: &str = "rm -f $DIR/disk.img; truncate -s 6G $DIR/disk.img && mkdir -p $DIR/disk";
/// 1 GiB: as one file, and as 1024.
const DATA: &str = "for v in one many; do pier-volume create $v >/dev/null; done; D=$PIER_ROOT/volume/volumes; \
    head -c 1G /dev/urandom >$D/one/_data/f && split -a 4 -b 1M $D/one/_data/f $D/many/_data/f && sync -f $DIR/disk";
const ROOT: &str = "export PIER_ROOT=$DIR/disk/root;";

/// Everything.
pub fn run(arena: &Arena) -> Result<()> {
    verbs(arena)?;
    for fs in ["xfs", "btrfs"] {
        arena.sh(&format!(
            "{DISK}; mkfs.{fs} -q $DIR/disk.img && mount -o loop $DIR/disk.img $DIR/disk && {ROOT} {DATA}"
        ))?;
        let done = copies(arena, fs);
        arena.sh("umount $DIR/disk")?;
        done?;
    }
    arena.sh("rm $DIR/disk.img").map(drop)
}

/// On the machine's own file system, without and with daemons.
fn verbs(arena: &Arena) -> Result<()> {
    arena.engine()?;
    let mut peers = vec![("pier-volume", "pier-volume"), ("pier (with its daemon)", "pier volume")];
    if arena.has("$PODMAN volume ls") {
        peers.push(("podman", "$PODMAN volume"));
    }
    match super::run::dockerd(arena) {
        Ok(()) => peers.push(("docker (with its daemon)", "docker -H unix://$DIR/d.sock volume")),
        Err(error) => println!("docker is left out: {error:#}"),
    }
    let verb = |command: &str, verb: &str| format!("{command} {verb} v$N >/dev/null");
    let sides = |timed: &str, other: &str, first: bool| -> Vec<Side> {
        let side = |(name, command): &(&str, &str)| {
            let [before, after] =
                if first { ["true".into(), verb(command, other)] } else { [verb(command, other), "true".into()] };
            Side { name: (*name).into(), before, script: verb(command, timed), after }
        };
        peers.iter().map(side).collect()
    };
    arena.race("create", 15, &sides("create", "rm", true))?;
    arena.race("rm", 15, &sides("rm", "create", false))
}

fn copies(arena: &Arena, fs: &str) -> Result<()> {
    let side = |name: &str, script: &str, after: &str| Side {
        name: name.into(),
        before: "sync -f $DIR/disk".into(),
        script: format!("{ROOT} {script}"),
        after: format!("{ROOT} {after}"),
    };
    for volume in ["one", "many"] {
        let data = format!("$DIR/disk/root/volume/volumes/{volume}/_data");
        let cp = format!("cp -a --reflink=always {data} $DIR/disk/copy && sync -f $DIR/disk");
        let kept = side(
            "pier-volume snapshot",
            &format!("pier-volume snapshot create {volume} s >/dev/null"),
            &format!("pier-volume snapshot rm {volume} s"),
        );
        let sides = [
            side(
                "pier-volume clone",
                &format!("pier-volume clone {volume} c >/dev/null"),
                "pier-volume rm c >/dev/null",
            ),
            kept,
            side("cp --reflink, and a sync", &cp, "rm -r $DIR/disk/copy"),
        ];
        arena.race(&format!("copy of 1 GiB ({volume} file(s)) on {fs}"), 7, &sides)?;
    }
    let export = [
        // tar(1) does not read what goes to /dev/null.
        side("pier-volume export", "pier-volume export many | cat >/dev/null", "true"),
        side("tar", "tar c -C $DIR/disk/root/volume/volumes/many/_data . | cat >/dev/null", "true"),
    ];
    arena.race(&format!("export of 1 GiB in 1024 files on {fs}"), 3, &export)
}
