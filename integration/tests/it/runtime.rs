//! `pier-runtime`, one test per way in which a runtime on libcontainer could go wrong. Where the behaviour is everybody's,
//! the same function runs against Debian's runc: that tests the test.
use anyhow::{Context, ensure};
use integration::{Bed, Outcome, Result, isolated};
use serde_json::{Value, json};

pub(crate) const PIER: &str = "pier-runtime";
pub(crate) const RUNC: &str = "/usr/sbin/runc";

/// A bundle `<dir>/<name>` with busybox that runs `args`, its configuration changed by `change`.
pub(crate) fn bundle(bed: &Bed, name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Result {
    let dir = bed.dir().join(name);
    bed.fixture().bundle(&dir, args)?;
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["root"]["readonly"] = json!(false);
    change(&mut config);
    std::fs::write(path, serde_json::to_vec(&config)?)?;
    Ok(())
}

/// A script with `$R` as the runtime on a state directory of the bed.
pub(crate) fn sh(bed: &Bed, rt: &str, script: &str) -> Result<Outcome> {
    bed.sh(&format!("R() {{ {rt} --root $PWD/state \"$@\"; }}\n{script}"))
}

pub(crate) fn namespaces(config: &mut Value) -> Result<&mut Vec<Value>> {
    config["linux"]["namespaces"].as_array_mut().context("namespaces")
}

/// The named functions as tests against ours and against runc.
macro_rules! both {
    ($($test:ident;)*) => {
        mod pier { use super::*; $(#[test] fn $test() -> Result { isolated!(|bed| super::$test(bed, PIER)) })* }
        mod runc { use super::*; $(#[test] fn $test() -> Result { isolated!(|bed| super::$test(bed, RUNC)) })* }
    };
}

both! {
    lifecycle;
    exit_codes;
    exec_keeps_seccomp;
    exec_enters_the_user_namespace;
    exec_inherits;
    no_capabilities_means_none;
    kill_leaves_the_status_alone;
    cgroups_are_read_only;
    propagation_is_applied;
    shared_pid_namespace_is_killed_whole;
    hooks_run_in_order;
}

fn lifecycle(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |_| ())?;
    sh(bed, rt, "R state one")?.fails()?.has("does not exist")?;
    sh(bed, rt, "R create --bundle b --pid-file pid one </dev/null >out 2>&1; cat out")?.ok()?;
    let state = sh(bed, rt, "R state one")?.ok()?.json()?;
    ensure!(state["status"] == "created" && state["pid"] == bed.sh("cat pid")?.out().parse::<i64>()?, "{state}");
    sh(bed, rt, "R create --bundle b one </dev/null 2>&1")?.fails()?.has("exist")?;
    sh(bed, rt, "R start one && R list && R list -q && R list --format json && R ps --format json one")?
        .ok()?
        .has("running")?;
    sh(bed, rt, "R start one")?.fails()?;
    sh(bed, rt, "R delete one")?.fails()?;
    sh(bed, rt, "R pause one && R state one")?.ok()?.has("paused")?;
    sh(bed, rt, "R exec one true")?.fails()?.has("paused")?;
    sh(bed, rt, "R resume one && R exec one true && R kill one KILL && while kill -0 $(cat pid) 2>/dev/null; do sleep 0.05; done; R state one")?
        .ok()?
        .has("stopped")?;
    sh(bed, rt, "R kill one TERM")?.fails()?.has("not running")?;
    sh(bed, rt, "R delete one && R state one")?.fails()?.has("does not exist")?;
    sh(bed, rt, "R delete --force one")?.ok()?;
    Ok(())
}

fn exit_codes(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sh", "-c", "exit 7"], |_| ())?;
    sh(bed, rt, "R run --bundle b one </dev/null")?.exits(7)?;
    bundle(bed, "s", &["sh", "-c", "kill -9 $$; sleep 1"], |c| {
        c["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}])
    })?;
    sh(bed, rt, "R run --bundle s two </dev/null")?.exits(137)?;
    bundle(bed, "n", &["no-such-program"], |_| ())?;
    sh(bed, rt, "R create --bundle n three </dev/null 2>&1")?.fails()?.has("executable file not found in $PATH")?;
    bundle(bed, "p", &["/etc/passwd"], |_| ())?;
    sh(bed, rt, "R create --bundle p four </dev/null 2>&1")?.fails()?.has("permission denied")?;
    sh(bed, rt, "R list -q")?.ok()?.exits(0)?.out().is_empty().then_some(()).context("a failed create left its state")
}

fn exec_keeps_seccomp(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    })?;
    sh(bed, rt, "R run -d --bundle b one </dev/null >out 2>&1; R exec one sh -c 'grep Seccomp: /proc/self/status; mkdir /tmp/x 2>&1'")?
        .fails()?
        .with("Seccomp:\t2")?
        .has("not permitted")?;
    sh(bed, rt, "R delete -f one")?.ok()?;
    Ok(())
}

fn exec_enters_the_user_namespace(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |c| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        if let Ok(list) = namespaces(c) {
            list.push(json!({"type": "user"}));
        }
    })?;
    bed.sh("chmod 755 . && chown -R 100000:100000 b/rootfs")?.ok()?;
    sh(
        bed,
        rt,
        "R run -d --bundle b one </dev/null >out 2>&1 || cat out; R exec one sh -c 'cat /proc/self/uid_map; id -u'",
    )?
    .ok()?
    .with("100000")?
    .has("0\n")?;
    let inside = sh(bed, rt, "R exec one readlink /proc/self/ns/user")?.ok()?;
    ensure!(inside.out() != bed.sh("readlink /proc/self/ns/user")?.out(), "exec is in the host's user namespace");
    sh(bed, rt, "R delete -f one")?.ok()?;
    Ok(())
}

fn exec_inherits(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |c| {
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 6]});
        c["process"]["cwd"] = json!("/tmp");
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 222, "hard": 333}]);
    })?;
    sh(bed, rt, "R run -d --bundle b one </dev/null >out 2>&1; R exec one sh -c 'echo $(id -u) $(id -G) $(pwd) $(ulimit -n) $(ulimit -Hn)'")?
        .ok()?
        // runc 1.1's own runtime may raise the soft limit before the exec: only ours is held to it.
        .has(if rt == PIER { "1000 1000 5 6 /tmp 222 333" } else { "1000 1000 5 6 /tmp" })?;
    sh(bed, rt, "R exec --user 0:0 --cwd /root --env A=b one sh -c 'echo $(id -u) $(pwd) $A'; R delete -f one")?
        .ok()?
        .has("0 /root b")
}

fn no_capabilities_means_none(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["grep", "Cap", "/proc/self/status"], |c| {
        if let Some(process) = c["process"].as_object_mut() {
            process.remove("capabilities");
        }
    })?;
    let out = sh(bed, rt, "R run --bundle b one </dev/null")?.ok()?;
    ensure!(out.stdout.lines().all(|l| l.ends_with("0000000000000000")), "{out}");
    Ok(())
}

fn kill_leaves_the_status_alone(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |_| ())?;
    sh(bed, rt, "R create --bundle b one </dev/null >out 2>&1; R kill one USR1; R state one")?.ok()?.has("created")?;
    sh(bed, rt, "R start one && R pause one && R kill one USR1; R state one")?.ok()?.has("paused")?;
    sh(bed, rt, "R resume one && R state one; R delete -f one")?.ok()?.has("running")
}

// runc 1.1 only warns of a foreign process in the cgroup.
#[test]
fn a_cgroup_in_use_is_refused() -> Result {
    isolated!(|bed| cgroup_in_use(bed, PIER))
}

fn cgroup_in_use(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["true"], |c| c["linux"]["cgroupsPath"] = json!("/used"))?;
    bed.sh("mkdir /sys/fs/cgroup/pids/used; sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >pid; echo $! >/sys/fs/cgroup/pids/used/cgroup.procs")?.ok()?;
    sh(bed, rt, "R run --bundle b one </dev/null 2>&1")?.fails()?.has("not empty")?;
    bed.sh("kill -0 $(cat pid) && kill $(cat pid); sleep 0.2; rmdir /sys/fs/cgroup/*/used 2>/dev/null; mkdir /sys/fs/cgroup/freezer/used && echo FROZEN >/sys/fs/cgroup/freezer/used/freezer.state")?
        .ok()
        .context("the process in the foreign cgroup must survive")?;
    sh(bed, rt, "timeout 20 R run --bundle b one </dev/null 2>&1 || R run --bundle b one </dev/null 2>&1")?
        .fails()?
        .has("frozen")?;
    bed.sh("echo THAWED >/sys/fs/cgroup/freezer/used/freezer.state 2>/dev/null; rmdir /sys/fs/cgroup/*/used; true")?
        .ok()?;
    Ok(())
}

fn cgroups_are_read_only(bed: &Bed, rt: &str) -> Result {
    let script =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; echo 99999999 >/sys/fs/cgroup/memory/memory.limit_in_bytes";
    bundle(bed, "b", &["sh", "-c", script], |c| {
        c["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
        c["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}]);
    })?;
    sh(bed, rt, "R run --bundle b one </dev/null 2>&1")?.fails()?.with("33554432")?.has("Read-only file system")
}

fn propagation_is_applied(bed: &Bed, rt: &str) -> Result {
    bed.sh("mkdir src")?.ok()?;
    let source = bed.dir().join("src");
    bundle(bed, "b", &["cat", "/proc/self/mountinfo"], |c| {
        if let Some(mounts) = c["mounts"].as_array_mut() {
            mounts.push(json!({"destination": "/sh", "type": "bind", "source": source, "options": ["bind", "shared"]}));
            mounts
                .push(json!({"destination": "/pr", "type": "bind", "source": source, "options": ["bind", "private"]}));
        }
    })?;
    let out = sh(bed, rt, "R run --bundle b one </dev/null")?.ok()?;
    let line = |at: &str| out.stdout.lines().find(|l| l.split(' ').nth(4) == Some(at)).unwrap_or_default().to_owned();
    ensure!(line("/sh").contains("shared:") && !line("/pr").contains("shared:"), "{out}");
    Ok(())
}

fn shared_pid_namespace_is_killed_whole(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sh", "-c", "sleep 4321 & sleep 4321 & wait"], |c| {
        if let Ok(list) = namespaces(c) {
            list.retain(|ns| ns["type"] != "pid");
        }
    })?;
    sh(bed, rt, "R run -d --bundle b one </dev/null >out 2>&1; sleep 0.3; R delete --force one; sleep 0.3; pgrep -f 'sleep 4321'")?.fails()?;
    Ok(())
}

fn hooks_run_in_order(bed: &Bed, rt: &str) -> Result {
    bed.sh("printf '#!/bin/sh\\nread -r s; echo \"$1 $(echo \"$s\" | grep -o '\\''\"status\": *\"[a-z]*\"'\\'')\" >>'$PWD'/order\\n' >hook && chmod +x hook")?.ok()?;
    let hook = bed.dir().join("hook");
    let one = |name: &str| json!([{"path": hook, "args": ["hook", name]}]);
    bundle(bed, "b", &["true"], |c| {
        c["hooks"] = json!({"createRuntime": one("createRuntime"), "createContainer": one("createContainer"),
            "poststart": one("poststart"), "poststop": one("poststop")});
    })?;
    sh(bed, rt, "R create --bundle b one </dev/null >out 2>&1 && R start one; sleep 0.2; R delete one || R delete -f one; cut -d' ' -f1 order | tr '\\n' ' '")?
        .ok()?
        .has("createRuntime createContainer poststart poststop")
}

#[test]
fn dangerous_cgroup_paths_are_refused() -> Result {
    isolated!(|bed| {
        let [root, dots] = ["is the root of the hierarchy", "has \"..\""];
        for (path, why) in [("/", root), ("..", dots), ("/a/../..", dots), ("//", root), ("/.", root)] {
            bundle(bed, "b", &["true"], |c| c["linux"]["cgroupsPath"] = json!(path))?;
            sh(bed, PIER, "R run --bundle b one 2>&1; rc=$?; rm -rf b; exit $rc")?.exits(1)?.has(why)?;
        }
        // The runtime's own cgroup, and one above it.
        bed.sh("for d in /sys/fs/cgroup/*/; do mkdir -p $d/up/own; done; for f in cpus mems; do for d in up up/own; do cat /sys/fs/cgroup/cpuset/cpuset.$f >/sys/fs/cgroup/cpuset/$d/cpuset.$f; done; done")?.ok()?;
        for path in ["/up", "/up/own"] {
            bundle(bed, "b", &["true"], |c| c["linux"]["cgroupsPath"] = json!(path))?;
            sh(bed, PIER, "echo $$ >/sys/fs/cgroup/pids/up/own/cgroup.procs; R run --bundle b one 2>&1; rc=$?; echo $$ >/sys/fs/cgroup/pids/cgroup.procs; rm -rf b; echo alive; exit $rc")?
                .exits(1)?
                .with("alive")?
                .has("the runtime itself is in")?;
        }
        bed.sh("rmdir /sys/fs/cgroup/*/up/own /sys/fs/cgroup/*/up")?.ok()?;
        Ok(())
    })
}

#[test]
fn a_reused_pid_is_not_the_container() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sleep", "1000"], |_| ())?;
        sh(bed, PIER, "R run -d --bundle b one </dev/null >out 2>&1; cp state/one/state.json keep; sed -i 's/\"init\":{\"pid\":\\([0-9]*\\),\"start_time\":/&1/' state/one/state.json; R state one")?.ok()?.has("stopped")?;
        sh(bed, PIER, "R kill one KILL")?.fails()?.has("not running")?;
        sh(bed, PIER, "R exec one true")?.fails()?.has("not running")?;
        sh(bed, PIER, "cp keep state/one/state.json; R state one; R delete -f one")?.ok()?.has("running")
    })
}

#[test]
fn readers_never_see_half_a_state() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["true"], |_| ())?;
        sh(bed, PIER, "(while [ ! -e stop ]; do R state one >s 2>e && grep -q status s || grep -q 'does not exist' e || { cat s e >>bad; }; done) & \
             for i in 1 2 3 4 5 6 7 8 9 10; do R create --bundle b one </dev/null >out 2>&1 && R start one; R delete -f one; done; \
             strace -f -o trace -e trace=write -e inject=write:delay_enter=20000 pier-runtime --root state run --bundle b one </dev/null >out 2>&1; touch stop; wait; cat bad 2>/dev/null | head; [ ! -e bad ]")?
            .ok()?;
        Ok(())
    })
}

#[test]
fn limits_of_one_process_and_one_megabyte() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["true"], |c| {
            c["linux"]["resources"] = json!({"pids": {"limit": 1}, "memory": {"limit": 1_048_576}})
        })?;
        sh(bed, PIER, "R run --bundle b one </dev/null 2>&1")?.ok()?;
        Ok(())
    })
}

#[test]
fn unsafe_configurations_are_refused() -> Result {
    isolated!(|bed| {
        type Case = (&'static str, fn(&mut Value));
        let cases: [Case; 3] = [
            ("inside /proc", |c| {
                c["mounts"] = json!([{"destination": "/proc/self/attr", "type": "tmpfs", "source": "t"}])
            }),
            ("host's root", |c| c["root"]["path"] = json!("/")),
            ("process.args", |c| c["process"]["args"] = json!([])),
        ];
        for (what, change) in cases {
            bundle(bed, "b", &["true"], change)?;
            sh(bed, PIER, "R run --bundle b one 2>&1; rc=$?; rm -rf b; exit $rc")?.exits(1)?.has(what)?;
        }
        bed.sh("[ -z \"$(ls state 2>/dev/null)\" ]")?.ok()?;
        Ok(())
    })
}

#[test]
fn an_image_cannot_redirect_dev() -> Result {
    isolated!(|bed| {
        for (place, target) in [("dev", "host"), ("proc", "host"), ("sys", "host")] {
            bundle(bed, "b", &["true"], |c| c["mounts"] = json!([]))?;
            bed.sh(&format!(
                "mkdir -p host; echo keep >host/ptmx; rm -rf b/rootfs/{place}; ln -s $PWD/{target} b/rootfs/{place}"
            ))?
            .ok()?;
            sh(bed, PIER, "R run --bundle b one 2>&1; rc=$?; rm -rf b; exit $rc")?
                .fails()?
                .has("is not a directory")?;
            bed.sh("[ \"$(ls host)\" = ptmx ] && [ \"$(cat host/ptmx)\" = keep ]")?
                .ok()
                .context("the host's directory was written to")?;
        }
        Ok(())
    })
}

#[test]
fn flags_stand_anywhere() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sh", "-c", "exit 5"], |_| ())?;
        for line in [
            "run --bundle b one",
            "run one --bundle b",
            "run one --bundle=b",
            "run -b b one",
            "run -bundle b one -no-subreaper",
        ] {
            sh(bed, PIER, &format!("R {line} </dev/null"))?.exits(5)?;
        }
        sh(bed, PIER, "R create one --nope")?.exits(1)?.has("--nope")?;
        sh(bed, PIER, "pier-runtime --version")?.ok()?.with("pier-runtime version")?.has("spec: 1.3")?;
        ensure!(sh(bed, PIER, "R features")?.ok()?.json()?["linux"]["seccomp"]["enabled"] == true, "features");
        sh(bed, PIER, "mkdir s && cd s && pier-runtime spec && pier-runtime spec")?.fails()?.has("exists")
    })
}

#[test]
fn a_failure_logs_exactly_one_object() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["nope"], |c| {
            c["process"]["capabilities"] = json!({"bounding": ["CAP_NEVER_HEARD_OF"]});
        })?;
        let out = sh(
            bed,
            PIER,
            "pier-runtime --root state --log log --log-format json create --bundle b one </dev/null >o 2>&1; cat log",
        )?;
        let log = out.json()?;
        ensure!(
            log["level"] == "error"
                && log["msg"].as_str().is_some_and(|m| m.contains("executable file not found"))
                && log["time"].is_string(),
            "{log}"
        );
        Ok(())
    })
}

#[test]
fn a_killed_create_can_be_cleaned_up() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sleep", "1000"], |c| {
            c["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1"]}]})
        })?;
        sh(bed, PIER, "pier-runtime --root state create --bundle b one </dev/null >out 2>&1 & p=$!; sleep 0.5; R state one; kill -9 $p; wait; sleep 0.3; R state one")?
            .with("creating")?
            .has("stopped")?;
        sh(bed, PIER, "R delete --force one && [ -z \"$(ls state)\" ]; sleep 1; pgrep -f pier-runtime")?.fails()?;
        Ok(())
    })
}

#[test]
fn the_runtimes_own_file_is_out_of_reach() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sleep", "1000"], |_| ())?;
        // As the exploit does: hold it open while it runs, and write to it when it does not run any more.
        // A file of its own: while another test runs the program, nobody could write to it anyway.
        let rt = "./mine";
        sh(
            bed,
            rt,
            "cp $(command -v pier-runtime) mine; R create --bundle b --pid-file pid one </dev/null >out 2>&1; \
                     exec 9</proc/$(cat pid)/exe; R delete -f one; (echo broken >/proc/self/fd/9) 2>&1",
        )?
        .fails()?
        .has("Read-only file system")?;
        bed.sh("cmp mine $(command -v pier-runtime)")?.ok().map(drop)
    })
}

#[test]
fn descriptors_and_terminals() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; cat <&3"], |_| ())?;
        sh(bed, PIER, "echo passed >f; R run --preserve-fds 1 --bundle b one 3<f 4<f 5<f </dev/null")?
            .ok()?
            .with("passed")?
            .without("5 ")?;
        sh(bed, PIER, "R run --preserve-fds 9 --bundle b one </dev/null 2>&1")?.fails()?.has("is not open")?;
        bundle(bed, "t", &["sh", "-c", "tty; test -t 0; exit 9"], |c| c["process"]["terminal"] = json!(true))?;
        sh(bed, PIER, "script -qec 'pier-runtime --root state run --bundle t two' /dev/null </dev/null")?
            .exits(9)?
            .has("/dev/pts/0")?;
        sh(bed, PIER, "R create --bundle t three </dev/null 2>&1")?.fails()?.has("console socket")
    })
}

#[test]
fn over_grpc() -> Result {
    isolated!(|bed| {
        use api::runtime::v1::runtime_service_client::RuntimeServiceClient;
        use api::runtime::v1::*;
        bundle(bed, "b", &["sh", "-c", "echo out; sleep 1000"], |_| ())?;
        bed.serve("runtime")?;
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio.block_on(async {
            let channel = rpc::connect(&bed.run().join("runtime.sock"), std::time::Duration::from_secs(5)).await?;
            let mut client = RuntimeServiceClient::new(channel);
            let id = || "one".to_string();
            let missing = client.state(StateRequest { id: id() }).await.err().context("an unknown id was found")?;
            ensure!(missing.code() == tonic::Code::NotFound, "{missing}");
            let request = CreateRequest {
                id: id(),
                bundle: bed.dir().join("b").display().to_string(),
                stdout: bed.dir().join("out").display().to_string(),
                ..Default::default()
            };
            std::fs::write(bed.dir().join("out"), "")?;
            let pid = client.create(request.clone()).await?.into_inner().pid;
            ensure!(client.create(request).await.is_err_and(|e| e.code() == tonic::Code::AlreadyExists), "created twice");
            client.start(StartRequest { id: id() }).await?;
            let state = client.state(StateRequest { id: id() }).await?.into_inner().state.context("state")?;
            ensure!(state.status == "running" && state.pid == pid, "{state:?}");
            let process = br#"{"args": ["sh", "-c", "echo more; sleep 1000"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}"#;
            let stdout = bed.dir().join("out").display().to_string();
            client.exec(ExecRequest { id: id(), process: process.to_vec(), stdout, ..Default::default() }).await?;
            integration::eventually(std::time::Duration::from_secs(5), || {
                let text = std::fs::read_to_string(bed.dir().join("out"))?;
                ensure!(text.contains("out") && text.contains("more"), "{text}");
                Ok(())
            })?;
            ensure!(client.ps(PsRequest { id: id() }).await?.into_inner().pids.len() >= 2, "ps");
            ensure!(client.delete(DeleteRequest { id: id(), force: false }).await.is_err(), "a running one was deleted");
            client.delete(DeleteRequest { id: id(), force: true }).await?;
            ensure!(client.list(ListRequest {}).await?.into_inner().containers.is_empty(), "list");
            Ok(())
        })
    })
}
