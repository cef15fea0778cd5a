//! `pier run --rm` with a network against podman and, where its daemon starts here, docker.
use super::arena::{Arena, Side};
use anyhow::Result;

/// Bridge network and none.
pub fn run(arena: &Arena) -> Result<()> {
    arena.engine()?;
    let podman = arena.has("$PODMAN pull -q --tls-verify=false $REG/busybox:1");
    let docker = start_docker(arena, "docker -H unix://$DIR/d.sock pull -q $REG/busybox:1");
    for (title, flags) in [("run --rm on a bridge network", ""), ("run --rm --network none", "--network none")] {
        let mut sides = vec![Side::new("pier", &format!("pier run --rm {flags} $REG/busybox:1 true"))];
        if podman {
            sides.push(Side::new("podman", &format!("$PODMAN run --rm {flags} $REG/busybox:1 true")));
        }
        if docker {
            sides.push(Side::new(
                "docker",
                &format!("docker -H unix://$DIR/d.sock run --rm {flags} $REG/busybox:1 true"),
            ));
        }
        arena.race(title, 15, &sides)?;
    }
    Ok(())
}

/// Whether docker's daemon runs here and has the image that `fetch` gets.
pub fn start_docker(arena: &Arena, fetch: &str) -> bool {
    match dockerd(arena).and_then(|()| arena.sh(fetch).map(drop)) {
        Ok(()) => true,
        Err(e) => {
            println!("docker is left out: {e:#}");
            false
        }
    }
}

/// docker's daemon, once, on `$DIR/d.sock`.
pub fn dockerd(arena: &Arena) -> Result<()> {
    const ANSWERS: &str = "docker -H unix://$DIR/d.sock version";
    if arena.has(ANSWERS) {
        return Ok(());
    }
    arena.sh("command -v dockerd && echo {} >$DIR/docker.json")?;
    arena.spawn(
        "dockerd",
        "dockerd --data-root $DIR/docker/root --exec-root $DIR/docker/exec -H unix://$DIR/d.sock -p $DIR/docker.pid \
         --config-file $DIR/docker.json --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2 --log-level error",
    )?;
    arena.wait_for(ANSWERS)
}
