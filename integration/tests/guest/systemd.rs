//! systemd makes the cgroups.
use crate::bed::{Guest, inside};
use anyhow::ensure;
use integration::Result;
use serde_json::{Value, json};

macro_rules! tests {
    ($($test:ident;)*) => {
        $(#[test] fn $test() -> Result { inside("systemd", stringify!($test), cases::$test) })*
    };
}

tests! {
    a_scope_with_its_limits;
    update_reaches_the_unit;
    annotations_become_properties;
    slices_are_nested;
    a_unit_in_use_is_refused;
    exec_pause_and_events;
    the_default_is_the_system_slice;
    errors_are_told;
    the_users_own_systemd;
}

mod cases {
    use super::*;

    fn start(g: &Guest, name: &str, change: impl FnOnce(&mut Value)) -> Result<integration::Outcome> {
        g.bundle(name, &["sleep", "1000"], |c| {
            c["linux"]["cgroupsPath"] = json!(format!("pier-t.slice:pier:{name}"));
            change(c);
        })?;
        g.sh(&format!("$R --systemd-cgroup run -d --bundle {name} {name} </dev/null >{name}.out 2>&1; e=$?; cat {name}.out; exit $e"))
    }

    fn end(g: &Guest, name: &str) -> Result {
        g.sh(&format!("$R delete -f {name}"))?.ok()?;
        g.sh(&format!("systemctl show -P ActiveState pier-{name}.scope; systemctl stop pier-t.slice pier.slice 2>&1"))?
            .ok()?
            .has("inactive")
    }

    /// A property as systemd has it.
    fn property(g: &Guest, unit: &str, name: &str) -> Result<String> {
        Ok(g.sh(&format!("systemctl show -P {name} {unit}"))?.ok()?.out().to_owned())
    }

    pub fn a_scope_with_its_limits(g: &Guest) -> Result {
        start(g, "limits", |c| {
            c["linux"]["resources"] = json!({
                "memory": {"limit": 33554432, "swap": 50331648, "reservation": 16777216},
                "cpu": {"shares": 3333, "quota": 40000, "period": 100000, "cpus": "0"},
                "pids": {"limit": 20},
                "unified": {"memory.high": "30000000"}
            });
        })?
        .ok()?;
        let expected = [
            ("MemoryMax", "33554432"),
            ("MemoryLow", "16777216"),
            ("MemorySwapMax", "16777216"),
            ("MemoryHigh", "30000000"),
            ("CPUWeight", "256"),
            ("CPUQuotaPerSecUSec", "400ms"),
            ("AllowedCPUs", "0"),
            ("TasksMax", "20"),
            ("Delegate", "yes"),
            ("ControlGroup", "/pier.slice/pier-t.slice/pier-limits.scope"),
        ];
        for (name, value) in expected {
            let got = property(g, "pier-limits.scope", name)?;
            ensure!(got == value, "{name} is {got} instead of {value}");
        }
        g.sh("cd $C/pier.slice/pier-t.slice/pier-limits.scope; cat memory.max cpu.max pids.max; cat /proc/$(cat cgroup.procs)/comm")?
            .ok()?
            .has("33554432\n40000 100000\n20\nsleep")?;
        end(g, "limits")
    }

    pub fn update_reaches_the_unit(g: &Guest) -> Result {
        start(g, "update", |c| {
            c["linux"]["resources"] = json!({"memory": {"limit": 33554432}, "pids": {"limit": 20}})
        })?
        .ok()?;
        g.sh("$R update --memory 64M --pids-limit 30 --cpu-quota 50000 update")?.ok()?;
        g.sh("cd $C/pier.slice/pier-t.slice/pier-update.scope; cat memory.max pids.max cpu.max")?
            .ok()?
            .has("67108864\n30\n50000 100000")?;
        let unit = "pier-update.scope";
        ensure!(property(g, unit, "MemoryMax")? == "67108864" && property(g, unit, "TasksMax")? == "30");
        ensure!(property(g, unit, "CPUQuotaPerSecUSec")? == "500ms");
        // What systemd reads again from its own books is the same.
        g.sh("systemctl daemon-reload; cat $C/pier.slice/pier-t.slice/pier-update.scope/pids.max")?.ok()?.has("30")?;
        g.sh("$R update --cpu-idle 1 --cpu-share 200 update 2>&1; cat $C/pier.slice/pier-t.slice/pier-update.scope/cpu.idle")?
            .ok()?
            .with("unable to apply both")?
            .has("1")?;
        end(g, "update")
    }

    pub fn annotations_become_properties(g: &Guest) -> Result {
        start(g, "notes", |c| {
            c["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "uint64 42",
                "org.systemd.property.CollectMode": "'inactive-or-failed'"});
        })?
        .ok()?;
        ensure!(property(g, "pier-notes.scope", "TimeoutStopUSec")? == "42s");
        ensure!(property(g, "pier-notes.scope", "CollectMode")? == "inactive-or-failed");
        end(g, "notes")?;
        start(g, "bad", |c| c["annotations"] = json!({"org.systemd.property.NoSuch": "true"}))?
            .fails()?
            .has("cannot start unit pier-bad.scope")?;
        start(g, "bad", |c| c["annotations"] = json!({"org.systemd.property.No-such": "true"}))?.fails()?.has("No-such")
    }

    pub fn slices_are_nested(g: &Guest) -> Result {
        start(g, "nested", |c| c["linux"]["cgroupsPath"] = json!("pier-a-b.slice:pier:nested"))?.ok()?;
        g.sh("cat $C/pier.slice/pier-a.slice/pier-a-b.slice/pier-nested.scope/cgroup.procs")?.ok()?;
        end(g, "nested")?;
        g.sh("systemctl stop pier-a-b.slice pier-a.slice pier.slice")?.ok()?;
        Ok(())
    }

    pub fn a_unit_in_use_is_refused(g: &Guest) -> Result {
        start(g, "one", |_| ())?.ok()?;
        g.bundle("two", &["true"], |c| c["linux"]["cgroupsPath"] = json!("pier-t.slice:pier:one"))?;
        g.sh("$R --systemd-cgroup run --bundle two two </dev/null")?.fails()?.has("container's cgroup is not empty")?;
        g.sh("$R state one")?.ok()?.has("running")?;
        end(g, "one")
    }

    pub fn exec_pause_and_events(g: &Guest) -> Result {
        start(g, "verbs", |_| ())?.ok()?;
        g.sh("$R exec verbs cat /proc/self/cgroup")?.ok()?.has("pier-verbs.scope")?;
        g.sh("$R pause verbs && $R state verbs && $R resume verbs")?.ok()?.has("paused")?;
        g.sh("$R events --stats verbs")?.ok()?.has("\"type\":\"stats\"")?;
        g.sh("$R kill verbs KILL; sleep 0.5; $R state verbs")?.ok()?.has("stopped")?;
        end(g, "verbs")
    }

    pub fn the_default_is_the_system_slice(g: &Guest) -> Result {
        g.bundle("plain", &["cat", "/proc/self/cgroup"], |_| ())?;
        g.sh("$R --cgroup-manager systemd run --bundle plain plain </dev/null")?
            .ok()?
            .has("/system.slice/pier-plain.scope")
    }

    pub fn errors_are_told(g: &Guest) -> Result {
        g.bundle("path", &["true"], |c| c["linux"]["cgroupsPath"] = json!("/a/b"))?;
        g.sh("$R --systemd-cgroup run --bundle path path </dev/null")?.fails()?.has("slice:prefix:name")?;
        g.bundle("gone", &["true"], |_| ())?;
        g.sh("unshare -m sh -c \"mount -t tmpfs none /run && $R --systemd-cgroup run --bundle gone gone\" </dev/null")?
            .fails()?
            .has("systemd not running on this host, cannot use systemd cgroups manager")
    }

    pub fn the_users_own_systemd(g: &Guest) -> Result {
        g.bundle("mine", &["sleep", "1000"], |c| {
            let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
            c["linux"]["namespaces"] =
                json!([{"type": "mount"}, {"type": "pid"}, {"type": "user"}, {"type": "ipc"}, {"type": "uts"}]);
            c["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}]);
            c["linux"]["resources"] = json!({"pids": {"limit": 10}, "memory": {"limit": 33554432}});
        })?;
        let user = "U=\"setpriv --reuid 1000 --regid 1000 --clear-groups env XDG_RUNTIME_DIR=/run/user/1000\"\n";
        g.sh(&format!(
            "{user}systemctl start user@1000.service && chown -R 1000:1000 . && \
                       $U $R --systemd-cgroup run -d --bundle mine mine </dev/null >out 2>&1; e=$?; cat out; exit $e"
        ))?
        .ok()?;
        let scope = "/user.slice/user-1000.slice/user@1000.service/user.slice/pier-mine.scope";
        g.sh(&format!("cat $C{scope}/pids.max $C{scope}/memory.max"))?.ok()?.has("10\n33554432")?;
        g.sh(&format!(
            "{user}$U $R update --pids-limit 12 mine && $U systemctl --user show -P TasksMax pier-mine.scope"
        ))?
        .ok()?
        .has("12")?;
        g.sh(&format!("{user}$U $R delete -f mine; ls -d $C{scope}"))?.fails()?;
        g.sh("systemctl stop user@1000.service")?.ok()?;
        Ok(())
    }
}
