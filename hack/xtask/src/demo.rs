//! `hack/dev demo`: the main job on real input, told command by command. Any deviation ends it with a failure.
mod crash;
mod stage;

use anyhow::{Context, Result, ensure};
use stage::Stage;
use std::time::{Duration, Instant};

/// Runs the whole demo, its containers on an OCI runtime: a name or a path.
pub fn run(runtime: &str) -> Result<()> {
    ensure!(rustix_is_root(), "the demo makes containers: run it as root");
    let stage = Stage::new(runtime)?;
    let started = Instant::now();
    let result = acts(&stage);
    let cleaned = stage.close();
    result?;
    cleaned?;
    println!("\n== demo passed in {:.0} s: nothing was lost, nothing is left", started.elapsed().as_secs_f64());
    Ok(())
}

fn acts(s: &Stage) -> Result<()> {
    images(s)?;
    engine_and_build(s)?;
    run_and_look(s)?;
    crash::daemons_die_container_lives(s)?;
    tear_down(s)
}

fn images(s: &Stage) -> Result<()> {
    s.act("two images from Debian's packages, pushed to Debian's registry, with no daemon of ours");
    s.sh("pier-distribution import --change 'CMD [\"sh\"]' $BUSYBOX_TAR $REG/busybox:1")?;
    s.sh("pier-distribution import --change 'CMD [\"bash\"]' $DEBIAN_TAR $REG/debian:12")?;
    s.sh("pier-distribution push $REG/busybox:1")?;
    s.sh("pier-distribution push $REG/debian:12")?;
    s.sh("pier-distribution tags $REG/debian")?.has("12")?;
    // A cold store from here on.
    s.sh("for i in $REG/busybox:1 $REG/debian:12; do pier-distribution rm $i; done; pier-distribution gc")?;
    s.sh("pier-distribution ls --format json")?.lacks("busybox")
}

fn engine_and_build(s: &Stage) -> Result<()> {
    s.act("the engine: a cold pull, and a two-stage build into the same store");
    s.start_engine()?;
    s.sh("pier pull $REG/debian:12")?;
    s.write("app/Dockerfile", include_str!("demo/Dockerfile"))?;
    s.write("app/serve.sh", include_str!("demo/serve.sh"))?;
    s.write("app/.dockerignore", "*.secret\n")?;
    s.write("app/key.secret", "not for the image\n")?;
    s.sh("pier build --build-arg REG=$REG -t demo/web:1 app")?;
    s.sh("pier images")?.has("demo/web")
}

fn run_and_look(s: &Stage) -> Result<()> {
    s.act("run it: a network, a volume, published ports, limits");
    s.sh("pier network create demo")?;
    s.sh(
        "pier run -d --runtime $RUNTIME --network demo --name web -v data:/data -p $WEB:8080 -p $ECHO:9000 -m 64m --cpus 0.5 demo/web:1",
    )?;
    s.sh("pier ps")?.has("web")?;
    s.eventually("curl -sf http://127.0.0.1:$WEB/", "made by stage one")?;
    s.sh("pier run --rm --runtime $RUNTIME --network demo $REG/busybox:1 wget -qO- http://web:8080/")?
        .has("made by stage one")?;
    s.sh("pier logs --tail 3 web")?.has("tick")?;
    s.sh("pier stats --no-stream web")?.has("64")?;
    s.sh("pier exec web sh -c 'echo kept >/data/file; cat /data/file; ls /www'")?.has("kept")?;
    s.sh("! pier exec web ls /www/key.secret")?;
    s.sh("pier run --rm --runtime $RUNTIME -v data:/data $REG/busybox:1 cat /data/file")?.has("kept")?;
    s.sh("pier run --rm --runtime $RUNTIME $REG/busybox:1 sh -c 'exit 42'; echo \"exit code $?\"")?.has("exit code 42")
}

fn tear_down(s: &Stage) -> Result<()> {
    s.act("stop and remove everything");
    s.sh("pier stop -t 2 web")?;
    s.sh("pier rm web")?;
    s.sh("pier network rm demo")?;
    s.sh("pier volume rm data")?;
    s.sh("pier system prune -a -f")?;
    s.sh("pier ps -a")?.lacks("web")?;
    s.stop_everything().context("stop the engine and the tools")?;
    s.act("what is left on the host");
    s.nothing_left(Duration::from_secs(5))
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
