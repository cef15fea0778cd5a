//! Ways out of a container, one test per published hole or known defect. Each has a control: the same trick on something
//! unprotected works, or else the test would prove nothing.
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::runtime::{PIER, bundle, sh};

fn add_mount(config: &mut Value, mount: Value) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(mount);
    }
}

/// Swaps a directory and a symlink as fast as the kernel can while `work` runs.
fn swapping<T>(directory: &Path, link: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, directory, CWD, link, RenameFlags::EXCHANGE);
            }
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        done
    })
}

/// CVE-2021-30465, CVE-2024-45310: mount points, devices, masks below a name that changes all the time.
/// `PIER_RACE` sets how many containers are created.
#[test]
fn swapped_names_lead_nowhere() -> Result {
    isolated!(|bed| swapped_names(bed, PIER))
}

pub(crate) fn swapped_names(bed: &Bed, rt: &str) -> Result {
    let rounds: usize = std::env::var("PIER_RACE").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let (outside, log) = (bed.dir().join("outside"), bed.dir().join("escaped"));
    std::fs::create_dir(&outside)?;
    bundle(bed, "b", &["true"], |c| {
        for n in 0..4 {
            add_mount(c, json!({"destination": format!("/d/{n}/t"), "type": "tmpfs", "source": "tmpfs"}));
            add_mount(c, json!({"destination": format!("/d/f{n}"), "source": "/etc/passwd", "options": ["bind"]}));
        }
        c["linux"]["devices"] = json!([{"path": "/d/x/null", "type": "c", "major": 1, "minor": 3}]);
        c["linux"]["maskedPaths"] = json!(["/d/m"]);
        c["linux"]["readonlyPaths"] = json!(["/d/r"]);
        // Before the change of root a mount outside can still be seen.
        let look = format!("grep -F ' {}' /proc/self/mountinfo >>{}; true", outside.display(), log.display());
        c["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", look]}]});
    })?;
    let rootfs = bed.dir().join("b/rootfs");
    for place in ["d/m", "d/r"] {
        std::fs::create_dir_all(rootfs.join(place))?;
    }
    std::os::unix::fs::symlink(&outside, rootfs.join("l"))?;
    let script = format!(
        "good=0; for i in $(seq {rounds}); do R create --bundle b c$i </dev/null >/dev/null 2>>errors && good=$((good+1)); \
         R delete --force c$i; done; echo good $good"
    );
    let (directory, link) = (rootfs.join("d"), rootfs.join("l"));
    let out = swapping(&directory, &link, || sh(bed, rt, &script)?.ok())?;
    eprintln!("{rounds} creates: {}", out.out());
    ensure!(!out.out().ends_with("good 0"), "no container could be created at all: {}", bed.sh("tail -3 errors")?);
    let found: Vec<_> = std::fs::read_dir(&outside)?.collect();
    ensure!(found.is_empty(), "written outside the rootfs: {found:?}");
    ensure!(std::fs::read_to_string(&log)?.is_empty(), "mounted outside: {}", std::fs::read_to_string(&log)?);
    // The control: whoever checks first and then uses the path is led outside.
    let led_out = swapping(&directory, &link, || {
        let end = Instant::now() + Duration::from_secs(30);
        while std::fs::read_dir(&outside)?.next().is_none() && Instant::now() < end {
            if !directory.is_symlink() {
                let _ = std::fs::create_dir_all(directory.join("0/t/naive"));
                let _ = std::fs::remove_dir(rootfs.join("d/0/t/naive"));
            }
        }
        Ok(std::fs::read_dir(&outside)?.next().is_some())
    })?;
    ensure!(led_out, "the race does not race");
    Ok(())
}

/// CVE-2019-18837: an image's symlink as a mount point.
#[test]
fn mount_points_stay_inside() -> Result {
    isolated!(|bed| {
        bed.sh("mkdir outside")?.ok()?;
        bundle(bed, "h", &["true"], |c| {
            add_mount(c, json!({"destination": "/host/x", "type": "tmpfs", "source": "t"}))
        })?;
        bed.sh("ln -s $PWD/outside h/rootfs/host")?.ok()?;
        sh(bed, PIER, "R run --bundle h two </dev/null && [ -z \"$(ls outside)\" ]")?.ok()?;
        bundle(bed, "b", &["sh", "-c", "ls -d /abs/t /etc/up/t; cat /etc/file"], |c| {
            add_mount(c, json!({"destination": "/link/t", "type": "tmpfs", "source": "tmpfs"}));
            add_mount(c, json!({"destination": "/up/t", "type": "tmpfs", "source": "tmpfs"}));
            add_mount(c, json!({"destination": "/dangling", "source": "/etc/hostname", "options": ["bind"]}));
        })?;
        bed.sh("ln -s $PWD/outside b/rootfs/host; ln -s /abs b/rootfs/link; ln -s ../../../../etc/up b/rootfs/up; ln -s /etc/file b/rootfs/dangling")?.ok()?;
        sh(bed, PIER, "R run --bundle b one </dev/null")?.ok()?.with("/abs/t")?.has("/etc/up/t")?;
        bed.sh("mkdir -p b/rootfs/host/x && [ -d outside/x ] && rmdir outside/x")?.ok().context("control").map(drop)
    })
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2025-52881: something of the image's choice where the runtime writes labels and sysctls.
#[test]
fn nothing_covers_proc() -> Result {
    isolated!(|bed| {
        let cases = [
            (json!({"destination": "/proc", "source": "/tmp", "options": ["bind"]}), "is not a procfs"),
            (json!({"destination": "/proc", "type": "tmpfs", "source": "t"}), "over /proc"),
            (json!({"destination": "/proc/sys", "source": "/tmp", "options": ["bind"]}), "inside /proc"),
            (json!({"destination": "/x/../proc/./self", "type": "tmpfs", "source": "t"}), "inside /proc"),
            // Not to be seen in the path.
            (json!({"destination": "/innocent", "type": "tmpfs", "source": "t"}), "inside a procfs"),
            (json!({"destination": "/elsewhere", "type": "proc", "source": "proc"}), "elsewhere than /proc"),
        ];
        for (mount, why) in cases {
            bundle(bed, "b", &["true"], |c| add_mount(c, mount))?;
            bed.sh("ln -s /proc/sys b/rootfs/innocent")?.ok()?;
            sh(bed, PIER, "R run --bundle b one </dev/null 2>&1; rc=$?; rm -rf b; exit $rc")?.exits(1)?.has(why)?;
        }
        bundle(bed, "b", &["sh", "-c", "grep lxcfs /proc/uptime; ls /proc/self/exe"], |c| {
            let source = bed.dir().join("uptime");
            add_mount(c, json!({"destination": "/proc/uptime", "source": source, "options": ["bind"]}));
            add_mount(c, json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]}));
        })?;
        sh(bed, PIER, "echo lxcfs >uptime; R run --bundle b one </dev/null")?.with("/proc/self/exe").map(drop)?;
        // The control: the kernel minds none of it.
        bed.sh("mkdir p; mount -t proc proc p && mount -t tmpfs t p/sys && [ -z \"$(ls p/sys)\" ]; rc=$?; umount p/sys p; exit $rc")?.ok().context("control")?;
        Ok(())
    })
}

/// CVE-2025-31133: what masks is not the null device; and whoever takes a mask off again before the container starts.
#[test]
fn masks_are_what_they_seem() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["true"], |c| {
            if let Some(mounts) = c["mounts"].as_array_mut() {
                mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
            }
        })?;
        bed.sh("ln -s /etc/passwd b/rootfs/dev/null")?.ok()?;
        sh(bed, PIER, "R run --bundle b one </dev/null 2>&1")?.fails()?.has("null")?;

        let (socket, state) = (bed.dir().join("listener"), bed.dir().join("state.in"));
        let listener = UnixListener::bind(&socket)?;
        bundle(bed, "m", &["sleep", "1000"], |c| {
            c["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/timer_list"]);
            c["process"]["noNewPrivileges"] = json!(false);
            // Stops at a prctl(PR_CAP_AMBIENT) that may fail, between the masks and the end of create.
            c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
                "syscalls": [{"names": ["prctl"], "action": "SCMP_ACT_NOTIFY",
                    "args": [{"index": 0, "value": 47, "op": "SCMP_CMP_EQ"}]}]});
            let keep = format!("cat >{}", state.display());
            c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", keep]}]});
        })?;
        // With the control the mask stays on.
        for (program, found) in [
            ("true", None),
            ("umount /proc/timer_list", Some("/proc/timer_list is not masked")),
            ("mount -o remount,bind,rw none /proc/sys", Some("/proc/sys is not read-only")),
        ] {
            let out = std::thread::scope(|scope| {
                scope.spawn(|| -> Result {
                    // As long as the message is not read, the process waits for an answer to its system call.
                    let _waiting = listener.accept()?;
                    let state: Value = serde_json::from_slice(&std::fs::read(&state)?)?;
                    let mut unmask = std::process::Command::new("nsenter");
                    unmask.args(["-t", &state["pid"].to_string(), "-m"]).args(program.split(' '));
                    ensure!(unmask.status()?.success(), "{unmask:?}");
                    Ok(())
                });
                sh(
                    bed,
                    PIER,
                    "timeout 20 pier-runtime --root state create --bundle m one </dev/null >out 2>&1; rc=$?; cat out; R delete --force one; exit $rc",
                )
            })?;
            match found {
                None => out.ok()?,
                Some(found) => out.fails()?.with(found)?,
            };
        }
        Ok(())
    })
}

/// CVE-2024-21626: a working directory through a descriptor that the runtime's caller has left open.
#[test]
fn the_working_directory_is_inside() -> Result {
    isolated!(|bed| {
        for n in [3, 7, 8] {
            bundle(bed, "b", &["sh", "-c", "ls; ls .."], |c| {
                c["process"]["cwd"] = json!(format!("/proc/self/fd/{n}"))
            })?;
            sh(bed, PIER, "mkdir -p host/secret; R run --bundle b one 3<host 7<host 8<host </dev/null 2>&1; rc=$?; rm -rf b; exit $rc")?.fails()?.without("secret")?;
        }
        bundle(bed, "b", &["sleep", "1000"], |_| ())?;
        sh(bed, PIER, "R run -d --bundle b one </dev/null >out 2>&1; R exec --cwd /proc/self/fd/7 one ls 7<host 2>&1; rc=$?; R delete -f one; exit $rc")?.fails()?.without("secret")?;
        bed.sh("sh -c 'cd /proc/self/fd/7 && ls' 7<host")?.ok().context("control")?.has("secret")
    })
}

/// The same through `--preserve-fds`: a directory is a way out, files and sockets are not.
#[test]
fn directories_are_not_preserved() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sh", "-c", "cat <&3; ls /proc/self/fd/4/.."], |_| ())?;
        sh(bed, PIER, "mkdir host; R run --preserve-fds 2 --bundle b one 3<b/config.json 4<host </dev/null 2>&1")?
            .fails()?
            .has("is a directory")?;
        sh(bed, PIER, "echo text >f; R run --preserve-fds 1 --bundle b one 3<f 4<host </dev/null 2>/dev/null")?
            .with("text")?
            .without("config.json")?;
        bed.sh("sh -c 'ls /proc/self/fd/4/..' 4<host")?.ok().context("control")?.has("b")
    })
}

/// CVE-2025-52565: the console is bound where the image says.
#[test]
fn the_console_is_the_containers() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sh", "-c", "test -t 0 && echo on $(tty)"], |c| {
            c["process"]["terminal"] = json!(true);
            if let Some(mounts) = c["mounts"].as_array_mut() {
                mounts.retain(|m| m["destination"] != "/dev");
            }
        })?;
        bed.sh(
            "echo keep >host; ln -s $PWD/host b/rootfs/dev/console; ln -s ../../../../../..$PWD/host b/rootfs/dev/up",
        )?
        .ok()?;
        sh(bed, PIER, "script -qec 'pier-runtime --root state run --bundle b one' /dev/null </dev/null; [ \"$(cat host)\" = keep ] && ! grep -F \" $PWD/host\" /proc/self/mountinfo")?
            .ok()?;
        bed.sh("echo lost >b/rootfs/dev/console; [ \"$(cat host)\" = lost ]")?.ok().context("control")?;
        Ok(())
    })
}

/// CVE-2026-41579: links made in a `/dev` that is a symlink.
#[test]
fn dev_is_a_directory() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["true"], |c| c["mounts"] = json!([]))?;
        bed.sh("mkdir host; echo keep >host/ptmx; rm -rf b/rootfs/dev; ln -s $PWD/host b/rootfs/dev")?.ok()?;
        sh(bed, PIER, "R run --bundle b one </dev/null 2>&1; [ \"$(ls host)\" = ptmx ]")?
            .ok()?
            .has("must be mounted on ordinary directory")?;
        bed.sh("ln -sf pts/ptmx b/rootfs/dev/ptmx; [ -L host/ptmx ]")?.ok().context("control")?;
        Ok(())
    })
}

/// CVE-2023-27561, CVE-2023-28642, CVE-2025-54867: a `/proc` or `/sys` that leads to a place of the image's choice.
#[test]
fn proc_and_sys_are_directories() -> Result {
    isolated!(|bed| {
        for place in ["proc", "sys"] {
            bundle(bed, "b", &["true"], |c| {
                c["mounts"] = json!([{"destination": format!("/{place}"), "type": format!("{place}fs").replace("procfs", "proc"), "source": place}]);
            })?;
            bed.sh(&format!("rm -rf b/rootfs/{place}; mkdir b/rootfs/fake; ln -s /fake b/rootfs/{place}"))?.ok()?;
            sh(bed, PIER, "R run --bundle b one </dev/null 2>&1; rc=$?; rm -rf b; exit $rc")?
                .fails()?
                .has("must be mounted on ordinary directory")?;
        }
        // The control: the kernel follows.
        bed.sh("mkdir fake; ln -s fake proc; mount -t proc proc proc; ls fake/self/exe; umount fake")?
            .ok()
            .context("control")
            .map(drop)
    })
}

/// CVE-2025-52881's class: a parameter is written to the kernel, not to what the image has at its name.
#[test]
fn parameters_are_the_kernels() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sleep", "1000"], |c| {
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            if let Some(mounts) = c["mounts"].as_array_mut() {
                mounts.retain(|m| m["destination"] != "/proc");
            }
        })?;
        bed.sh("mkdir -p b/rootfs/proc/sys/net/ipv4; echo image >b/rootfs/proc/sys/net/ipv4/ip_forward")?.ok()?;
        sh(bed, PIER, "R run -d --bundle b --pid-file pid one </dev/null >out 2>&1; cat out b/rootfs/proc/sys/net/ipv4/ip_forward; \
            nsenter -t $(cat pid) -n cat /proc/sys/net/ipv4/ip_forward; R delete -f one")?
            .ok()?
            .has("image\n1")
    })
}

/// `tmpcopyup` brings nothing of the host's into the container.
#[test]
fn links_are_copied_as_links() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sh", "-c", "readlink /up/file; readlink /up/dir; cat /up/file /up/dir/in"], |c| {
            add_mount(c, json!({"destination": "/up", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]}));
        })?;
        bed.sh("mkdir -p dir b/rootfs/up; echo secret | tee file >dir/in; ln -s $PWD/file $PWD/dir b/rootfs/up")?
            .ok()?;
        sh(bed, PIER, "R run --bundle b one </dev/null 2>&1")?
            .fails()?
            .with(&format!("{}/dir\n", bed.dir().display()))?
            .without("secret")?;
        bed.sh("cat b/rootfs/up/file")?.ok().context("control")?.has("secret")
    })
}

/// CVE-2016-9962: what runs in the container looks into a process that is about to join it.
#[test]
fn nobody_looks_in_half_way() -> Result {
    isolated!(|bed| {
        let look = "while :; do for p in /proc/[0-9]*; do readlink $p/exe; done; done >/seen 2>/dev/null";
        bundle(bed, "b", &["sh", "-c", look], |_| ())?;
        // Held where it has the container's rights already and is the runtime's program still.
        sh(bed, PIER, "R run -d --bundle b one </dev/null >out 2>&1; strace -f -o trace -e trace=getcwd -e inject=getcwd:delay_enter=1000000 \
            pier-runtime --root state exec one true; R delete -f one; \
            grep -c getcwd trace; grep -c /bin/busybox b/rootfs/seen; ! grep -vx /bin/busybox b/rootfs/seen")?
            .ok()
            .map(drop)
    })
}

/// CVE-2022-0811 and its like: kernel parameters that are not the container's.
#[test]
fn sysctls_of_the_host_are_refused() -> Result {
    isolated!(|bed| {
        for (name, file) in [
            ("kernel.core_pattern", "kernel/core_pattern"),
            ("kernel/core_pattern", "kernel/core_pattern"),
            ("vm.swappiness", "vm/swappiness"),
            ("net/../kernel/core_pattern", "kernel/core_pattern"),
            ("kernel.hostname", "kernel/hostname"),
        ] {
            // What it is already: a runtime without the check does no harm.
            let now = std::fs::read_to_string(Path::new("/proc/sys").join(file))?;
            bundle(bed, "b", &["true"], |c| c["linux"]["sysctl"] = json!({name: now.trim_end()}))?;
            sh(bed, PIER, "R run --bundle b one </dev/null 2>&1; rc=$?; rm -rf b; exit $rc")?.fails()?.has("sysctl")?;
        }
        bundle(bed, "b", &["true"], |c| {
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            if let Some(list) = c["linux"]["namespaces"].as_array_mut() {
                list.retain(|ns| ns["type"] != "network");
            }
        })?;
        sh(bed, PIER, "R run --bundle b one </dev/null 2>&1")?.fails()?.has("sysctl")?;
        bed.sh("cat /proc/sys/kernel/core_pattern >p; cat p >/proc/sys/kernel/core_pattern")?
            .ok()
            .context("control")?;
        Ok(())
    })
}

/// CVE-2022-24769, CVE-2022-29162, CVE-2022-27650: capabilities that a file in the container could pick up.
#[test]
fn nothing_is_inheritable() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sleep", "1000"], |_| ())?;
        sh(bed, PIER, "R run -d --bundle b one </dev/null >out 2>&1; R exec --cap CAP_KILL one grep CapInh /proc/self/status; R exec one grep CapInh /proc/1/status; R delete -f one")?
            .ok()?
            .with("CapInh:\t0000000000000000\nCapInh:\t0000000000000000")?;
        bundle(bed, "i", &["grep", "CapInh", "/proc/self/status"], |c| {
            c["process"]["capabilities"]["inheritable"] = c["process"]["capabilities"]["permitted"].clone();
        })?;
        sh(bed, PIER, "R run --bundle i two </dev/null")?.ok().context("control")?.without("0000000000000000").map(drop)
    })
}

/// CVE-2026-30892: a user that parses to another one.
#[test]
fn users_are_numbers() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sleep", "1000"], |_| ())?;
        sh(bed, PIER, "R run -d --bundle b one </dev/null >out 2>&1")?.ok()?;
        for user in ["1000x", "-1", "4294967296", "", "1000:", ":5", "+0", "0x10", "1 0"] {
            sh(bed, PIER, &format!("R exec --user '{user}' one id 2>&1"))?.fails()?.without("uid=")?;
        }
        sh(bed, PIER, "R exec --user 1000:5 one id; R delete -f one")?.ok()?.has("uid=1000 gid=5")
    })
}

/// D16: a container without a mount namespace must not change the host's.
#[test]
fn the_hosts_mounts_are_left_alone() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["readlink", "/proc/self/ns/mnt"], |c| {
            c["linux"]["namespaces"] = json!([{"type": "pid"}]);
            c["linux"]["maskedPaths"] = json!([]);
            c["linux"]["readonlyPaths"] = json!([]);
            c["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
        })?;
        let run = "cat /proc/self/mountinfo >before; readlink /proc/self/ns/mnt; pier-runtime --root state run --bundle b one </dev/null && cmp before /proc/self/mountinfo";
        let out = bed.sh(&format!("unshare -m --propagation shared sh -c '{run}'"))?.ok()?;
        let seen: Vec<&str> = out.out().lines().collect();
        ensure!(seen.len() == 2 && seen[0] != seen[1], "it shares the host's mounts: {out}");
        bed.sh("mount --make-shared /; cat /proc/self/mountinfo >before; mount --make-rslave /; cmp -s before /proc/self/mountinfo; rc=$?; mount --make-private /; exit $rc")?.fails().context("control")?;
        Ok(())
    })
}

/// CVE-2019-5736: the control to what `runtime::the_runtimes_own_file_is_out_of_reach` shows.
#[test]
fn an_unsealed_program_can_be_overwritten() -> Result {
    isolated!(|bed| {
        bed.sh("cp /bin/sleep plain; ./plain 1 & sleep 0.2; exec 9</proc/$!/exe; wait; echo broken >>/proc/self/fd/9; tail -c 7 plain")?.ok()?.has("broken")
    })
}

/// A session keyring of its own, unless told otherwise.
#[test]
fn keys_are_not_shared() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["cat", "/proc/keys"], |c| c["linux"]["maskedPaths"] = json!([]))?;
        sh(bed, PIER, "R run --bundle b one </dev/null")?.ok()?.has("_ses.one")?;
        sh(bed, PIER, "R run --no-new-keyring --bundle b two </dev/null")?.ok()?.without("_ses.two").map(drop)
    })
}

/// CVE-2019-14271's class: the name service of the image must not be loaded to find a home directory.
#[test]
fn homes_come_from_the_file_alone() -> Result {
    isolated!(|bed| {
        bundle(bed, "b", &["sh", "-c", "echo at $HOME"], |c| {
            c["process"]["env"] = json!(["PATH=/bin"]);
            c["process"]["user"] = json!({"uid": 33, "gid": 33});
        })?;
        bed.sh("echo 'passwd: evil' >b/rootfs/etc/nsswitch.conf; mkdir -p b/rootfs/lib; echo junk >b/rootfs/lib/libnss_evil.so.2")?.ok()?;
        sh(bed, PIER, "strace -f -o t -e trace=openat pier-runtime --root state run --bundle b one </dev/null; ! grep -E 'nsswitch|libnss' t")?.ok()?.has("at /home")
    })
}
