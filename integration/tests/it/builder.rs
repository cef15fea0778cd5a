//! pier-builder alone: Dockerfiles in, images out.
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A base image `bb` in the store.
fn base(bed: &Bed) -> Result {
    let tar = bed.fixture().busybox_tar()?;
    bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} bb", tar.display()))?.ok()?;
    Ok(())
}

/// A context directory with files in it.
fn context(bed: &Bed, name: &str, files: &[(&str, &str)]) -> Result {
    for (path, text) in files {
        let path = bed.dir().join(name).join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Builds `ctx` and unpacks its files into `out`.
const FILES: &str = "rm -rf out; pier-builder build -o out ctx";

#[test]
fn two_stages_become_an_image_in_the_store() -> Result {
    isolated!(|bed| {
        base(bed)?;
        bed.serve("distribution")?;
        let dockerfile = "ARG BASE=bb\nFROM $BASE AS build\nARG WHO=world\nWORKDIR /src\nCOPY hello.txt .\n\
             RUN sed s/NAME/$WHO/ hello.txt >/out.txt\n\
             FROM bb\nENV GREETING=\"hi there\"\nLABEL a=b\nEXPOSE 80\nUSER 5:6\n\
             COPY --from=build --chown=5:6 --chmod=640 /out.txt /srv/\nCMD [\"cat\", \"/srv/out.txt\"]\n";
        context(bed, "ctx", &[("Dockerfile", dockerfile), ("hello.txt", "hello NAME\n")])?;
        let built = bed.sh("pier-builder build -t app:1 --build-arg WHO=pier ctx")?.ok()?;
        ensure!(built.out().starts_with("sha256:"), "no image id: {built}");
        let image = bed.sh("pier-distribution inspect app:1")?.ok()?;
        for text in ["GREETING=hi there", "80/tcp", "5:6", "/srv/out.txt"] {
            image.clone().with(text)?;
        }
        bed.sh("pier-builder build --build-arg WHO=pier -o out ctx && cat out/srv/out.txt && stat -c %u:%g:%a out/srv/out.txt")?
            .ok()?
            .with("hello pier")?
            .has("5:6:640")
    })
}

#[test]
fn the_cache_is_keyed_by_content() -> Result {
    isolated!(|bed| {
        base(bed)?;
        bed.serve("distribution")?;
        let dockerfile = "FROM bb\nCOPY src /src\nRUN cat /proc/sys/kernel/random/uuid >/made\nWORKDIR /w\n";
        context(bed, "ctx", &[("Dockerfile", dockerfile), ("src/f", "1"), ("other", "x")])?;
        let build = || bed.sh(&format!("{FILES} && cat out/made"))?.ok();
        let first = build()?;
        bed.sh("sleep 0.01; touch ctx/src/f ctx/src; echo y >ctx/other")?.ok()?;
        let second = build()?;
        ensure!(first.out() == second.out(), "touching a file ran the step again\n{second}");
        ensure!(second.stderr.matches("CACHED").count() == 3, "three steps should be cached\n{second}");
        bed.sh("echo 2 >ctx/src/f")?.ok()?;
        let third = build()?;
        ensure!(third.out() != first.out(), "a changed file did not run the step again\n{third}");
        let fresh = bed.sh(&format!("{FILES} --no-cache && cat out/made"))?.ok()?;
        ensure!(fresh.out() != third.out(), "--no-cache used the cache");
        bed.sh("pier-builder du")?.ok()?.with("RUN cat")?.has("COPY src")?;
        bed.sh("pier-builder prune --all && pier-builder du")?.ok()?.without("RUN cat")?;
        ensure!(build()?.out() != fresh.out(), "a pruned result was used");
        Ok(())
    })
}

#[test]
fn stages_run_at_once() -> Result {
    isolated!(|bed| {
        base(bed)?;
        bed.serve("distribution")?;
        let dockerfile = "FROM bb AS a\nRUN sleep 2; cut -d. -f1 /proc/uptime >/a\nFROM bb AS b\nRUN sleep 2; cut -d. -f1 /proc/uptime >/b\n\
             FROM bb AS unused\nRUN false\nFROM bb\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
        context(bed, "ctx", &[("Dockerfile", dockerfile)])?;
        let started = Instant::now();
        bed.sh("pier-builder build -o out ctx")?.ok()?.without("RUN false")?;
        let read =
            |name: &str| -> Result<i64> { Ok(fs::read_to_string(bed.dir().join("out").join(name))?.trim().parse()?) };
        let apart = (read("a")? - read("b")?).abs();
        ensure!(apart <= 1, "the steps ended {apart} s apart (after {:?})", started.elapsed());
        Ok(())
    })
}

#[test]
fn a_failing_step_says_which_and_how() -> Result {
    isolated!(|bed| {
        base(bed)?;
        let dockerfile = "FROM bb\nRUN echo to stdout; echo to stderr >&2; exit 42\n";
        context(bed, "ctx", &[("Dockerfile", dockerfile)])?;
        let failed = bed.sh("pier-builder build -t never ctx")?.fails()?;
        for text in ["Dockerfile:2", "[2/2] RUN echo", "exit code 42", "to stdout", "to stderr"] {
            failed.clone().with(text)?;
        }
        bed.sh("pier-builder build -q ctx")?.fails()?.has("to stderr")?;
        bed.sh("pier-distribution inspect never")?.fails()?;
        Ok(())
    })
}

#[test]
fn mistakes_name_file_and_line() -> Result {
    isolated!(|bed| {
        let cases = [
            ("FROM bb\nRUNN x\n", "Dockerfile:2", "did you mean RUN?"),
            ("FROM bb\n\nCOPY --form=x a b\n", "Dockerfile:3", "did you mean --from?"),
            ("FROM scratch\nCOPY missing /\n", "Dockerfile:2", "not found in the build context"),
            ("FROM scratch\nADD https://example.org/x /\n", "Dockerfile:2", "not supported"),
            ("RUN x\n", "Dockerfile:1", "no build stage"),
            ("FROM scratch AS one\n", "--target two", "does not exist"),
            ("ARG X=1\nFROM 127.0.0.1:1/none:$X\nRUN x\n", "Dockerfile:2: FROM 127.0.0.1:1/none:1", "127.0.0.1:1"),
        ];
        for (text, place, message) in cases {
            context(bed, "ctx", &[("Dockerfile", text)])?;
            let target = if place.starts_with("--target") { place } else { "" };
            let failed = bed.sh(&format!("pier-builder build {target} ctx"))?.exits(1)?;
            let failed = if target.is_empty() { failed.with(place)? } else { failed };
            failed.with(message)?;
        }
        bed.sh("pier-builder build nowhere")?.exits(1)?.has("no directory")?;
        bed.sh("mkdir empty; pier-builder build empty")?.exits(1)?.has("empty/Dockerfile")
    })
}

#[test]
fn copies_do_not_leave_their_roots() -> Result {
    isolated!(|bed| {
        base(bed)?;
        bed.serve("distribution")?;
        context(bed, "ctx", &[("f", "inside"), ("sub/g", "g")])?;
        fs::write(bed.dir().join("secret"), "outside")?;
        std::os::unix::fs::symlink(bed.dir().join("secret"), bed.dir().join("ctx/leak"))?;
        let write = |text: &str| fs::write(bed.dir().join("ctx/Dockerfile"), text).context("write the Dockerfile");
        write("FROM scratch\nCOPY leak /\n")?;
        bed.sh("pier-builder build ctx")?.exits(1)?.has("not found in the build context")?;
        write("FROM scratch\nCOPY ../../secret /\n")?;
        bed.sh("pier-builder build ctx")?.exits(1)?.has("not found in the build context")?;
        // A link in the image to a directory of the host leads to the image's own directory.
        let target = bed.dir().join("host");
        fs::create_dir_all(&target)?;
        write(&format!(
            "FROM bb\nRUN mkdir -p {0} && ln -s {0} /link\nCOPY f /link/f\nCOPY f ../../x/../y\n",
            target.display()
        ))?;
        bed.sh(FILES)?.ok()?;
        ensure!(!target.join("f").exists(), "written to the host");
        let inside = bed.dir().join("out").join(target.strip_prefix("/")?).join("f");
        ensure!(fs::read_to_string(inside)? == "inside", "the link was not followed in the image");
        ensure!(bed.dir().join("out/y").exists(), "a path above the root is the root");
        Ok(())
    })
}

#[test]
fn ignored_files_do_not_exist() -> Result {
    isolated!(|bed| {
        let files = [
            ("Dockerfile", "FROM scratch\nCOPY . /\n"),
            (".dockerignore", "*.log\n!keep.log\nnode_modules\n**/tmp\n.dockerignore\n"),
            ("a.log", ""),
            ("keep.log", ""),
            ("src/a.log", ""),
            ("src/tmp/x", ""),
            ("node_modules/m", ""),
        ];
        context(bed, "ctx", &files)?;
        let list = "(cd out && find . -type f | sort | tr '\\n' ' ')";
        let listed = bed.sh(&format!("{FILES} && {list}"))?.ok()?;
        ensure!(listed.out() == "./Dockerfile ./keep.log ./src/a.log", "{listed}");
        fs::write(bed.dir().join("ctx/Dockerfile.dockerignore"), "*\n!a.log\n")?;
        let listed = bed.sh(&format!("{FILES} && {list}"))?.ok()?;
        ensure!(listed.out() == "./a.log", "the Dockerfile's own ignore file wins: {listed}");
        Ok(())
    })
}

#[test]
fn unpacks_archives_and_runs_heredocs_and_mounts() -> Result {
    isolated!(|bed| {
        base(bed)?;
        bed.serve("distribution")?;
        let dockerfile = "FROM bb\nADD x.tar.gz /data/\nCOPY <<one.txt <<two.txt /docs/\n1\none.txt\n2\ntwo.txt\n\
             RUN <<EOF\nset -e\ncd /docs\ncat one.txt two.txt >both.txt\nEOF\n\
             RUN --mount=type=cache,target=/cache echo x >>/cache/n; wc -l </cache/n >/count\n\
             RUN --mount=type=tmpfs,target=/t --mount=target=/ctx cp /ctx/y /y && touch /t/gone\n\
             RUN --network=none ip link | grep -c : >/links || true\n";
        context(bed, "ctx", &[("Dockerfile", dockerfile), ("y", "from the context"), ("tree/a/b", "packed\n")])?;
        bed.sh("cd ctx && tar czf x.tar.gz -C tree a")?.ok()?;
        bed.sh(&format!("{FILES} && cat out/data/a/b out/docs/both.txt out/y out/count"))?
            .ok()?
            .has("packed\n1\n2\nfrom the context1")?;
        for path in ["cache", "ctx", "t", "etc/hosts", "etc/resolv.conf"] {
            ensure!(!bed.dir().join("out").join(path).exists(), "the mount point {path} is in a layer");
        }
        bed.sh(&format!("{FILES} --no-cache && cat out/count"))?.ok()?.has("2")
    })
}

#[test]
fn without_a_daemon_nothing_stays_behind() -> Result {
    isolated!(|bed| {
        base(bed)?;
        context(bed, "ctx", &[("Dockerfile", "FROM bb\nRUN echo built >/made\n")])?;
        bed.sh("pier-builder build -t made:1 -o type=oci-archive,dest=out.tar ctx && tar tf out.tar")?
            .ok()?
            .has("index.json")?;
        bed.sh("pier-builder build -o type=docker-archive,dest=- ctx | tar t")?.ok()?.has("manifest.json")?;
        bed.sh("pgrep -af 'pier-(distribution|builder|runtime)'")?.exits(1)?;
        bed.sh("ls $PIER_ROOT/builder/work")?.ok()?.exits(0).and_then(|listed| {
            ensure!(listed.out().is_empty(), "{listed}");
            Ok(())
        })
    })
}

#[test]
fn a_killed_builder_is_cleaned_up_after() -> Result {
    isolated!(|bed| {
        base(bed)?;
        let store = bed.serve("distribution")?;
        context(bed, "ctx", &[("Dockerfile", "FROM bb\nRUN echo begun; sleep 600\n")])?;
        let builder = bed.spawn("building", bed.command(bed.program("pier-builder")).args(["build", "ctx"]))?;
        integration::eventually(Duration::from_secs(20), || {
            ensure!(bed.log("building").contains("begun\n"), "{}", bed.log("building"));
            Ok(())
        })?;
        builder.kill()?;
        bed.sh("pier-builder du")?.ok()?;
        bed.sh("ls $PIER_ROOT/builder/work; pgrep -f '[s]leep 600'; pier-distribution snapshot ls | tail -n +2")?
            .ok()
            .and_then(|left| {
                ensure!(left.out().is_empty(), "{left}");
                Ok(())
            })?;
        ensure!(store.pid() > 0);
        Ok(())
    })
}

#[test]
fn an_interrupted_build_undoes_its_step() -> Result {
    isolated!(|bed| {
        base(bed)?;
        bed.serve("distribution")?;
        context(bed, "ctx", &[("Dockerfile", "FROM bb\nRUN echo begun; sleep 600\n")])?;
        let builder = bed.spawn("building", bed.command(bed.program("pier-builder")).args(["build", "ctx"]))?;
        integration::eventually(Duration::from_secs(20), || {
            ensure!(bed.log("building").contains("begun\n"), "{}", bed.log("building"));
            Ok(())
        })?;
        builder.stop()?;
        bed.sh("pgrep -f '[s]leep 600'")?.exits(1)?;
        let left = bed.sh("ls $PIER_ROOT/builder/work")?.ok()?;
        ensure!(left.out().is_empty(), "{left}");
        Ok(())
    })
}

#[test]
fn serves_builds_and_debian_runc_runs_them() -> Result {
    isolated!(|bed| {
        base(bed)?;
        context(bed, "ctx", &[("Dockerfile", "FROM bb\nRUN id -u >/id\n")])?;
        bed.sh("pier-builder --runtime runc build -o out ctx && cat out/id")?.ok()?.has("0")?;
        bed.sh("pier-builder debug dump-llb ctx")?
            .ok()?
            .with("docker-image://docker.io/library/bb:latest@sha256:")?
            .has("id -u")
    })
}

#[test]
fn pulls_its_base_and_pushes_the_result() -> Result {
    isolated!(|bed| {
        base(bed)?;
        let registry = bed.registry()?;
        bed.sh(&format!("pier-distribution tag bb {registry}/bb:1 && pier-distribution push {registry}/bb:1 && pier-distribution rm {registry}/bb:1 bb"))?
            .ok()?;
        bed.serve("distribution")?;
        bed.serve("builder")?;
        let dockerfile = format!("ARG BASE\nFROM {registry}/$BASE\nRUN echo pushed >/f\n");
        context(bed, "ctx", &[("Dockerfile", &dockerfile)])?;
        bed.sh(&format!("pier-builder build -q --build-arg BASE=bb:1 -t {registry}/app:1 --push ctx"))?.ok()?;
        bed.sh(&format!("pier-distribution tags {registry}/app"))?.ok()?.has("1")?;
        let gone = bed.sh("pier-builder build --build-arg BASE=bb:2 ctx")?.fails()?;
        gone.has("Dockerfile:2: FROM 127.0.0.1:5000/bb:2")
    })
}
