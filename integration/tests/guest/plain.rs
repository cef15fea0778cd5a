//! cgroup v2 alone.
use crate::bed::{Guest, inside};
use anyhow::ensure;
use integration::Result;
use serde_json::json;

macro_rules! tests {
    ($($test:ident;)*) => {
        $(#[test] fn $test() -> Result { inside("plain", stringify!($test), cases::$test) })*
    };
}

tests! {
    limits_are_set;
    unified_has_the_last_word;
    block_devices_are_throttled;
    small_limits_do_not_stop_create;
    devices_are_denied;
    init_is_born_in_its_cgroup;
    pause_and_resume;
    all_processes_are_killed;
    a_cgroup_in_use_is_refused;
    exec_follows_init;
    a_delegate_owns_its_cgroup;
    without_privilege;
    update_changes_what_is_named;
    update_looks_before_it_leaps;
    stats_are_read;
    lack_of_memory_is_told;
}

mod cases {
    use super::*;

    /// A cgroup namespace of its own, and the cgroup mounted with that option.
    fn cgroup_namespace(c: &mut serde_json::Value, option: &str) {
        let mut mounts = c["mounts"].as_array().cloned().unwrap_or_default();
        mounts.retain(|m| m["destination"] != "/sys/fs/cgroup");
        mounts
            .push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [option]}));
        c["mounts"] = json!(mounts);
        if let Some(list) = c["linux"]["namespaces"].as_array_mut() {
            list.retain(|n| n["type"] != "cgroup");
            list.push(json!({"type": "cgroup"}));
        }
    }

    pub fn limits_are_set(g: &Guest) -> Result {
        g.start("limits", |c| {
            c["linux"]["resources"] = json!({
                "memory": {"limit": 33554432, "swap": 50331648, "reservation": 16777216},
                "cpu": {"shares": 3333, "quota": 40000, "period": 100000, "burst": 10000, "cpus": "0", "mems": "0"},
                "pids": {"limit": 20},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]
            });
        })?
        .ok()?;
        let expected = [
            ("memory.max", "33554432"),
            ("memory.low", "16777216"),
            ("cpu.weight", "256"),
            ("cpu.max", "40000 100000"),
            ("cpu.max.burst", "10000"),
            ("cpuset.cpus", "0"),
            ("pids.max", "20"),
            ("hugetlb.2MB.max", "4194304"),
            ("hugetlb.2MB.rsvd.max", "4194304"),
        ];
        for (file, value) in expected {
            let got = g.sh(&format!("cat $C/pier-t/limits/{file}"))?.ok()?;
            ensure!(got.out() == value, "{file} is {} instead of {value}", got.out());
        }
        g.end("limits")
    }

    pub fn unified_has_the_last_word(g: &Guest) -> Result {
        g.start("unified", |c| {
            c["linux"]["resources"] =
                json!({"pids": {"limit": 20}, "unified": {"pids.max": "42", "memory.high": "5242880"}});
        })?
        .ok()?;
        g.sh("cat $C/pier-t/unified/pids.max $C/pier-t/unified/memory.high")?.ok()?.has("42\n5242880")?;
        g.end("unified")?;
        let bad = |file: &str| g.start("unified", |c| c["linux"]["resources"] = json!({"unified": {file: "1"}}));
        bad("nosuch.file")?.fails()?.has("controller \"nosuch\" not available")?;
        bad("memory.nosuch")?.fails()?.has("memory.nosuch")?;
        bad("../pids.max")?.fails()?.has("no slashes")?;
        g.end("unified")
    }

    pub fn block_devices_are_throttled(g: &Guest) -> Result {
        let number = g.sh("cat /sys/block/vda/dev")?.ok()?.out().to_owned();
        let (major, minor) = number.split_once(':').unwrap_or_default();
        let (major, minor): (i64, i64) = (major.parse()?, minor.parse()?);
        g.start("io", |c| {
            c["linux"]["resources"] = json!({"blockIO": {"weight": 750,
                "throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1048576}],
                "throttleWriteIOPSDevice": [{"major": major, "minor": minor, "rate": 77}]}});
        })?
        .ok()?;
        g.sh("cat $C/pier-t/io/io.max")?.ok()?.with("rbps=1048576")?.has("wiops=77")?;
        g.sh("cat $C/pier-t/io/io.bfq.weight")?.ok()?.has("750")?;
        g.end("io")
    }

    pub fn small_limits_do_not_stop_create(g: &Guest) -> Result {
        for resources in [json!({"pids": {"limit": 1}}), json!({"memory": {"limit": 1048576}})] {
            g.bundle("small", &["true"], |c| c["linux"]["resources"] = resources.clone())?;
            g.sh("$R run --bundle small small </dev/null")?.ok()?;
        }
        g.bundle("oom", &["sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=64; echo survived"], |c| {
            c["linux"]["resources"] = json!({"memory": {"limit": 8388608, "swap": 8388608}});
        })?;
        g.sh("$R run --bundle oom oom </dev/null")?.with("")?.without("64+0 records out")?;
        g.sh("$R delete -f oom")?.ok().map(|_| ())
    }

    pub fn devices_are_denied(g: &Guest) -> Result {
        let read = "dd if=/dev/vda of=/dev/null bs=512 count=1; dd if=/dev/zero of=/dev/null bs=1 count=1";
        let node = json!({"path": "/dev/vda", "type": "b", "major": 254, "minor": 0});
        g.bundle("denied", &["sh", "-c", read], |c| c["linux"]["devices"] = json!([node]))?;
        g.sh("$R run --bundle denied denied </dev/null")?.ok()?.with("Operation not permitted")?.has("1+0 records")?;
        g.bundle("allowed", &["sh", "-c", read], |c| {
            c["linux"]["devices"] = json!([node]);
            c["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"},
                {"allow": true, "type": "b", "major": 254, "minor": 0, "access": "r"}]});
        })?;
        g.sh("$R run --bundle allowed allowed </dev/null")?.ok()?.without("Operation not permitted")?;
        g.bundle("write", &["sh", "-c", "exec 3<>/dev/vda"], |c| {
            c["linux"]["devices"] = json!([node]);
            c["linux"]["resources"] = json!({"devices": [{"allow": true, "type": "b", "major": 254, "access": "r"}]});
        })?;
        g.sh("$R run --bundle write write </dev/null")?.fails()?.has("Operation not permitted")
    }

    pub fn init_is_born_in_its_cgroup(g: &Guest) -> Result {
        g.start("born", |c| cgroup_namespace(c, "ro"))?.ok()?;
        g.sh("cat /proc/$(cat $C/pier-t/born/cgroup.procs)/cgroup")?.ok()?.has("0::/pier-t/born")?;
        g.sh("$R exec born cat /proc/self/cgroup")?.ok()?.has("0::/\n")?;
        g.sh("cat $C/pier-t/cgroup.subtree_control")?.ok()?.with("memory")?.with("cpuset")?.has("pids")?;
        g.end("born")
    }

    pub fn pause_and_resume(g: &Guest) -> Result {
        g.start("pause", |_| ())?.ok()?;
        g.sh("$R pause pause && $R state pause && cat $C/pier-t/pause/cgroup.events")?
            .ok()?
            .with("paused")?
            .has("frozen 1")?;
        g.sh("$R pause pause")?.fails()?;
        g.sh("$R resume pause && $R state pause")?.ok()?.has("running")?;
        g.sh("$R pause pause && $R delete -f pause")?.ok()?;
        g.end("pause")
    }

    pub fn all_processes_are_killed(g: &Guest) -> Result {
        g.bundle("kill", &["sh", "-c", "sleep 1000 & sleep 1000 & wait"], |c| {
            c["linux"]["cgroupsPath"] = json!("/pier-t/kill");
            c["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}]);
        })?;
        g.sh("$R run -d --bundle kill kill </dev/null >out 2>&1; sleep 1; mkdir $C/pier-t/kill/below; \
              for p in $(tail -n 1 $C/pier-t/kill/cgroup.procs); do echo $p >$C/pier-t/kill/below/cgroup.procs; done; \
              $R ps --format json kill")?
            .ok()?
            .json()
            .and_then(|pids| {
                ensure!(pids.as_array().is_some_and(|a| a.len() == 3), "{pids}");
                Ok(())
            })?;
        g.sh("$R kill kill KILL; sleep 1; cat $C/pier-t/kill/cgroup.events")?.ok()?.has("populated 0")?;
        g.end("kill")
    }

    pub fn a_cgroup_in_use_is_refused(g: &Guest) -> Result {
        g.sh(
            "mkdir -p $C/pier-t/used; sleep 1000 >/dev/null 2>&1 & echo $! >$C/pier-t/used/cgroup.procs; echo $! >pid",
        )?
        .ok()?;
        g.start("used", |_| ())?.fails()?.has("container's cgroup is not empty")?;
        g.sh("kill -0 $(cat pid) && kill $(cat pid); sleep 0.2; echo 1 >$C/pier-t/used/cgroup.freeze")?.ok()?;
        g.start("used", |_| ())?.fails()?.has("container's cgroup unexpectedly frozen")?;
        g.sh("echo 0 >$C/pier-t/used/cgroup.freeze")?.ok()?;
        g.start("used", |_| ())?.ok()?;
        g.end("used")
    }

    pub fn exec_follows_init(g: &Guest) -> Result {
        g.start("tree", |c| cgroup_namespace(c, "rw"))?.ok()?;
        let inside = "mkdir /sys/fs/cgroup/foo && echo 1 >/sys/fs/cgroup/foo/cgroup.procs && \
                      echo $$ >/sys/fs/cgroup/foo/cgroup.procs && echo +memory >/sys/fs/cgroup/cgroup.subtree_control";
        g.sh(&format!("$R exec tree sh -ec '{inside}'"))?.ok()?;
        g.sh("$R exec tree cat /proc/self/cgroup")?.ok()?.has("0::/foo")?;
        g.end("tree")
    }

    pub fn a_delegate_owns_its_cgroup(g: &Guest) -> Result {
        let start = |name: &str, option: &str| {
            g.start(name, |c| {
                cgroup_namespace(c, option);
                let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
                c["linux"]["uidMappings"] = map.clone();
                c["linux"]["gidMappings"] = map;
                if let Some(list) = c["linux"]["namespaces"].as_array_mut() {
                    list.push(json!({"type": "user"}));
                }
            })
        };
        start("owned", "rw")?.ok()?;
        g.sh("stat -c %u $C/pier-t/owned $C/pier-t/owned/cgroup.procs $C/pier-t/owned/memory.max")?
            .ok()?
            .has("100000\n100000\n0")?;
        g.sh("$R exec owned mkdir /sys/fs/cgroup/mine")?.ok()?;
        g.end("owned")?;
        start("lent", "ro")?.ok()?;
        g.sh("stat -c %u $C/pier-t/lent")?.ok()?.has("0")?;
        g.end("lent")
    }

    pub fn without_privilege(g: &Guest) -> Result {
        let rootless = |c: &mut serde_json::Value| {
            c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            c["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            c["linux"]["namespaces"] =
                json!([{"type": "mount"}, {"type": "pid"}, {"type": "user"}, {"type": "ipc"}, {"type": "uts"}]);
            c["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}]);
            c["linux"]["resources"] = json!({});
        };
        g.bundle("plain", &["echo", "alive"], rootless)?;
        g.bundle("limited", &["echo", "alive"], |c| {
            rootless(c);
            c["linux"]["resources"] = json!({"pids": {"limit": 10}});
        })?;
        let as_user = |script: &str| g.sh(&format!("chown -R 1000:1000 .; su user -c \"cd $PWD; {script}\""));
        as_user("$R run --bundle plain one </dev/null")?.ok()?.has("alive")?;
        as_user("$R run --bundle limited two </dev/null")?.fails()?.has("rootless needs no limits + no cgrouppath")?;
        // A delegated subtree: limits work beside the user's own cgroup.
        let delegated = "mkdir -p $C/user-pier/shell; echo +pids +memory >$C/cgroup.subtree_control; \
            echo +pids +memory >$C/user-pier/cgroup.subtree_control; chown -R 1000 $C/user-pier; \
            sh -c 'echo $$ >'$C'/user-pier/shell/cgroup.procs; exec su user -c \"cd '$PWD'; $0 run --bundle limited three\"' \"$R\"; \
            e=$?; find $C/user-pier -type d; rmdir $C/user-pier/shell $C/user-pier; exit $e";
        g.sh(delegated)?.ok()?.with("alive")?.without("/three")?;
        Ok(())
    }

    pub fn update_changes_what_is_named(g: &Guest) -> Result {
        g.start("update", |c| {
            c["linux"]["resources"] = json!({"memory": {"limit": 33554432, "reservation": 25165824},
                "cpu": {"shares": 100, "quota": 500000, "period": 1000000}, "pids": {"limit": 20}});
        })?
        .ok()?;
        let expect = |flags: &str, files: &[(&str, &str)]| -> Result {
            g.sh(&format!("$R update update {flags}"))?.ok()?;
            for (file, value) in files {
                let got = g.sh(&format!("cat $C/pier-t/update/{file}"))?.ok()?;
                ensure!(got.out() == *value, "after {flags}: {file} is {} instead of {value}", got.out());
            }
            Ok(())
        };
        expect("--cpu-period 900000", &[("cpu.max", "500000 900000"), ("pids.max", "20")])?;
        expect("--cpu-quota 600000", &[("cpu.max", "600000 900000")])?;
        expect("--cpu-quota -1", &[("cpu.max", "max 900000")])?;
        expect("--cpu-burst 1000 --cpu-quota 50000", &[("cpu.max.burst", "1000"), ("cpu.max", "50000 900000")])?;
        expect("--memory 50M", &[("memory.max", "52428800"), ("memory.low", "25165824"), ("cpu.max.burst", "1000")])?;
        expect("--memory -1", &[("memory.max", "max")])?;
        expect("--pids-limit -1", &[("pids.max", "max")])?;
        expect("--cpu-idle 1", &[("cpu.idle", "1")])?;
        expect("--cpu-idle 0 --cpu-share 1024", &[("cpu.idle", "0"), ("cpu.weight", "100")])?;
        expect("--blkio-weight 500", &[("io.bfq.weight", "default 500")])?;
        g.sh("$R update --cpu-idle 3 update")?.fails()?;
        let json =
            "{\"unified\": {\"pids.max\": \"10\", \"cpu.max\": \"max 100000\"}, \"devices\": [{\"allow\": true}]}";
        g.sh(&format!("echo '{json}' | $R update -r - update && cat $C/pier-t/update/pids.max"))?.ok()?.has("10")?;
        // The node can be made, not opened: the rules are the old ones.
        g.sh("$R exec update sh -c 'mknod /dev/shm/vda b 254 0; dd if=/dev/shm/vda of=/dev/null bs=1 count=1'")?
            .fails()?;
        g.sh("$R update --l3-cache-schema L3:0=f update")?.fails()?.has("l3 cache schema is not enabled")?;
        g.sh("$R pause update && $R update --pids-limit 30 update && $R state update")?.ok()?.has("paused")?;
        g.end("update")
    }

    pub fn update_looks_before_it_leaps(g: &Guest) -> Result {
        g.start("check", |_| ())?.ok()?;
        let update = |json: &str| g.sh(&format!("echo '{json}' | $R update -r - check"));
        update("{\"memory\": {\"limit\": 1024, \"checkBeforeUpdate\": true}}")?
            .fails()?
            .has("rejecting memory limit")?;
        update("{\"memory\": {\"limit\": 1024, \"swap\": 2048, \"checkBeforeUpdate\": true}}")?
            .fails()?
            .has("rejecting memory+swap limit")?;
        g.sh("$R state check")?.ok()?.has("running")?;
        g.sh("$R update check --memory 1024; sleep 1; $R state check")?.ok()?.has("stopped")?;
        g.end("check")
    }

    pub fn stats_are_read(g: &Guest) -> Result {
        g.start("stats", |c| c["linux"]["resources"] = json!({"memory": {"limit": 33554432}, "pids": {"limit": 7}}))?
            .ok()?;
        let event = g.sh("$R events --stats stats")?.ok()?.json()?;
        ensure!(event["type"] == "stats" && event["id"] == "stats", "{event}");
        let data = &event["data"];
        ensure!(data["memory"]["usage"]["limit"] == 33554432, "{data}");
        ensure!(data["memory"]["usage"]["usage"].as_u64() > Some(0), "{data}");
        ensure!(data["pids"] == json!({"current": 1, "limit": 7}), "{data}");
        ensure!(data["cpu"]["usage"]["total"].as_u64() > Some(0), "{data}");
        ensure!(data["hugetlb"]["2MB"]["failcnt"] == 0, "{data}");
        g.end("stats")
    }

    pub fn lack_of_memory_is_told(g: &Guest) -> Result {
        g.start("oom", |c| c["linux"]["resources"] = json!({"memory": {"limit": 16777216, "swap": 16777216}}))?.ok()?;
        g.sh("$R events --interval 100ms oom >log 2>&1 & echo $! >pid; sleep 1; $R exec oom dd if=/dev/zero of=/dev/null bs=64M count=1; \
              i=0; until grep -q oom.*oom log || [ $i = 50 ]; do sleep 0.1; i=$((i+1)); done; \
              $R delete -f oom; i=0; while kill -0 $(cat pid) 2>/dev/null && [ $i != 50 ]; do sleep 0.1; i=$((i+1)); done; \
              kill $(cat pid) 2>/dev/null && echo still there; cat log")?
            .with("{\"type\":\"oom\",\"id\":\"oom\"}")?
            .with("{\"type\":\"stats\",\"id\":\"oom\",\"data\":{")?
            .without("still there")?;
        g.end("oom")
    }
}
