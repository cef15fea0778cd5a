//! `pier run` in user namespaces: the image's layers are mapped where they are mounted, nothing is copied or changed.
use anyhow::ensure;
use integration::{Bed, Result, isolated};

fn engine(bed: &Bed) -> Result {
    let tar = bed.fixture().busybox_tar()?;
    bed.sh(&format!("pier-distribution import -q {} bb:1", tar.display()))?.ok()?;
    bed.serve("engine").map(drop)
}

/// Everything below a directory, as it is stored.
const STORED: &str = "find root/distribution/layers -printf '%P %U %G %m %T@\\n' | sort | sha256sum";

#[test]
fn root_inside_is_nobody_outside() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        let before = bed.sh(STORED)?.ok()?.out().to_owned();
        bed.sh("pier run --rm --network none --userns auto -v v:/v bb:1 sh -c '
                cat /proc/self/uid_map; stat -c \"%n %u:%g\" / /bin /etc/hosts; : >/own; mkdir /d; chown 5:6 /d
                stat -c \"%n %u:%g\" /own /d; echo 1.2.3.4 x >>/etc/hosts && echo hosts; rm /bin/mv && echo gone
                echo words >/dev/stdout; : >/v/f; chown 7 /v/f'")?
            .ok()?
            .with("524288      65536")?
            .with("/ 0:0")?
            .with("/bin 0:0")?
            .with("/own 0:0")?
            .with("/d 5:6")?
            .with("hosts\n")?
            .with("words")?
            .has("gone")?;
        ensure!(bed.sh(STORED)?.ok()?.out() == before, "the layers were touched");
        // Another container has other ids, and sees the volume's as they were.
        bed.sh("pier run -d --name a --userns auto --network none bb:1 sleep 100 >/dev/null
             pier run --rm --network none --userns auto -v v:/v bb:1 sh -c 'cat /proc/self/uid_map; stat -c %u /v/f'
             stat -c %u:%g root/volume/volumes/v/_data/f; pier rm -f a")?
            .ok()?
            .with("589824")?
            .with("\n7\n")?
            .has("7:0")
            .map(drop)
    })
}

#[test]
fn what_is_written_keeps_the_ids_of_the_image() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run -d --name c --network none --uidmap 0:200000:1000 --gidmap 0:300000:1000 bb:1 \
                sh -c ': >/own; chown 33:44 /own; rm -r /home; mkdir /home; : >/home/x; sleep 100' >/dev/null
             sleep 0.3; ps -o uid=,gid= -p $(pier inspect c --format '{{.State.Pid}}')
             stat -c 'stored %u:%g' root/distribution/snapshots/*/fs/own; pier diff c; echo in >in
             pier cp in c:/in && pier exec c stat -c 'copied %u:%g' /in; pier cp c:/own - | tar tv --numeric-owner
             pier stop -t 0 c; pier cp in c:/in2; pier start c; sleep 0.2; pier exec c stat -c 'again %u:%g' /in2
             pier commit c c:1 >/dev/null; pier rm -f c
             pier-distribution export c:1 | tar tv --numeric-owner | grep -E 'own$|home/|in2$'
             pier run --rm --network none c:1 stat -c 'host ids %u:%g' /own; pier-distribution check")?
            .ok()?
            .with("200000 300000")?
            .with("stored 33:44")?
            .with("A /own")?
            .with("copied 0:0")?
            .with("33/44")?
            .with("again 0:0")?
            .with("0/0               0 ")?
            .with("host ids 33:44")?
            .has(", 0 damaged")
            .map(drop)
    })
}

#[test]
fn mappings_that_cannot_be() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        for (flags, words) in [
            ("--userns keep", "it is host, auto"),
            ("--userns keep-id:uid=x", "expected keep-id:of=UID:GID"),
            ("--userns auto -v v:/v:U -u 70000", "no such ids"),
            ("--userns auto:size=0", "auto:size=NUMBER"),
            ("--uidmap 0:1", "expected [u:|g:|b:]INSIDE:OUTSIDE:SIZE"),
            ("--userns auto --privileged", "--privileged in a user namespace"),
        ] {
            bed.sh(&format!("pier run --rm --network none {flags} bb:1 true"))?.fails()?.has(words)?;
        }
        // A store whose file system has no mapped mounts: a copy of the same kind of error, at creation.
        bed.sh("pier-distribution snapshot prepare s bb:1 --idmap 'u:0:1:5 u:3:10:5 g:0:1:5'")?
            .fails()?
            .with("snapshot s cannot be made for a user namespace")?
            .has("cannot be mapped")?;
        bed.sh("pier ps -aq; pier-distribution snapshot ls --format json; pier volume ls -q")?.ok()?.has("[]").map(drop)
    })
}
