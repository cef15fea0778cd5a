//! `pier-runtime`'s command line: what callers of runc rely on. Where the behaviour is everybody's, the same function runs
//! against Debian's runc: that tests the test.
use crate::runtime::{PIER, RUNC, bundle, sh};
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};
use serde_json::{Value, json};

/// The named functions as tests against ours and against runc.
macro_rules! both {
    ($($test:ident;)*) => {
        mod pier { use super::*; $(#[test] fn $test() -> Result { isolated!(|bed| super::$test(bed, PIER)) })* }
        mod runc { use super::*; $(#[test] fn $test() -> Result { isolated!(|bed| super::$test(bed, RUNC)) })* }
    };
}

/// The named functions as tests against ours.
macro_rules! ours {
    ($($test:ident;)*) => { mod ours { use super::*; $(#[test] fn $test() -> Result { isolated!(|bed| super::$test(bed)) })* } };
}

both! {
    the_log_is_one_object;
    the_last_value_of_a_variable_counts;
    newlines_come_out_as_written;
    console_size_and_owner;
    activated_sockets_are_passed_on;
    readiness_reaches_systemd;
    a_stopped_container_has_no_processes;
    a_created_container_can_be_terminated;
}

ours! {
    flags_stand_anywhere;
    the_name_it_was_called_by;
    a_program_the_kernel_refuses;
    debug_is_logged;
    process_from_a_pipe;
    exec_adds_ambient_capabilities;
    affinity_is_the_containers;
    inherited_descriptors_are_closed;
    what_outlives_init_is_killed;
    sub_cgroups;
    features_are_true;
}

const NULL: &str = "</dev/null";

fn flags_stand_anywhere(bed: &Bed) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |_| ())?;
    for line in
        ["create --bundle b one", "create one --bundle b", "create -b=b one", "create one --bundle=b --no-pivot=false"]
    {
        sh(bed, PIER, &format!("R {line} {NULL} >out 2>&1; cat out; R state one >/dev/null && R delete -f one"))?
            .ok()?;
    }
    sh(bed, PIER, "cd b && R run -no-subreaper -d one </dev/null >out 2>&1; R exec one echo --all -l; R kill one -9")?
        .fails()?
        .with("--all -l")?
        .has("unknown signal")?;
    sh(bed, PIER, "cd b && R kill --all one 9 && R delete --force one && R delete -f none")?.ok()?;
    sh(bed, PIER, "R frobnicate 2>&1")?.fails()?.has("No help topic for 'frobnicate'")?;
    sh(bed, PIER, "R state --nonsense one 2>&1")?.fails()?.has("--nonsense")
}

/// podman reads the whole log as one JSON value.
fn the_log_is_one_object(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["no-such-program"], |_| ())?;
    let log = "--log log.json --log-format json";
    let errors = sh(bed, rt, &format!("R {log} create --bundle b one {NULL} 2>&1"))?.fails()?;
    let object: Value = serde_json::from_str(bed.sh("cat log.json")?.ok()?.out())?;
    let message = object["msg"].as_str().context("msg")?;
    ensure!(object["level"] == "error" && message.contains("executable file not found in $PATH"), "{object}");
    ensure!(object["time"].as_str().is_some_and(|t| t.len() >= 20 && t.contains('T')), "{object}");
    // And people see the reason, too.
    errors.has("executable file not found in $PATH")?;
    sh(bed, rt, "R --log log.txt create --bundle b one </dev/null 2>/dev/null; cat log.txt")?
        .ok()?
        .has("level=error msg=")?;
    sh(bed, rt, "R --log-format nonsense list 2>&1")?.fails()?.has("nonsense")
}

fn the_last_value_of_a_variable_counts(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sh", "-c", "env | sort"], |c| {
        c["process"]["env"] = json!(["PATH=/bin", "A=1", "A=2", "HOME="]);
    })?;
    let out = sh(bed, rt, "R run --bundle b one </dev/null")?.ok()?;
    // Debian's runc gives both, and its shell takes the last.
    out.with("A=2\n")?.without("A=1\n")?.has("HOME=/")
}

fn newlines_come_out_as_written(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["printf", "one\\ntwo\\n"], |c| c["process"]["terminal"] = json!(true))?;
    // A terminal around it, as runc wants one; its output goes to a file.
    bed.sh(&format!("mkfifo never; script -qec '{rt} --root $PWD/state run --bundle b one >out' /dev/null <>never"))?
        .ok()?;
    let out = std::fs::read(bed.dir().join("out"))?;
    ensure!(out == b"one\ntwo\n", "{:?}", String::from_utf8_lossy(&out));
    Ok(())
}

fn console_size_and_owner(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sh", "-c", "stty size; stat -c %u:%g $(tty)"], |c| {
        c["process"]["terminal"] = json!(true);
        c["process"]["consoleSize"] = json!({"height": 17, "width": 93});
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    })?;
    let receiver = "import socket,os,array\ns=socket.socket(socket.AF_UNIX)\ns.bind('tty.sock')\ns.listen(1)\nc,_=s.accept()\n\
        m,a,_,_=c.recvmsg(4096,64)\nf=array.array('i',a[0][2])[0]\nprint(m.decode())\n\
        import sys\nwhile True:\n  try: d=os.read(f,999)\n  except OSError: break\n  if not d: break\n  sys.stdout.write(d.decode())\n";
    std::fs::write(bed.dir().join("recv.py"), receiver)?;
    // (1.1 takes the size of the caller's terminal.)
    let size = if rt == PIER { "17 93" } else { "" };
    sh(bed, rt, "timeout 20 python3 recv.py >got & while ! [ -S tty.sock ]; do sleep 0.02; done; R run -d --bundle b --console-socket $PWD/tty.sock one </dev/null; wait; cat got; R delete -f one")?
        .ok()?
        .with(size)?
        .has("1000:5")
}

fn activated_sockets_are_passed_on(bed: &Bed, rt: &str) -> Result {
    let open = "ls -l /proc/self/fd | grep -c /dev/zero";
    bundle(bed, "b", &["sh", "-c", &format!("echo $LISTEN_FDS $LISTEN_PID; cat <&3; {open}")], |_| ())?;
    // As systemd starts a service; it is not for whoever merely has the variables.
    let exec = |pid: &str| {
        format!(
            "echo activated >file; sh -c 'LISTEN_FDS=1 LISTEN_PID={pid} exec {rt} --root $PWD/state run --bundle b one' 3<file 8</dev/zero {NULL}"
        )
    };
    bed.sh(&exec("$$"))?.with("1 1\nactivated\n0")?;
    bed.sh(&exec("1"))?.without("activated")?;
    bundle(bed, "p", &["sh", "-c", &format!("cat <&4; {open}")], |_| ())?;
    sh(
        bed,
        rt,
        "echo preserved >file; R run --preserve-fds 2 --bundle p one 3</dev/null 4<file 5</dev/zero </dev/null",
    )?
    .has("preserved\n0")
}

fn readiness_reaches_systemd(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["sh", "-c", "echo $NOTIFY_SOCKET; ls /run/notify; sleep 1000"], |_| ())?;
    let host = "socat -u UNIX-RECV:host.sock OPEN:told,creat,append & while ! [ -S host.sock ]; do sleep 0.02; done; export NOTIFY_SOCKET=$PWD/host.sock";
    let program = "(while ! [ -S state/one/notify/notify.sock ]; do sleep 0.02; done; printf 'STATUS=no\\n' | socat - UNIX-SENDTO:state/one/notify/notify.sock; printf 'READY=1\\n' | socat - UNIX-SENDTO:state/one/notify/notify.sock) &";
    let script = format!(
        "{host}\nR create --bundle b --pid-file pid one {NULL} >out 2>&1 || cat out; {program}\nR start one; sleep 0.3; cat told out; echo PID=$(cat pid); R delete -f one; kill %1"
    );
    let out = sh(bed, rt, &script)?;
    let pid = out.out().rsplit_once("PID=").context("pid")?.1.split_whitespace().next().unwrap_or_default().to_owned();
    out.with("READY=1")?.with(&format!("MAINPID={pid}"))?.with("/run/notify/notify.sock")?.without("STATUS")?;
    Ok(())
}

fn a_stopped_container_has_no_processes(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["true"], |_| ())?;
    sh(bed, rt, "R run -d --bundle b one </dev/null; while ! R state one | grep -q stopped; do sleep 0.05; done; R ps one && R delete one")?
        .ok()?
        .has("PID")
}

fn a_created_container_can_be_terminated(bed: &Bed, rt: &str) -> Result {
    bundle(bed, "b", &["true"], |_| ())?;
    let wait = "for i in $(seq 100); do R state one | grep -q stopped && break; sleep 0.05; done; R state one";
    sh(bed, rt, &format!("R create --bundle b one {NULL} >out 2>&1; R kill one TERM; {wait}; R delete one"))?
        .ok()?
        .has("stopped")
}

fn the_name_it_was_called_by(bed: &Bed) -> Result {
    bed.sh("ln -s $(command -v pier-runtime) runc; ./runc --version; ./runc -h; ./runc exec -h")?
        .ok()?
        .with("runc version 0.")?
        .with("NAME:\n   runc - Open Container Initiative runtime")?
        .has("   runc exec - ")?;
    bed.sh("pier-runtime -v")?.ok()?.with("pier-runtime version")?.with("commit: ")?.has("spec: 1.")
}

fn a_program_the_kernel_refuses(bed: &Bed) -> Result {
    bundle(bed, "b", &["/script"], |_| ())?;
    bed.sh("printf '#!/no/such/shell\\n' >b/rootfs/script; chmod 755 b/rootfs/script")?.ok()?;
    let out = sh(bed, PIER, "R run --bundle b one </dev/null 2>&1")?.exits(255)?;
    ensure!(out.out() == "exec /script: no such file or directory", "{:?}", out.out());
    ensure!(sh(bed, PIER, "R list -q")?.ok()?.out().is_empty(), "it left its state");
    Ok(())
}

fn debug_is_logged(bed: &Bed) -> Result {
    bundle(bed, "b", &["true"], |_| ())?;
    sh(bed, PIER, "R --debug run --bundle b one </dev/null 2>&1")?.ok()?.has("level=debug")?;
    sh(bed, PIER, "R --debug --log log --log-format json run --bundle b one </dev/null 2>&1; cat log")?
        .ok()?
        .with("\"level\":\"debug\"")?
        .without("level=debug")?;
    Ok(())
}

fn process_from_a_pipe(bed: &Bed) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |_| ())?;
    sh(bed, PIER, "R run -d --bundle b one </dev/null >out 2>&1; echo '{\"args\": [\"id\", \"-u\"], \"cwd\": \"/\"}' | R exec --process /dev/stdin one; R delete -f one")?
        .ok()?
        .has("0")
}

fn exec_adds_ambient_capabilities(bed: &Bed) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |c| {
        let sets = &mut c["process"]["capabilities"];
        sets["inheritable"] = json!(["CAP_CHOWN", "CAP_SYSLOG"]);
        sets["ambient"] = json!(["CAP_CHOWN", "CAP_KILL"]);
        for set in ["bounding", "permitted"] {
            sets[set] = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SYSLOG"]);
        }
    })?;
    sh(bed, PIER, "R run -d --bundle b one </dev/null >out 2>&1; cat out; R exec --cap CAP_SYSLOG one grep CapAmb /proc/self/status; R delete -f one")?
        .ok()?
        .with("can't raise ambient capability CAP_KILL: ")?
        .has("0000000400000001")
}

fn affinity_is_the_containers(bed: &Bed) -> Result {
    if std::thread::available_parallelism()?.get() < 2 {
        println!("skipped: affinity_is_the_containers: one CPU");
        return Ok(());
    }
    bundle(bed, "b", &["grep", "Cpus_allowed_list", "/proc/self/status"], |_| ())?;
    sh(bed, PIER, "taskset -c 0 pier-runtime --root $PWD/state run --bundle b one </dev/null")?
        .ok()?
        .without("\t0\n")?;
    bundle(bed, "c", &["sleep", "1000"], |c| {
        c["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
    })?;
    sh(bed, PIER, "R run -d --bundle c two </dev/null >out 2>&1; R exec two grep Cpus_allowed_list /proc/self/status; R delete -f two")?
        .ok()?
        .has("Cpus_allowed_list:\t1")
}

/// Of the caller's, nothing stays open while a created container waits; nor gets to the program.
fn inherited_descriptors_are_closed(bed: &Bed) -> Result {
    bundle(bed, "b", &["ls", "/proc/self/fd"], |_| ())?;
    sh(bed, PIER, "R create --bundle b --pid-file pid one 9</dev/zero </dev/null >out 2>&1; ls -l /proc/$(cat pid)/fd; R delete -f one")?
        .ok()?
        .without("/dev/zero")?;
    sh(bed, PIER, "R run --bundle b one 9</dev/zero </dev/null")?.ok()?.without("9")?;
    Ok(())
}

fn what_outlives_init_is_killed(bed: &Bed) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |c| {
        c["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}]);
    })?;
    sh(bed, PIER, "R run -d --bundle b --pid-file pid one </dev/null >out 2>&1; R exec -d one sleep 1001 </dev/null >out 2>&1; kill -9 $(cat pid); \
        while ! R state one | grep -q stopped; do sleep 0.05; done; pgrep -f '[s]leep 1001' && R kill one KILL && sleep 0.3; pgrep -r R,S,D -f '[s]leep 1001'")?
        .fails()?;
    sh(bed, PIER, "R kill one KILL 2>&1")?.fails()?.has("not running")?;
    sh(bed, PIER, "R delete one")?.ok()?;
    Ok(())
}

fn sub_cgroups(bed: &Bed) -> Result {
    bundle(bed, "b", &["sleep", "1000"], |_| ())?;
    sh(bed, PIER, "R run -d --bundle b one </dev/null >out 2>&1; cat out")?.ok()?;
    sh(bed, PIER, "R exec --cgroup .. one true 2>&1")?.exits(255)?.has(" .. is not a sub cgroup path")?;
    sh(bed, PIER, "R exec --cgroup none one true 2>&1")?
        .exits(255)?
        .with(" adding pid ")?
        .has("/none/cgroup.procs: no such file or directory")?;
    sh(bed, PIER, "R exec --cgroup nonsense:/ one true 2>&1")?.exits(255)?.has("unknown controller ")?;
    sh(bed, PIER, "R exec --cgroup / one true && R delete -f one")?.ok()?;
    Ok(())
}

/// What the document says can be done is done.
fn features_are_true(bed: &Bed) -> Result {
    let features = bed.sh("pier-runtime features")?.ok()?.json()?;
    ensure!(features["linux"]["cgroup"]["v1"] == true && features["linux"]["seccomp"]["enabled"] == true, "{features}");
    for option in features["mountOptions"].as_array().context("mountOptions")? {
        bundle(bed, "b", &["true"], |c| {
            let mount = json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": [option]});
            let bind = json!({"destination": "/m", "type": "bind", "source": "/mnt", "options": ["bind", option]});
            // Mappings need a user namespace, and a remount needs a mount.
            let idmap = option == "idmap" || option == "ridmap" || option == "remount";
            if let (false, Some(mounts)) = (idmap, c["mounts"].as_array_mut()) {
                let of_binds = option == "rbind" || option == "bind";
                mounts.push(if of_binds { bind } else { mount });
            }
        })?;
        sh(bed, PIER, "R run --bundle b one </dev/null 2>&1")?
            .ok()
            .with_context(|| format!("mount option {option}"))?;
    }
    Ok(())
}
