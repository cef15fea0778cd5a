//! `pier-runtime` as an ordinary user: a plain high uid without any capability, and one with subordinate ids.
//!
//! Here cgroups are v1, which no user can have a part of: everything works but limits, which are refused as by runc.
use anyhow::{Context, ensure};
use integration::{Bed, Outcome, Result, isolated};
use serde_json::{Value, json};

const UID: u32 = 54321;

/// A bundle `b` of the user's with the configuration of `spec --rootless`, changed; `$R` is the runtime as that user.
fn bundle(bed: &Bed, script: &str, change: impl FnOnce(&mut Value)) -> Result {
    bed.fixture().bundle(&bed.dir().join("b"), &["true"])?;
    let program = bed.program("pier-runtime");
    bed.sh(&format!(
        "chmod 755 . && cp {} rt && mkdir -p run && rm b/config.json && chown -R {UID}:{UID} b run",
        program.display()
    ))?
    .ok()?;
    user(bed, "cd b && ../rt spec --rootless")?.ok()?;
    configure(bed, |c| {
        c["process"]["terminal"] = json!(false);
        c["root"]["readonly"] = json!(false);
        c["process"]["args"] = json!(["sh", "-c", script]);
        change(c);
    })
}

fn configure(bed: &Bed, change: impl FnOnce(&mut Value)) -> Result {
    let path = bed.dir().join("b/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    change(&mut config);
    Ok(std::fs::write(path, serde_json::to_vec(&config)?)?)
}

/// A script as the user, without any privilege.
fn user(bed: &Bed, script: &str) -> Result<Outcome> {
    let file = bed.dir().join("script.sh");
    std::fs::write(&file, format!("R() {{ $DIR/rt \"$@\"; }}\n{script}"))?;
    bed.sh(&format!(
        "setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps=-all --bounding-set=-all \
         env -i PATH=/usr/bin:/bin DIR=$DIR XDG_RUNTIME_DIR=$DIR/run HOME=$DIR/run bash script.sh"
    ))
}

#[test]
fn the_whole_life_without_privilege() -> Result {
    isolated!(|bed| {
        bundle(bed, "sleep 100", |_| ())?;
        user(bed, "R create --bundle b --pid-file run/pid one </dev/null >run/out 2>&1; cat run/out; R state one")?
            .ok()?
            .has("created")?;
        // The default root comes from XDG_RUNTIME_DIR alone.
        bed.sh("test -d run/pier/runtime/one")?.ok()?;
        user(bed, "R start one && R exec one sh -c 'id -u; cat /proc/self/uid_map /proc/self/setgroups'")?
            .ok()?
            .with("deny")?
            .has("54321")?;
        let both = user(
            bed,
            "R exec one sh -c 'for p in self 1; do for n in pid user mnt; do readlink /proc/$p/ns/$n; done; done'",
        )?
        .ok()?;
        let names: Vec<&str> = both.out().lines().collect();
        ensure!(names.len() == 6 && names[..3] == names[3..], "exec is elsewhere: {both}");
        // Device nodes are the host's, bound; the gid that cannot be mapped is left out of devpts.
        user(bed, "R exec one sh -c 'echo x >/dev/null && head -c4 /dev/zero | wc -c; grep /dev/pts /proc/mounts'")?
            .ok()?
            .with("4\n")?
            .without("gid=5")?
            .has("devpts")?;
        user(bed, "R exec one sh -c 'exit 7'")?.exits(7)?;
        user(bed, "R exec one sh -c 'echo 1 >/proc/sys/kernel/panic'")?.fails()?;
        user(bed, "R kill one KILL; for i in $(seq 50); do R state one | grep -q stopped && break; sleep 0.1; done; R delete one && R list -q")?.ok()?.out().is_empty().then_some(()).context("left")
    })
}

#[test]
fn exec_has_a_terminal_of_its_own() -> Result {
    isolated!(|bed| {
        bundle(bed, "sleep 100", |_| ())?;
        user(bed, "R run -d --bundle b one </dev/null >/dev/null 2>&1; script -qec \"$DIR/rt exec -t one sh -c 'tty; echo >/dev/tty got'\" /dev/null </dev/null")?
            .ok()?
            .with("/dev/pts/0")?
            .has("got")?;
        user(bed, "R delete -f one")?.ok()?;
        Ok(())
    })
}

#[test]
fn limits_need_a_cgroup() -> Result {
    isolated!(|bed| {
        bundle(bed, "true", |c| c["linux"]["resources"] = json!({"memory": {"limit": 50_003_968}}))?;
        for flag in ["", "--rootless=true", "--rootless auto"] {
            user(bed, &format!("R {flag} run --bundle b one </dev/null"))?.fails()?.has("cgroup")?;
        }
        user(bed, "R list -q")?.ok()?.out().is_empty().then_some(()).context("left")?;
        configure(bed, |c| c["linux"]["resources"] = json!({}))?;
        user(bed, "R run --bundle b one </dev/null")?.ok()?;
        Ok(())
    })
}

/// As podman without privilege calls it: root of a user namespace that was made before.
#[test]
fn inside_a_user_namespace_already() -> Result {
    isolated!(|bed| {
        bundle(bed, "id -u; cat /proc/self/uid_map; ls -ln /dev/null; echo y >/dev/null", |c| {
            if let Some(list) = c["linux"]["namespaces"].as_array_mut() {
                list.retain(|ns| ns["type"] != "user");
            }
            if let Some(linux) = c["linux"].as_object_mut() {
                linux.remove("uidMappings");
                linux.remove("gidMappings");
            }
        })?;
        user(bed, "unshare --user --map-root-user --mount $DIR/rt --root run/state run --bundle b one </dev/null")?
            .ok()?
            .has("54321")?;
        Ok(())
    })
}

#[test]
fn subordinate_ids() -> Result {
    isolated!(|bed| {
        bundle(bed, "id -u; cat /proc/self/uid_map; touch /tmp/f && stat -c %u /tmp/f", |c| {
            let map = |first: u32| json!([{"containerID": 0, "hostID": UID, "size": 1}, {"containerID": 1, "hostID": first, "size": 1000}]);
            c["process"]["user"] = json!({"uid": 33, "gid": 33});
            c["linux"]["uidMappings"] = map(200_000);
            c["linux"]["gidMappings"] = map(300_000);
        })?;
        // newuidmap wants the user to have a name.
        bed.sh(&format!(
            "(cat /etc/passwd; echo tester:x:{UID}:{UID}::/:/bin/sh) >passwd; echo tester:200000:1000 >subuid; echo tester:300000:1000 >subgid
             for f in passwd subuid subgid; do touch /etc/$f; mount --bind $f /etc/$f; done"
        ))?
        .ok()?;
        // The bounding set stays: newuidmap is set-uid root.
        let done = bed.sh(&format!(
            "setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps=-all env XDG_RUNTIME_DIR=$DIR/run ./rt run --bundle b one </dev/null"
        ));
        bed.sh("umount /etc/passwd /etc/subuid /etc/subgid")?.ok()?;
        done?.ok()?.with("200000")?.has("33")?;
        let owner = bed.sh("stat -c %u b/rootfs/tmp/f")?;
        ensure!(owner.out() == "200032", "{owner}");
        Ok(())
    })
}
