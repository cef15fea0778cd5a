//! `pier-distribution`: SIGKILL at every call that matters, also with everything lost that was not synced; many at once.
//!
//! `PIER_CRASH_POINTS=all` kills at every point; else a few of each operation are drawn. The store of each run is a copy of one
//! that was made before. "Lost" means: the store is on a file system in a file, and what that file has at the moment of the
//! kill is what the disk would have after a power cut; the rest was in the page cache only.
use anyhow::{Context, ensure};
use integration::crash::{Disk, EXT4, Ground, XFS};
use integration::{Bed, Daemon, Result, eventually, isolated};
use std::collections::BTreeSet;
use std::time::Duration;

pub const REGISTRY: &str = "127.0.0.1:5001";
/// Points of one operation that are drawn.
const DRAWN: usize = 2;

/// Debian's registry with its access log, so that what was fetched can be counted.
pub fn recording_registry(bed: &Bed) -> Result<Daemon> {
    let config = bed.dir().join("recording.yml");
    let storage = bed.dir().join("recording");
    std::fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{REGISTRY}\"}}\n",
            storage.display()
        ),
    )?;
    let daemon = bed.spawn("recording", bed.command("docker-registry").arg("serve").arg(&config))?;
    eventually(Duration::from_secs(10), || {
        std::net::TcpStream::connect(REGISTRY).with_context(|| bed.log("recording"))?;
        Ok(())
    })?;
    Ok(daemon)
}

/// Digests of the blobs that were fetched since the log had `from` bytes, with repetitions.
pub fn fetched(bed: &Bed, from: usize) -> Vec<String> {
    let log = bed.log("recording");
    let lines =
        log.get(from..).unwrap_or_default().lines().filter(|line| line.contains("\"GET ") && line.contains("/blobs/"));
    let digest = |line: &str| Some(line.split("/blobs/").nth(1)?.split([' ', '"', '?']).next()?.to_owned());
    lines.filter_map(digest).collect()
}

/// Images of three layers each, of which two are shared, at the registry as app:1 and app:2; an archive of app:1.
pub fn images(bed: &Bed) -> Result {
    let script = r#"
        set -eu
        export PIER_ROOT=$DIR/maker
        mkdir -p base/bin base/etc
        for i in 1 2 3 4; do head -c 20000 /dev/urandom >base/bin/f$i; done
        ln base/bin/f1 base/bin/linked; ln -s f2 base/bin/soft; echo a >base/etc/conf
        tar c -C base . >base.tar
        pier-distribution import -q base.tar stage:0 >log
        layer() { # snapshot of $1, script $2, image $3
            pier-distribution snapshot prepare s $1 --snapshotter copy >log
            fs=$(echo $PIER_ROOT/distribution/snapshots/*/fs)
            (cd $fs && eval "$2")
            pier-distribution snapshot commit s --image $3 >log
            pier-distribution snapshot rm s
        }
        layer stage:0 'mkdir lib; head -c 50000 /dev/urandom >lib/a; rm bin/f4' stage:1
        layer stage:1 'head -c 30000 /dev/urandom >etc/one; rm -r lib; mkdir lib; echo x >lib/b' 127.0.0.1:5001/app:1
        layer stage:1 'head -c 30000 /dev/urandom >etc/two; ln bin/f1 bin/again' 127.0.0.1:5001/app:2
        for i in 1 2; do pier-distribution push -q 127.0.0.1:5001/app:$i >log; done
        pier-distribution save -q -o app.tar 127.0.0.1:5001/app:1
        pier-distribution export 127.0.0.1:5001/app:1 | tar tv >app1.list
        pier-distribution export 127.0.0.1:5001/app:2 | tar tv >app2.list
    "#;
    bed.sh(script)?.ok().map(drop)
}

/// One operation that is killed.
pub struct Operation {
    pub name: &'static str,
    /// Makes the store before it.
    pub before: &'static str,
    /// Killed.
    pub victim: &'static [&'static str],
    /// Run after the restart; must succeed.
    pub again: &'static str,
    /// Must succeed at the end.
    pub then: &'static str,
}

const SAME_1: &str = "pier-distribution export 127.0.0.1:5001/app:1 | tar tv | diff app1.list -";
const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull",
        before: "true",
        victim: &["pier-distribution", "pull", "-q", "127.0.0.1:5001/app:1"],
        again: "pier-distribution pull -q 127.0.0.1:5001/app:1",
        then: SAME_1,
    },
    Operation {
        name: "pull beside a shared image",
        before: "pier-distribution pull -q 127.0.0.1:5001/app:2",
        victim: &["pier-distribution", "pull", "-q", "127.0.0.1:5001/app:1"],
        again: "pier-distribution pull -q 127.0.0.1:5001/app:1",
        then: "pier-distribution export 127.0.0.1:5001/app:2 | tar tv | diff app2.list -",
    },
    Operation {
        name: "load",
        before: "true",
        victim: &["pier-distribution", "load", "-q", "-i", "app.tar"],
        again: "pier-distribution load -q -i app.tar",
        then: SAME_1,
    },
    Operation {
        name: "rm",
        before: "pier-distribution pull -q 127.0.0.1:5001/app:1; pier-distribution pull -q 127.0.0.1:5001/app:2",
        victim: &["pier-distribution", "rm", "127.0.0.1:5001/app:1"],
        again: "pier-distribution rm 127.0.0.1:5001/app:1 || ! pier-distribution inspect 127.0.0.1:5001/app:1",
        then: "pier-distribution export 127.0.0.1:5001/app:2 | tar tv | diff app2.list -",
    },
    Operation {
        // The layers are stale at first, and must last before their blobs go.
        name: "rm beneath a snapshot",
        before: "pier-distribution pull -q 127.0.0.1:5001/app:1; \
                 pier-distribution snapshot prepare c 127.0.0.1:5001/app:1 >/dev/null",
        victim: &["pier-distribution", "rm", "--force", "127.0.0.1:5001/app:1"],
        again: "pier-distribution rm --force 127.0.0.1:5001/app:1 || ! pier-distribution inspect 127.0.0.1:5001/app:1",
        then: "mkdir -p m && pier-distribution snapshot mounts c | sed s/ROOTFS/m/ | sh && \
               { test -s m/bin/f1 && test -s m/etc/one && test -s m/lib/b; sound=$?; umount m; test $sound = 0; }",
    },
    Operation {
        name: "gc",
        before: "pier-distribution pull -q 127.0.0.1:5001/app:1; pier-distribution pull -q 127.0.0.1:5001/app:2; \
                 pier-distribution pull -q --no-unpack 127.0.0.1:5001/app:1; pier-distribution tag 127.0.0.1:5001/app:2 keep:2; \
                 python3 -c 'import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(\"pragma foreign_keys=1\"); \
                 c.execute(\"delete from images where config=(select config from images order by id limit 1)\"); c.commit()' \
                 $PIER_ROOT/distribution/store.db",
        victim: &["pier-distribution", "gc"],
        again: "pier-distribution gc",
        then: "pier-distribution export keep:2 | tar tv | diff app2.list -",
    },
    Operation {
        name: "commit",
        before: "pier-distribution pull -q 127.0.0.1:5001/app:1; \
                 pier-distribution snapshot prepare c 127.0.0.1:5001/app:1 --snapshotter copy >/dev/null; \
                 echo precious >$(echo $PIER_ROOT/distribution/snapshots/*/fs)/file; sync -f $PIER_ROOT",
        victim: &["pier-distribution", "snapshot", "commit", "c", "--image", "new:1", "--consume"],
        again: "pier-distribution snapshot commit c --image new:1 --consume || pier-distribution inspect new:1",
        then: "pier-distribution export new:1 | tar xO ./file file 2>/dev/null | grep precious",
    },
    Operation {
        name: "commit of an overlay",
        before: "pier-distribution pull -q 127.0.0.1:5001/app:1; \
                 pier-distribution snapshot prepare c 127.0.0.1:5001/app:1 >/dev/null; \
                 echo precious >$(echo $PIER_ROOT/distribution/snapshots/*/fs)/file; sync -f $PIER_ROOT",
        victim: &["pier-distribution", "snapshot", "commit", "c", "--consume"],
        again: "pier-distribution snapshot commit c --consume || ! pier-distribution snapshot mounts c",
        then: "grep -rq precious $PIER_ROOT/distribution/layers $PIER_ROOT/distribution/snapshots",
    },
];

/// The store on the ground.
pub trait Checked {
    /// What must hold after a restart.
    fn verify(&self, operation: &Operation) -> Result;
    /// Digests of the blobs that are there.
    fn blobs(&self) -> Result<BTreeSet<String>>;
    /// Neither half-made nor set aside.
    fn nothing_left(&self) -> Result;
}

impl Checked for Ground<'_> {
    fn verify(&self, operation: &Operation) -> Result {
        let here = || operation.name.to_owned();
        self.sh("pier-distribution check")?.ok().and_then(|o| o.with(", 0 damaged")).with_context(here)?;
        let before: BTreeSet<String> = self.blobs()?;
        let log = self.bed.log("recording").len();
        self.sh(operation.again)?.ok().with_context(here)?;
        let again = fetched(self.bed, log);
        let twice: Vec<&String> = again.iter().filter(|digest| before.contains(*digest)).collect();
        ensure!(twice.is_empty(), "{}: fetched though it was complete: {twice:?}", operation.name);
        self.sh(operation.then)?.ok().with_context(here)?;
        self.sh("pier-distribution gc --abandoned && pier-distribution check")?.ok()?.has(", 0 damaged")?;
        self.nothing_left().with_context(here)
    }

    fn blobs(&self) -> Result<BTreeSet<String>> {
        let list = self.sh("cd $PIER_ROOT/distribution/blobs && ls -d */* | tr / :")?;
        Ok(list.stdout.lines().map(str::to_owned).collect())
    }

    fn nothing_left(&self) -> Result {
        let left = self.sh(
            "cd $PIER_ROOT/distribution && find ingest staging trash leases quarantine -mindepth 1; ls images | grep -v json",
        )?;
        ensure!(left.out().is_empty(), "left behind:\n{left}");
        let dry = self.sh("pier-distribution gc --abandoned --dry-run --format json")?.ok()?.json()?;
        ensure!(dry["reclaimed_bytes"] == 0, "{dry}");
        Ok(())
    }
}

/// Kills each operation at points of its run.
pub fn campaign(bed: &Bed, disk: Option<Disk>, operations: &[Operation]) -> Result {
    let _registry = recording_registry(bed)?;
    images(bed)?;
    let ground = Ground { bed, disk };
    let (mut points, mut runs) = (0, 0);
    for operation in operations {
        let done = ground.each_point(operation.before, operation.victim, DRAWN, || ground.verify(operation));
        ground.finish()?;
        let (total, killed) = done.with_context(|| operation.name)?;
        println!("{}: {total} points, {killed} runs", operation.name);
        points += total;
        runs += killed;
    }
    println!("{points} points, killed {runs} times");
    Ok(())
}

#[test]
fn killed_at_any_point() -> Result {
    isolated!(|bed| campaign(bed, None, OPERATIONS))
}

#[test]
fn power_lost_at_any_point_on_ext4() -> Result {
    isolated!(|bed| campaign(bed, Some(EXT4), OPERATIONS))
}

#[test]
fn power_lost_at_any_point_on_xfs() -> Result {
    isolated!(|bed| campaign(bed, Some(XFS), OPERATIONS))
}

/// That the campaign can fail: a pull whose syncs do nothing is lost.
#[test]
fn a_power_cut_shows_a_sync_that_was_left_out() -> Result {
    isolated!(|bed| {
        let _registry = recording_registry(bed)?;
        images(bed)?;
        let ground = Ground { bed, disk: Some(EXT4) };
        let (pull, syncs) = (&OPERATIONS[0], "fsync,fdatasync,syncfs");
        for (inject, kept) in [(format!("-e inject={syncs}:retval=0"), false), (String::new(), true)] {
            ground.prepare(pull.before)?;
            ground.fresh()?;
            ground.sh(&format!("strace -f -o log -e trace={syncs} {inject} {}", pull.victim.join(" ")))?.ok()?;
            ground.restart()?;
            let there = ground.sh("pier-distribution check && pier-distribution inspect 127.0.0.1:5001/app:1")?;
            ensure!((there.code == 0) == kept, "{there}");
            ground.finish()?;
        }
        Ok(())
    })
}
