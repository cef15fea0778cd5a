//! Cgroups of `pier-runtime` on the hybrid machine that the tests run on: v1's controllers and the unified hierarchy beside
//! them. What needs cgroup v2 alone is in `tests/guest`.
use anyhow::{Context, ensure};
use integration::{Bed, Outcome, Result, isolated};
use serde_json::{Value, json};

use crate::runtime::bundle;

fn sh(bed: &Bed, script: &str) -> Result<Outcome> {
    bed.sh(&format!("R() {{ pier-runtime --root $PWD/state \"$@\"; }}; C=/sys/fs/cgroup\n{script}"))
}

/// A detached `sleep` with its cgroup at `/pier/<name>`.
fn start(bed: &Bed, name: &str, change: impl FnOnce(&mut Value)) -> Result<Outcome> {
    bundle(bed, name, &["sleep", "1000"], |c| {
        c["linux"]["cgroupsPath"] = json!(format!("/pier/{name}"));
        change(c);
    })?;
    sh(bed, &format!("R run -d --bundle {name} {name} </dev/null >out 2>&1; e=$?; cat out; exit $e"))
}

/// The value of a v1 file, or a message that this machine is another one.
fn v1(test: &str) -> bool {
    let there = std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
    if !there {
        println!("skipped: {test}: no cgroup v1 on this machine");
    }
    there
}

#[test]
fn every_hierarchy_is_joined() -> Result {
    isolated!(|bed| {
        start(bed, "all", |_| ())?.ok()?;
        let paths = sh(bed, "cat /proc/$(R state all | jq .pid)/cgroup")?.ok()?;
        for line in paths.out().lines() {
            // net_cls and the like are compiled in and mounted nowhere.
            let name = line.split(':').nth(1).unwrap_or_default().trim_start_matches("name=");
            let name = if name.is_empty() { "unified" } else { name };
            if std::path::Path::new("/sys/fs/cgroup").join(name).is_dir() {
                ensure!(line.ends_with("/pier/all"), "{line}");
            }
        }
        let inside =
            sh(bed, "R exec all cat /proc/self/cgroup | tail -1; tail -1 /proc/$(R state all | jq .pid)/cgroup")?
                .ok()?;
        let lines: Vec<&str> = inside.out().lines().collect();
        ensure!(lines.len() == 2, "{inside}");
        sh(bed, "R delete -f all; ls -d $C/*/pier/all 2>&1")?.fails()?;
        Ok(())
    })
}

#[test]
fn small_limits_do_not_stop_create() -> Result {
    isolated!(|bed| {
        for resources in [json!({"pids": {"limit": 1}}), json!({"memory": {"limit": 1_048_576}})] {
            bundle(bed, "small", &["true"], |c| c["linux"]["resources"] = resources.clone())?;
            sh(bed, "R run --bundle small small </dev/null && rm -r small")?.ok()?;
        }
        Ok(())
    })
}

#[test]
fn what_the_kernel_lacks_is_a_warning() -> Result {
    isolated!(|bed| {
        if !v1("what_the_kernel_lacks_is_a_warning") {
            return Ok(());
        }
        start(bed, "lacks", |c| {
            c["linux"]["resources"] = json!({"memory": {"kernel": 1_048_576, "disableOOMKiller": true},
                "cpu": {"burst": 0}, "blockIO": {"leafWeight": 20}});
        })?
        .ok()?
        .with("Kernel memory settings are ignored")?
        .has("this machine has no blkio.leaf_weight")?;
        sh(bed, "cat $C/memory/pier/lacks/memory.oom_control; R delete -f lacks")?.ok()?.has("oom_kill_disable 1")
    })
}

#[test]
fn cpusets_are_inherited_through_empty_parents() -> Result {
    isolated!(|bed| {
        sh(bed, "mkdir -p $C/cpuset/pier/pod 2>/dev/null || true")?.ok()?;
        bundle(bed, "box", &["true"], |c| c["linux"]["cgroupsPath"] = json!("/pier/pod/box"))?;
        sh(bed, "R run --bundle box box </dev/null")?.ok()?;
        sh(bed, "rmdir $C/cpuset/pier/pod 2>/dev/null || true")?.ok()?;
        Ok(())
    })
}

#[test]
fn a_cgroup_in_use_is_refused() -> Result {
    isolated!(|bed| {
        sh(bed, "d=$C/freezer/pier/used; mkdir -p $d; sleep 1000 >/dev/null 2>&1 & p=$!; echo $p >$C/freezer/pier/used/cgroup.procs; echo $p >pid")?
            .ok()?;
        start(bed, "used", |_| ())?.fails()?.has("container's cgroup is not empty")?;
        sh(bed, "kill -0 $(cat pid) && kill $(cat pid); sleep 0.1; echo FROZEN >$C/freezer/pier/used/freezer.state")?
            .ok()?;
        start_again(bed)?.fails()?.has("container's cgroup unexpectedly frozen")?;
        sh(bed, "echo THAWED >$C/freezer/pier/used/freezer.state")?.ok()?;
        start_again(bed)?.ok()?;
        sh(bed, "R delete -f used")?.ok()?;
        Ok(())
    })
}

fn start_again(bed: &Bed) -> Result<Outcome> {
    sh(bed, "R run -d --bundle used used </dev/null >out 2>&1; e=$?; cat out; exit $e")
}

#[test]
fn update_changes_what_is_named() -> Result {
    isolated!(|bed| {
        if !v1("update_changes_what_is_named") {
            return Ok(());
        }
        start(bed, "box", |c| {
            c["linux"]["resources"] = json!({"memory": {"limit": 33_554_432, "reservation": 25_165_824},
                "cpu": {"shares": 100, "quota": 500_000, "period": 1_000_000}, "pids": {"limit": 20}});
        })?
        .ok()?;
        let expect = |flags: &str, files: &[(&str, &str)]| -> Result {
            sh(bed, &format!("R update {flags} box"))?.ok()?;
            for (file, value) in files {
                let got = sh(bed, &format!("cat $C/{}/pier/box/{file}", file.split('.').next().unwrap_or("")))?.ok()?;
                ensure!(got.out() == *value, "after {flags}: {file} is {} instead of {value}", got.out());
            }
            Ok(())
        };
        expect(
            "--cpu-period 900000",
            &[("cpu.cfs_period_us", "900000"), ("cpu.cfs_quota_us", "500000"), ("pids.max", "20")],
        )?;
        expect(
            "--cpu-period 100000 --cpu-quota 30000 --cpu-burst 1000",
            &[("cpu.cfs_quota_us", "30000"), ("cpu.cfs_burst_us", "1000")],
        )?;
        expect(
            "--memory 50M --memory-swap 80M",
            &[("memory.limit_in_bytes", "52428800"), ("memory.memsw.limit_in_bytes", "83886080")],
        )?;
        // Up, past the old limit of both; down again below the old limit of one.
        expect("--memory 100M --memory-swap 120M", &[("memory.limit_in_bytes", "104857600")])?;
        expect("--memory 30M --memory-swap 40M", &[("memory.memsw.limit_in_bytes", "41943040")])?;
        expect(
            "--memory-reservation 20M",
            &[("memory.soft_limit_in_bytes", "20971520"), ("memory.limit_in_bytes", "31457280")],
        )?;
        expect("--pids-limit -1", &[("pids.max", "max")])?;
        sh(bed, "R update --kernel-memory 10M box 2>&1")?.ok()?.has("Kernel memory settings are ignored")?;
        sh(bed, "R update --memory 1x box 2>&1")?.fails()?.has("invalid value for memory")?;
        sh(bed, "R update --l3-cache-schema L3:0=f box 2>&1")?.fails()?.has("l3 cache schema is not enabled")?;
        // As Go's callers may spell it.
        sh(
            bed,
            "echo '{\"Pids\": {\"LIMIT\": 6}, \"later\": 1}' | R update -r - box && cat $C/pids/pier/box/pids.max && R update --pids-limit -1 box",
        )?
        .ok()?
        .has("6")?;
        sh(bed, "echo '{\"unified\": {\"pids.max\": \"5\"}}' | R update -r - box 2>&1")?
            .fails()?
            .has("invalid configuration")?;
        sh(bed, "echo '{\"memory\": {\"limit\": 4096, \"checkBeforeUpdate\": true}}' | R update -r - box 2>&1")?
            .fails()?
            .has("rejecting memory limit")?;
        let saved = sh(bed, "jq -c .linux.resources state/box/config.json")?.ok()?.json()?;
        ensure!(saved["memory"]["limit"] == 31_457_280 && saved["pids"]["limit"] == -1, "{saved}");
        ensure!(saved["cpu"]["shares"] == 100, "{saved}");
        sh(bed, "R delete -f box; R update --memory 1M box 2>&1")?.fails()?.has("does not exist")
    })
}

#[test]
fn events_and_the_killer() -> Result {
    isolated!(|bed| {
        if !v1("events_and_the_killer") {
            return Ok(());
        }
        start(bed, "box", |c| {
            c["linux"]["resources"] = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}, "pids": {"limit": 9}})
        })?
        .ok()?;
        let event = sh(bed, "R events --stats box")?.ok()?.json()?;
        let data = &event["data"];
        ensure!(event["type"] == "stats" && event["id"] == "box", "{event}");
        ensure!(
            data["memory"]["usage"]["limit"] == 16_777_216 && data["pids"] == json!({"current": 1, "limit": 9}),
            "{data}"
        );
        ensure!(
            data["cpu"]["usage"]["total"].as_u64() > Some(0) && data["cpu"]["usage"]["percpu"].is_array(),
            "{data}"
        );
        sh(bed, "R events --interval 50ms box >log & e=$!; sleep 0.3; R exec box dd if=/dev/zero of=/dev/null bs=64M count=1; \
                 for i in $(seq 100); do grep -q '\"oom\"' log && break; sleep 0.05; done; R delete -f box; wait $e; echo code $?; cat log")?
            .ok()?
            .with("code 0")?
            .with("{\"type\":\"oom\",\"id\":\"box\"}")?
            .has("{\"type\":\"stats\",\"id\":\"box\",\"data\":{")?;
        sh(bed, "R events --stats box 2>&1")?.fails()?.has("does not exist")?;
        Ok(())
    })
}

#[test]
fn ps_sees_sub_cgroups() -> Result {
    isolated!(|bed| {
        start(bed, "box", |c| c["process"]["args"] = json!(["sh", "-c", "sleep 1000 & wait"]))?.ok()?;
        sh(bed, "sleep 0.2; for d in $C/*/pier/box; do mkdir $d/below; \
                 cat $d/cpuset.cpus >$d/below/cpuset.cpus 2>/dev/null; cat $d/cpuset.mems >$d/below/cpuset.mems 2>/dev/null; \
                 echo $(tail -1 $d/cgroup.procs) >$d/below/cgroup.procs; done; R ps --format json box | jq length")?
            .ok()?
            .has("2")?;
        sh(bed, "R kill box KILL; for i in $(seq 50); do R state box | grep -q stopped && break; sleep 0.05; done; R ps box && R delete -f box")?
            .ok()?;
        Ok(())
    })
}

#[test]
fn systemd_that_is_not_there_is_named() -> Result {
    isolated!(|bed| {
        bundle(bed, "box", &["true"], |_| ())?;
        for flag in ["--systemd-cgroup", "--cgroup-manager=systemd"] {
            sh(bed, &format!("R {flag} run --bundle box box </dev/null 2>&1"))?
                .fails()?
                .has("systemd not running on this host, cannot use systemd cgroups manager")?;
        }
        sh(bed, "R --cgroup-manager=x run --bundle box box </dev/null 2>&1")?.fails()?.has("unknown cgroup manager")?;
        bundle(bed, "none", &["cat", "/proc/self/cgroup"], |c| c["linux"]["cgroupsPath"] = json!("/pier/none"))?;
        sh(bed, "R --cgroup-manager=disabled run --bundle none none </dev/null")?
            .ok()?
            .without("/pier/none")
            .map(|_| ())
    })
}

#[test]
fn huge_pages_are_limited_where_their_controller_is() -> Result {
    isolated!(|bed| {
        let places = sh(
            bed,
            "cat $C/cgroup.controllers $C/unified/cgroup.controllers 2>/dev/null; ls $C/hugetlb 2>/dev/null; true",
        )?;
        if !places.out().contains("hugetlb") {
            println!("skipped: huge_pages_are_limited_where_their_controller_is: no hugetlb controller");
            return Ok(());
        }
        let limits = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]});
        start(bed, "huge", |c| c["linux"]["resources"] = limits)?.ok()?;
        sh(bed, "cat $C/*/pier/huge/hugetlb.2MB.max $C/*/pier/huge/hugetlb.2MB.limit_in_bytes 2>/dev/null; true")?
            .ok()?
            .has("4194304")?;
        let event = sh(bed, "R events --stats huge")?.ok()?.json()?;
        ensure!(event["data"]["hugetlb"]["2MB"]["failcnt"] == 0, "{event}");
        sh(bed, "R delete -f huge")?.ok()?;
        Ok(())
    })
}

#[test]
fn an_ordinary_user_without_cgroups() -> Result {
    isolated!(|bed| {
        let rootless = |c: &mut Value| {
            let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
            c["linux"]["namespaces"] =
                json!([{"type": "mount"}, {"type": "pid"}, {"type": "user"}, {"type": "ipc"}, {"type": "uts"}]);
            c["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}]);
            c["linux"]["resources"] = json!({});
        };
        bundle(bed, "free", &["echo", "alive"], rootless)?;
        bundle(bed, "limited", &["echo", "alive"], |c| {
            rootless(c);
            c["linux"]["resources"] = json!({"pids": {"limit": 10}});
        })?;
        bed.sh("chown -R 1000:1000 . && chmod 755 . && cp $(command -v pier-runtime) rt && chmod 755 rt")?.ok()?;
        let run = |name: &str| {
            bed.sh(&format!(
                "setpriv --reuid 1000 --regid 1000 --clear-groups ./rt --root $PWD/state run --bundle {name} {name} </dev/null 2>&1"
            ))
        };
        run("free")?.ok()?.has("alive")?;
        run("limited")?.fails()?.has("limit")
    })
}

#[test]
fn limits_and_readings_over_grpc() -> Result {
    isolated!(|bed| {
        use api::runtime::v1::runtime_service_client::RuntimeServiceClient;
        use api::runtime::v1::*;
        if !v1("limits_and_readings_over_grpc") {
            return Ok(());
        }
        bed.serve("runtime")?;
        bundle(bed, "box", &["sleep", "1000"], |c| {
            c["linux"]["cgroupsPath"] = json!("/pier/box");
            c["linux"]["resources"] = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
        })?;
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio.block_on(async {
            let channel = rpc::connect(&bed.run().join("runtime.sock"), std::time::Duration::from_secs(5)).await?;
            let mut client = RuntimeServiceClient::new(channel);
            let id = || "box".to_owned();
            let missing = client.pause(PauseRequest { id: id() }).await.err().context("an unknown id was paused")?;
            ensure!(missing.code() == tonic::Code::NotFound, "{missing}");
            let path = bed.dir().join("box").display().to_string();
            client.create(CreateRequest { id: id(), bundle: path, ..Default::default() }).await?;
            client.start(StartRequest { id: id() }).await?;

            client.pause(PauseRequest { id: id() }).await?;
            let state = client.state(StateRequest { id: id() }).await?.into_inner().state.context("state")?;
            ensure!(state.status == "paused", "{state:?}");
            let again = client.pause(PauseRequest { id: id() }).await.err().context("paused twice")?;
            ensure!(again.code() == tonic::Code::FailedPrecondition, "{again}");
            client.resume(ResumeRequest { id: id() }).await?;
            let again = client.resume(ResumeRequest { id: id() }).await.err().context("resumed twice")?;
            ensure!(again.code() == tonic::Code::FailedPrecondition, "{again}");

            let resources = br#"{"pids": {"limit": 7}, "memory": {"kernel": 4096}}"#.to_vec();
            let update = UpdateRequest { id: id(), resources, ..Default::default() };
            let warnings = client.update(update.clone()).await?.into_inner().warnings;
            ensure!(warnings.iter().any(|w| w.contains("Kernel memory settings are ignored")), "{warnings:?}");
            let wrong = UpdateRequest { resources: b"{".to_vec(), ..update };
            let wrong = client.update(wrong).await.err().context("half an object was taken")?;
            ensure!(wrong.code() == tonic::Code::InvalidArgument, "{wrong}");
            let stats = client.stats(StatsRequest { id: id() }).await?.into_inner().stats;
            let stats: Value = serde_json::from_slice(&stats)?;
            ensure!(stats["pids"] == json!({"current": 1, "limit": 7}), "{stats}");

            let mut events = client.events(EventsRequest { id: id(), interval_ms: 50 }).await?.into_inner();
            let first = events.message().await?.context("no event")?;
            let reading: Value = serde_json::from_slice(&first.data)?;
            ensure!(first.r#type == "stats" && reading["pids"]["limit"] == 7, "{first:?}");
            sh(
                bed,
                "pier-runtime --root $PIER_RUN/runtime exec box dd if=/dev/zero of=/dev/null bs=64M count=1; true",
            )?;
            while events.message().await?.context("ended without oom")?.r#type != "oom" {}
            // A caller that goes away takes its watcher along.
            drop(client.events(EventsRequest { id: id(), interval_ms: 3_600_000 }).await?);
            client.delete(DeleteRequest { id: id(), force: true }).await?;
            while events.message().await?.is_some() {}
            Ok::<_, anyhow::Error>(())
        })
    })
}
