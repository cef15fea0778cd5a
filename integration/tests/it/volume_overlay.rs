//! `:O`: changes over a volume, a directory of the host or an image that go with the container, also for containers with ids
//! of their own.
use integration::{Bed, Result, isolated};

fn engine(bed: &Bed) -> Result {
    bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} bb", bed.fixture().busybox_tar()?.display()))?
        .ok()?;
    bed.serve("engine").map(drop)
}

const FILES: &str = "set -e; pier volume create data >/dev/null; V=root/volume/volumes/data/_data; mkdir -p $V/d h/d
    echo kept >$V/d/f; echo mine >$V/mine; chown 5:6 $V/d $V/d/f; chmod 600 $V/mine; echo host >h/d/f; chown -R 1000:1001 h";
const LEFT: &str =
    "find run/volume root/volume/overlays -mindepth 1 | wc -l; grep -c run/volume /proc/self/mounts; pier volume ls -q";

#[test]
fn over_a_volume_in_a_user_namespace() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh(FILES)?.ok()?;
        bed.sh("pier run -d --name c --userns auto --network none -v data:/v:O bb sh -c 'stat -c %u:%g /v /v/d /v/d/f /v/mine; cat /v/mine; echo changed >/v/d/f; stat -c %u:%g /v/d/f; rm /v/mine; mkdir -p /v/new/er; chown 7:8 /v/new/er; ls /v; sleep 100' >/dev/null; \
                for n in $(seq 100); do pier logs c | grep -q new && break; sleep 0.1; done; pier logs c")?
            .ok()?
            .has("0:0\n5:6\n5:6\n0:0\nmine\n5:6\nd\nnew\n")?;
        // What is stored are the container's ids; the volume is as it was.
        bed.sh("cd root/volume/overlays/*/*/upper && stat -c 'upper %n %u:%g' . d d/f new new/er; cd $DIR/root/volume/volumes/data/_data && cat d/f mine; ls; stat -c 'stored %u:%g' d/f")?
            .ok()?
            .with("upper . 0:0\nupper d 5:6\nupper d/f 5:6\nupper new 0:0\nupper new/er 7:8")?
            .has("kept\nmine\nd\nmine\nstored 5:6")?;
        // The changes last as long as the container, also when the mounts are lost.
        let again = "pier start c >/dev/null; pier exec c sh -c 'cat /v/d/f; stat -c %u:%g /v/new/er; ls /v'";
        bed.sh(&format!("pier kill c >/dev/null; pier wait c >/dev/null; {again}"))?
            .ok()?
            .has("changed\n7:8\nd\nnew")?;
        bed.sh(&format!("pier kill c >/dev/null; pier wait c >/dev/null; umount -l run/volume/*/*; rm -d run/volume/*/* run/volume/*; {again}; pier rm -f c"))?
            .ok()?
            .has("changed\n7:8\nd\nnew")?;
        bed.sh(LEFT)?.ok()?.has("0\n0\ndata")
    })
}

#[test]
fn owners_that_look_different() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh(FILES)?.ok()?;
        let run =
            |flags: &str, script: &str| bed.sh(&format!("pier run --rm --network none {flags} bb sh -c '{script}'"));
        for userns in ["", "--userns auto"] {
            // A directory of the host, whose owner is the container's user.
            run(
                &format!("{userns} -u 7:8 -v $DIR/h:/h:O,idmap"),
                "stat -c %u:%g /h/d/f; echo x >/h/d/f; echo x >/h/new; stat -c %u:%g /h/new; cat /h/d/f",
            )?
            .ok()?
            .has("7:8\n7:8\nx\n")?;
            run(
                &format!("{userns} -v 'data:/v:O,idmap=uids=5-33-1#0-0-1;gids=6-34-1#0-0-1'"),
                "stat -c %u:%g /v/d/f; chown 33:34 /v/mine && stat -c %u:%g /v/mine",
            )?
            .ok()?
            .has("33:34\n33:34\n")?;
        }
        // As it is to others, it keeps its owner, who is nobody in there.
        run("--userns auto -v $DIR/h:/h:O", "stat -c %u:%g /h/d/f; cat /h/d/f; echo x >/h/d/f")?
            .exits(1)?
            .with("65534:65534\nhost")?;
        bed.sh("cat h/d/f; ls h; cat root/volume/volumes/data/_data/mine; stat -c %u:%g h/d/f root/volume/volumes/data/_data/mine")?
            .ok()?
            .has("host\nd\nmine\n1000:1001\n0:0")?;
        bed.sh(LEFT)?.ok()?.has("0\n0\ndata")
    })
}

#[test]
fn over_an_image_in_a_user_namespace() -> Result {
    isolated!(|bed| {
        if bed.sh("command -v fuse-overlayfs")?.code != 0 {
            println!("skipped: over_an_image_in_a_user_namespace: fuse-overlayfs is not installed");
            return Ok(());
        }
        engine(bed)?;
        bed.sh("pier run --rm --network none --userns auto --mount type=image,src=bb,dst=/i,rw=true bb sh -c 'stat -c %u:%g /i/bin; rm /i/bin/sh; echo x >/i/new; stat -c %u:%g /i/new; ls /i/bin/sh'")?
            .exits(1)?
            .with("0:0\n0:0\n")?
            .with("No such file")?;
        bed.sh("pier run --rm --network none --userns auto --mount type=image,src=bb,dst=/i bb ls /i/bin/sh /i/new")?
            .exits(1)?
            .with("/i/bin/sh")?;
        bed.sh(LEFT)?.has("0\n0\n")
    })
}

/// Before Linux 5.19 no overlay is made of mapped directories: then a program makes it.
#[test]
fn by_a_program_where_the_kernel_cannot() -> Result {
    isolated!(|bed| {
        if bed.sh("command -v fuse-overlayfs")?.code != 0 {
            println!("skipped: by_a_program_where_the_kernel_cannot: fuse-overlayfs is not installed");
            return Ok(());
        }
        crate::runtime_seccomp::compile(bed, "old-kernel", "old-kernel")?;
        bed.sh("set -e; mkdir m; pier-volume create v; pier-volume mount v m; echo kept >m/f; chown 5:6 m/f; pier-volume umount m")?.ok()?;
        bed.sh("set -e; ./old-kernel mount_setattr pier-volume mount v m --overlay --userns b:0:100000:1000; grep -o 'm fuse.fuse-overlayfs' /proc/self/mounts; stat -c %u:%g m m/f; echo new >m/f; chown 100007:100008 m/f; pier-volume umount m; pier-volume mount v m; cat m/f; stat -c %u:%g m/f; pier-volume umount m")?
            .ok()?
            .with("fuse-overlayfs\n100000:100000\n100005:100006\n")?
            .with("kept\n5:6")?;
        bed.sh("PATH=$(dirname $(command -v pier-volume)):/usr/sbin; $DIR/old-kernel mount_setattr pier-volume --error-format json mount v m --overlay --userns b:0:100000:1000")?
            .exits(1)?
            .with("VOLUME_UNSUPPORTED")?
            .with("by the kernel")?
            .has("fuse-overlayfs")?;
        bed.sh("ls -A run/volume root/volume/overlays; pier-volume inspect v | jq -c .[0].consumers")?.ok()?.has("[]")
    })
}

/// A path that an overlay's options have other words for.
#[test]
fn names_of_any_kind() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("mkdir -p 'a:b,c\\d'; echo host >'a:b,c\\d/f'")?.ok()?;
        for userns in ["", "--userns auto"] {
            bed.sh(&format!("pier run --rm --network none {userns} --mount '\"type=bind\",\"src='$DIR'/a:b,c\\d\",dst=/h,O,idmap' bb sh -c 'cat /h/f; echo x >/h/f && cat /h/f'; cat 'a:b,c\\d/f'"))?
                .ok()?
                .has("host\nx\nhost")?;
        }
        bed.sh("pier run --rm --network none --mount '\"type=bind\",\"src='$DIR'/a:b,c\\d\",dst=/h,O' bb sh -c 'echo x >/h/f && cat /h/f'; cat 'a:b,c\\d/f'")?
            .ok()?
            .has("x\nhost")
    })
}
