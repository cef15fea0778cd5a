//! `pier-volume`: by hand without a daemon, beside one, and killed in the middle.
use anyhow::ensure;
use integration::{Result, eventually, isolated};
use std::time::Duration;

#[test]
fn alone() -> Result {
    isolated!(|bed| {
        bed.sh("pier-volume create -l app=web data")?.ok()?.has("data")?;
        bed.sh("pier-volume create data")?.ok()?;
        bed.sh("pier-volume --error-format json create -o type=tmpfs data")?.exits(1)?.has("VOLUME_CONFLICT")?;
        bed.sh("pier-volume ls -q -f label=app=web")?.ok()?.has("data")?;
        bed.sh("pier-volume ls -q -f label=app=db")?.ok()?.without("data")?;
        let anonymous = bed.sh("pier-volume create")?.ok()?;
        ensure!(anonymous.out().len() == 64, "{anonymous}");
        bed.sh("mkdir m && pier-volume mount data m && echo kept >m/f && pier-volume umount m && ls m")?
            .ok()?
            .without("f")?;
        bed.sh("pier-volume mount data m --ro && cat m/f && ! touch m/g; pier-volume rm data")?
            .exits(1)?
            .has("mount:")?;
        bed.sh("pier-volume umount m && pier-volume umount m")?.ok()?;
        bed.sh("pier-volume prune")?.ok()?.has(anonymous.out())?;
        bed.sh("pier-volume rm data && pier-volume rm -f data && ! pier-volume rm data")?.ok()?;
        bed.sh("pier-volume ls -q; ls $DIR/root/volume/volumes $DIR/root/volume/staging $DIR/root/volume/removing")?
            .ok()?
            .without("data")?;
        Ok(())
    })
}

#[test]
fn holds_what_is_used() -> Result {
    isolated!(|bed| {
        bed.sh("pier-volume create data; pier-volume acquire data c1 /data; pier-volume acquire data c2 /d --ro")?
            .ok()?;
        bed.sh("pier-volume --error-format json rm -f data")?.exits(1)?.with("VOLUME_IN_USE")?.has("c1, c2")?;
        bed.sh("pier-volume prune -a && pier-volume ls -q")?.ok()?.has("data")?;
        bed.sh("pier-volume release c1; pier-volume rm data")?.exits(1)?.has("c2")?;
        bed.sh("pier-volume release c2; pier-volume rm data")?.ok()?;
        bed.sh("v=$(pier-volume create); pier-volume acquire $v c /x; pier-volume release c --remove-anonymous; pier-volume ls -q | wc -l")?
            .ok()?
            .has("0")
    })
}

#[test]
fn begins_with_image_content() -> Result {
    isolated!(|bed| {
        bed.sh(
            "mkdir -p low/srv/sub high/srv/sub && echo low >low/srv/a && echo low >low/srv/b && echo hidden >low/srv/sub/x && \
             echo high >high/srv/b && mknod high/srv/gone c 0 0 && echo gone >low/srv/gone && \
             ln low/srv/a low/srv/twin && ln -s a low/srv/link && chown 5:6 low/srv/a && chmod 4711 low/srv/a && \
             touch -d '2001-02-03 04:05:06.789' low/srv/a && setfattr -n trusted.overlay.opaque -v y high/srv/sub",
        )?
        .ok()?;
        bed.sh("pier-volume create data && pier-volume acquire data c /srv --copy-up low --copy-up high --copy-up-path /srv")?
            .ok()?
            .has("\"target\":\"/srv\"")?;
        let data = "$DIR/root/volume/volumes/data/_data";
        bed.sh(&format!("cat {data}/b; ls {data} {data}/sub"))?.ok()?.with("high")?.without("gone")?.without("x\n")?;
        bed.sh(&format!("stat -c '%u:%g %a %h %.9Y' {data}/a"))?.ok()?.has("5:6 4711 2 981173106.789000000")?;
        // Content of its own is never written over.
        bed.sh("echo new >high/srv/b; pier-volume acquire data c2 /srv --copy-up high --copy-up-path /srv")?.ok()?;
        bed.sh(&format!("cat {data}/b"))?.ok()?.without("new")?;
        Ok(())
    })
}

#[test]
fn subpaths_stay_inside() -> Result {
    isolated!(|bed| {
        bed.sh("pier-volume create data; cd root/volume/volumes/data/_data; mkdir in; ln -s / out; ln -s in link")?
            .ok()?;
        for bad in ["../..", "/etc", "out", "out/etc", "nope"] {
            bed.sh(&format!("pier-volume --error-format json acquire data c /x --subpath {bad}"))?
                .exits(1)?
                .has("VOLUME_SUBPATH_INVALID")?;
        }
        bed.sh("pier-volume inspect data")?.ok()?.has("\"consumers\": []")?;
        bed.sh("touch root/volume/volumes/data/_data/in/f; ls $(pier-volume acquire data c /x --subpath link | jq -r .source); pier-volume release c")?
            .ok()?
            .has("f\ndata")
    })
}

#[test]
fn a_subpath_may_be_a_file() -> Result {
    isolated!(|bed| {
        let show = "acquire data c /x --subpath conf/f";
        bed.sh("pier-volume create data; mkdir root/volume/volumes/data/_data/conf; echo one >root/volume/volumes/data/_data/conf/f")?.ok()?;
        bed.sh(&format!("cat $(pier-volume {show} | jq -r .source); pier-volume {show} >/dev/null; grep -c run/volume /proc/self/mounts"))?
            .ok()?
            .has("one\n1\n")?;
        // A directory in its place is shown from the next time on; nothing is left of the file.
        bed.sh(&format!("cd root/volume/volumes/data/_data/conf; rm f; mkdir f; touch f/g; cd $DIR; ls $(pier-volume {show} | jq -r .source)"))?
            .ok()?
            .has("g\n")?;
        bed.sh("pier-volume release c; cd root/volume/volumes/data/_data/conf; rm -r f; echo two >f")?.ok()?;
        bed.sh(&format!("pier-volume --error-format json {show} --overlay"))?
            .exits(1)?
            .has("VOLUME_SUBPATH_INVALID")?;
        bed.sh("ls -A run/volume; grep -c run/volume /proc/self/mounts")?.has("0\n")?;
        bed.sh("pier-volume inspect data")?.ok()?.has("\"consumers\": []")?;
        bed.sh(&format!("pier-volume {show} --ro; pier-volume rm -f data; pier-volume release c; ls -A run/volume"))?
            .ok()
            .map(drop)
    })
}

#[test]
fn served_and_by_hand_at_once() -> Result {
    isolated!(|bed| {
        let daemon = bed.serve("volume")?;
        bed.spawn("events", bed.command(bed.program("pier-volume")).arg("events"))?;
        // The reader begins at the end of what there is: give it something until it has begun.
        eventually(Duration::from_secs(5), || {
            bed.sh("pier-volume create seen && pier-volume rm seen")?.ok()?;
            ensure!(bed.log("events").contains("\"destroy\""), "no event yet");
            Ok(())
        })?;
        bed.sh("for i in 1 2 3 4 5 6 7 8; do pier-volume create same & done; wait; pier-volume ls -q")?
            .ok()?
            .has("same")?;
        daemon.kill()?;
        bed.serve("volume")?;
        bed.sh("pier-volume rm same")?.ok().map(drop)
    })
}

#[test]
fn killed_anywhere_leaves_nothing_half() -> Result {
    isolated!(|bed| {
        bed.sh("mkdir -p layer/srv; for i in $(seq 200); do head -c 2000 /dev/urandom >layer/srv/$i; done")?.ok()?;
        for step in 0..12 {
            let script = format!(
                "pier-volume create v{step} >/dev/null; \
                 pier-volume acquire v{step} c /srv --copy-up layer --copy-up-path /srv & p=$!; \
                 sleep 0.0{step:02}; kill -KILL $p 2>/dev/null; wait; pier-volume ls -q >/dev/null; \
                 ls $DIR/root/volume/volumes/v{step}/_data | wc -l; ls $DIR/root/volume/volumes/v{step}"
            );
            let seen = bed.sh(&script)?.ok()?.without("copy-up.")?;
            let count = seen.out().lines().next().unwrap_or_default().to_owned();
            ensure!(count == "0" || count == "200", "half a copy shows: {seen}");
        }
        bed.sh("pier-volume release c; pier-volume prune -a; ls $DIR/root/volume/volumes | wc -l")?.ok()?.has("0")
    })
}
