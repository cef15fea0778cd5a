//! Whose files are, in containers with ids of their own and with `:U`: volumes, directories of the host, `idmap=`, `keep-id`.
use integration::{Bed, Result, isolated};

fn engine(bed: &Bed) -> Result {
    bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} bb", bed.fixture().busybox_tar()?.display()))?
        .ok()?;
    bed.serve("engine").map(drop)
}

/// A volume `data` and a directory `h` with files of several owners, and `one` with files of one.
const FILES: &str = "set -e; pier volume create data >/dev/null; V=root/volume/volumes/data/_data
    mkdir -p $V/d h/d one/d; : >$V/d/f; chown 5:6 $V/d; : >h/d/f; chown 5:6 h/d; : >one/d/f; chown -R 1000:1001 one";

#[test]
fn a_volume_is_given_to_the_containers_user() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh(FILES)?.ok()?;
        let stored = "cd root/volume/volumes/data/_data && stat -c 'stored %n %u:%g' . d d/f";
        bed.sh(&format!("pier run --rm --network none -u www -v data:/v:U bb sh -c 'stat -c \"%u:%g\" /v /v/d /v/d/f; : >/v/new'; {stored}"))?
            .ok()?
            .with("33:33\n33:33\n33:33\n")?
            .has("stored . 33:33\nstored d 33:33\nstored d/f 33:33")?;
        // In a user namespace the same ids are stored: those of the container.
        bed.sh(&format!("pier run --rm --userns auto --network none -u 7:8 --mount src=data,dst=/v,chown bb sh -c 'stat -c \"%u:%g\" /v /v/d/f; : >/v/n2; stat -c %u /v/n2'; {stored}"))?
            .ok()?
            .with("7:8\n7:8\n7\n")?
            .has("stored d/f 7:8")?;
        for (flags, words) in [
            ("-v data:/v:U,O", "nor with U"),
            ("-v data:/v:U,idmap", "it does not go with U"),
            ("--mount type=image,src=bb,dst=/v,U", "cannot be written"),
            ("--mount type=tmpfs,dst=/v,U", "memory has neither"),
        ] {
            bed.sh(&format!("pier run --rm --network none {flags} bb true"))?.exits(125)?.has(words)?;
        }
        bed.sh("pier volume ls -q; pier ps -aq")?.ok()?.has("data").map(drop)
    })
}

#[test]
fn a_directory_of_one_owner_keeps_him_and_looks_otherwise() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh(FILES)?.ok()?;
        for flags in ["", "--userns auto"] {
            bed.sh(&format!("pier run --rm --network none {flags} -u www -v $DIR/one:/v:U bb sh -c 'stat -c \"%u:%g\" /v/d /v/d/f; : >/v/new'; stat -c 'host %u:%g' one/d/f one/new; rm one/new"))?
                .ok()?
                .with("33:33\n33:33\n")?
                .has("host 1000:1001\nhost 1000:1001")?;
        }
        // Several owners cannot all look like one: they are changed, as podman does.
        bed.sh("pier run --rm --network none -u www -v $DIR/h:/v:U bb sh -c 'stat -c \"%u:%g\" /v /v/d /v/d/f'; stat -c 'host %u:%g' h h/d h/d/f")?
            .ok()?
            .with("33:33\n33:33\n33:33\n")?
            .has("host 33:33\nhost 33:33\nhost 33:33")?;
        bed.sh("chown 5:6 h/d; pier run --rm --network none --userns auto -u www -v $DIR/h:/v:U bb sh -c 'stat -c \"%u:%g\" /v /v/d'; stat -c 'host %u:%g' h h/d/f")?
            .ok()?
            .with("33:33\n33:33\n")?
            .has("host 524321:524321\nhost 524321:524321")?;
        // A file, and what nobody means.
        bed.sh("echo x >file; chown 4:4 file; pier run --rm --network none -u www -v $DIR/file:/f:U bb stat -c %u /f; stat -c 'host %u' file")?
            .ok()?
            .with("33\n")?
            .has("host 4")?;
        bed.sh("stat -c %u:%g /etc; pier run --rm --network none -u www -v /etc:/v:U bb true")?
            .exits(125)?
            .with("system's own directories")?;
        bed.sh("stat -c %u:%g /etc")?.ok()?.has("0:0").map(drop)
    })
}

#[test]
fn owners_are_mapped_twice() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh(FILES)?.ok()?;
        let run = |flags: &str, script: &str| {
            bed.sh(&format!("pier run --rm --network none --userns auto {flags} bb sh -c '{script}'"))
        };
        // DISK looks like SEEN in the container, wherever its ids are on the host.
        run(
            "-v 'data:/v:idmap=uids=5-33-1#0-0-1;gids=6-34-1#0-0-1'",
            "stat -c %u:%g /v/d /v/d/f; : >/v/n; chown 33:34 /v/n",
        )?
        .ok()?
        .has("33:34\n0:0\n")?;
        bed.sh("stat -c 'stored %u:%g' root/volume/volumes/data/_data/n")?.ok()?.has("stored 5:6")?;
        run("-u 7:8 -v data:/v:idmap", "stat -c %u:%g /v /v/d/f; : >/v/mine")?.ok()?.has("7:8\n7:8")?;
        bed.sh("stat -c 'stored %u:%g' root/volume/volumes/data/_data/mine")?.ok()?.has("stored 0:0")?;
        // A directory of the host: its owner is the container's user.
        run("-v $DIR/one:/v:idmap", "stat -c %u:%g /v/d/f; : >/v/new")?.ok()?.has("0:0")?;
        bed.sh("stat -c 'host %u:%g' one/d/f one/new")?.ok()?.has("host 1000:1001\nhost 1000:1001")?;
        // Without any of it, it keeps its owner, who is nobody in there.
        run("-v $DIR/one:/v", "stat -c %u:%g /v/d/f; : >/v/no")?.exits(1)?.has("65534:65534")?;
        run("-v 'data:/v:idmap=uids=0-99999-1'", "true")?.exits(125)?.has("nothing of it is in the user namespace")?;
        bed.sh("pier ps -aq; pier volume ls -q")?.ok()?.has("data").map(drop)
    })
}

#[test]
fn a_user_keeps_his_ids() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh(FILES)?.ok()?;
        let run = |userns: &str, flags: &str, script: &str| {
            bed.sh(&format!("pier run --rm --network none --userns {userns} {flags} bb sh -c '{script}'; stat -c 'host %u:%g' one/* | sort -u; rm -f one/new"))
        };
        run(
            "keep-id:of=1000:1001",
            "-v $DIR/one:/v",
            "id; stat -c %u:%g /v/d/f /bin; : >/v/new; cat /proc/self/uid_map",
        )?
        .ok()?
        .with("uid=1000 gid=1001")?
        .with("1000:1001\n0:0\n")?
        .with("0     524288       1000")?
        .has("host 1000:1001")?;
        // As somebody else inside: files of the host's user are root's there, and root is nobody on the host.
        run(
            "keep-id:of=1000:1001,uid=0,gid=0",
            "-v $DIR/one:/v -v data:/d",
            "id -u; stat -c %u:%g /v/d/f /d; : >/v/new; : >/d/new; chown 3 /d/new",
        )?
        .ok()?
        .with("0\n0:0\n0:0\n")?
        .has("host 1000:1001")?;
        bed.sh("stat -c 'stored %u:%g' root/volume/volumes/data/_data/new")?.ok()?.has("stored 3:0")?;
        run("keep-id:of=1000:1001", "-u 5 -v $DIR/one:/v:ro", "id -u; stat -c %u /v/d/f")?.ok()?.has("5\n1000")?;
        // Who asks is known to the front end. Root's ids are root's, and nobody else's.
        run("keep-id", "-v $DIR/one:/v", "cat /proc/self/uid_map; stat -c %u:%g /v/d/f")?
            .ok()?
            .with("0          0          1\n")?
            .has("65534:65534")?;
        // The range of another container is another.
        bed.sh("pier run -d --name a --network none --userns keep-id:of=1000:1000,size=2000 bb sleep 100 >/dev/null
             pier run --rm --network none --userns auto bb cat /proc/self/uid_map; pier exec a cat /proc/self/uid_map; pier rm -f a")?
            .ok()?
            .with("0     526288      65536")?
            .with("1001     525289        999")
            .map(drop)
    })
}
