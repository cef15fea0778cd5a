//! Each request that an attach makes to the kernel refused in turn, and the program killed at each: strace does both.
use crate::network::{Netns, pier};
use anyhow::ensure;
use integration::{Bed, Result, isolated};

/// Nothing of a failed attach is left, and the next one works.
fn nothing_is_left(bed: &Bed, a: &Netns, when: &str) -> Result {
    a.sh(bed, "ip link show eth0")?.fails()?;
    let endpoints = pier(bed, "endpoints --network blue --format json")?.ok()?;
    ensure!(endpoints.out() == "[]", "{when}: {endpoints}");
    let links = bed.sh("ip -o link")?.ok()?.stdout;
    ensure!(links.matches(": pv").count() == 1, "{when}: more than the other endpoint's link: {links}");
    bed.exec("python3", &["-c", "import socket; s = socket.socket(); s.bind(('', 8080))"])?.ok()?;
    bed.sh("nft list ruleset | grep '8080 :'")?.fails()?;
    pier(bed, &format!("attach blue {} --owner a -p 8080:80", a.path))?.ok()?;
    pier(bed, "rm -f blue")?.ok()?;
    pier(bed, "create blue --ipv6 --subnet 10.96.0.0/24")?.ok().map(drop)
}

fn campaign(bed: &Bed, call: &str, how: &str) -> Result<(usize, usize)> {
    let (a, keep) = (Netns::new(bed, "a")?, Netns::new(bed, "keep")?);
    let dir = bed.dir().display();
    // The holder of ports is there already: strace would follow it, and wait for its end.
    pier(bed, "create other")?.ok()?;
    pier(bed, &format!("attach other {} --owner keep -p 9999:80", keep.path))?.ok()?;
    pier(bed, "create blue --ipv6 --subnet 10.96.0.0/24")?.ok()?;
    let attach = format!("pier-network attach blue {} --owner a -p 8080:80", a.path);
    bed.sh(&format!("strace -f -qq -e trace={call} -o {dir}/calls {attach}"))?.ok()?;
    // Counted by thread, as strace counts for an injection.
    let calls = bed.sh("awk '{print $1}' calls | sort | uniq -c | sort -rn | awk 'NR==1{print $1}'")?.ok()?;
    let calls: usize = calls.out().parse()?;
    pier(bed, "rm -f blue")?.ok()?;
    pier(bed, "create blue --ipv6 --subnet 10.96.0.0/24")?.ok()?;
    let mut failed = 0;
    for n in 1..=calls {
        let when = format!("{call} {n} of {calls}, {how}");
        let outcome =
            bed.sh(&format!("strace -f -qq -o /dev/null -e trace={call} -e inject={call}:{how}:when={n} {attach}"))?;
        if outcome.code == 0 {
            // What was refused did not matter, or was tried again: then all of it is there.
            a.sh(bed, "ip -o addr show eth0")?.ok()?;
            pier(bed, "detach --owner a")?.ok()?;
        } else {
            failed += 1;
            if how.starts_with("signal") {
                pier(bed, "reconcile")?.ok()?;
            }
        }
        nothing_is_left(bed, &a, &when)?;
    }
    pier(bed, "rm -f blue other")?.ok()?;
    Ok((calls, failed))
}

#[test]
fn a_refusal_at_each_request_is_undone() -> Result {
    isolated!(|bed| {
        let (calls, failed) = campaign(bed, "sendto", "error=EPERM")?;
        println!("sendto: {calls} places, {failed} failed attaches, nothing left");
        ensure!(failed > 3, "only {failed} of {calls} failed");
        Ok(())
    })
}

#[test]
fn a_death_at_each_request_is_undone() -> Result {
    isolated!(|bed| {
        let (calls, failed) = campaign(bed, "sendto", "signal=KILL")?;
        println!("sendto: {calls} places, {failed} killed attaches, nothing left");
        ensure!(failed > 3, "only {failed} of {calls} were killed");
        Ok(())
    })
}

#[test]
fn teardown_is_fine_with_what_is_gone() -> Result {
    isolated!(|bed| {
        let a = Netns::new(bed, "a")?;
        pier(bed, "create blue")?.ok()?;
        pier(bed, &format!("attach blue {} --owner a -p 8080:80", a.path))?.ok()?;
        bed.sh(&format!("kill -9 $(echo {} | cut -d/ -f3); sleep 0.2", a.path))?.ok()?;
        pier(bed, "detach --owner a")?.ok()?.without("Warning")?;
        pier(bed, "detach --owner a")?.ok()?.without("Warning")?;
        pier(bed, "rm blue")?.ok().map(drop)
    })
}
