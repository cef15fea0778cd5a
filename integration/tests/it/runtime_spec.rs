//! `pier-runtime`: what a configuration may ask for (runtime-spec 1.3), seen from inside the container.
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};
use serde_json::{Value, json};

use crate::runtime::{PIER, bundle, namespaces, sh};

fn add_mounts(config: &mut Value, mounts: &[Value]) {
    if let Some(list) = config["mounts"].as_array_mut() {
        list.extend(mounts.iter().cloned());
    }
}

/// A user namespace whose root is the host's 100000.
fn own_users(config: &mut Value) {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    if let Ok(list) = namespaces(config) {
        list.push(json!({"type": "user"}));
    }
}

/// Runs a bundle of that configuration with `sh -c script` and returns what it says.
fn output(bed: &Bed, script: &str, change: impl FnOnce(&mut Value)) -> Result<integration::Outcome> {
    bundle(bed, "b", &["sh", "-c", script], change)?;
    bed.sh("chmod 755 . && if grep -q uidMappings b/config.json; then chown -R 100000:100000 b/rootfs; fi")?.ok()?;
    sh(bed, PIER, "R run --bundle b one </dev/null 2>&1; rc=$?; rm -rf b; exit $rc")
}

#[test]
fn ids_of_a_mount_are_mapped() -> Result {
    isolated!(|bed| {
        bed.sh("mkdir -m 700 hidden; mkdir -p hidden/src/sub; cd hidden; touch src/f src/sub/f; chown 100:200 src/f src/sub/f; mount --bind src/sub src/sub")?.ok()?;
        let source = bed.dir().join("hidden/src");
        let mount = |word: &str, to: u32| {
            let map = |from: u32| json!([{"containerID": from, "hostID": to + from, "size": 10}]);
            json!({"destination": "/m", "source": source, "options": ["rbind", word],
                "uidMappings": map(100), "gidMappings": map(200)})
        };
        let script = "stat -c %u:%g /m/f /m/sub/f | tr '\\n' ' '";
        for (word, to, user, want) in [
            ("idmap", 1000, false, "1100:1200 100:200"),
            ("ridmap", 1000, false, "1100:1200 1100:1200"),
            ("idmap", 101_000, true, "1100:1200 65534:65534"),
            ("ridmap", 101_000, true, "1100:1200 1100:1200"),
        ] {
            let out = output(bed, script, |c| {
                if user {
                    own_users(c);
                }
                add_mounts(c, &[mount(word, to)]);
            })?;
            out.ok().with_context(|| format!("{word} {user}"))?.has(want)?;
        }
        // The container's own mapping, and a write through it.
        output(bed, "stat -c %u /m/f; touch /m/new", |c| {
            own_users(c);
            add_mounts(c, &[json!({"destination": "/m", "source": source, "options": ["rbind", "ridmap", "shared"]})]);
        })?
        .ok()?
        .has("100")?;
        bed.sh("stat -c %u hidden/src/new")?.ok()?.has("0")?;
        output(bed, "true", |c| {
            let map = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
            add_mounts(c, &[json!({"destination": "/m", "source": "/sys", "options": ["bind"], "uidMappings": map, "gidMappings": map})]);
        })?
        .fails()?
        .with("cannot map the ids of /sys")?;
        output(bed, "true", |c| {
            add_mounts(c, &[json!({"destination": "/m", "source": "/tmp", "options": ["bind", "idmap"]})])
        })?
        .fails()?
        .with("user namespace")?;
        bed.sh("umount hidden/src/sub")?.ok()?;
        Ok(())
    })
}

#[test]
fn bind_flags_are_runcs() -> Result {
    isolated!(|bed| {
        bed.sh(
            "mkdir src; mount -t tmpfs -o mode=755 tmpfs src; mount --bind -o remount,ro,noexec,nosuid,noatime src",
        )?
        .ok()?;
        let flags = |options: &[&str], users: bool| {
            output(bed, "grep ' /m ' /proc/mounts | cut -d' ' -f4", |c| {
                if users {
                    own_users(c);
                }
                add_mounts(c, &[json!({"destination": "/m", "source": bed.dir().join("src"), "options": options})]);
            })
        };
        // (options, in a user namespace, what must be among the flags, what must not)
        type Case<'a> = (&'a [&'a str], bool, &'a [&'a str], &'a [&'a str]);
        let cases: [Case; 8] = [
            (&["bind"], false, &["ro", "noexec", "nosuid", "noatime"], &["rw"]),
            (&["rbind", "rprivate"], true, &["ro", "noexec", "nosuid"], &["rw"]),
            (&["bind", "rw", "dev"], false, &["rw", "noatime"], &["noexec", "nosuid"]),
            (&["bind", "nodev"], false, &["rw", "nodev"], &["noexec", "nosuid"]),
            (&["bind", "nodev"], true, &["ro", "nodev", "noexec", "nosuid"], &["rw"]),
            (&["bind", "strictatime", "nosymfollow"], false, &["nosymfollow"], &["noatime", "relatime"]),
            (
                &["rbind", "rro", "rnosuid", "rnodev", "rrelatime"],
                false,
                &["ro", "nosuid", "nodev", "relatime"],
                &["noatime"],
            ),
            (&["rbind", "rrw", "rexec", "rsuid"], false, &["rw"], &["noexec", "nosuid", "ro"]),
        ];
        for (options, users, with, without) in cases {
            let out = flags(options, users)?.ok()?;
            let found: Vec<&str> = out.out().split(',').collect();
            ensure!(with.iter().all(|w| found.contains(w)), "{options:?}: {found:?} without one of {with:?}");
            ensure!(!without.iter().any(|w| found.contains(w)), "{options:?}: {found:?} with one of {without:?}");
        }
        for options in [["bind", "rw"], ["bind", "exec"], ["bind", "relatime"]] {
            flags(&options, true)?.fails().with_context(|| format!("{options:?}"))?.has("operation not permitted")?;
        }
        bed.sh("umount src")?.ok()?;
        Ok(())
    })
}

#[test]
fn new_file_systems() -> Result {
    isolated!(|bed| {
        bundle(
            bed,
            "b",
            &[
                "sh",
                "-c",
                "stat -c %a /inherit /explicit /made/x/y; cat /up/dir/file; stat -c %a:%u /up/dir; touch /up/no 2>&1; \
            grep -E ' /(up|sync|re|nf|dev) ' /proc/mounts",
            ],
            |c| {
                add_mounts(
                    c,
                    &[
                        json!({"destination": "/inherit", "type": "tmpfs", "source": "t", "options": ["nodev"]}),
                        json!({"destination": "/explicit", "type": "tmpfs", "source": "t", "options": ["mode=1500"]}),
                        json!({"destination": "/made/x/y", "type": "tmpfs", "source": "t"}),
                        json!({"destination": "/up", "type": "tmpfs", "source": "t", "options": ["ro", "tmpcopyup"]}),
                        json!({"destination": "/sync", "type": "tmpfs", "source": "t", "options": ["sync", "dirsync", "noatime"]}),
                        json!({"destination": "/re", "type": "tmpfs", "source": "t"}),
                        json!({"destination": "/re", "type": "tmpfs", "source": "t", "options": ["remount", "ro", "nosuid", "size=8k"]}),
                        json!({"destination": "/nf", "type": "tmpfs", "source": "t", "options": ["nosymfollow", "defaults", "async"]}),
                    ],
                );
                if let Some(dev) =
                    c["mounts"].as_array_mut().and_then(|m| m.iter_mut().find(|m| m["destination"] == "/dev"))
                {
                    dev["options"] = json!(["nosuid", "ro", "mode=755"]);
                }
            },
        )?;
        bed.sh("cd b/rootfs; mkdir -m 0710 inherit explicit; mkdir -p up/dir; echo copied >up/dir/file; chmod 2770 up/dir; chown 7 up/dir")?.ok()?;
        let out = sh(bed, PIER, "R run --bundle b one </dev/null")?.ok()?;
        for want in [
            "710\n1500\n1777\ncopied\n2770:7\n",
            "Read-only file system",
            "/up tmpfs ro,",
            "sync",
            "relatime,nosymfollow",
            "/dev tmpfs ro,nosuid",
        ] {
            ensure!(out.stdout.contains(want), "{want}: {out}");
        }
        let line =
            |at: &str| out.stdout.lines().find(|l| l.split(' ').nth(1) == Some(at)).unwrap_or_default().to_owned();
        ensure!(line("/sync").contains("sync,") && line("/sync").contains("noatime"), "{out}");
        ensure!(line("/re").contains("ro,nosuid") && line("/re").contains("size=8k"), "{out}");
        Ok(())
    })
}

#[test]
fn sources_are_relative_to_the_bundle() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["cat", "/m/f", "/n/f"], |c| {
            let inside = bed.dir().join("b/rootfs/m");
            let destination = bed.dir().join("b/rootfs/n");
            add_mounts(
                c,
                &[
                    json!({"destination": "m", "type": "bind", "source": "data", "options": ["rbind"]}),
                    // What was mounted just now, under the host's name.
                    json!({"destination": destination, "type": "bind", "source": inside, "options": ["rbind"]}),
                ],
            );
        })?;
        sh(bed, PIER, "mkdir b/data; echo found >b/data/f; R run --bundle b one </dev/null")?.ok()?.has("found\nfound")
    })
}

#[test]
fn propagation_of_the_root() -> Result {
    isolated!(|bed| {
        for (wanted, kind) in [("shared", "shared:"), ("private", " - "), ("slave", ""), ("unbindable", "unbindable")] {
            let out = output(bed, "grep ' / / ' /proc/self/mountinfo || head -1 /proc/self/mountinfo", |c| {
                c["linux"]["rootfsPropagation"] = json!(wanted)
            })?;
            out.ok().with_context(|| wanted.to_string())?.has(kind)?;
        }
        output(bed, "true", |c| c["linux"]["rootfsPropagation"] = json!("sideways"))?.fails()?.with("sideways")?;
        Ok(())
    })
}

/// Each kind of an existing container's namespaces by path, alone and together.
#[test]
fn namespaces_are_joined() -> Result {
    isolated!(|bed| {
        bundle(bed, "a", &["sleep", "1000"], |c| {
            own_users(c);
            if let Ok(list) = namespaces(c) {
                list.push(json!({"type": "time"}));
                if !list.iter().any(|ns| ns["type"] == "cgroup") {
                    list.push(json!({"type": "cgroup"}));
                }
            }
            c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1000, "nanosecs": 0}});
        })?;
        bed.sh("chmod 755 . && chown -R 100000:100000 a/rootfs")?.ok()?;
        sh(bed, PIER, "R run -d --pid-file pid --bundle a a </dev/null >out 2>&1; cat out")?.ok()?;
        let pid = bed.sh("cat pid")?.out().to_owned();
        let file = |kind: &str| match kind {
            "network" => "net".to_owned(),
            "mount" => "mnt".to_owned(),
            other => other.to_owned(),
        };
        let host = bed.sh("readlink /proc/self/ns/*")?.stdout;
        let theirs = bed.sh(&format!("readlink /proc/{pid}/ns/*"))?.stdout;
        let all = ["network", "ipc", "uts", "user", "pid", "time", "cgroup"];
        let alone = all.iter().map(|one| vec![*one]);
        for joined in
            alone.chain([vec!["user", "network"], vec!["user", "pid", "ipc"], vec!["network", "pid"], all.to_vec()])
        {
            bundle(bed, "b", &["sh", "-c", "for f in /proc/self/ns/*; do readlink $f; done"], |c| {
                let own = ["mount", "pid", "network", "ipc", "uts"].into_iter().filter(|k| !joined.contains(k));
                let mut list: Vec<Value> = own.map(|k| json!({"type": k})).collect();
                list.extend(joined.iter().map(|k| json!({"type": k, "path": format!("/proc/{pid}/ns/{}", file(k))})));
                c["linux"]["namespaces"] = json!(list);
                if joined == ["network"] || joined.contains(&"network") && !joined.contains(&"user") {
                    // Not ours in there: no sysfs of it.
                    if let Some(mounts) = c["mounts"].as_array_mut() {
                        mounts.retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
                    }
                }
                c["hostname"] = json!("");
            })?;
            if joined.contains(&"user") {
                bed.sh("chown -R 100000:100000 b/rootfs")?.ok()?;
            }
            let out = sh(bed, PIER, "R run --bundle b b </dev/null 2>&1; rc=$?; rm -rf b; exit $rc")?
                .ok()
                .with_context(|| format!("{joined:?}"))?;
            for kind in all {
                let name = format!("{}:[", file(kind));
                let of = |text: &str| text.lines().find(|l| l.starts_with(&name)).map(str::to_owned);
                let (here, there) = (of(&out.stdout), of(&theirs));
                ensure!(here.is_some(), "{joined:?}: {kind} in {out}");
                let fresh = ["pid", "network", "ipc", "uts"].contains(&kind);
                let want = if joined.contains(&kind) {
                    here == there
                } else if fresh {
                    here != there && here != of(&host)
                } else {
                    here == of(&host)
                };
                ensure!(want, "joined {joined:?}: {kind} is {here:?}, the other's {there:?}");
            }
        }
        sh(bed, PIER, "R delete -f a")?.ok()?;
        Ok(())
    })
}

/// Another mount namespace is looked at, not changed.
#[test]
fn a_mount_namespace_by_path_is_copied() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["cat", "/seen/here"], |c| {
            let path = bed.dir().join("ns");
            if let Ok(list) = namespaces(c) {
                list.iter_mut().filter(|ns| ns["type"] == "mount").for_each(|ns| ns["path"] = json!(path));
            }
            add_mounts(c, &[json!({"destination": "/seen", "source": bed.dir().join("only"), "options": ["bind"]})]);
        })?;
        sh(bed, PIER, "mkdir only; unshare -m --propagation private sh -c 'mount -t tmpfs t only; echo there >only/here; echo $$ >p; exec sleep 1000' & \
            while [ ! -s p ]; do sleep 0.05; done; sleep 0.2; p=$(cat p); touch ns; mount --bind /proc/$p/ns/mnt ns 2>/dev/null || ln -sf /proc/$p/ns/mnt ns; \
            cat /proc/$p/mountinfo >before; R run --bundle b one </dev/null 2>&1; rc=$?; cmp before /proc/$p/mountinfo || rc=9; kill $p; umount ns 2>/dev/null; exit $rc")?
            .ok()?
            .has("there")
    })
}

#[test]
fn hooks_fail_as_the_specification_says() -> Result {
    isolated!(|bed| {
        let hook = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1});
        let with = |name: &str, hooks: Value| {
            bundle(bed, "b", &["sh", "-c", "sleep 0.3; echo ran"], |c| c["hooks"] = json!({name: hooks}))
        };
        for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
            with(name, json!([hook("true"), hook("echo why >&2; exit 3")]))?;
            sh(bed, PIER, "R run --bundle b one </dev/null 2>&1; rc=$?; rm -rf b; exit $rc")?
                .fails()?
                .with(&format!("error running {name} hook #1: exit status 3"))?
                .with("why")?
                .without("ran\n")?;
            ensure!(sh(bed, PIER, "R list -q")?.ok()?.out().is_empty(), "{name}: left");
        }
        with("createRuntime", json!([hook("exec sleep 60")]))?;
        let begin = std::time::Instant::now();
        sh(bed, PIER, "R run --bundle b one </dev/null 2>&1; rc=$?; rm -rf b; exit $rc")?
            .fails()?
            .has("createRuntime hook #0")?;
        ensure!(begin.elapsed() < std::time::Duration::from_secs(20), "the timeout was not kept");
        with("poststop", json!([hook("exit 1"), hook("echo second >>$DIR/poststop")]))?;
        sh(bed, PIER, "R run --bundle b one </dev/null 2>&1; cat poststop; R state one 2>&1")?
            .with("ran")?
            .with("second")?
            .has("does not exist")
    })
}

#[test]
fn kernel_parameters() -> Result {
    isolated!(|bed| {
        output(bed, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/kernel/domainname /proc/sys/kernel/hostname /proc/sys/fs/mqueue/msg_max", |c| {
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel/msgmax": "4321", "fs.mqueue.msg_max": "12"});
            c["hostname"] = json!("host");
            c["domainname"] = json!("domain");
        })?
        .ok()?
        .has("1\n4321\ndomain\nhost\n12")?;
        output(bed, "true", |c| {
            c["linux"]["sysctl"] = json!({"kernel.msgmax": "1"});
            if let Ok(list) = namespaces(c) {
                list.retain(|ns| ns["type"] != "ipc");
            }
        })?
        .fails()?
        .has("kernel.msgmax")
    })
}

#[test]
fn properties_of_the_process() -> Result {
    isolated!(|bed| {
        let script = "ionice; uname -m; grep Umask /proc/self/status; id -G; ulimit -n; ulimit -c; nice; \
            head -1 /proc/self/numa_maps | cut -d' ' -f2; cut -d' ' -f41 /proc/self/stat; cat /proc/self/oom_score_adj";
        let out = output(bed, script, |c| {
            let process = &mut c["process"];
            process["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 5});
            process["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
            process["user"] = json!({"uid": 0, "gid": 0, "umask": 0o77, "additionalGids": [5, 6]});
            process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 30}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
            process["oomScoreAdj"] = json!(500);
            c["linux"]["personality"] = json!({"domain": "LINUX32"});
            c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
        })?
        .ok()?;
        for want in ["best-effort: prio 5", "i686", "Umask:\t0077", "0 5 6", "\n20\n0\n", "bind=static:0", "\n500"] {
            ensure!(out.stdout.contains(want), "{want:?}: {out}");
        }
        for (field, value, why) in [
            ("scheduler", json!({"policy": "SCHED_OTHER", "nice": 99}), "nice"),
            ("ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}), "riority"),
        ] {
            output(bed, "true", |c| c["process"][field] = value)?.fails()?.has(why)?;
        }
        output(bed, "true", |c| c["linux"]["memoryPolicy"] = json!({"mode": "INTERLEAVE"}))?
            .fails()?
            .has("invalid memory policy mode")
    })
}

#[test]
fn the_callers_affinity_is_not_inherited() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["grep", "Cpus_allowed_list", "/proc/self/status"], |_| ())?;
        let all = bed.sh("grep Cpus_allowed_list /proc/self/status")?.out().to_owned();
        sh(bed, PIER, "taskset -c 0 pier-runtime --root state run --bundle b one </dev/null")?.ok()?.has(&all)
    })
}

#[test]
fn devices_may_be_there_already() -> Result {
    isolated!(|bed| {
        // An image's own /dev, twice: nothing is fresh.
        bundle(bed, "b", &["sh", "-c", "echo x >/dev/null && ls -l /dev/mine /dev/pipe /dev/fd"], |c| {
            if let Some(mounts) = c["mounts"].as_array_mut() {
                mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
            }
            c["linux"]["devices"] = json!([
                {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4},
                {"path": "/dev/pipe", "type": "p", "fileMode": 0o600}]);
        })?;
        bed.sh("ln -s /proc/self/fd b/rootfs/dev/fd")?.ok()?;
        for _ in 0..2 {
            sh(bed, PIER, "R run --bundle b one </dev/null")?
                .ok()?
                .with("crw-r-----    1 3        4")?
                .has("prw-------")?;
        }
        // The host's, bound: nothing is made in it.
        bundle(bed, "h", &["sh", "-c", "ls /dev"], |c| {
            if let Some(mounts) = c["mounts"].as_array_mut() {
                mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
            }
            add_mounts(c, &[json!({"destination": "/dev", "source": bed.dir().join("dev"), "options": ["bind"]})]);
            c["linux"]["maskedPaths"] = json!([]);
        })?;
        sh(bed, PIER, "mkdir dev; touch dev/only; R run --bundle h one </dev/null")?.ok()?.has("only")?;
        ensure!(bed.sh("ls dev")?.out() == "only", "something was made in the host's /dev");
        output(bed, "test -p /dev/pipe && test -c /dev/zero && echo x >/dev/null && echo fine", |c| {
            own_users(c);
            c["linux"]["devices"] = json!([{"path": "/dev/pipe", "type": "p"}]);
        })?
        .ok()?
        .has("fine")
    })
}

#[test]
fn network_devices_move_in() -> Result {
    isolated!(|bed| {
        bed.sh("ip link add v0 type veth peer name v1; ip addr add 10.77.0.1/24 dev v0; ip addr add fd77::1/64 dev v0; ip addr add 127.0.0.33/32 scope host dev v0; ip link set v0 mtu 1400 up; ip link set v1 up")?.ok()?;
        for users in [false, true] {
            let out = output(bed, "ip -o addr show dev inside; ip -o link show dev inside", |c| {
                if users {
                    own_users(c);
                }
                c["linux"]["netDevices"] = json!({"v0": {"name": "inside"}});
            })?
            .ok()?;
            for want in ["10.77.0.1/24", "fd77::1/64", "mtu 1400", "UP"] {
                ensure!(out.stdout.contains(want), "{want}: {out}");
            }
            ensure!(!out.stdout.contains("127.0.0.33"), "{out}");
            // The pair goes with the namespace.
            bed.sh("for i in 1 2 3 4 5 6 7 8 9 10; do ip link show v1 >/dev/null 2>&1 || break; sleep 0.2; done; ip link add v0 type veth peer name v1; ip addr add 10.77.0.1/24 dev v0; ip addr add fd77::1/64 dev v0; ip link set v0 mtu 1400 up; ip link set v1 up")?.ok()?;
        }
        output(bed, "true", |c| c["linux"]["netDevices"] = json!({"none": {}}))?.fails()?.with("none")?;
        output(bed, "true", |c| {
            c["linux"]["netDevices"] = json!({"v0": {}});
            if let Ok(list) = namespaces(c) {
                list.retain(|ns| ns["type"] != "network");
            }
        })?
        .fails()?
        .with("NET namespace")?;
        bed.sh("ip link del v0")?.ok()?;
        Ok(())
    })
}

#[test]
fn what_this_kernel_lacks_is_said() -> Result {
    isolated!(|bed| {
        if !std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
            output(bed, "true", |c| c["linux"]["intelRdt"] = json!({"closID": "x", "l3CacheSchema": "L3:0=f"}))?
                .fails()?
                .with("Intel RDT is not enabled")?;
        }
        if !std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y')) {
            output(bed, "true", |c| c["process"]["apparmorProfile"] = json!("docker-default"))?
                .fails()?
                .with("apparmor not supported")?;
        }
        if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
            let label = "system_u:system_r:container_t:s0:c4,c5";
            output(bed, "true", |c| c["process"]["selinuxLabel"] = json!(label))?
                .fails()?
                .with("selinux is disabled")?;
            output(bed, "true", |c| c["linux"]["mountLabel"] = json!(label))?.fails()?.with("selinux is disabled")?;
        }
        Ok(())
    })
}
