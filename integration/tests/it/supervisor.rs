//! `pier-supervisor` alone: no engine, no images, a busybox rootfs on each OCI runtime.
use anyhow::ensure;
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

const RUNTIMES: [&str; 3] = ["pier-runtime", "runc", "crun"];

/// `$S` runs the supervisor; `$R` is a rootfs of the test's own.
fn script(bed: &Bed, runtime: &str, body: &str) -> Result<integration::Outcome> {
    let rootfs = bed.dir().join("rootfs");
    if !rootfs.exists() {
        bed.sh(&format!("cp -a {} {}", bed.fixture().busybox()?.display(), rootfs.display()))?.ok()?;
    }
    if runtime == "crun" {
        // It refuses the hybrid layout. The other runtimes have had their turn by then.
        bed.sh("umount /sys/fs/cgroup/unified 2>/dev/null; true")?;
    }
    bed.sh(&format!("export PIER_RUNTIME={runtime} R=$DIR/rootfs; S=pier-supervisor; {body}"))
}

#[test]
fn supervisor_runs_without_a_daemon_on_every_runtime() -> Result {
    isolated!(|bed| {
        for runtime in RUNTIMES {
            let all = || -> Result {
                script(bed, runtime, "$S run --rm --rootfs $R -- sh -c 'echo out; echo err >&2; exit 7'")?
                    .exits(7)?
                    .with("out\n")?
                    .has("err\n")?;
                script(bed, runtime, "printf 'a\\nb\\n' | $S run --rm -i --rootfs $R -- sh -c 'cat; echo done'")?
                    .ok()?
                    .has("a\nb\ndone")?;
                script(bed, runtime, "$S run --rm --rootfs $R -- no-such-command")?
                    .exits(127)?
                    .has("no-such-command")?;
                script(bed, runtime, "$S run -d --name one --rootfs $R -- sleep 1000 && $S ps")?.ok()?.has("one")?;
                script(bed, runtime, "$S exec one sh -c 'echo in; exit 3'")?.exits(3)?.has("in")?;
                script(bed, runtime, "$S exec -t one tty")?.ok()?.has("/dev/")?;
                script(bed, runtime, "echo piped | $S exec -i one cat")?.ok()?.has("piped")?;
                script(
                    bed,
                    runtime,
                    "$S pause one && $S ps | grep Paused && $S unpause one && ! ($S ps | grep Paused)",
                )?
                .ok()?;
                script(bed, runtime, "$S rm one")?.fails()?.has("running")?;
                script(bed, runtime, "$S kill -s KILL one; $S wait one; $S rm one; $S ps -a")?.ok()?.has("137")
            };
            all().map_err(|error| error.context(runtime))?;
        }
        // Where the unified hierarchy was, crun makes plain directories and forgets them.
        bed.sh(
            "umount /sys/fs/cgroup/unified 2>/dev/null; rm -rf /sys/fs/cgroup/unified/pier; ls /sys/fs/cgroup/unified",
        )?
        .without("pier")?;
        Ok(())
    })
}

#[test]
fn supervisor_killed_while_a_container_logs_loses_nothing() -> Result {
    isolated!(|bed| {
        let daemon = bed.serve("supervisor")?;
        script(
            bed,
            "runc",
            "$S run -d --name lines --rootfs $R -- \
             sh -c 'i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.02; done; exit 9'",
        )?
        .ok()?;
        daemon.kill()?;
        std::thread::sleep(Duration::from_millis(1800));
        bed.serve("supervisor")?;
        script(bed, "runc", "$S wait lines")?.ok()?.has("9")?;
        let logs = script(bed, "runc", "$S logs lines")?.ok()?;
        let wanted: String = (0..60).map(|n| format!("line {n}\n")).collect();
        ensure!(logs.stdout == wanted, "{logs}");
        script(bed, "runc", "$S rm lines")?.ok()?;
        Ok(())
    })
}

#[test]
fn supervisor_follows_a_log_across_rotations() -> Result {
    isolated!(|bed| {
        script(
            bed,
            "runc",
            "$S run -d --name rot --log-opt max-size=16k --log-opt max-file=200 --rootfs $R -- \
             sh -c 'seq 1 5000; sleep 0.2; seq 5001 10000; exit 4'",
        )?
        .ok()?;
        let logs = script(bed, "runc", "timeout 20 $S logs -f rot")?.ok()?;
        let wanted: String = (1..=10_000).map(|n| format!("{n}\n")).collect();
        ensure!(logs.stdout == wanted, "{} bytes instead of {}", logs.stdout.len(), wanted.len());
        script(bed, "runc", "ls $PIER_ROOT/supervisor/containers/*/log | grep -c container.log.; $S rm rot")?.ok()?;
        Ok(())
    })
}

#[test]
fn supervisor_restarts_by_policy_and_removes_by_itself() -> Result {
    isolated!(|bed| {
        bed.serve("supervisor")?;
        script(bed, "runc", "$S run -d --name again --restart on-failure:2 --rootfs $R -- sh -c 'echo run; exit 1'")?
            .ok()?;
        eventually(Duration::from_secs(10), || {
            let logs = script(bed, "runc", "$S logs again; $S ps -a")?.ok()?.with("Exited (1)")?;
            ensure!(logs.stdout.matches("run\n").count() == 3, "{logs}");
            Ok(())
        })?;
        script(bed, "runc", "$S rm again; $S run -d --rm --name brief --rootfs $R -- sleep 0.2")?.ok()?;
        eventually(Duration::from_secs(5), || script(bed, "runc", "$S ps -a")?.ok()?.without("brief").map(|_| ()))?;
        // A user's stop holds against the policy.
        script(bed, "runc", "$S run -d --name held --restart always --rootfs $R -- sleep 1000 && $S stop -t 0 held")?
            .ok()?;
        std::thread::sleep(Duration::from_millis(500));
        script(bed, "runc", "$S ps -a; $S rm held")?.ok()?.has("Exited (137)")
    })
}

#[test]
fn supervisor_ends_what_a_killed_shim_left() -> Result {
    isolated!(|bed| {
        bed.serve("supervisor")?;
        script(bed, "runc", "$S run -d --name orphan --rootfs $R -- sleep 1000")?.ok()?;
        script(bed, "runc", "pkill -KILL pier-shim")?.ok()?;
        eventually(Duration::from_secs(5), || {
            script(bed, "runc", "$S ps -a; ! pgrep -x sleep")?.ok()?.has("Exited (137)")
        })?;
        script(bed, "runc", "$S inspect orphan")?.ok()?.has("the shim was lost")?;
        script(bed, "runc", "$S start orphan && $S rm -f orphan")?.ok()?;
        Ok(())
    })
}

#[test]
fn supervisor_lists_and_removes_a_damaged_record() -> Result {
    isolated!(|bed| {
        script(bed, "runc", "$S create --name good --rootfs $R -- true; $S create --name bad --rootfs $R -- true")?
            .ok()?;
        script(
            bed,
            "runc",
            "id=$($S inspect bad | sed -n 's/.*\"id\": \"\\([0-9a-f]\\{64\\}\\)\".*/\\1/p' | head -1); \
             echo '{' >$PIER_ROOT/supervisor/containers/$id/spec.json",
        )?
        .ok()?;
        bed.serve("supervisor")?;
        script(bed, "runc", "$S ps -a")?.ok()?.with("Dead")?.with("good")?.has("Warning")?;
        script(bed, "runc", "$S rm bad good && $S ps -a -q")?.ok()?.without("bad\nbad")?;
        Ok(())
    })
}

#[test]
fn supervisor_copies_in_and_out() -> Result {
    isolated!(|bed| {
        script(bed, "runc", "$S run -d --name files --rootfs $R -- sleep 1000; mkdir -p d/e; echo deep >d/e/f")?
            .ok()?;
        script(bed, "runc", "$S cp d files:/tmp-d && $S exec files cat /tmp-d/e/f")?.ok()?.has("deep")?;
        script(bed, "runc", "$S cp files:/tmp-d back && cat back/e/f && $S stop -t 0 files")?.ok()?.has("deep")?;
        script(bed, "runc", "$S cp files:/tmp-d/e/f - | tar -xO")?.ok()?.has("deep")?;
        // A link of the container's leads nowhere but into the container.
        script(bed, "runc", "ln -s /etc $R/out; echo mine >passwd.new; $S cp passwd.new files:/out/passwd.new")?
            .ok()?;
        script(bed, "runc", "cat $R/etc/passwd.new; ! test -e /etc/passwd.new")?.ok()?.has("mine")?;
        script(bed, "runc", "$S cp files:/no/such - ")?.fails()?.has("No such file")?;
        script(bed, "runc", "$S rm files")?.ok()?;
        Ok(())
    })
}

#[test]
fn supervisor_names_are_unique_and_changeable() -> Result {
    isolated!(|bed| {
        script(bed, "runc", "$S create --name a --rootfs $R -- true")?.ok()?;
        script(bed, "runc", "$S create --name a --rootfs $R -- true")?.fails()?.with("in use")?.has("Hint")?;
        script(bed, "runc", "$S rename a b && $S create --name a --rootfs $R -- true && $S rename a b")?.fails()?;
        script(bed, "runc", "$S rm a b && $S create --name a --rootfs $R -- true && $S rm a && $S ps -aq | wc -l")?
            .ok()?
            .has("0")?;
        script(bed, "runc", "$S logs nobody")?.exits(1)?.has("no such container")
    })
}
