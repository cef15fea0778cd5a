//! S36: what is not explicitly remote opens no connection.
use anyhow::ensure;
use integration::{Bed, Result, isolated};

/// TCP connections opened and UDP datagrams sent in this network namespace so far: the kernel's own counters.
fn traffic() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/net/snmp")?;
    let value = |protocol: &str, name: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(protocol));
        let names = lines.next()?.split_whitespace();
        let values = lines.next()?.split_whitespace();
        names.zip(values).find(|(known, _)| *known == name)?.1.parse::<u64>().ok()
    };
    let missing = || anyhow::anyhow!("no counters in /proc/net/snmp");
    let tcp = value("Tcp:", "ActiveOpens").ok_or_else(missing)?;
    let udp = value("Udp:", "OutDatagrams").ok_or_else(missing)?;
    Ok((tcp, udp))
}

fn is_silent(bed: &Bed, command: &str) -> Result {
    let before = traffic()?;
    bed.sh(command)?.ok()?;
    let after = traffic()?;
    ensure!(before == after, "{command}: connections and datagrams {before:?} became {after:?}");
    Ok(())
}

#[test]
fn local_verbs_open_no_connection() -> Result {
    isolated!(|bed| {
        let registry = bed.registry()?;
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        let name = format!("{registry}/bb:1");
        bed.sh(&format!("pier-distribution import {tar} {name} && pier-distribution push {name}"))?.ok()?;
        // The counters move at all.
        ensure!(traffic()?.0 > 0, "no connection was counted for a push");
        for verb in [
            format!("import {tar} {registry}/other:1"),
            format!("tag {name} {registry}/third:1"),
            format!("pull --policy missing {name}"),
            format!("pull --policy never {name}"),
            "ls".into(),
            "ls --format json".into(),
            format!("inspect {name}"),
            format!("inspect --raw {name}"),
            format!("save -o o.tar {name}"),
            format!("save --format docker-archive -o d.tar {name}"),
            "load -i o.tar".into(),
            format!("export {name} >/dev/null"),
            format!("copy store:{name} oci:layout:x"),
            "copy oci:layout:x store:fourth:1".into(),
            format!("snapshot prepare one {name}"),
            "snapshot mounts one".into(),
            "snapshot ls".into(),
            "snapshot diff one".into(),
            format!("snapshot commit one --image {registry}/fifth:1"),
            "snapshot rm one".into(),
            format!("rm {registry}/other:1"),
            "prune".into(),
            "gc".into(),
            "df".into(),
            "check".into(),
            "check --repair".into(),
            "events --no-follow --since 3600".into(),
            format!("logout {registry}"),
        ] {
            is_silent(bed, &format!("pier-distribution {verb}"))?;
        }
        Ok(())
    })
}

#[test]
fn a_container_of_a_present_image_starts_without_a_connection() -> Result {
    isolated!(|bed| {
        let registry = bed.registry()?;
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        let name = format!("{registry}/bb:1");
        bed.sh(&format!(
            "pier-distribution import --change 'CMD [\"true\"]' {tar} {name} && pier-distribution push {name}"
        ))?
        .ok()?;
        bed.serve("engine")?;
        // The first run starts the tools; the second is the same again.
        for _ in 0..2 {
            is_silent(bed, &format!("pier run --rm --network none {name} true"))?;
        }
        is_silent(bed, "pier images && pier ps -a")
    })
}
