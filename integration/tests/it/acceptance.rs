//! The whole path, as the founding issue asks for it: each test is one of its acceptance lines.
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

/// An engine with the busybox image in its store as `bb`.
pub fn engine(bed: &Bed) -> Result<integration::Daemon> {
    bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} bb", bed.fixture().busybox_tar()?.display()))?
        .ok()?;
    bed.serve("engine")
}

/// Line 2: each tool does its whole job with no daemon, and no process stays behind (the bed looks).
#[test]
fn every_tool_works_without_a_daemon() -> Result {
    isolated!(|bed| {
        let registry = bed.registry()?;
        let tar = bed.fixture().busybox_tar()?;
        bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} {registry}/bb:1", tar.display()))?.ok()?;
        bed.sh(&format!("pier-distribution push {registry}/bb:1"))?.ok()?;
        bed.sh(&format!("pier-distribution copy docker://{registry}/bb:1 oci:$DIR/layout:1 && cat layout/index.json"))?
            .ok()?
            .has("manifests")?;
        bed.fixture().bundle(&bed.dir().join("bundle"), &["echo", "from a bundle"])?;
        bed.sh("pier-runtime run --bundle bundle one")?.ok()?.has("from a bundle")?;
        bed.sh("pier-runtime list --format json")?.ok()?.without("one")?;
        bed.sh("ip netns add a && ip netns add b && pier-network create blue && \
             pier-network attach blue /run/netns/a --owner a --publish 8080:80 && \
             pier-network attach blue /run/netns/b --owner b")?
            .ok()?;
        bed.sh("ip netns exec a sh -c 'echo hello from a >index.html; busybox httpd -f -p 80 -h .' >/dev/null 2>&1 & echo $! >pid")?;
        let fetch = |from: &str| eventually(Duration::from_secs(3), || bed.sh(from)?.ok()?.has("hello from a"));
        fetch("curl -s -m 1 http://127.0.0.1:8080/index.html")?;
        let address = bed.sh("ip -n a -4 -o addr show eth0 | awk '{print $4}' | cut -d/ -f1")?.ok()?.out().to_string();
        fetch(&format!("ip netns exec b curl -s -m 1 http://{address}/index.html"))?;
        bed.sh(
            "pkill busybox; pier-network detach --owner a && pier-network detach --owner b && pier-network rm blue; \
                ip netns del a; ip netns del b",
        )?
        .ok()?;
        bed.sh("pier-volume create data && mkdir m && pier-volume mount data m && echo kept >m/f && pier-volume umount m && \
                pier-volume mount data m && cat m/f && pier-volume umount m && pier-volume rm data")?
            .ok()?
            .has("kept")?;
        bed.sh(&format!(
            "mkdir ctx && printf 'FROM {registry}/bb:1\\nRUN echo built >/made\\n' >ctx/Dockerfile && \
             pier-builder build -o type=oci-archive,dest=$DIR/out.tar ctx && tar tf out.tar"
        ))?
        .ok()?
        .has("index.json")
    })
}

/// Line 3: a client of the engine's socket and one of the tool's own see the same network.
#[test]
fn the_engine_passes_the_tools_through() -> Result {
    isolated!(|bed| {
        bed.serve("engine")?;
        bed.sh("pier network create seen && pier-network inspect seen")?.ok()?.has("seen")?;
        bed.sh("pier-network create other && pier network ls")?.ok()?.has("other")?;
        bed.sh("pier network rm seen other")?.ok()?.has("seen")
    })
}

/// Line 5: the engine's own state may go; everything is still listed.
#[test]
fn the_engine_keeps_nothing_it_cannot_rebuild() -> Result {
    isolated!(|bed| {
        let engine = engine(bed)?;
        let first = bed
            .sh("pier network create n && pier volume create v && \
            pier run -d --name web --network n -v v:/data --restart always bb sleep 1000")?
            .ok()?;
        anyhow::ensure!(oci::name::is_id(first.out().lines().last().unwrap_or("")), "{first}");
        engine.kill()?;
        bed.sh("rm -rf $PIER_ROOT/engine")?.ok()?;
        bed.serve("engine")?;
        bed.sh("pier ps")?.ok()?.with("web")?.with("bb")?.has("Up")?;
        bed.sh("pier network ls; pier volume ls; pier images; pier inspect web")?.ok()?.with("always")?.has("bb")?;
        bed.sh("pier exec web echo alive")?.ok()?.has("alive")?;
        bed.sh("pier rm -f web && pier network rm n && pier volume rm v")?.ok()?;
        Ok(())
    })
}

/// Line 5: an exit that happens while every daemon is dead is reported with its code, and no line is lost.
#[test]
fn an_exit_without_daemons_is_not_lost() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run -d --name brief bb sh -c 'i=0; while [ $i -lt 40 ]; do echo tick $i; i=$((i+1)); sleep 0.05; done; exit 9'")?
            .ok()?;
        bed.sh("pkill -KILL -f '[p]ierd|[p]ier-(supervisor|network|distribution|volume)'; sleep 2.5")?;
        bed.serve("engine")?;
        bed.sh("pier wait brief")?.ok()?.has("9")?;
        let logs = bed.sh("pier logs brief")?.ok()?;
        let ticks: Vec<&str> = logs.stdout.lines().collect();
        anyhow::ensure!(ticks.len() == 40 && ticks[39] == "tick 39", "{} lines\n{logs}", ticks.len());
        bed.sh("pier rm brief")?.ok()?;
        Ok(())
    })
}

/// Line 6: the same container on every runtime.
#[test]
fn run_on_every_runtime() -> Result {
    isolated!(|bed| {
        bed.sh("umount /sys/fs/cgroup/unified 2>/dev/null; true")?;
        engine(bed)?;
        for runtime in ["pier-runtime", "runc", "crun"] {
            bed.sh(&format!(
                "pier run --rm --runtime {runtime} -m 64m --cpus 0.5 -e A=b bb sh -c \
                 'echo $A; cat /proc/1/status | grep CapEff; exit 3'"
            ))?
            .exits(3)?
            .with("b\n")?
            .has("00000000a80425fb")
            .map_err(|e| e.context(runtime))?;
        }
        Ok(())
    })
}

/// Line 8: podman on pier-runtime.
#[test]
fn podman_runs_on_pier_runtime() -> Result {
    isolated!(|bed| {
        bed.sh("umount /sys/fs/cgroup/unified 2>/dev/null; true")?;
        bed.sh("n=$(ulimit -Hn); printf '[containers]\\ndefault_ulimits = [\"nofile=%s:%s\",\"nproc=%s:%s\"]\\n' $n $n $n $n >containers.conf; \
                mkdir -p $DIR/.config/containers; printf '{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}' >$DIR/.config/containers/policy.json")?;
        let podman = format!(
            "export CONTAINERS_CONF=$DIR/containers.conf; P=\"podman --root $DIR/p --runroot $DIR/pr --cgroup-manager cgroupfs \
             --events-backend file --runtime {}\"",
            bed.program("pier-runtime").display()
        );
        let tar = bed.fixture().busybox_tar()?;
        let outcome = bed.sh(&format!(
            "{podman}; $P import -q {} bb >/dev/null && $P run --rm --network none bb sh -c 'echo from podman; exit 5'; code=$?; \
             $P rm -f -a >/dev/null 2>&1; umount -l $DIR/p/overlay 2>/dev/null; exit $code",
            tar.display()
        ))?;
        outcome.exits(5)?.has("from podman")
    })
}

const PROGRAMS: [&str; 9] = [
    "pier",
    "pierd",
    "pier-runtime",
    "pier-shim",
    "pier-supervisor",
    "pier-distribution",
    "pier-network",
    "pier-volume",
    "pier-builder",
];

#[test]
fn programs_are_static() -> Result {
    isolated!(|bed| {
        for program in PROGRAMS {
            // A dynamic program names its loader (PT_INTERP).
            let path = bed.program(program);
            bed.sh(&format!("grep -c ld-linux-x86-64.so.2 <(head -c 4096 {}) || true", path.display()))?
                .ok()?
                .has("0")?;
        }
        // Alone in a chroot, with nothing but /proc.
        bed.sh(&format!(
            "mkdir -p c/proc c/tmp c/dev && cp {} c/ && mount -t proc proc c/proc && mount --bind /dev c/dev && chroot c /pier-volume --root /r --run /n create v; \
             code=$?; umount c/proc c/dev; exit $code",
            bed.program("pier-volume").display()
        ))?
        .ok()?
        .has("v")
    })
}

#[test]
fn every_program_documents_itself() -> Result {
    isolated!(|bed| {
        for program in PROGRAMS.iter().filter(|p| **p != "pier-shim") {
            bed.sh(&format!("{program} --version && {program} --help"))?.ok()?.has(program)?;
            bed.sh(&format!("{program} completion bash"))?.ok()?.has("complete")?;
            bed.sh(&format!("{program} man man && ls man"))?.ok()?.has(&format!("{program}.1"))?;
            bed.sh(&format!("{program} --no-such-flag"))?.fails()?.has("no-such-flag")?;
        }
        bed.sh("pier-volume --error-format json inspect nobody")?.exits(1)?.has("\"reason\":\"VOLUME_NOT_FOUND\"")
    })
}

#[test]
fn a_missing_tool_is_named() -> Result {
    isolated!(|bed| {
        bed.sh(&format!(
            "mkdir bin && for p in pier pierd pier-runtime pier-shim pier-supervisor pier-distribution pier-network; do \
             ln {0}/$p bin/$p 2>/dev/null || cp {0}/$p bin/$p; done",
            bed.program("").display()
        ))?
        .ok()?;
        bed.spawn("pierd-few", bed.command("bin/pierd").arg("serve").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))?;
        let few = "export PATH=$DIR/bin:/usr/sbin:/usr/bin:/sbin:/bin;";
        eventually(Duration::from_secs(5), || bed.sh(&format!("{few} pier network ls"))?.ok().map(|_| ()))?;
        bed.sh(&format!("{few} pier volume ls"))?.fails()?.has("pier-volume")?;
        bed.sh(&format!("{few} pier-distribution import {} bb", bed.fixture().busybox_tar()?.display()))?.ok()?;
        bed.sh(&format!("{few} pier run --rm bb echo the others go on"))?.ok()?.has("the others go on")
    })
}

#[test]
fn one_store_for_pull_build_and_run() -> Result {
    isolated!(|bed| {
        let registry = bed.registry()?;
        let tar = bed.fixture().busybox_tar()?;
        bed.sh(&format!(
            "pier-distribution import {} {registry}/bb:1 && pier-distribution push {registry}/bb:1 && rm -rf $PIER_ROOT && \
             pier-distribution pull {registry}/bb:1",
            tar.display()
        ))?
        .ok()?;
        bed.serve("engine")?;
        let before = bed
            .sh("du -c -s -B1 $PIER_ROOT/distribution/blobs $PIER_ROOT/distribution/layers | tail -1 | cut -f1")?
            .ok()?;
        bed.sh(&format!("pier run --rm {registry}/bb:1 true"))?.ok()?;
        let after = bed
            .sh("du -c -s -B1 $PIER_ROOT/distribution/blobs $PIER_ROOT/distribution/layers | tail -1 | cut -f1")?
            .ok()?;
        let (before, after): (f64, f64) = (before.out().parse()?, after.out().parse()?);
        anyhow::ensure!(after < before * 1.01 + 65_536.0, "running copied: {before} → {after}");
        bed.sh(&format!(
            "mkdir c && printf 'FROM {registry}/bb:1\\nRUN echo hi >/x\\n' >c/Dockerfile && pier build -t own:1 c"
        ))?
        .ok()?;
        bed.sh("pier run --rm own:1 cat /x")?.ok()?.has("hi")?;
        bed.sh("pier-distribution ls")?.ok()?.with("own")?;
        bed.sh("pier-distribution rm own:1 >/dev/null && pier images")?.ok()?.without("own")?;
        Ok(())
    })
}

#[test]
fn no_container_descends_from_a_daemon() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run -d --name one bb sleep 1000")?.ok()?;
        let pid = bed.sh("pier inspect one | jq -r '.[0].State.Pid'")?.ok()?;
        let parents = bed.sh(&format!(
            "p={}; while [ $p -gt 1 ]; do tr '\\0' ' ' </proc/$p/cmdline; echo; p=$(awk '{{print $4}}' /proc/$p/stat); done",
            pid.out()
        ))?;
        parents.ok()?.with("sleep 1000")?.with("pier-shim")?.without("pierd")?.without("pier-supervisor")?;
        bed.sh("pkill -KILL pierd; sleep 0.1; pier-supervisor stats --no-stream one; pier-supervisor logs one")?
            .ok()?;
        bed.sh("pier-supervisor rm -f one")?.ok()?;
        bed.serve("engine")?;
        bed.sh("pier ps -a")?.ok()?.without("one")?;
        Ok(())
    })
}

#[test]
fn exec_leaves_no_state() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run -d --name one bb sleep 1000")?.ok()?;
        bed.sh("pier exec one sh -c 'exit 4'")?.exits(4)?;
        bed.sh("pier exec one sh -c 'kill -9 $$'")?.exits(137)?;
        bed.sh("echo typed | pier exec -i one cat")?.ok()?.has("typed")?;
        bed.sh("pier exec -e A=b -w /tmp -u www one sh -c 'echo $A $PWD $(id -u)'")?.ok()?.has("b /tmp 33")?;
        bed.sh("pier exec one no-such-program")?.exits(127)?;
        bed.sh("pier inspect one | jq -r '.[0].State.Status'")?.ok()?.has("running")?;
        bed.sh("pier rm -f one")?.ok()?;
        Ok(())
    })
}

#[test]
fn a_default_container_is_confined() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        let status = bed.sh("pier run --rm bb cat /proc/self/status")?.ok()?;
        for line in
            ["CapEff:\t00000000a80425fb", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "Seccomp:\t2"]
        {
            status.clone().has(line)?;
        }
        bed.sh("pier run --rm bb sh -c 'unshare -U true'")?.fails()?;
        bed.sh("pier run --rm bb sh -c 'echo 1 >/proc/sys/kernel/panic'")?.fails()?;
        bed.sh("pier run --rm bb sh -c 'wc -c </proc/keys; ls /sys/firmware | wc -l; ls /dev'")?
            .ok()?
            .with("0\n0\n")?
            .without("vda")?;
        bed.sh("pier run --rm bb sh -c 'mkdir /sys/fs/cgroup/memory/x'")?.fails()?;
        bed.sh("pier run --rm -m 64m --pids-limit 20 bb sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max'")?
            .ok()?
            .with("67108864")?
            .has("20")?;
        bed.sh("pier run --rm -m 16m bb sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=40 && echo survived'")?
            .fails()?
            .without("survived")?;
        Ok(())
    })
}

#[test]
fn sockets_can_be_inherited() -> Result {
    isolated!(|bed| {
        // What systemd does: bind, pass descriptor 3, start at the first connection.
        bed.sh(r#"cat >activate.py <<'P'
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(8)
os.dup2(s.fileno(), 3) if s.fileno() != 3 else None
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
P"#)?;
        std::fs::create_dir_all(bed.run())?;
        let socket = bed.run().join("volume.sock");
        bed.spawn("activated", bed.command("python3").arg("activate.py").arg(&socket).args(["pier-volume", "serve"]))?;
        bed.serve("engine")?;
        eventually(Duration::from_secs(5), || bed.sh("pier volume create v")?.ok().map(|_| ()))?;
        let serving = bed.sh("pgrep -xc pier-volume")?;
        anyhow::ensure!(serving.out() == "1", "the engine started a second one: {serving}");
        bed.sh("pier volume rm v")?.ok()?;
        Ok(())
    })
}

/// A killed process still takes connections for a moment: who starts in that moment is its successor, not its rival.
#[test]
fn a_server_starts_while_the_last_one_dies() -> Result {
    isolated!(|bed| {
        let first = bed.serve("volume")?;
        let second = bed.spawn("second", bed.command("pier-volume").arg("serve"))?;
        std::thread::sleep(Duration::from_millis(200));
        first.kill()?;
        eventually(Duration::from_secs(5), || {
            Ok(std::os::unix::net::UnixStream::connect(bed.run().join("volume.sock"))?)
        })?;
        bed.sh("pier-volume serve")?.fails()?.has("another process serves on")?;
        second.stop()
    })
}

#[test]
fn without_overlay_the_copy_snapshotter_is_chosen() -> Result {
    isolated!(|bed| {
        // An overlay's upper directory cannot lie on an overlay: the usual case of an engine in a container.
        bed.sh("mkdir l u w o && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w o")?.ok()?;
        let tar = bed.fixture().busybox_tar()?;
        bed.sh(&format!("PIER_ROOT=$DIR/o/r pier-distribution import {} bb", tar.display()))?.ok()?;
        bed.spawn(
            "pierd-copy",
            bed.command(bed.program("pierd")).arg("serve").env("PIER_ROOT", bed.dir().join("o/r")),
        )?;
        eventually(Duration::from_secs(5), || bed.sh("pier run --rm bb echo on a copy")?.ok()?.has("on a copy"))?;
        bed.sh("pier info")?.ok()?.has("copy")?;
        bed.sh("pier run --name c bb touch /made && pier diff c && pier rm c")?.ok()?.has("/made")?;
        bed.sh("pkill -x pierd; sleep 0.2; pkill pier-; sleep 0.5; umount -l o")?;
        Ok(())
    })
}
