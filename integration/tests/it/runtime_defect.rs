//! What a runtime on libcontainer gets wrong if it does not take care, beside [`crate::runtime`]: the defects D1 to D16 of the
//! first study, and what is checked before a configuration is believed.
use anyhow::ensure;
use integration::{Bed, Outcome, Result, isolated};
use serde_json::{Value, json};

use crate::runtime::{PIER, bundle, sh};

/// A running `sleep` named `one` of that configuration.
fn start(bed: &Bed, change: impl FnOnce(&mut Value)) -> Result<Outcome> {
    bundle(bed, "b", &["sleep", "1000"], change)?;
    sh(bed, PIER, "R run -d --bundle b one </dev/null >out 2>&1 || { cat out; false; }")?.ok()
}

/// An id is the name of a directory, and nothing else.
#[test]
fn ids_lead_nowhere() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["true"], |_| ())?;
        bed.sh("mkdir -p state victim/in; cp b/config.json victim")?.ok()?;
        for id in ["../victim", "../victim/in", "..", ".", "/", "a/b", "a b"] {
            for verb in ["delete --force", "create --bundle b", "state", "kill"] {
                sh(bed, PIER, &format!("R {verb} '{id}' </dev/null 2>&1"))?.fails()?.has("invalid")?;
            }
        }
        bed.sh("ls state; ls -d victim/in victim/config.json")?.ok()?;
        Ok(())
    })
}

/// D8: of many that want an id one gets it, and the others take nothing from it.
#[test]
fn an_id_is_taken_once() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sleep", "1000"], |_| ())?;
        sh(bed, PIER, "for i in 1 2 3 4 5 6; do (R create --bundle b one </dev/null >out$i 2>&1 && echo $i >>won) & done; wait; R state one; wc -l <won")?
            .ok()?
            .with("created")?
            .has("\n1\n")?;
        sh(bed, PIER, "R start one && R state one; R delete -f one")?.ok()?.has("running")
    })
}

/// The configuration is read as it is, a plain file of a bundle, and not without end.
#[test]
fn a_configuration_is_a_plain_file() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["true"], |_| ())?;
        let run = "timeout 10 pier-runtime --root state run --bundle b one </dev/null 2>&1";
        bed.sh(run)?.ok()?;
        bed.sh(&format!("mv b/config.json real; ln -s $PWD/real b/config.json; {run}"))?.exits(1)?;
        bed.sh(&format!("rm b/config.json; mkfifo b/config.json; {run}"))?.exits(1)?.has("not a regular file")?;
        bed.sh(&format!(
            "rm b/config.json; (cat real; head -c 9000000 /dev/zero | tr '\\0' ' ') >b/config.json; {run}"
        ))?
        .exits(1)?
        .has("larger than")
    })
}

/// What was created stays as it was, whatever becomes of the bundle.
#[test]
fn a_bundle_edited_later_changes_nothing() -> Result {
    isolated!(|bed| {
        start(bed, |c| c["process"]["user"] = json!({"uid": 1000, "gid": 1000}))?;
        sh(bed, PIER, "sed -i 's/\"uid\": *1000/\"uid\":0/' b/config.json; grep -c '\"uid\":0' b/config.json; R exec one id -u; R delete -f one")?
            .ok()?
            .has("1\n1000")
    })
}

/// Others on the machine neither read nor write what the runtime remembers.
#[test]
fn the_state_is_private() -> Result {
    isolated!(|bed| {
        start(bed, |c| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"}))?;
        let modes =
            sh(bed, PIER, "umask 0; R list >/dev/null; find state -printf '%m %u %y %p\\n'; R delete -f one")?.ok()?;
        for line in modes.out().lines() {
            ensure!(line.starts_with("700 root d") || line.starts_with("600 root"), "{modes}");
        }
        Ok(())
    })
}

/// Never more than the runtime itself may have, and said so.
#[test]
fn capabilities_are_within_the_callers() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["grep", "CapBnd", "/proc/self/status"], |c| {
            let sets = json!(["CAP_KILL", "CAP_CHOWN"]);
            c["process"]["capabilities"] = json!({"bounding": sets, "effective": sets, "permitted": sets});
        })?;
        bed.sh("setpriv --bounding-set -kill pier-runtime --root state run --bundle b one </dev/null")?
            .ok()?
            .with("CAP_KILL is not in the runtime's bounding set")?
            .has("CapBnd:\t0000000000000001")
    })
}

/// A hook is what its absolute path says, not what the caller's PATH finds.
#[test]
fn hooks_are_not_looked_for() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["true"], |c| c["hooks"] = json!({"createRuntime": [{"path": "true"}]}))?;
        sh(bed, PIER, "R run --bundle b one </dev/null 2>&1")?.fails()?.has("must be absolute")?;
        bed.sh("command -v true")?.ok().map(drop)
    })
}

/// D14: `update` changes what it names; devices it never does, and a burst needs no quota beside it.
#[test]
fn update_changes_nothing_else() -> Result {
    isolated!(|bed| {
        if !std::path::Path::new("/sys/fs/cgroup/devices").exists() {
            println!("skipped: update_changes_nothing_else: no cgroup v1 on this machine");
            return Ok(());
        }
        start(bed, |c| {
            c["linux"]["cgroupsPath"] = json!("/pier/one");
            c["linux"]["resources"] = json!({"cpu": {"quota": 50_000, "period": 100_000}, "devices": [
                {"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"}]});
        })?;
        let list = "cat /sys/fs/cgroup/devices/pier/one/devices.list";
        let update =
            format!("{list} >before; grep 10:200 before && R update --pids-limit 9 one && {list} | cmp - before");
        sh(bed, PIER, &update)?.ok()?;
        let update = "R update --cpu-burst 2000 one; cat /sys/fs/cgroup/cpu/pier/one/cpu.cfs_burst_us; R delete -f one";
        sh(bed, PIER, update)?.ok()?.has("2000")
    })
}
