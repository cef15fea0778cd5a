//! The contract of snapshot drivers: the same cases over each one that this machine can do.
use anyhow::Context;
use integration::{Bed, Outcome, Result, isolated};

/// A store on a new file system in a file, mounted at `disk`, with an image `t:1` of two layers, the upper deleting from the
/// lower.
fn disk(bed: &Bed, mkfs: &str) -> Result {
    bed.sh(&format!(
        "set -e; truncate -s 600M file && {mkfs} file && mkdir -p disk && mount -o loop file disk; chmod 755 . disk
         export PIER_ROOT=$DIR/disk/root
         mkdir -p fs/d fs/e fs/keep; echo a >fs/d/a; echo b >fs/d/b; echo e >fs/e/e; echo k >fs/keep/k; head -c 3000000 /dev/urandom >fs/big
         chown 33:44 fs/d/a; chmod 4755 fs/d/a; setfattr -n user.k -v v fs/d/a; ln fs/d/a fs/hard; ln -s d/a fs/soft; mkfifo fs/ff
         tar c --xattrs --xattrs-include='*' --numeric-owner -C fs . >fs.tar
         mkdir up; : >up/.wh.ff; mkdir up/e; : >up/e/.wh..wh..opq; echo f >up/e/f; tar c --owner 0 --group 0 -C up e .wh.ff >up.tar
         pier-distribution import -q fs.tar one:1; pier-distribution mutate one:1 t:1 --append up.tar >/dev/null"
    ))?
    .ok()
    .map(drop)
}

fn on(bed: &Bed, driver: &str, script: &str) -> Result<Outcome> {
    bed.sh(&format!("set -eo pipefail; export PIER_ROOT=$DIR/disk/root PIER_SNAPSHOTTER={driver}; {script}"))
}

/// Why the driver does not work here; nothing when it does.
fn refused(bed: &Bed, driver: &str) -> Result<Option<String>> {
    let notes = on(bed, "", "pier-distribution info --format json")?.ok()?.out().to_owned();
    let notes: serde_json::Value = serde_json::from_str(&notes)?;
    let all = notes["notes"].as_array().into_iter().flatten().filter_map(|n| n.as_str());
    Ok(all.filter_map(|note| note.strip_prefix(&format!("{driver}: "))).map(str::to_owned).next())
}

/// What a container would see, and write; then diff, commit, the same tree again, a second container, removal.
fn contract(bed: &Bed, driver: &str, mkfs: &str) -> Result {
    disk(bed, mkfs)?;
    if let Some(why) = refused(bed, driver)? {
        println!("skipped: {driver}: {why}");
        return Ok(());
    }
    engine(bed, driver)?;
    sees(bed, driver).with_context(|| format!("{driver}: what it shows"))?;
    changes(bed, driver).with_context(|| format!("{driver}: changes"))?;
    consumed(bed, driver).with_context(|| format!("{driver}: commit"))?;
    gone(bed, driver).with_context(|| format!("{driver}: removal"))
}

/// Mounts are made by who runs containers: the shim.
fn engine(bed: &Bed, driver: &str) -> Result {
    let tar = bed.fixture().busybox_tar()?;
    on(bed, driver, &format!("pier-distribution import -q {} bb:1 >/dev/null", tar.display()))?.ok()?;
    let mut command = bed.command(bed.program("pierd"));
    command.arg("serve").env("PIER_ROOT", bed.dir().join("disk/root")).env("PIER_SNAPSHOTTER", driver);
    bed.spawn("pierd", &mut command)?;
    integration::eventually(std::time::Duration::from_secs(10), || bed.sh("pier version")?.ok().map(drop))
}

fn sees(bed: &Bed, driver: &str) -> Result {
    on(
        bed,
        driver,
        "mkdir -p lay; pier-distribution export bb:1 -o bb.tar; pier-distribution mutate t:1 run:1 --append bb.tar >/dev/null
         pier run --rm --network none run:1 sh -c '
            stat -c \"%n %u:%g %a %h\" /d/a /hard; readlink /soft; ls /e; ls /ff 2>/dev/null; cat /keep/k; wc -c </big
            echo w >/d/b; rm -r /keep; mkdir /keep; : >/keep/new; mv /d/a /d/moved; cat /d/b; ls /keep'",
    )?
    .ok()?
    .with("/d/a 33:44 4755 2")?
    .with("/hard 33:44")?
    .with("d/a")?
    .with("\nf\n")?
    .with("k\n3000000\nw\nnew")?
    .without("/ff")
    .map(drop)
}

fn changes(bed: &Bed, driver: &str) -> Result {
    on(
        bed,
        driver,
        "pier run --name c --network none run:1 sh -c '
            echo new >/new; rm -r /d; mkdir /d; echo c >/d/c; printf x | dd of=/big conv=notrunc 2>/dev/null; chown 7:8 /e/f; rm /soft'
         pier-distribution snapshot ls --format json | grep -o \"\\\"snapshotter\\\": \\\"[a-z-]*\\\"\"; pier diff c
         pier-distribution snapshot diff $(pier ps -aq --no-trunc)",
    )?
    .ok()?
    .with(&format!("\"snapshotter\": \"{driver}\""))?
    .with("A /new")?
    .with("C /big")?
    .with("A /d/c")?
    .with("D /d/a")?
    .with("D /d/b")?
    .with("C /e/f")?
    .with("D /soft")?
    .without(".wh.")?
    .without("/keep")
    .map(drop)
}

fn consumed(bed: &Bed, driver: &str) -> Result {
    on(
        bed,
        driver,
        "pier commit c kept:1 >/dev/null; id=$(pier ps -aq --no-trunc); pier export c >live.tar
         pier-distribution export --snapshot $id -o snap.tar; pier-distribution export kept:1 -o kept.tar
         for t in snap kept; do mkdir $t; tar x --same-owner --xattrs -C $t -f $t.tar; done
         diff <(cd snap; find . -mindepth 1 -printf '%P %U %G %m %s %n %l %T@\\n' | sort) <(cd kept; find . -mindepth 1 -printf '%P %U %G %m %s %n %l %T@\\n' | sort) && echo same tree
         cmp snap/big kept/big; cat kept/d/c; ls kept/d kept/e; stat -c 'owner %u:%g' kept/e/f; tar t -f live.tar | grep -cF .wh. || echo no marks
         pier run --rm --network none kept:1 cat /new /d/c; pier-distribution check; pier-distribution df --format json | grep snapshots_bytes",
    )?
    .ok()?
    .with("same tree")?
    .with("no marks")?
    .with("owner 7:8")?
    .with("new\nc")?
    .has(", 0 damaged")
    .map(drop)
}

fn gone(bed: &Bed, driver: &str) -> Result {
    on(
        bed,
        driver,
        "pier rm -f c; pier-distribution rm -f kept:1 run:1 one:1 t:1 bb:1 >/dev/null; pier-distribution gc >/dev/null
         ls $PIER_ROOT/distribution/snapshots $PIER_ROOT/distribution/chains $PIER_ROOT/distribution/layers $PIER_ROOT/distribution/trash $PIER_ROOT/distribution/staging | grep -v : | grep . || echo nothing
         pgrep -x fuse-overlayfs || echo no program",
    )?
    .ok()?
    .with("nothing")?
    .has("no program")
    .map(drop)
}

fn run(bed: &Bed, driver: &str, mkfs: &str) -> Result {
    let done = contract(bed, driver, mkfs);
    // Daemons are stopped after this; with them the file system goes.
    bed.sh("umount -l disk; rm file")?;
    done
}

const EXT4: &str = "mkfs.ext4 -q -F";

#[test]
fn overlay() -> Result {
    isolated!(|bed| run(bed, "overlay", EXT4))
}

#[test]
fn fuse_overlayfs() -> Result {
    isolated!(|bed| run(bed, "fuse-overlayfs", EXT4))
}

#[test]
fn btrfs() -> Result {
    isolated!(|bed| run(bed, "btrfs", "mkfs.btrfs -q -f"))
}

#[test]
fn erofs() -> Result {
    isolated!(|bed| run(bed, "erofs", EXT4))
}

#[test]
fn copy() -> Result {
    isolated!(|bed| run(bed, "copy", "mkfs.xfs -q -f -m reflink=1"))
}

/// What is chosen, and said, where something is missing.
#[test]
fn the_choice() -> Result {
    isolated!(|bed| {
        crate::runtime_seccomp::compile(bed, "old-kernel", "old-kernel")?;
        let info = "pier-distribution info";
        bed.sh(info)?.ok()?.with("snapshotter: overlay")?.has("note: btrfs: the store does not lie on btrfs")?;
        // An overlay by mount(2) alone.
        bed.sh("./old-kernel fsopen,open_tree $(command -v pier-distribution) info")?
            .ok()?
            .has("snapshotter: overlay")?;
        bed.sh(&format!("PIER_SNAPSHOTTER=btrfs {info}"))?.fails()?.has("the btrfs snapshotter does not work here")?;
        bed.sh(&format!("PIER_SNAPSHOTTER=zfs {info}"))?
            .fails()?
            .has("overlay, btrfs, fuse-overlayfs, copy or erofs")?;
        Ok(())
    })
}

/// Without the newer mount calls, a container's rootfs comes from mount(2); ids cannot be mapped then, and that is said.
#[test]
fn overlay_by_mount_alone() -> Result {
    isolated!(|bed| {
        crate::runtime_seccomp::compile(bed, "old-kernel", "old-kernel")?;
        let tar = bed.fixture().busybox_tar()?;
        bed.sh(&format!("pier-distribution import -q {} bb:1", tar.display()))?.ok()?;
        let mut command = bed.command(bed.dir().join("old-kernel"));
        command
            .arg("fsopen,fsconfig,fsmount,open_tree,move_mount,mount_setattr")
            .arg(bed.program("pierd"))
            .arg("serve");
        bed.spawn("pierd", &mut command)?;
        integration::eventually(std::time::Duration::from_secs(10), || bed.sh("pier version")?.ok().map(drop))?;
        bed.sh(
            "pier run --name c --network none bb:1 sh -c 'echo w >/w; rm -r /home; cat /w; grep -c lowerdir= /proc/mounts; ls -d /home'
             pier diff c; pier rm c",
        )?
        .ok()?
        .with("w\n1\n")?
        .with("A /w")?
        .with("D /home")?;
        bed.sh("pier run --rm --network none --userns auto bb:1 true")?
            .fails()?
            .with("cannot be made for a user namespace")?
            .has("or no user namespace")
    })
}
