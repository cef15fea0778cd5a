//! The host's `iptables` becomes another one (update-alternatives(1)): the rules move, whoever runs.
use crate::network_place::{Place, tcp};
use anyhow::ensure;
use integration::{Bed, Outcome, Result, eventually, isolated};
use std::time::Duration;

/// Directory of programs: those of both kinds under their own names, and `iptables` and `ip6tables` as links to some.
fn programs(bed: &Bed) -> Result<bool> {
    let link = "mkdir $DIR/alt; for kind in nft legacy; do for p in iptables ip6tables; do for verb in '' -save -restore; \
                do ln -s $(command -v xtables-$kind-multi) $DIR/alt/$p-$kind$verb || exit 1; done; done; \
                PATH=$DIR/alt iptables-$kind -t nat -S || exit 1; done";
    Ok(bed.sh(link)?.code == 0)
}

/// As `update-alternatives --set FAMILY` does, and its peer for the other family.
fn choose(bed: &Bed, family: &str, kind: &str) -> Result {
    let line = format!(
        "for verb in -save -restore ''; do ln -sfn {family}-{kind}$verb $DIR/alt/{family}$verb || exit 1; done"
    );
    bed.sh(&line)?.ok().map(drop)
}

fn pier(bed: &Bed, line: &str) -> Result<Outcome> {
    bed.sh(&format!("p=$(command -v pier-network); exec env PATH=$DIR/alt $p {line}"))
}

/// How many lines of ours a kind has, of both families.
fn lines(bed: &Bed, kind: &str) -> Result<usize> {
    let all = format!("for p in iptables ip6tables; do $DIR/alt/$p-{kind}-save; done | grep -c PIER; true");
    Ok(bed.sh(&all)?.ok()?.out().parse()?)
}

#[test]
fn rules_move_with_the_alternative() -> Result {
    isolated!(|bed| {
        if !programs(bed)? {
            println!("skipped: rules_move_with_the_alternative: this host has not both kinds of iptables");
            return Ok(());
        }
        let set = |kind: &str| ["iptables", "ip6tables"].iter().try_for_each(|family| choose(bed, family, kind));
        let moved = |kind: &str, other: &str| {
            eventually(Duration::from_secs(4), || {
                let (has, left) = (lines(bed, kind)?, lines(bed, other)?);
                ensure!(has > 0 && left == 0, "{has} lines in {kind}, {left} in {other}");
                pier(bed, "check")?.ok()?;
                bed.sh(&tcp("127.0.0.1:8080"))?.ok()?.has("hello a")
            })
        };
        set("nft")?;
        pier(bed, "create blue --subnet 10.77.1.0/24 --subnet fd77::/64")?.ok()?;
        let a = Place::new(bed, "a")?;
        pier(bed, &format!("attach blue {} --owner a -p 8080:80", a.path))?.ok()?;
        a.answer(bed, "a", 80)?;
        moved("nft", "legacy")?;
        // The keeper alone, both ways; of the families one after the other.
        set("legacy")?;
        moved("legacy", "nft")?;
        choose(bed, "iptables", "nft")?;
        std::thread::sleep(Duration::from_millis(1500));
        choose(bed, "ip6tables", "nft")?;
        moved("nft", "legacy")?;
        // And it watches over the new ones.
        bed.sh("$DIR/alt/iptables-nft -t nat -F")?.ok()?;
        moved("nft", "legacy")?;
        // Nobody watches: the next verb moves them, and the last takes away what is where it was.
        bed.sh("kill -9 $(pgrep -f 'pier-network .*keep$')")?.ok()?;
        set("legacy")?;
        pier(bed, "reconcile")?.ok()?;
        moved("legacy", "nft")?;
        set("nft")?;
        pier(bed, "rm -f blue")?.ok()?;
        ensure!(lines(bed, "nft")? + lines(bed, "legacy")? == 0, "rules stay");
        bed.sh("nft flush ruleset")?.ok().map(drop)
    })
}
