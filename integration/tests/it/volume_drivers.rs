//! `pier-volume`: where the data can be, how it looks to who uses it, and that no mount is left.
use anyhow::ensure;
use integration::{Result, isolated};

#[test]
fn memory_is_shared_and_goes_with_the_last_user() -> Result {
    isolated!(|bed| {
        bed.sh("set -e; pier-volume create -o type=tmpfs -o o=size=1m,noexec t; mkdir a b sub; pier-volume mount t a; pier-volume mount t b --ro
                echo x >a/f; cat b/f; ! touch b/g; mkdir a/below; pier-volume acquire t c /t --subpath below; grep -c run/volume /proc/self/mounts
                ! dd if=/dev/zero of=a/big bs=1M count=2 2>err; cat err; pier-volume umount a; pier-volume umount b; ls run/volume; pier-volume release c; ls run/volume
                pier-volume mount t a; ls a | wc -l; pier-volume umount a; grep -c run/volume /proc/self/mounts || true; ls -A run/volume | wc -l")?
            .ok()?
            .with("x\n")?
            .with("No space left")?
            .has("0\n0\n0\n")
    })
}

#[test]
fn file_systems_in_files() -> Result {
    isolated!(|bed| {
        for (fstype, size) in [("ext4", "32m"), ("xfs", "320m")] {
            bed.sh(&format!("set -e; mkdir -p m; pier-volume create -o type={fstype} --size {size} --mode 700 v; pier-volume mount v m; stat -c %a m; df --output=fstype m | tail -1
                ls -A m | wc -l; echo x >m/f; pier-volume acquire v c /x --copy-up $DIR/none || true; pier-volume release c; pier-volume umount m; pier-volume mount v m --ro; cat m/f; ! touch m/g; pier-volume umount m
                pier-volume clone v w; pier-volume mount w m; cat m/f; pier-volume umount m; pier-volume rm v w; losetup -a | grep $DIR || true"))?
                .ok()?
                .with("700\n")?
                .with(fstype)?
                .with("\n0\n")?
                .without("disk.img")?;
        }
        bed.sh("pier-volume create -o type=ext4 v")?.exits(1)?.has("needs one")?;
        bed.sh("pier-volume create -o type=xfs --size 1m v; pier-volume ls -q; ls root/volume/staging")?
            .ok()?
            .with("mkfs.xfs failed")?;
        bed.sh("mkdir d; echo x >d/f; chmod 750 d")?.ok()?;
        if bed.sh("mkfs.erofs --version")?.code != 0 {
            println!("skipped: erofs: mkfs.erofs is not installed");
            return Ok(());
        }
        bed.sh("set -e; pier-volume create -o type=erofs -o from=$DIR/d e; rm -r d; pier-volume mount e m; cat m/f; stat -c %a m; ! touch m/g; pier-volume umount m; pier-volume rm e")?
            .ok()?
            .with("x\n750")?
            .has("Read-only")
    })
}

#[test]
fn any_mount_by_options() -> Result {
    isolated!(|bed| {
        bed.sh("set -e; truncate -s 16M disk; mkfs.ext4 -q -F disk; mkdir m; pier-volume create -o type=ext4 -o device=$DIR/disk -o o=loop,noatime d; pier-volume mount d m
                grep $DIR/m' ' /proc/self/mounts; touch m/f; pier-volume umount m; pier-volume rm d; mount -o loop disk m; ls m/f; umount m")?
            .ok()?
            .has("noatime")?;
        // No server to be had: what is asked of the kernel is what counts.
        bed.sh("pier-volume create -o type=nfs -o device=localhost:/x -o o=vers=4,soft n; PATH=$PATH strace -f -o log -e trace=mount,fsconfig pier-volume acquire n c /x; cat log; pier-volume inspect n")?
            .ok()?
            .with("addr=127.0.0.1")
            .or_else(|_| bed.sh("cat log")?.with("addr=::1").or_else(|_| bed.sh("cat log; pier-volume acquire n c /x 2>&1")?.with("127.0.0.1")))?;
        bed.sh("pier-volume inspect n")?.ok()?.has("\"consumers\": []")?;
        bed.sh(
            "mkdir h; pier-volume create -o type=none -o device=$DIR/h -o o=bind,nosuid b; pier-volume acquire b c /x",
        )?
        .ok()?
        .with("nosuid")?
        .has("/h\"")?;
        bed.sh("pier-volume release c; rmdir h; pier-volume acquire b c /x")?.exits(1)?.has("cannot find")?;
        bed.sh("pier-volume create -o type=nope -o device=none n2; pier-volume mount n2 m")?
            .exits(1)?
            .with("mount failed")?;
        bed.sh("pier-volume ls -f dangling=false -q; ls -A run/volume")?.ok().and_then(|it| {
            ensure!(it.out().is_empty(), "{it}");
            Ok(())
        })
    })
}

#[test]
fn changes_over_a_volume_are_dropped() -> Result {
    isolated!(|bed| {
        bed.sh("set -e; pier-volume create v; mkdir m; pier-volume mount v m; echo kept >m/f; chmod 1733 m; chown 3:4 m; pier-volume umount m
                pier-volume mount v m --overlay; stat -c '%a %u:%g' m; echo changed >m/f; rm -f m/g; echo new >m/n; cat m/f; pier-volume umount m; ls -A root/volume/overlays | wc -l
                pier-volume mount v m; cat m/f; ls m/n; ")?
            .exits(2)?
            .with("1733 3:4\nchanged\n0\nkept")?;
        bed.sh("pier-volume umount m; pier-volume acquire v c /x --overlay | jq -r .type; pier-volume acquire v c /x --overlay --ro; ls -A root/volume/overlays | wc -l; pier-volume release c; ls -A root/volume/overlays | wc -l")?
            .ok()?
            .with("overlay\n1\nv\n0")
            .map(drop)
    })
}

#[test]
fn owners_are_mapped_on_the_way() -> Result {
    isolated!(|bed| {
        bed.sh("set -e; pier-volume create --uid 5 --gid 6 v; d=$(pier-volume inspect v | jq -r .[0].mountpoint); mkdir m; touch $d/f; chown 5:6 $d/f
                pier-volume mount v m --idmap keep-id:uid=1000,gid=2000; stat -c %u:%g m m/f; setpriv --reuid 1000 --regid 2000 --clear-groups touch m/mine; chown 0:0 m/mine; stat -c %u:%g $d/mine; chown 1000:2000 m/mine
                stat -c %u:%g $d/mine; pier-volume umount m
                pier-volume mount v m --idmap 'uids=5-77-1;gids=6-78-1' --ro; stat -c %u:%g m/f; ! touch m/g; pier-volume umount m")?
            .ok()?
            .with("1000:2000\n1000:2000\n0:0\n5:6\n77:78\n")?
            .has("Read-only")?;
        bed.sh("pier-volume acquire v c /x --idmap uids=0-5-1")?.ok()?.has("X-mount.idmap=u:0:5:1 g:0:0:4294967295")?;
        bed.sh("pier-volume acquire v c2 /x --idmap nonsense; pier-volume inspect v | jq -c .[0].consumers")?
            .ok()?
            .with("invalid idmap")?
            .has("[\"c\"]")
    })
}

#[test]
fn read_only_all_the_way_down() -> Result {
    isolated!(|bed| {
        bed.sh("set -e; pier-volume create v; d=$(pier-volume inspect v | jq -r .[0].mountpoint); mkdir $d/sub m; mount -t tmpfs none $d/sub
                pier-volume mount v m --ro; touch m/sub/f; ! touch m/f; umount m/sub; pier-volume umount m
                pier-volume mount v m --rro; ! touch m/sub/g; umount m/sub; pier-volume umount m; umount $d/sub
                pier-volume mount v m --propagation rshared; grep -o 'm rw.*shared:' /proc/self/mountinfo; pier-volume umount m")?
            .ok()?
            .with("Read-only")?
            .has("shared:")
    })
}

#[test]
fn encrypted_at_rest() -> Result {
    isolated!(|bed| {
        bed.sh("head -c 64 /dev/urandom >key; head -c 64 /dev/urandom >other; mkdir m; pier-volume create -o type=ext4 -o encryption-key=$DIR/key --size 16m v")?.ok()?;
        let first = bed.sh("pier-volume mount v m")?;
        if first.code != 0 && first.stderr.contains("Operation not supported") {
            println!("skipped: encrypted_at_rest: this kernel's ext4 encrypts nothing");
            return Ok(());
        }
        first.ok()?;
        bed.sh("set -e; echo needle-in-clear >m/needle-name; sync -f m; pier-volume umount m; i=root/volume/volumes/v/disk.img
                ! grep -q needle-in-clear $i; ! grep -q needle-name $i; pier-volume mount v m; cat m/needle-name; pier-volume umount m
                mv key saved; ! pier-volume mount v m; cp other key; ! pier-volume mount v m; head -c 10 other >key; ! pier-volume mount v m; mv saved key
                mkdir raw; mount -o loop,ro $i raw; ! cat raw/_data/needle-name; ls raw/_data; umount raw; ls -A run/volume | wc -l
                pier-volume mount v m; cat m/needle-name; pier-volume umount m")?
            .ok()?
            .with("needle-in-clear\n")?
            .with("cannot read the encryption key")?
            .with("not the key that the volume was made with")?
            .has("10 bytes")
    })
}

/// Content of an image, from the store by itself.
#[test]
fn images_as_volumes() -> Result {
    isolated!(|bed| {
        let tar = bed.fixture().busybox_tar()?;
        bed.sh(&format!("set -e; pier-distribution import -q {} box:1 >/dev/null; pier-volume create -d image -o image=box:1 i; mkdir m; pier-volume mount i m
                ls m/bin/sh; ! touch m/x; pier-distribution snapshot ls | grep -c volume-; pier-volume umount m; ls -A run/volume | wc -l
                pier-volume acquire i c /x --subpath bin; pier-volume release c; pier-volume rm i; pier-distribution snapshot ls | grep -c volume- || true; ls run", tar.display()))?
            .ok()?
            .with("m/bin/sh\n1\n0")?
            .without("oneshot")?;
        bed.sh("pier-volume create -d image -o image=nope:1 i; pier-volume --error-format json acquire i c /x")?
            .exits(1)?
            .has("nope")?;
        bed.sh("pier-volume inspect i")?.ok()?.has("\"consumers\": []")
    })
}

/// Whoever is killed where, the next call takes away what nobody needs and mounts what is needed.
#[test]
fn no_mount_outlives_its_users() -> Result {
    isolated!(|bed| {
        bed.sh("mkdir m; pier-volume create --size 16m v")?.ok()?;
        for step in 0..15 {
            let script = format!(
                "pier-volume mount v m & p=$!; sleep 0.0{step:02}; kill -KILL $p 2>/dev/null; wait; sleep 0.1; pier-volume umount m; \
                 pier-volume check --repair >/dev/null; pier-volume ls -q >/dev/null; grep -c $DIR/ /proc/self/mounts; ls -A run/volume | wc -l; losetup -a | grep -c $DIR; pier-volume inspect v | jq -c .[0].consumers"
            );
            let seen = bed.sh(&script)?;
            ensure!(seen.out().ends_with("0\n0\n0\n[]"), "step {step}: {seen}");
        }
        // As after a reboot: the mounts are gone, the references are not.
        bed.sh("pier-volume acquire v c /x; umount run/volume/*; rmdir run/volume/*")?.ok()?;
        let daemon = bed.serve("volume")?;
        integration::eventually(std::time::Duration::from_secs(5), || {
            bed.sh("grep run/volume /proc/self/mounts")?.ok()
        })?;
        daemon.kill()?;
        bed.sh("pier-volume release c; ls -A run/volume | grep -v sock | wc -l")?.ok()?.has("0")
    })
}
