//! Many programs on one root at the same moment.
use crate::network_place::pier;
use anyhow::ensure;
use integration::{Result, isolated};

/// Rounds, each with a fresh root; more by PIER_CROWD_ROUNDS.
fn rounds() -> u32 {
    std::env::var("PIER_CROWD_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(30)
}

#[test]
fn a_crowd_opens_a_fresh_root() -> Result {
    isolated!(|bed| {
        for round in 0..rounds() {
            // All wait for the one file, so that they begin together.
            let crowd = "mkdir $DIR/r; for i in $(seq 12); do (until test -e $DIR/r/go; do :; done; \
                         pier-network --root $DIR/r/root --run $DIR/r/run ls > $DIR/r/out.$i 2> $DIR/r/err.$i || \
                         echo failed >> $DIR/r/err.$i) & done; sleep 0.1; touch $DIR/r/go; wait; \
                         cat $DIR/r/err.*; cat $DIR/r/out.* | grep -c bridge; rm -r $DIR/r";
            let said = bed.sh(crowd)?.ok()?;
            // One line for each: the network of that name has the driver of that name.
            ensure!(said.out() == "12", "round {round}: {said}");
        }
        pier(bed, "ls")?.ok().map(drop)
    })
}
