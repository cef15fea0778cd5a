//! The keeper goes on as the program that was put in its place.
use crate::network_place::{NAMES, Place};
use anyhow::{Context, ensure};
use integration::{Bed, Outcome, Result, eventually, isolated};
use std::time::Duration;

/// The copy that may be replaced.
fn own(bed: &Bed, line: &str) -> Result<Outcome> {
    bed.sh(&format!("$DIR/bin/pier-network {line}"))
}

fn keeper(bed: &Bed) -> Result<String> {
    eventually(Duration::from_secs(2), || {
        let pids = bed.sh("pgrep -f 'bin/pier-network .* keep$'")?;
        ensure!(pids.out().lines().count() == 1, "one keeper is wanted: {pids}");
        Ok(pids.out().to_owned())
    })
}

/// The inode of the file that a process runs.
fn program(bed: &Bed, pid: &str) -> Result<String> {
    Ok(bed.sh(&format!("stat -L -c %i /proc/{pid}/exe"))?.ok()?.out().to_owned())
}

#[test]
fn the_keeper_goes_on_as_the_program_in_its_place() -> Result {
    isolated!(|bed| {
        bed.sh("mkdir $DIR/bin && cp $(command -v pier-network) $DIR/bin/pier-network")?.ok()?;
        own(bed, "create blue --subnet 10.77.1.0/24")?.ok()?;
        let (a, b) = (Place::new(bed, "a")?, Place::new(bed, "b")?);
        own(bed, &format!("attach blue {} --owner a -p 8080:80", a.path))?.ok()?;
        let (pid, guard) = (keeper(bed)?, "nft list tables | grep -q _guard");
        let old = program(bed, &pid)?;
        let _asking = a.spawn(bed, "load", &format!("exec python3 {NAMES} load 10.77.1.1 a 1000 5"))?;
        std::thread::sleep(Duration::from_millis(500));
        for round in 0..3 {
            bed.sh("cp $(command -v pier-network) $DIR/bin/new && mv $DIR/bin/new $DIR/bin/pier-network")?.ok()?;
            // Any change wakes it.
            own(bed, &format!("attach blue {} --owner b", b.path))?.ok()?;
            own(bed, "detach --owner b")?.ok()?;
            let new = bed.sh("stat -c %i $DIR/bin/pier-network")?.ok()?.out().to_owned();
            ensure!(new != old, "the copy is the same file");
            eventually(Duration::from_secs(3), || {
                let runs = program(bed, &pid)?;
                ensure!(runs == new, "round {round}: it runs inode {runs}, not {new}");
                Ok(())
            })?;
            ensure!(keeper(bed)? == pid, "another process");
            eventually(Duration::from_secs(2), || bed.sh(guard)?.ok().map(drop))?;
        }
        eventually(Duration::from_secs(15), || {
            bed.log("load").contains("longest").then_some(()).context("it still asks")
        })?;
        let log = bed.log("load");
        println!("{log}");
        ensure!(log.contains("5000 of 5000 answered"), "{log}");
        // What does not run is not taken.
        bed.sh("echo nothing >$DIR/bin/new && chmod 755 $DIR/bin/new && mv $DIR/bin/new $DIR/bin/pier-network")?
            .ok()?;
        bed.sh(&format!("pier-network attach blue {} --owner b --name later", b.path))?.ok()?;
        eventually(Duration::from_secs(2), || a.look(bed, "10.77.1.1", "later", "a")?.ok().map(drop))?;
        ensure!(bed.sh(&format!("kill -0 {pid}"))?.code == 0, "it is gone");
        bed.sh("pier-network rm -f blue")?.ok().map(drop)
    })
}
