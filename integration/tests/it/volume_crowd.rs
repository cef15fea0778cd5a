//! Many processes on one root at the same moment.
use anyhow::ensure;
use integration::{Result, isolated};

/// SQLite does not wait for who makes the database a moment earlier.
#[test]
fn a_fresh_root_is_made_once() -> Result {
    isolated!(|bed| {
        let seen = bed.sh(
            "for n in $(seq 12); do for p in 1 2 3 4 5 6 7 8; do pier-volume --root $DIR/r$n --run $DIR/s$n create v$p >/dev/null || echo $n/$p & done; wait; \
             pier-volume --root $DIR/r$n --run $DIR/s$n ls -q | wc -l; done",
        )?;
        ensure!(seen.out() == ["8"; 12].join("\n"), "{seen}");
        Ok(())
    })
}
