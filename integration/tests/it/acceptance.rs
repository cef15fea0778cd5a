//! The whole path, as the founding issue asks for it: each test is one of its acceptance lines.
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

/// An engine with the busybox image in its store as `bb`.
fn engine(bed: &Bed) -> Result {
    bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} bb", bed.fixture().busybox_tar()?.display()))?
        .ok()?;
    bed.serve("engine")?;
    Ok(())
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
             pier-network attach blue /run/netns/b --owner b --format json")?
            .ok()?;
        bed.sh("ip netns exec a sh -c 'echo hello from a >index.html; busybox httpd -f -p 80 -h .' & echo $! >pid")?;
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
        engine(bed)?;
        let first = bed
            .sh("pier network create n && pier volume create v && \
            pier run -d --name web --network n -v v:/data --restart always bb sleep 1000")?
            .ok()?;
        anyhow::ensure!(oci::name::is_id(first.out().lines().last().unwrap_or("")), "{first}");
        bed.sh("pkill -KILL pierd; rm -rf $PIER_ROOT/engine; true")?;
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
        bed.sh("pkill -KILL -f 'pierd|pier-(supervisor|network|distribution|volume)'; sleep 2.5")?;
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
