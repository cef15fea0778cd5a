//! `pier-distribution`: a root that is new to many processes at once.
use anyhow::ensure;
use integration::{Result, isolated};

const PROCESSES: usize = 16;
/// New roots that are tried; PIER_FIRST_OPENS asks for more.
const ROUNDS: usize = 12;

#[test]
fn many_processes_open_a_new_root_at_once() -> Result {
    isolated!(|bed| {
        let rounds = std::env::var("PIER_FIRST_OPENS").map_or(Ok(ROUNDS), |n| n.parse())?;
        for round in 0..rounds {
            let script = format!(
                "rm -rf root; for i in $(seq {PROCESSES}); do
                     {{ pier-distribution snapshot prepare k$i >/dev/null 2>o.$i || {{ echo $i failed; cat o.$i; }}; }} &
                 done; wait; pier-distribution snapshot ls --format json | jq length"
            );
            let out = bed.sh(&script)?.ok()?;
            ensure!(out.out() == PROCESSES.to_string(), "round {round}: {out}");
        }
        Ok(())
    })
}
