//! The firewall's elements: what goes over netlink is what nft would have written, and `check` misses each.
use crate::network_place::{Place, pier};
use anyhow::ensure;
use integration::{Bed, Result, isolated};

/// The table as sorted words: sets are listed in no order. The keeper's guard follows a moment later and is left out.
fn listed(bed: &Bed) -> Result<Vec<String>> {
    let text = bed.sh(&format!("nft -s list table inet {TABLE}"))?.ok()?.stdout;
    let word = |word: &str| word.trim().trim_start_matches("elements = {").trim_end_matches('}').trim().to_owned();
    let mut words: Vec<String> = text.split(['\n', ',']).map(word).filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    Ok(words)
}

const TABLE: &str = "$(nft list tables | sed -n '/_guard/!s/table inet //p')";

#[test]
fn elements_over_netlink_are_those_that_nft_writes() -> Result {
    isolated!(|bed| {
        let place = |name: &str| Place::new(bed, name);
        let (keep, a, b, c) = (place("keep")?, place("a")?, place("b")?, place("c")?);
        // The first network writes the table.
        pier(bed, "create first --subnet 10.77.9.0/24")?.ok()?;
        keep.attach(bed, "first", "keep", "-p 9999:80")?;
        let before = listed(bed)?;
        pier(bed, "create blue --subnet 10.77.1.0/24 --subnet fd77::/64")?.ok()?;
        pier(bed, "create red --subnet 10.77.2.0/25 -o isolate=strict")?.ok()?;
        pier(bed, "create den --subnet 10.77.3.0/24 --internal")?.ok()?;
        a.attach(
            bed,
            "blue",
            "a",
            "-p 8080:80 -p 153:53/udp -p 127.0.0.1:9090:80 -p 5000-5099:5000-5099 -p 6000-6009:7000-7009/sctp",
        )?;
        b.attach(bed, "red", "b", "-p 8081:80 -p 65535:65535")?;
        c.attach(bed, "den", "c", "")?;
        let by_netlink = listed(bed)?;
        ensure!(by_netlink.iter().any(|word| word.contains("fd77::2 . 80")), "{by_netlink:?}");
        pier(bed, "check")?.ok()?;
        pier(bed, "reconcile")?.ok()?;
        let by_nft = listed(bed)?;
        ensure!(by_netlink == by_nft, "netlink: {by_netlink:#?}\nnft: {by_nft:#?}");
        // Each is missed, and one that is nobody's is seen.
        for (what, named) in [
            ("delete element inet $T publish4 '{ tcp . 0.0.0.0/0 . 8080 }'", "publish4"),
            ("delete element inet $T range4 '{ tcp . 0.0.0.0/0 . 5000-5099 }'", "range4"),
            ("delete element inet $T masquerade4 '{ 10.77.1.0/24 }'", "masquerade4"),
            ("add element inet $T range6 '{ tcp . ::/0 . 7 : fd77::9 }'", "of nobody"),
            ("add rule inet $T forward accept", "chain forward"),
        ] {
            bed.sh(&format!("T={TABLE}; nft {what}"))?.ok()?;
            pier(bed, "check")?.exits(1)?.with("firewall table")?.has(named)?;
            pier(bed, "check --repair")?.ok()?.has(named)?;
            pier(bed, "check")?.ok()?;
        }
        ensure!(listed(bed)? == by_nft, "the repair made another table");
        // A range that is too long for one message, and one that is left to nft.
        for last in [7299, 7999] {
            pier(bed, &format!("attach first {} --owner many -p 7000-{last}:17000-{}", c.path, last + 10000))?.ok()?;
            pier(bed, "check")?.ok()?;
            pier(bed, "detach --owner many")?.ok()?;
            ensure!(listed(bed)? == by_nft, "{last}: the table is not as before");
        }
        pier(bed, "rm -f blue red den")?.ok()?;
        ensure!(listed(bed)? == before, "something of the networks stays");
        pier(bed, "rm -f first")?.ok().map(drop)
    })
}
