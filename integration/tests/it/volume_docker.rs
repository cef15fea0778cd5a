//! What docker's users do with volumes: other containers' mounts, drivers by flag, what `inspect` and `ps` say, binds.
use crate::volume_plugin::driver;
use integration::{Bed, Result, isolated};

/// `bb`, and `kept`, which has a volume with content of its own.
fn images(bed: &Bed) -> Result {
    let tar = bed.fixture().busybox_tar()?.display().to_string();
    bed.sh(&format!(
        "set -e; pier-distribution import --change 'CMD [\"sh\"]' {tar} bb; mkdir -p c/kept; echo image >c/kept/f; chmod 1777 c/kept
         mkdir t && tar x -C t -f {tar} && cp -a c/kept t/ && tar c -C t . | pier-distribution import --change 'VOLUME /kept' --change 'CMD [\"sh\"]' - kept; rm -r t c"
    ))?
    .ok()?;
    bed.serve("engine").map(drop)
}

#[test]
fn mounts_of_another_container() -> Result {
    isolated!(|bed| {
        images(bed)?;
        bed.sh("set -e; mkdir h; echo host >h/f; pier volume create v >/dev/null; pier create --name data -v v:/v -v /anonymous -v $DIR/h:/h:ro --tmpfs /t kept >/dev/null
                pier run --rm --volumes-from data bb sh -c 'cat /kept/f /h/f; echo a >/anonymous/f; echo v >/v/f; echo more >/kept/g; ls -d /t'")?
            .exits(1)?
            .with("image\nhost\n")?
            .has("/t: No such file")?;
        // They outlive who took them, keep their access, and may have another name by now.
        bed.sh("pier volume rename v w; pier run --rm --volumes-from data bb sh -c 'cat /anonymous/f /v/f /kept/g; touch /h/x'")?
            .exits(1)?
            .with("a\nv\nmore\n")?
            .has("Read-only")?;
        bed.sh("pier run --rm --volumes-from data:ro -v w:/v bb sh -c 'touch /v/ok; touch /kept/x'")?
            .exits(1)?
            .has("/kept/x: Read-only")?;
        bed.sh("pier run --rm --volumes-from data:nope bb true")?.exits(125)?.has("expected CONTAINER[:ro|rw|z|Z]")?;
        bed.sh("pier run -d --name other --volumes-from data bb sleep 100 >/dev/null; pier rm -v data; pier exec other cat /kept/g; pier volume ls -q | wc -l; pier rm -fv other; pier volume ls -q")?
            .ok()?
            .has("more\n3\n")
    })
}

#[test]
fn what_people_are_told_of_mounts() -> Result {
    isolated!(|bed| {
        images(bed)?;
        bed.sh("mkdir h; pier volume create v; pier run -d --name c -v v:/v:ro -v $DIR/h:/h --tmpfs /t --mount type=image,src=bb,dst=/i kept sleep 100")?.ok()?;
        let of = |template: &str| bed.sh(&format!("pier inspect -f '{template}' c"));
        of("{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}};{{end}}")?
            .ok()?
            .has("volume /v false;bind /h true;image /i true;tmpfs /t true;volume /kept true;")?;
        bed.sh("test -d \"$(pier inspect -f '{{range .Mounts}}{{if eq .Destination \"/kept\"}}{{.Source}}{{end}}{{end}}' c)\" && N=$(pier inspect -f '{{range .Mounts}}{{if eq .Destination \"/kept\"}}{{.Name}}{{end}}{{end}}' c) && \
                pier volume inspect -f '{{.Anonymous}}' $N && for w in $N v /h /kept nope; do pier ps -q --filter volume=$w | wc -l; done | paste -sd,; pier ps --format '{{.LocalVolumes}}'")?
            .ok()?
            .has("true\n1,1,1,1,0\n2")?;
        bed.sh("pier rm -fv c; pier volume rm v; pier volume ls -q")?.ok().map(drop)
    })
}

#[test]
fn a_driver_by_flag() -> Result {
    isolated!(|bed| {
        images(bed)?;
        driver(bed, "toy", "run/plugins")?;
        bed.sh("pier run --name c --volume-driver toy -v named:/n -v /a --mount src=local,dst=/l kept sh -c 'echo n >/n/f; echo a >/a/f; echo k >/kept/f; echo l >/l/f'; cat toy-data/named/f; ls toy-data | wc -l; pier volume inspect -f '{{.Driver}}' local")?
            .ok()?
            .has("n\n3\nlocal")?;
        bed.sh("pier rm -v c; ls toy-data; pier volume rm named local; ls toy-data | wc -l")?
            .ok()?
            .has("named\nnamed\nlocal\n0")?;
        bed.sh("pier run --rm --volume-driver nowhere -v x:/x bb true")?
            .exits(125)?
            .has("unknown volume driver \"nowhere\"")
    })
}

#[test]
fn binds_and_what_is_mounted_below() -> Result {
    isolated!(|bed| {
        images(bed)?;
        bed.sh(
            "mkdir -p h/below && mount -t tmpfs none h/below && touch h/below/there && cp $(command -v busybox) h/run",
        )?
        .ok()?;
        let run =
            |mount: &str, script: &str| bed.sh(&format!("pier run --rm --network none {mount} bb sh -c '{script}'"));
        let bind = |options: &str| format!("--mount type=bind,src=$DIR/h,dst=/h{options}");
        // docker's rule: read-only is read-only all the way down.
        run("-v $DIR/h:/h:ro", "touch /h/below/x")?.exits(1)?.has("Read-only")?;
        run("--runtime runc -v $DIR/h:/h:ro", "touch /h/below/x")?.exits(1)?.has("Read-only")?;
        run(&bind(",ro"), "touch /h/below/x")?.exits(1)?.has("Read-only")?;
        run(&bind(",ro,bind-recursive=writable"), "touch /h/below/x && touch /h/x")?
            .exits(1)?
            .has("/h/x: Read-only")?;
        for alone in [bind(",bind-recursive=disabled"), "-v $DIR/h:/h:bind".into()] {
            run(&alone, "ls -A /h/below | wc -l; ls /h")?.ok()?.has("0\nbelow\nrun")?;
        }
        run("-v $DIR/h:/h:noexec", "/h/run true")?.exits(126)?.has("Permission denied")?;
        bed.sh("pier volume create v >/dev/null; cp h/run root/volume/volumes/v/_data/")?.ok()?;
        run("-v v:/v:nosuid,nodev,noexec", "grep -o /v.*noexec /proc/mounts; /v/run true")?
            .exits(126)?
            .has("noexec")?;
        for (bad, words) in [
            (bind(",bind-recursive=readonly"), "it goes with read-only"),
            (bind(",bind-recursive=some"), "enabled, disabled, writable or readonly"),
            ("--mount src=v,dst=/v,bind-recursive=disabled".into(), "it is for binds"),
        ] {
            run(&bad, "true")?.exits(125)?.has(words)?;
        }
        bed.sh("umount h/below; pier volume rm v; pier system prune -f --volumes --filter until=1h")?
            .exits(1)?
            .has("it does not go with volumes")
    })
}

#[test]
fn a_prune_is_an_event() -> Result {
    isolated!(|bed| {
        bed.sh("pier-volume create >/dev/null; pier-volume prune --format json; pier-volume events --since 1 --until 9999999999 --filter event=prune & sleep 0.5; kill $!")?
            .with("\"reclaimed_bytes\":")?
            .has("\"action\":\"prune\"")
    })
}
