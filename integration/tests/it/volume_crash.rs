//! `pier-volume`: SIGKILL at every call that matters of each verb, also with everything lost that was not synced.
use anyhow::{Context, ensure};
use integration::crash::{Disk, EXT4, Ground, XFS};
use integration::{Result, isolated};

/// Points of one operation that are drawn; each costs a disk's making where power is lost.
fn count(ground: &Ground<'_>) -> usize {
    if ground.disk.is_some() { 1 } else { 2 }
}

/// One operation that is killed.
struct Operation {
    name: &'static str,
    /// Makes the volumes before it.
    before: &'static str,
    /// Killed.
    victim: &'static [&'static str],
    /// Must hold right after the restart.
    either: &'static str,
    /// Run then; must succeed.
    again: &'static str,
    /// Must hold at the end.
    then: &'static str,
    /// Something is mounted from the store: only on the bed's own file system.
    mounts: bool,
}

const NONE: Operation =
    Operation { name: "", before: "true", victim: &[], either: "true", again: "true", then: "true", mounts: false };

/// A volume with content; `$1` is told by its files.
const DATA: &str = "pier-volume create -l a=b data && cd $(pier-volume inspect data | jq -r .[0].mountpoint) && mkdir d && \
                    for i in 1 2 3; do head -c 5000 /dev/zero | tr '\\0' x >d/$i; done && ln d/1 d/4 && cd $DIR && sync -f $PIER_ROOT";
const WHOLE: &str = "cd $(pier-volume inspect data | jq -r .[0].mountpoint)/d && cat 1 2 3 4 | tr -d x | wc -c | grep -qx 0 && \
                     cat 1 2 3 4 | wc -c | grep -qx 20000";
/// What `replaced` puts in its place, or what was there: never a mixture.
const EITHER: &str = "cd $(pier-volume inspect data | jq -r .[0].mountpoint) && case $(ls | paste -sd,) in \
                      d) test $(cat d/1 d/2 d/3 d/4 | wc -c) = 20000;; new) test $(cat new) = new;; *) ls; false;; esac";

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "create",
        victim: &["pier-volume", "create", "-l", "a=b", "--mode", "700", "data"],
        again: "pier-volume create data",
        then: "stat -c %a $(pier-volume inspect data | jq -r .[0].mountpoint) | grep -x 7[05][05]",
        ..NONE
    },
    Operation {
        name: "create a file system",
        victim: &["pier-volume", "create", "--size", "8m", "data"],
        again: "pier-volume create --size 8m data",
        then: "e2fsck -fn $PIER_ROOT/volume/volumes/data/disk.img",
        ..NONE
    },
    Operation {
        name: "rename",
        before: DATA,
        victim: &["pier-volume", "rename", "data", "new"],
        either: "pier-volume inspect data >/dev/null || pier-volume inspect new >/dev/null",
        again: "pier-volume inspect new >/dev/null || pier-volume rename data new",
        then: "! pier-volume inspect data && pier-volume rename new data && (WHOLE)",
        ..NONE
    },
    Operation {
        name: "update",
        before: DATA,
        victim: &["pier-volume", "update", "data", "-l", "c=d"],
        either: "pier-volume inspect data | jq -e '.[0].labels.a == \"b\"' >/dev/null",
        again: "pier-volume update data -l c=d",
        then: "pier-volume inspect data | jq -e '.[0].labels.c == \"d\"'",
        ..NONE
    },
    Operation {
        name: "clone",
        before: DATA,
        victim: &["pier-volume", "clone", "data", "twin"],
        either: "pier-volume inspect twin >/dev/null || ! ls $PIER_ROOT/volume/volumes/twin 2>/dev/null",
        again: "pier-volume inspect twin >/dev/null || pier-volume clone data twin",
        then: "pier-volume rm data && pier-volume rename twin data && (WHOLE)",
        ..NONE
    },
    Operation {
        name: "snapshot",
        before: DATA,
        victim: &["pier-volume", "snapshot", "create", "data", "one"],
        again: "pier-volume snapshot create data one || pier-volume snapshot ls data | grep -q one",
        then: "rm -r $(pier-volume inspect data | jq -r .[0].mountpoint)/d && pier-volume snapshot restore data one && (WHOLE)",
        ..NONE
    },
    Operation {
        name: "restore",
        before: "DATA && pier-volume snapshot create data one && cd $(pier-volume inspect data | jq -r .[0].mountpoint) && rm -r d && \
                 echo new >new && cd $DIR && sync -f $PIER_ROOT",
        victim: &["pier-volume", "snapshot", "restore", "data", "one"],
        either: EITHER,
        again: "pier-volume snapshot restore data one",
        then: WHOLE,
        ..NONE
    },
    Operation {
        name: "remove a snapshot",
        before: "DATA && pier-volume snapshot create data one",
        victim: &["pier-volume", "snapshot", "rm", "data", "one"],
        again: "pier-volume snapshot rm data one || test $(pier-volume snapshot ls data --format json | wc -l) = 0",
        then: WHOLE,
        ..NONE
    },
    Operation {
        name: "import",
        before: "DATA && pier-volume export data -o $DIR/data.tar && pier-volume rm data",
        victim: &["pier-volume", "import", "data", "data.tar"],
        either: "! pier-volume inspect data >/dev/null 2>&1 || ls $(pier-volume inspect data | jq -r .[0].mountpoint) | wc -l | grep -qx 0 || (WHOLE)",
        again: "(WHOLE) 2>/dev/null || pier-volume import data data.tar",
        then: WHOLE,
        ..NONE
    },
    Operation {
        name: "import in place of what is there",
        before: "DATA && mkdir -p $DIR/n && echo new >$DIR/n/new && tar c -C $DIR/n -f $DIR/new.tar . && sync -f $PIER_ROOT",
        victim: &["pier-volume", "import", "--replace", "data", "new.tar"],
        either: EITHER,
        again: "pier-volume import --replace data new.tar",
        then: "cat $(pier-volume inspect data | jq -r .[0].mountpoint)/new | grep -x new",
        ..NONE
    },
    Operation {
        name: "acquire with content",
        before: "pier-volume create data && mkdir -p $DIR/layer/d && for i in 1 2 3; do head -c 5000 /dev/zero | tr '\\0' x >$DIR/layer/d/$i; done && \
                 ln -f $DIR/layer/d/1 $DIR/layer/d/4",
        victim: &["pier-volume", "acquire", "data", "c", "/x", "--copy-up", "layer"],
        either: "ls $(pier-volume inspect data | jq -r .[0].mountpoint) | wc -l | grep -qx 0 || (WHOLE)",
        again: "pier-volume acquire data c /x --copy-up layer",
        then: "pier-volume release c && (WHOLE)",
        ..NONE
    },
    Operation {
        name: "acquire",
        before: "pier-volume create --size 8m data",
        victim: &["pier-volume", "acquire", "data", "c", "/x"],
        again: "pier-volume acquire data c /x",
        then: "grep -q $DIR/run/volume/ /proc/self/mounts && pier-volume release c",
        mounts: true,
        ..NONE
    },
    Operation {
        name: "acquire a part",
        before: DATA,
        victim: &["pier-volume", "acquire", "data", "c", "/x", "--subpath", "d"],
        again: "pier-volume acquire data c /x --subpath d",
        then: "test $(ls $DIR/run/volume/*/sub | wc -l) = 4 && test $(grep -c $DIR/run/volume/ /proc/self/mounts) = 1 && pier-volume release c",
        mounts: true,
        ..NONE
    },
    Operation {
        name: "acquire for changes with other owners",
        before: DATA,
        victim: &["pier-volume", "acquire", "data", "c", "/x", "--overlay", "--userns", "b:0:100000:1000"],
        again: "pier-volume acquire data c /x --overlay --userns b:0:100000:1000",
        then: "stat -c %u $DIR/run/volume/*/merged/d | grep -x 100000 && \
               test $(grep -c $DIR/run/volume/ /proc/self/mounts) = 1 && pier-volume release c && (WHOLE)",
        mounts: true,
        ..NONE
    },
    Operation {
        name: "release what was mounted for it",
        before: "DATA && pier-volume acquire data c /x --subpath d --overlay --userns b:0:100000:1000 && pier-volume acquire data c /y --subpath d",
        victim: &["pier-volume", "release", "c"],
        again: "pier-volume release c",
        then: WHOLE,
        mounts: true,
        ..NONE
    },
    Operation {
        name: "release",
        before: "DATA && pier-volume acquire data c /x && pier-volume acquire data c /y --overlay",
        victim: &["pier-volume", "release", "c"],
        again: "pier-volume release c",
        then: WHOLE,
        ..NONE
    },
    Operation {
        name: "rm",
        before: DATA,
        victim: &["pier-volume", "rm", "data"],
        either: "! pier-volume inspect data >/dev/null 2>&1 || (WHOLE)",
        again: "pier-volume rm -f data",
        then: "! pier-volume inspect data && pier-volume create data && ls $(pier-volume inspect data | jq -r .[0].mountpoint) | wc -l | grep -x 0",
        ..NONE
    },
    Operation {
        name: "prune",
        before: "DATA && pier-volume create && pier-volume create b && pier-volume acquire data c /x",
        victim: &["pier-volume", "prune", "--all"],
        again: "pier-volume prune --all",
        then: "pier-volume release c && (WHOLE)",
        ..NONE
    },
    Operation {
        name: "take over an old root",
        before: "DATA && cd $PIER_ROOT/volume/volumes && i=$(readlink data) && rm data && mv $i data && \
                 jq -c '.format = 1 | del(.id)' data/volume.json >new && mv new data/volume.json && cd $DIR && \
                 python3 -c 'import sqlite3, os; c = sqlite3.connect(os.environ[\"PIER_ROOT\"] + \"/volume/volume.db\"); \
                 c.execute(\"insert into refs (volume, consumer, target, read_only) values (?, ?, ?, 0)\", (\"data\", \"c\", \"/x\")); c.commit()'",
        victim: &["pier-volume", "ls"],
        again: "pier-volume inspect data | jq -r .[0].consumers[] | grep -x c",
        then: "pier-volume release c && cat $PIER_ROOT/volume/volumes/data/_data/d/1 >/dev/null && (WHOLE)",
        ..NONE
    },
];

fn filled(script: &str) -> String {
    script.replace("(WHOLE)", &format!("({WHOLE})")).replace("DATA &&", &format!("{DATA} &&"))
}

/// What must hold after a restart.
fn verify(ground: &Ground<'_>, operation: &Operation) -> Result {
    ground.sh(&filled(operation.either))?.ok().context("right after")?;
    ground.sh(&filled(operation.again))?.ok().context("again")?;
    ground.sh(&filled(operation.then))?.ok().context("at the end")?;
    ground.sh("pier-volume check --repair >/dev/null; pier-volume check")?.ok()?;
    let left = ground.sh(
        "cd $PIER_ROOT/volume; ls -A staging removing overlays 2>/dev/null | grep -v :; find volumes -maxdepth 3 -name '*.tmp' -o -maxdepth 3 -name '*partial*' \
         -o -maxdepth 3 -name 'copy-up.*'; grep $DIR/run/volume /proc/self/mounts; ls -A $DIR/run/volume 2>/dev/null",
    )?;
    ensure!(left.out().is_empty(), "left behind: {left}");
    Ok(())
}

fn campaign(ground: &Ground<'_>) -> Result {
    let (mut points, mut runs) = (0, 0);
    for operation in OPERATIONS.iter().filter(|operation| ground.disk.is_none() || !operation.mounts) {
        let done =
            ground.each_point(&filled(operation.before), operation.victim, count(ground), || verify(ground, operation));
        ground.finish()?;
        let (total, killed) = done.with_context(|| operation.name)?;
        println!("{}: {total} points, {killed} runs", operation.name);
        points += total;
        runs += killed;
    }
    println!("{points} points, killed {runs} times");
    Ok(())
}

fn on(disk: Option<Disk>) -> impl FnOnce(&integration::Bed) -> Result {
    move |bed| campaign(&Ground { bed, disk })
}

#[test]
fn killed_at_any_point() -> Result {
    isolated!(on(None))
}

#[test]
fn power_lost_at_any_point_on_ext4() -> Result {
    isolated!(on(Some(EXT4)))
}

#[test]
fn power_lost_at_any_point_on_xfs() -> Result {
    isolated!(on(Some(XFS)))
}

/// That the campaign can fail: a restored snapshot whose syncs do nothing is lost.
#[test]
fn a_power_cut_shows_a_sync_that_was_left_out() -> Result {
    isolated!(|bed| {
        let ground = Ground { bed, disk: Some(EXT4) };
        let (victim, syncs) = ("pier-volume clone data twin", "fsync,fdatasync,syncfs");
        for (inject, kept) in [(format!("-e inject={syncs}:retval=0"), false), (String::new(), true)] {
            ground.prepare(DATA)?;
            ground.fresh()?;
            ground.sh(&format!("strace -f -o log -e trace={syncs} {inject} {victim}"))?.ok()?;
            ground.restart()?;
            let there = ground.sh("cat $(pier-volume inspect twin | jq -r .[0].mountpoint)/d/[1-4] | tr -d x | wc -c | grep -x 0 && test $(cat $(pier-volume inspect twin | jq -r .[0].mountpoint)/d/1 | wc -c) = 5000")?;
            ensure!((there.code == 0) == kept, "{there}");
            ground.finish()?;
        }
        Ok(())
    })
}
