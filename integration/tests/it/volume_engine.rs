//! Volumes as people use them: `pier run -v` and `--mount`, `pier volume`.
use integration::{Bed, Result, isolated};

fn engine(bed: &Bed) -> Result {
    bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} bb", bed.fixture().busybox_tar()?.display()))?
        .ok()?;
    bed.serve("engine").map(drop)
}

const NOTHING_LEFT: &str =
    "pier volume ls -q | wc -l; ls -A root/volume/overlays 2>/dev/null | wc -l; grep -c run/volume /proc/self/mounts";

#[test]
fn mounts_of_containers() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier volume create --uid 33 --gid 34 data && pier run --rm -v data:/d bb sh -c 'stat -c %u:%g /d; echo kept >/d/f; chown 33:34 /d/f'")?
            .ok()?
            .has("33:34")?;
        bed.sh("pier run --rm -v data:/d:O bb sh -c 'echo changed >/d/f; rm /d/f; ls /d | wc -l'; pier run --rm -v data:/d:ro bb sh -c 'cat /d/f; touch /d/g'")?
            .exits(1)?
            .with("0\nkept")?
            .has("Read-only")?;
        // Who the files belong to, for a user of the container and for a map; nothing changes on disk.
        bed.sh("pier run --rm -u 1000:1001 -v data:/d:idmap bb sh -c 'stat -c %u:%g /d/f; echo mine >/d/mine; stat -c %u:%g /d/mine'; \
                pier run --rm -v 'data:/d:idmap=uids=33-5-1;gids=34-6-1' bb stat -c %u:%g /d/f; pier run --rm -v data:/d bb stat -c %u:%g /d/f /d/mine")?
            .ok()?
            .has("1000:1001\n1000:1001\n5:6\n33:34\n33:34")?;
        bed.sh("pier run --rm -u www -v data:/d:idmap bb sh -c 'id -u; stat -c %u /d/f'")?.ok()?.has("33\n33")?;
        bed.sh("pier run --rm -u somebody -v data:/d:idmap bb true")?.exits(125)?.has("somebody")?;
        // Binds: overlay, map, read-only with what is below.
        bed.sh("mkdir -p h/below && echo host >h/f && mount -t tmpfs none h/below && pier run --rm -v $DIR/h:/h:O bb sh -c 'echo x >/h/f; echo x >/h/new; cat /h/f' && cat h/f && \
                pier run --rm --mount type=bind,src=h,dst=/h,ro,bind-recursive=writable bb touch /h/below/a && ! pier run --rm -v $DIR/h:/h:rro bb touch /h/below/b; \
                ! pier run --rm --mount type=bind,src=h,dst=/h,ro,bind-recursive=readonly bb touch /h/below/c; pier run --rm -u 7:8 -v $DIR/h:/h:idmap=keep-id bb stat -c %u:%g /h/f; ls h/below; umount h/below")?
            .ok()?
            .with("x\nhost")?
            .with("Read-only")?
            .with("7:8\na\n")?
            .without("new")?;
        bed.sh("pier volume rm data")?.ok()?;
        bed.sh(NOTHING_LEFT)?.has("0\n0\n0")
    })
}

#[test]
fn what_was_unmounted_is_mounted_for_the_first_start_too() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier-volume create --size 16m v && pier create --name c -v v:/d bb grep ' /d ' /proc/self/mounts")?
            .ok()?;
        // As after a reboot.
        bed.sh("umount run/volume/*; rmdir run/volume/*; pier start -a c")?.ok()?.has(" /d ext4 ")?;
        bed.sh("pier rm c && pier volume rm v")?.ok().map(drop)
    })
}

#[test]
fn images_memory_and_files() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run --rm --mount type=image,source=bb,target=/i bb sh -c 'ls /i/bin/sh; touch /i/x'")?
            .exits(1)?
            .with("/i/bin/sh")?
            .has("Read-only")?;
        bed.sh("pier run --rm --mount type=image,source=bb,target=/i,rw=true bb sh -c 'rm /i/bin/sh && echo gone'")?
            .ok()?
            .has("gone")?;
        bed.sh("pier run --rm --mount type=image,source=bb,target=/i,subpath=etc bb ls /i")?.ok()?.has("passwd")?;
        bed.sh("pier run --rm --mount type=image,source=bb,target=/i,subpath=etc/passwd bb cat /i")?
            .ok()?
            .has("root:")?;
        bed.sh("pier run --rm -v conf:/d bb sh -c 'echo one >/d/f' && pier run --rm --mount type=volume,src=conf,dst=/etc/conf,volume-subpath=f bb sh -c 'cat /etc/conf; echo two >/etc/conf' && pier run --rm -v conf:/d bb cat /d/f; pier volume rm conf")?
            .ok()?
            .has("one\ntwo\nconf")?;
        bed.sh("pier run --rm --mount type=image,source=nope,target=/i,pull=never bb true")?.exits(125)?.has("nope")?;
        // Both see one memory, and the limit holds.
        bed.sh("pier volume create -o type=tmpfs -o o=size=1m t && pier run -d --name a -v t:/t bb sh -c 'echo one >/t/f; sleep 60' && sleep 0.5 && pier run --rm -v t:/t bb cat /t/f && pier rm -f a && pier run --rm -v t:/t bb ls -A /t")?
            .ok()?
            .has("one\na\n")?;
        bed.sh(
            "pier volume create --size 16m q && pier run --rm -v q:/q bb sh -c 'dd if=/dev/zero of=/q/f bs=1M; true'",
        )?
        .ok()?
        .has("No space left")?;
        // What the image has under the target fills a fresh file system too.
        bed.sh("pier run --rm --mount type=volume,src=e,dst=/etc,volume-opt=type=ext4,volume-opt=size=8m,volume-label=a=b bb cat /etc/passwd; pier volume ls -q -f label=a=b")?.ok()?.with("root")?.has("\ne\n")?;
        bed.sh("pier volume rm t q e")?.ok()?;
        bed.sh(NOTHING_LEFT)?.has("0\n0\n0")
    })
}

#[test]
fn verbs_of_people() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("set -e; pier volume create -l a=b data; pier run --rm -v data:/d bb sh -c 'echo one >/d/f'; pier volume snapshot create data s; pier volume snapshot ls data; pier run --rm -v data:/d bb rm /d/f
                pier volume snapshot restore data s; pier volume clone data twin; pier volume export twin >twin.tar; pier volume export data -o data.tar; cmp twin.tar data.tar
                pier volume import other <data.tar; pier volume rename other third; pier run --rm -v third:/d bb cat /d/f; pier volume update third -l c=d; pier volume inspect third; pier volume check; pier volume drivers
                pier volume snapshot rm data s; pier volume rm data twin third; pier volume ls -q | wc -l")?
            .ok()?
            .with("SNAPSHOT")?
            .with("one\nthird")?
            .with("\"c\": \"d\"")?
            .has("\n0\n")?;
        // A container goes on with a volume that was renamed, and after its mounts were lost.
        bed.sh("set -e; pier volume create --size 16m v; pier run -d --name c -v v:/v bb sh -c 'echo x >>/v/f; sleep 60'; sleep 0.5; pier volume rename v w; pier stop -t 0 c; umount -l run/volume/*/; rmdir run/volume/*/
                pier start c; sleep 0.5; pier exec c wc -l /v/f; ! pier volume rm w; pier rm -f c; pier volume rm w")?
            .ok()?
            .has("2 /v/f")
    })
}
