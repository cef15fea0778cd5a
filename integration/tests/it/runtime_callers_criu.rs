//! Checkpoint and restore as podman, containerd and docker ask an OCI runtime for them. Each test runs with Debian's runc as well.
use crate::runtime::{PIER, RUNC};
use crate::runtime_callers::{Caller, present, sweep, with_containerd, with_docker, with_podman};
use crate::runtime_criu::{COUNTER, with_criu};
use anyhow::ensure;
use integration::{Bed, Result, isolated};

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

/// What the counter in the container shows.
fn count(caller: &Caller<'_>, read: &str) -> Result<u64> {
    caller.eventually(&format!("{read} | grep -q .."))?;
    Ok(caller.run(read)?.ok()?.out().trim().parse()?)
}

/// The counter goes on from where it was.
fn goes_on(caller: &Caller<'_>, read: &str, before: u64) -> Result {
    let now = count(caller, read)?;
    ensure!(now >= before && now < before + 500, "{before} at the checkpoint, {now} after the restore");
    caller.eventually(&format!("[ $({read}) -gt {now} ]"))
}

fn podman(bed: &Bed, rt: &str) -> Result {
    if !present(bed, "podman", "podman")? {
        return Ok(());
    }
    with_criu(bed, "podman", |bed, path| {
        let mut caller = with_podman(bed, rt)?;
        caller.prelude.insert_str(0, &format!("export {path}\n"));
        caller.run(&format!("C run -d --name c --network none bb sh -c '{COUNTER}'"))?.ok()?;
        let read = "C exec c cat /count";
        let before = count(&caller, read)?;
        caller.run("C container checkpoint c && C inspect -f '{{.State.Status}}' c")?.ok()?.has("exited")?;
        caller.run("C container restore c")?.ok()?;
        goes_on(&caller, read, before)?;
        // As a file, into another container, with its address changed; and one that goes on meanwhile.
        caller
            .run("C container checkpoint --leave-running --export $PWD/c.tar c && C inspect -f '{{.State.Status}}' c")?
            .ok()?
            .has("running")?;
        caller.run("C rm -f -t 0 c && C container restore --import $PWD/c.tar --name d")?.ok()?;
        goes_on(&caller, "C exec d cat /count", before)?;
        // conmon's clean-up may come late and mount podman's storage once more.
        caller.run("C rm -f -t 0 d; while pgrep -x conmon || pgrep -x podman; do sleep 0.1; done >&2; umount $PWD/root/overlay 2>/dev/null; :")?.ok()?;
        sweep(bed)
    })
}

fn containerd(bed: &Bed, rt: &str) -> Result {
    if !present(bed, "containerd", "containerd")? {
        return Ok(());
    }
    with_criu(bed, "containerd", |bed, path| {
        let (daemon, caller) = with_containerd(bed, rt, path)?;
        let tar = bed.fixture().busybox_tar()?;
        caller.run(&format!("pier-distribution import {} localhost/bb && pier-distribution save -o bb.tar localhost/bb:latest && C images import bb.tar", tar.display()))?.ok()?;
        caller.run(&format!("C $RUN -d localhost/bb:latest c sh -c '{COUNTER}'"))?.ok()?;
        let read = "C tasks exec --exec-id r c cat /count";
        let before = count(&caller, read)?;
        caller.run("C containers checkpoint --rw --image --task c localhost/saved && C tasks kill -s KILL c")?.ok()?;
        caller.eventually("C tasks rm c && C containers rm c")?;
        caller.run("C containers restore --rw --live c localhost/saved")?.ok()?;
        goes_on(&caller, read, before)?;
        caller.run("C tasks kill -s KILL c")?.ok()?;
        caller.eventually("C tasks rm c && C containers rm c")?;
        daemon.stop()?;
        sweep(bed)
    })
}

fn docker(bed: &Bed, rt: &str) -> Result {
    if !present(bed, "docker", "dockerd")? || !present(bed, "docker", "/usr/bin/docker")? {
        return Ok(());
    }
    with_criu(bed, "docker", |bed, path| {
        let (daemon, caller) = with_docker(bed, rt, path)?;
        caller.run(&format!("C run -d --name one --network none bb sh -c '{COUNTER}'"))?.ok()?;
        let read = "C exec one cat /count";
        count(&caller, read)?;
        caller.run("C checkpoint create one first && C inspect -f '{{.State.Status}}' one")?.ok()?.has("exited")?;
        // Debian's docker cannot take up what it has just written, with any runtime ("already exists", moby issue 42900).
        let image = "$PWD/d/containers/*/checkpoints/first";
        caller.run(&format!("ls {image}"))?.ok()?.has("pages-1.img")?;
        caller.run("C rm -f one")?.ok()?;
        daemon.stop()?;
        sweep(bed)
    })
}
