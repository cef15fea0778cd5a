//! `pier-runtime checkpoint` and `restore`. What is everybody's behaviour also runs against Debian's runc, as a test of
//! the test. The CRIU is the one that `hack/criu.sh` unpacks, else the one in PATH; where it cannot dump on this kernel
//! the tests are skipped by name.
use anyhow::{Context, ensure};
use integration::{Bed, Outcome, Result, eventually, isolated};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

const PIER: &str = "pier-runtime";
const RUNC: &str = "/usr/sbin/runc";
const SOON: Duration = Duration::from_secs(20);
/// Counts in its own memory; the file only shows it.
pub(crate) const COUNTER: &str =
    "i=0; while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; sleep 0.1; done";

/// Directory of the CRIU to use, if it can dump here.
fn criu() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let unpacked = exe.ancestors().map(|dir| dir.join("criu/bin")).find(|dir| dir.join("criu").exists());
    let dir = unpacked.unwrap_or_else(|| "/usr/sbin".into());
    let check = std::process::Command::new(dir.join("criu")).arg("check").output().ok()?;
    check.status.success().then_some(dir)
}

/// Runs a test with CRIU, or says that it is skipped.
pub(crate) fn with_criu(bed: &Bed, name: &str, test: impl FnOnce(&Bed, &str) -> Result) -> Result {
    match criu() {
        Some(dir) => test(bed, &format!("PATH={}:$PATH", dir.display())),
        None => {
            println!("skipped: {name}: the CRIU here cannot dump on this kernel");
            Ok(())
        }
    }
}

/// A bundle `<dir>/<name>` that runs a script in busybox, without a terminal.
fn bundle(bed: &Bed, name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Result {
    crate::runtime::bundle(bed, name, &["sh", "-c", script], change)
}

/// A script with `$R` as the runtime, `DUMP ID [FLAG...]`, `RESTORE ID BUNDLE [FLAG...]`.
fn sh(bed: &Bed, (rt, path): (&str, &str), script: &str) -> Result<Outcome> {
    bed.sh(&format!(
        "{path}; R() {{ {rt} --root $PWD/state \"$@\"; }}
         DUMP() {{ id=$1; shift; R checkpoint --image-path $PWD/image --work-path $PWD/work \"$@\" $id || {{ grep Error work/dump.log; false; }}; }}
         RESTORE() {{ id=$1; b=$2; shift 2; R restore -d --image-path $PWD/image --work-path $PWD/work --bundle $b \"$@\" $id; }}
         {script}"
    ))
}

fn count(bed: &Bed, bundle: &str) -> Result<u64> {
    Ok(std::fs::read_to_string(bed.dir().join(bundle).join("rootfs/count"))?.trim().parse()?)
}

fn counts_beyond(bed: &Bed, bundle: &str, least: u64) -> Result<u64> {
    eventually(SOON, || {
        let now = count(bed, bundle)?;
        ensure!(now > least, "still at {now}");
        Ok(now)
    })
}

/// Waits for a file that another process makes to say that it is so far.
fn appears(bed: &Bed, name: &str) -> Result {
    eventually(SOON, || {
        ensure!(bed.dir().join(name).exists(), "no {name}");
        Ok(())
    })
}

macro_rules! both {
    ($($test:ident;)*) => {
        mod pier {
            use super::*;
            $(#[test] fn $test() -> Result {
                isolated!(|bed| with_criu(bed, stringify!($test), |bed, path| super::$test(bed, (PIER, path))))
            })*
        }
        mod runc {
            use super::*;
            $(#[test] fn $test() -> Result {
                isolated!(|bed| with_criu(bed, stringify!($test), |bed, path| super::$test(bed, (RUNC, path))))
            })*
        }
    };
}

both! {
    memory_and_connections;
    terminal;
    bind_mounts;
    leave_running;
    a_failed_dump_changes_nothing;
    pipes_are_inherited;
}

fn memory_and_connections(bed: &Bed, rt: (&str, &str)) -> Result {
    // The bed's network namespace, so that there is an outside to talk to.
    let script = format!("nc -ll -p 7000 -e cat & {COUNTER}");
    bundle(bed, "b", &script, |c| {
        if let Some(list) = c["linux"]["namespaces"].as_array_mut() {
            list.retain(|ns| ns["type"] != "network");
        }
    })?;
    std::fs::write(
        bed.dir().join("client.py"),
        "import os, socket, time\ns = socket.create_connection(('127.0.0.1', 7000))\ns.settimeout(20)\n\
         s.sendall(b'one\\n')\nassert s.recv(4) == b'one\\n'\nopen('connected', 'w').close()\n\
         while not os.path.exists('restored'): time.sleep(0.05)\n\
         s.sendall(b'two\\n')\nassert s.recv(4) == b'two\\n'\nopen('again', 'w').close()\n",
    )?;
    sh(bed, rt, "R run -d --bundle b one </dev/null >/dev/null 2>&1")?.ok()?;
    counts_beyond(bed, "b", 3)?;
    let client = bed.spawn("client", bed.command("python3").arg("client.py"))?;
    appears(bed, "connected")?;
    sh(bed, rt, "DUMP one 2>&1")?.fails()?.has("log")?;
    sh(bed, rt, "DUMP one --tcp-established")?.ok()?;
    let before = count(bed, "b")?;
    sh(bed, rt, "R state one")?.fails()?.has("does not exist")?;
    sh(bed, rt, "RESTORE one b --tcp-established --pid-file pid </dev/null >/dev/null 2>err || { cat err work/restore.log; false; }")?.ok()?;
    ensure!(counts_beyond(bed, "b", before)? < before + 100, "it began anew");
    std::fs::write(bed.dir().join("restored"), "")?;
    appears(bed, "again")?;
    bed.sh("test \"$(echo three | timeout 10 nc -q1 127.0.0.1 7000)\" = three")?.ok()?;
    let state = sh(bed, rt, "R state one")?.ok()?.json()?;
    ensure!(state["status"] == "running" && state["pid"] == bed.sh("cat pid")?.out().parse::<i64>()?, "{state}");
    client.stop()?;
    sh(bed, rt, "R exec one true && R pause one && R resume one && R delete -f one")?.ok()?;
    // The tables that CRIU's lock of the network has made.
    bed.sh("nft flush ruleset")?.ok()?;
    Ok(())
}

/// Receives terminals on `console.sock` and plays a dialogue on each: the line sent comes back behind `got`.
const TERMINAL: &str = "import array, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind('console.sock'); s.listen(4); open('listening', 'w').close()
for n in range(2):
    c, _ = s.accept()
    _, control, _, _ = c.recvmsg(4096, 64)
    master = array.array('i', control[0][2])[0]
    os.write(master, b'line%d\\n' % n)
    text = b''
    while b'got line%d' % n not in text: text += os.read(master, 4096)
    open('dialogue%d' % n, 'w').close()
    keep = (c, master)
    sys.stdin.readline()
";

fn terminal(bed: &Bed, rt: (&str, &str)) -> Result {
    bundle(bed, "b", "while read x; do echo got $x; done", |c| c["process"]["terminal"] = json!(true))?;
    std::fs::write(bed.dir().join("terminal.py"), TERMINAL)?;
    bed.sh("mkfifo next")?.ok()?;
    let receiver =
        bed.spawn("terminal", bed.command("bash").args(["-c", "exec 9<>next; exec python3 terminal.py <&9"]))?;
    let there = |name: &str| appears(bed, name);
    there("listening")?;
    sh(bed, rt, "R run -d --console-socket $PWD/console.sock --bundle b one")?.ok()?;
    there("dialogue0")?;
    sh(bed, rt, "DUMP one; echo >next")?.ok()?;
    sh(bed, rt, "RESTORE one b --console-socket $PWD/console.sock || { cat work/restore.log; false; }")?.ok()?;
    there("dialogue1")?;
    sh(bed, rt, "R delete -f one")?.ok()?;
    receiver.stop()
}

fn bind_mounts(bed: &Bed, rt: (&str, &str)) -> Result {
    bed.sh("mkdir outer inner && echo one >inner/file && touch plain")?.ok()?;
    let bind = |source: &str, to: &str| json!({"type": "bind", "source": bed.dir().join(source), "destination": to, "options": ["bind", "rw"]});
    bundle(bed, "b", COUNTER, |c| {
        if let Some(mounts) = c["mounts"].as_array_mut() {
            mounts.extend([
                bind("outer", "/link"),
                json!({"source": "../inner", "destination": "/link/a/b", "options": ["bind"]}),
                bind("plain", "/etc/plain"),
            ]);
        }
    })?;
    bed.sh("mkdir -p b/rootfs/real/dir && ln -s /real/dir b/rootfs/link")?.ok()?;
    sh(bed, rt, "R run -d --bundle b one </dev/null >/dev/null 2>&1")?.ok()?;
    counts_beyond(bed, "b", 2)?;
    sh(bed, rt, "DUMP one")?.ok()?;
    // The mount point inside the outer mount goes: it has to be made again.
    bed.sh("rmdir outer/a/b outer/a")?.ok()?;
    sh(bed, rt, "RESTORE one b </dev/null >/dev/null 2>err || { cat err work/restore.log; false; }")?.ok()?;
    sh(bed, rt, "R exec one sh -c 'cat /link/a/b/file; echo two >/link/a/b/new; echo three >/etc/plain'")?
        .ok()?
        .has("one")?;
    bed.sh("cat inner/new plain")?.ok()?.with("two")?.has("three")?;
    bed.sh("grep criu-root /proc/self/mountinfo")?.fails()?;
    sh(bed, rt, "R delete -f one; rm -rf outer inner")?.ok()?;
    Ok(())
}

fn leave_running(bed: &Bed, rt: (&str, &str)) -> Result {
    bundle(bed, "b", COUNTER, |_| ())?;
    sh(bed, rt, "R run -d --bundle b one </dev/null >/dev/null 2>&1")?.ok()?;
    counts_beyond(bed, "b", 2)?;
    sh(bed, rt, "DUMP one --leave-running; R state one")?.ok()?.has("running")?;
    let now = count(bed, "b")?;
    counts_beyond(bed, "b", now)?;
    sh(bed, rt, "R delete -f one")?.ok()?;
    let last = counts_beyond(bed, "b", now + 20).err().map_or(now, |_| now);
    sh(bed, rt, "RESTORE two b </dev/null >/dev/null 2>&1 || cat work/restore.log")?.ok()?;
    ensure!(counts_beyond(bed, "b", 2)? <= last + 40, "not the state of the checkpoint");
    sh(bed, rt, "R state two")?.ok()?.has("running")?;
    sh(bed, rt, "R delete -f two")?.ok()?;
    Ok(())
}

fn a_failed_dump_changes_nothing(bed: &Bed, rt: (&str, &str)) -> Result {
    bundle(bed, "b", COUNTER, |_| ())?;
    // A file outside the container stays open as its output: CRIU cannot say where that would be.
    sh(bed, rt, "R run -d --bundle b one </dev/null >outside 2>&1")?.ok()?;
    counts_beyond(bed, "b", 2)?;
    let failed = sh(bed, rt, "DUMP one")?.fails()?.with("dump.log")?;
    if rt.0 == PIER {
        failed.with("Can't lookup mount")?.has("outside")?;
    }
    bed.sh("grep -q 'Dumping FAILED' work/dump.log")?.ok()?;
    sh(bed, rt, "R state one")?.ok()?.has("running")?;
    let now = count(bed, "b")?;
    counts_beyond(bed, "b", now)?;
    sh(bed, rt, "R exec one true && R delete -f one")?.ok()?;
    Ok(())
}

fn pipes_are_inherited(bed: &Bed, rt: (&str, &str)) -> Result {
    bundle(bed, "b", "while read x; do echo got $x; done", |_| ())?;
    std::fs::write(
        bed.dir().join("pipes.py"),
        "import os, subprocess, sys\n\
         def run(*command):\n    i, o = os.pipe(), os.pipe()\n    \
         subprocess.run(command, stdin=i[0], stdout=o[1], stderr=subprocess.DEVNULL, check=True)\n    \
         os.close(i[0]); os.close(o[1])\n    return i[1], o[0]\n\
         def talk(pipes, word):\n    os.write(pipes[0], word + b'\\n')\n    got = os.read(pipes[1], 100)\n    \
         assert got == b'got ' + word + b'\\n', got\n\
         first = run('bash', 'r.sh', 'run', '-d', '--bundle', 'b', 'one')\ntalk(first, b'one')\n\
         subprocess.run(['bash', 'r.sh', 'checkpoint', '--image-path', 'image', '--work-path', 'work', 'one'], check=True)\n\
         second = run('bash', 'r.sh', 'restore', '-d', '--image-path', 'image', '--work-path', 'work', '--bundle', 'b', 'one')\n\
         talk(second, b'two')\n",
    )?;
    bed.sh(&format!("echo '{}; exec {} --root $DIR/state \"$@\"' >r.sh", rt.1, rt.0))?.ok()?;
    sh(bed, rt, "python3 pipes.py || { tail -20 work/*.log; false; }; R delete -f one")?.ok()?;
    Ok(())
}

/// A test of ours alone.
macro_rules! ours {
    ($($test:ident;)*) => {
        $(#[test] fn $test() -> Result {
            fn test(bed: &Bed, path: &str) -> Result { inner::$test(bed, (PIER, path)) }
            isolated!(|bed| with_criu(bed, stringify!($test), test))
        })*
    };
}

ours! {
    hooks_limits_and_namespaces;
    what_cannot_be_is_said;
    an_own_configuration_file;
    a_restore_that_fails_leaves_nothing;
    the_service_does_it_too;
}

mod inner {
    use super::*;

    /// An external network namespace, limits, hooks at their moments, a cgroup of another name.
    pub fn hooks_limits_and_namespaces(bed: &Bed, rt: (&str, &str)) -> Result {
        bed.sh("ip netns add apart && ip -n apart link set lo up")?.ok()?;
        let hook = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} >>{}/hooks", bed.dir().display())]}]);
        bundle(bed, "b", COUNTER, |c| {
            for ns in c["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
                if ns["type"] == "network" {
                    ns["path"] = json!("/run/netns/apart");
                }
            }
            c["linux"]["cgroupsPath"] = json!("/first");
            c["linux"]["resources"] = json!({"memory": {"limit": 50_003_968}, "pids": {"limit": 20}});
            c["hooks"] = json!({"createRuntime": hook("createRuntime"), "poststop": hook("poststop")});
        })?;
        sh(bed, rt, "R run -d --bundle b one </dev/null >/dev/null 2>&1")?.ok()?;
        counts_beyond(bed, "b", 2)?;
        sh(bed, rt, "DUMP one --manage-cgroups-mode ignore")?.ok()?;
        ensure!(bed.sh("cat hooks")?.out() == "createRuntime\npoststop", "hooks");
        bed.sh("sed -i s,/first,/second, b/config.json")?.ok()?;
        sh(bed, rt, "RESTORE one b --manage-cgroups-mode ignore </dev/null >/dev/null 2>err || { cat err work/restore.log; false; }")?.ok()?;
        ensure!(bed.sh("cat hooks")?.out() == "createRuntime\npoststop\ncreateRuntime", "hooks of restore");
        bed.sh("cat /sys/fs/cgroup/memory/second/memory.limit_in_bytes /sys/fs/cgroup/pids/second/pids.max")?
            .ok()?
            .with("50003968")?
            .has("20")?;
        let inside = sh(bed, rt, "R exec one readlink /proc/self/ns/net")?.ok()?;
        ensure!(inside.out() == bed.sh("ip netns exec apart readlink /proc/self/ns/net")?.out(), "another namespace");
        // exec is in the time namespace that CRIU restores into.
        let time =
            sh(bed, rt, "R exec one sh -c 'for p in 1 self; do readlink /proc/$p/ns/time; done | uniq | wc -l'")?
                .ok()?;
        ensure!(time.out() == "1", "{time}");
        sh(bed, rt, "R delete -f one; ip netns del apart; umount /run/netns")?.ok()?;
        Ok(())
    }

    pub fn what_cannot_be_is_said(bed: &Bed, rt: (&str, &str)) -> Result {
        bundle(bed, "b", COUNTER, |_| ())?;
        sh(bed, rt, "DUMP none")?.fails()?.has("does not exist")?;
        sh(bed, rt, "R create --bundle b one </dev/null >/dev/null 2>&1; DUMP one")?
            .fails()?
            .has("cannot be checkpointed in created state")?;
        sh(bed, rt, "R start one")?.ok()?;
        counts_beyond(bed, "b", 2)?;
        sh(bed, rt, "DUMP one --parent-path /abs")?.fails()?.has("--parent-path")?;
        sh(bed, rt, "DUMP one --parent-path nowhere")?.fails()?.has("--parent-path")?;
        sh(bed, rt, "DUMP one --manage-cgroups-mode loose")?.fails()?.has("manage-cgroups-mode")?;
        sh(bed, rt, "DUMP one --page-server nowhere")?.fails()?.has("ADDRESS:PORT")?;
        sh(bed, rt, "DUMP one --empty-ns pid")?.fails()?.has("not supported")?;
        sh(bed, rt, "DUMP one --lazy-pages --status-fd 77")?.fails()?.has("--status-fd")?;
        sh(bed, rt, "R --criu /no/criu checkpoint one")?.fails()?.has("/no/criu: executable file not found")?;
        // Kernels without CONFIG_MEM_SOFT_DIRTY, as here, cannot; others can, and the container goes on.
        let pre = sh(bed, rt, "DUMP one --pre-dump")?;
        ensure!(pre.code == 0 || pre.stderr.contains("missing features"), "{pre}");
        sh(bed, rt, "R state one")?.ok()?.has("running")?;
        sh(bed, rt, "RESTORE one b 2>&1 </dev/null")?.fails()?;
        sh(bed, rt, "R delete -f one; R checkpoint --help")?.ok()?.with("--tcp-skip-in-flight")?.has("--auto-dedup")?;
        Ok(())
    }

    pub fn an_own_configuration_file(bed: &Bed, rt: (&str, &str)) -> Result {
        bundle(bed, "b", COUNTER, |c| c["annotations"] = json!({"org.criu.config": bed.dir().join("criu.conf")}))?;
        sh(bed, rt, "echo log-file=mine.log >criu.conf; R run -d --bundle b one </dev/null >/dev/null 2>&1")?.ok()?;
        counts_beyond(bed, "b", 2)?;
        sh(bed, rt, "DUMP one && test -s work/mine.log && test ! -e work/dump.log")?.ok()?;
        Ok(())
    }

    pub fn a_restore_that_fails_leaves_nothing(bed: &Bed, rt: (&str, &str)) -> Result {
        bundle(bed, "b", COUNTER, |_| ())?;
        sh(bed, rt, "R run -d --bundle b one </dev/null >/dev/null 2>&1")?.ok()?;
        counts_beyond(bed, "b", 2)?;
        sh(bed, rt, "DUMP one && rm image/core-1.img")?.ok()?;
        sh(bed, rt, "RESTORE one b 2>err </dev/null >/dev/null; code=$?; cat err; test $code != 0")?
            .ok()?
            .with("Restoring FAILED")?
            .has("restore.log")?;
        sh(bed, rt, "R state one")?.fails()?.has("does not exist")?;
        // With a hook that fails, CRIU has processes already.
        bundle(bed, "c", COUNTER, |c| {
            c["hooks"] =
                json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo $FAIL; test ! -e fail"]}]});
        })?;
        sh(
            bed,
            rt,
            "R run -d --bundle c two </dev/null >/dev/null 2>&1; sleep 0.3; rm -rf image; DUMP two && touch c/fail",
        )?
        .ok()?;
        sh(bed, rt, "RESTORE two c 2>&1 </dev/null")?.fails()?.has("createRuntime hook #0")?;
        sh(bed, rt, "R list -q")?.ok()?.out().is_empty().then_some(()).context("a failed restore left its state")
    }

    pub fn the_service_does_it_too(bed: &Bed, rt: (&str, &str)) -> Result {
        use api::runtime::v1::runtime_service_client::RuntimeServiceClient;
        use api::runtime::v1::{CheckpointRequest, RestoreRequest};
        bundle(bed, "b", COUNTER, |_| ())?;
        let script = format!("{}; exec {} --root $PWD/state --run $PWD/served serve", rt.1, rt.0);
        let server = bed.spawn("serve", bed.command("bash").args(["-c", &script]))?;
        let state = "R() { pier-runtime --root $PWD/served/runtime \"$@\"; }";
        bed.sh(&format!("{state}; R run -d --bundle b one </dev/null >/dev/null 2>&1"))?.ok()?;
        counts_beyond(bed, "b", 2)?;
        let path = |name: &str| bed.dir().join(name).display().to_string();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio.block_on(async {
            let channel = rpc::wait_serving(&rpc::socket_path(&bed.dir().join("served"), "runtime"), SOON).await?;
            let mut client = RuntimeServiceClient::new(channel);
            let unknown = CheckpointRequest { id: "two".into(), image_path: path("image"), ..Default::default() };
            let refused = client.checkpoint(unknown).await.err().context("an unknown container was checkpointed")?;
            ensure!(refused.code() == tonic::Code::NotFound, "{refused}");
            let dump = CheckpointRequest { id: "one".into(), image_path: path("image"), ..Default::default() };
            client.checkpoint(dump).await?;
            let restore =
                RestoreRequest { id: "one".into(), bundle: path("b"), image_path: path("image"), ..Default::default() };
            let pid = client.restore(restore).await?.into_inner().pid;
            ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "no process {pid}");
            Ok::<_, anyhow::Error>(())
        })?;
        // The connection goes with it: the server waits for it otherwise.
        drop(tokio);
        let now = count(bed, "b")?;
        counts_beyond(bed, "b", now)?;
        bed.sh(&format!("{state}; R delete -f one"))?.ok()?;
        server.stop()
    }
}
