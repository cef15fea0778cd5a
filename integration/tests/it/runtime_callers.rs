//! The programs that call an OCI runtime, with ours in runc's place: podman (through conmon), containerd (through its shim),
//! docker. Each test runs with Debian's runc as well: what fails with both is not ours.
use crate::runtime::{PIER, RUNC};
use anyhow::{Context, ensure};
use integration::{Bed, Daemon, Outcome, Result, isolated};
use std::time::Duration;

mod pier {
    use super::*;
    #[test]
    fn podman() -> Result {
        isolated!(|bed| super::podman(bed, PIER))
    }
    #[test]
    fn containerd() -> Result {
        isolated!(|bed| super::containerd(bed, PIER))
    }
    #[test]
    fn docker() -> Result {
        isolated!(|bed| super::docker(bed, PIER))
    }
}

mod runc {
    use super::*;
    #[test]
    fn podman() -> Result {
        isolated!(|bed| super::podman(bed, RUNC))
    }
    #[test]
    fn containerd() -> Result {
        isolated!(|bed| super::containerd(bed, RUNC))
    }
    #[test]
    fn docker() -> Result {
        isolated!(|bed| super::docker(bed, RUNC))
    }
}

/// A program that says that it runs, and ends with 3 when asked to.
const SERVICE: &str = "sh -c 'trap \"exit 3\" TERM; echo started; while :; do sleep 0.1; done'";
/// Answers on port 80.
const WEB: &str = "sh -c 'while :; do printf \"HTTP/1.0 200 OK\\r\\n\\r\\nserved\\n\" | nc -l -p 80; done'";

/// One caller: a shell prelude that defines `C` as its command line.
pub(crate) struct Caller<'a> {
    pub(crate) bed: &'a Bed,
    pub(crate) prelude: String,
}

impl Caller<'_> {
    pub(crate) fn run(&self, script: &str) -> Result<Outcome> {
        self.bed.sh(&format!("{}\n{script}", self.prelude))
    }

    /// Until the script succeeds.
    pub(crate) fn eventually(&self, script: &str) -> Result {
        integration::eventually(Duration::from_secs(20), || self.run(script)?.ok().map(|_| ()))
    }
}

/// What callers leave on a machine with any runtime: parents of cgroups, a bridge, firewall tables.
pub(crate) fn sweep(bed: &Bed) -> Result {
    bed.sh(
        "for d in /sys/fs/cgroup/*/{docker,libpod_parent,default}; do [ ! -d $d ] || find $d -depth -type d -exec rmdir {} +; done
         nft flush ruleset; ! ip link show docker0 >/dev/null 2>&1 || ip link del docker0",
    )?
    .ok()?;
    Ok(())
}

/// The file of a program that a machine may lack.
pub(crate) fn present(bed: &Bed, test: &str, program: &str) -> Result<bool> {
    let there = bed.sh(&format!("command -v {program}"))?.out().starts_with('/');
    if !there {
        println!("skipped: {test}: {program} is not installed");
    }
    Ok(there)
}

pub(crate) fn absolute(bed: &Bed, rt: &str) -> Result<String> {
    Ok(bed.sh(&format!("command -v {rt}"))?.ok()?.out().trim().to_owned())
}

/// What podman and docker have in common.
fn as_people_do(caller: &Caller<'_>) -> Result {
    caller.run("C run --rm bb echo hello")?.ok()?.has("hello")?;
    caller.run("C run --rm bb sh -c 'exit 7'")?.exits(7)?;
    caller.run("C run --rm bb nosuch 2>&1")?.exits(127)?.has("executable file not found in $PATH")?;
    caller.run("C run --rm bb /etc/passwd 2>&1")?.exits(126)?.has("ermission denied")?;
    caller.run(&format!("C run -d --name one -m 64m --pids-limit 50 bb {SERVICE}"))?.ok()?;
    caller.eventually("C logs one | grep started")?;
    caller
        .run("C exec one cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max")?
        .ok()?
        .has("67108864\n50")?;
    caller.run("C exec one nosuch 2>&1")?.fails()?.has("executable file not found in $PATH")?;
    caller.run("C exec --user 1000 one sh -c 'id -u; exit 5'")?.exits(5)?.has("1000")?;
    caller.run("C pause one && C inspect -f '{{.State.Status}}' one && C unpause one")?.ok()?.has("paused")?;
    caller.run("C stats --no-stream one && C top one")?.ok()?.with("one")?.has("sleep 0.1")?;
    caller.run("C stop -t 5 one && C inspect -f '{{.State.ExitCode}}' one && C rm one")?.ok()?.has("3\n")?;
    caller.run(&format!("C run -d --name two bb {SERVICE}; C kill two; C wait two; C rm two"))?.ok()?.has("137")?;
    caller
        .run("mkfifo never; script -qec \"$LINE run -it --rm bb sh -c 'tty; echo in a terminal'\" /dev/null <>never")?
        .ok()?
        .with("/dev/pts/0")?
        .has("in a terminal")?;
    caller.run(&format!("C run -d --name web -p 18080:80 bb {WEB}"))?.ok()?;
    caller.eventually("curl -sf --max-time 2 http://127.0.0.1:18080/ | grep served")?;
    caller.run("C rm -f web && ! C inspect web")?.ok()?;
    caller.run("C run --rm --user 1000:1000 --cap-drop ALL --read-only --tmpfs /t bb sh -c 'touch /t/x; touch /x; grep -E \"CapEff|Seccomp:\" /proc/self/status'")?
        .ok()?
        .with("CapEff:\t0000000000000000")?
        .has("Seccomp:\t2")
}

/// podman, with an image `bb`.
pub(crate) fn with_podman<'a>(bed: &'a Bed, rt: &str) -> Result<Caller<'a>> {
    // Without CAP_SYS_RESOURCE podman's default limits cannot be set.
    bed.sh("n=$(ulimit -Hn); printf '[containers]\\ndefault_ulimits = [\"nofile=%s:%s\",\"nproc=%s:%s\"]\\n' $n $n $n $n >conf")?.ok()?;
    let rt = absolute(bed, rt)?;
    let line = "podman --root $PWD/root --runroot $PWD/run --cgroup-manager cgroupfs --events-backend file --storage-driver overlay";
    let caller = Caller {
        bed,
        prelude: format!("export CONTAINERS_CONF=$PWD/conf; LINE=\"{line} --runtime {rt}\"; C() {{ $LINE \"$@\"; }}"),
    };
    let tar = bed.fixture().busybox_tar()?;
    caller.run(&format!("C import -q {} bb", tar.display()))?.ok()?;
    Ok(caller)
}

fn podman(bed: &Bed, rt: &str) -> Result {
    if !present(bed, "podman", "podman")? {
        return Ok(());
    }
    let caller = with_podman(bed, rt)?;
    as_people_do(&caller)?;
    caller.run("C run --rm --uidmap 0:100000:65536 bb cat /proc/self/uid_map")?.ok()?.has("100000")?;
    caller.run("C pod create --name pod --infra-image bb --infra-command 'sleep 100' && C run --rm --pod pod bb echo in a pod; C pod rm -f -t 0 pod")?
        .ok()?
        .has("in a pod")?;
    caller.run("C ps -aq")?.ok()?.without("a")?;
    sweep(bed)
}

/// containerd with `env` in its environment, and `ctr` with a root file system `$ROOT`.
pub(crate) fn with_containerd<'a>(bed: &'a Bed, rt: &str, env: &str) -> Result<(Daemon, Caller<'a>)> {
    let rt = absolute(bed, rt)?;
    let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\nroot = \"/run/c/root\"\nstate = \"/run/c/state\"\n[grpc]\naddress = \"/run/c/sock\"\n";
    std::fs::write(bed.dir().join("c.toml"), config)?;
    bed.sh(&format!("mkdir rootfs && tar -C rootfs -xf {}", bed.fixture().busybox_tar()?.display()))?.ok()?;
    let daemon =
        bed.spawn("containerd", bed.command("sh").args(["-c", &format!("{env} exec containerd -c c.toml")]))?;
    let prelude = format!(
        "C() {{ ctr -a /run/c/sock \"$@\"; }}; RUN=\"run --env PATH=/bin --runc-binary {rt}\"; ROOT=\"--rootfs $PWD/rootfs\""
    );
    let caller = Caller { bed, prelude };
    caller.eventually("C version")?;
    Ok((daemon, caller))
}

fn containerd(bed: &Bed, rt: &str) -> Result {
    if !present(bed, "containerd", "containerd")? {
        return Ok(());
    }
    let (daemon, caller) = with_containerd(bed, rt, "")?;
    caller.run("C $RUN --rm $ROOT a echo hello")?.ok()?.has("hello")?;
    caller.run("C $RUN --rm $ROOT b sh -c 'exit 7'")?.exits(7)?;
    caller
        .run("C $RUN --rm $ROOT c nosuch 2>&1")?
        .fails()?
        .with("OCI runtime create failed: ")?
        .has("executable file not found in $PATH")?;
    // A failed create leaves its container record with ctr.
    caller.run("C c rm b c 2>/dev/null; :")?.ok()?;
    caller.run(&format!("C $RUN -d --memory-limit 67108864 $ROOT d {SERVICE}; C tasks ls"))?.ok()?.has("RUNNING")?;
    caller.run("C tasks exec --exec-id x d cat /proc/self/cgroup")?.ok()?.has(":memory:/default/d")?;
    caller
        .run("C tasks exec --exec-id y d nosuch 2>&1")?
        .fails()?
        .with("OCI runtime exec failed: exec failed: ")?
        .has("executable file not found in $PATH")?;
    caller.run("C tasks pause d && C tasks ls && C tasks resume d")?.ok()?.has("PAUSED")?;
    caller.run("C tasks metrics d && C tasks ps d")?.ok()?.has("67108864")?;
    caller.run("C tasks kill -s TERM d")?.ok()?;
    caller.eventually("C tasks ls | grep STOPPED")?;
    caller.run("C tasks rm d; C c rm d")?.ok()?;
    caller.run("mkfifo never; script -qec \"ctr -a /run/c/sock $RUN --rm -t $ROOT e sh -c 'tty; echo in a terminal'\" /dev/null <>never")?.ok()?.has("in a terminal")?;
    caller
        .run("C $RUN --rm --read-only --seccomp $ROOT f sh -c 'touch /x; grep Seccomp: /proc/self/status'")?
        .ok()?
        .has("Seccomp:\t2")?;
    daemon.stop()?;
    sweep(bed)
}

/// docker with `env` in its environment, and an image `bb`.
pub(crate) fn with_docker<'a>(bed: &'a Bed, rt: &str, env: &str) -> Result<(Daemon, Caller<'a>)> {
    let rt = absolute(bed, rt)?;
    std::fs::write(bed.dir().join("daemon.json"), r#"{"experimental": true}"#)?;
    let dir = bed.dir().display().to_string();
    let args = format!(
        "--data-root {dir}/d --exec-root /run/x -H unix:///run/docker.sock -p /run/d.pid --config-file {dir}/daemon.json \
         --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2 --add-runtime under-test={rt} --default-runtime under-test"
    );
    let daemon = bed.spawn("dockerd", bed.command("sh").args(["-c", &format!("{env} exec dockerd {args}")]))?;
    let prelude = "export DOCKER_HOST=unix:///run/docker.sock; LINE=/usr/bin/docker; C() { $LINE \"$@\"; }".to_owned();
    let caller = Caller { bed, prelude };
    caller.eventually("C version")?;
    caller.run(&format!("C import {} bb", bed.fixture().busybox_tar()?.display()))?.ok()?;
    Ok((daemon, caller))
}

fn docker(bed: &Bed, rt: &str) -> Result {
    if !present(bed, "docker", "dockerd")? || !present(bed, "docker", "/usr/bin/docker")? {
        return Ok(());
    }
    let (daemon, caller) = with_docker(bed, rt, "")?;
    as_people_do(&caller)?;
    caller
        .run(&format!("C run -d --name up -m 64m bb {SERVICE} && C update --memory 128m --memory-swap 256m up"))?
        .ok()?;
    let limit = caller.run("C exec up cat /sys/fs/cgroup/memory/memory.limit_in_bytes; C rm -f up >&2")?.ok()?;
    ensure!(limit.out().trim() == "134217728", "{}", limit.out());
    daemon.stop().context("dockerd")?;
    sweep(bed)
}
