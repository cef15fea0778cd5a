//! Many programs on one root at the same moment.
use anyhow::ensure;
use integration::{Bed, Result, isolated};

/// Rounds, each with a fresh root; more by PIER_CROWD_ROUNDS.
fn rounds() -> u32 {
    std::env::var("PIER_CROWD_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(30)
}

/// Twelve programs list what a root has that is not there yet.
fn crowd(bed: &Bed, program: &str) -> Result {
    for round in 0..rounds() {
        // All wait for the one file, so that they begin together.
        let crowd = format!(
            "mkdir $DIR/r; for i in $(seq 12); do (until test -e $DIR/r/go; do :; done; \
             {program} --root $DIR/r/root --run $DIR/r/run ls --format json > $DIR/r/out.$i 2> $DIR/r/err.$i && \
             echo well >> $DIR/r/err.$i) & done; sleep 0.05; touch $DIR/r/go; wait; \
             cat $DIR/r/err.* | sort | uniq -c; for i in $DIR/r/out.*; do md5sum <$i; done | uniq | wc -l; rm -r $DIR/r"
        );
        let said = bed.sh(&crowd)?.ok()?;
        let words: Vec<&str> = said.stdout.split_whitespace().collect();
        // And all see the same.
        ensure!(words == ["12", "well", "1"], "round {round}: {said}");
    }
    Ok(())
}

#[test]
fn a_crowd_opens_a_fresh_root() -> Result {
    isolated!(|bed| ["pier-network", "pier-volume"].iter().try_for_each(|program| crowd(bed, program)))
}
