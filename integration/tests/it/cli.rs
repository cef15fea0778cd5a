//! `pier`: what people type, end to end, on a terminal and off it.
use anyhow::ensure;
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

/// An engine with the busybox image in its store as `bb`.
pub(crate) fn engine(bed: &Bed) -> Result {
    bed.sh(&format!("pier-distribution import --change 'CMD [\"sh\"]' {} bb", bed.fixture().busybox_tar()?.display()))?
        .ok()?;
    bed.serve("engine").map(drop)
}

#[test]
fn says_what_to_do_without_an_engine() -> Result {
    isolated!(|bed| {
        bed.sh("pier ps")?.exits(1)?.with("cannot reach the engine at unix://")?.has("Hint: start it: pierd serve")?;
        bed.sh("pier run bb")?.exits(125)?.has("Hint: start it")?;
        bed.sh("pier run --restart sometimes bb")?.exits(125)?.has("sometimes")?;
        bed.sh("pier --host nowhere ps")?.exits(1)?.has("nowhere")?;
        bed.sh("pier completion bash && mkdir man && pier man man && ls man")?.ok()?.has("pier-run.1")
    })
}

#[test]
fn foreground_streams_and_codes() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run --rm bb sh -c 'echo out; echo err >&2; exit 7' 2>err; echo $?; echo --; cat err")?
            .ok()?
            .has("out\n7\n--\nerr\n")?;
        bed.sh("printf 'a\\nb\\n' | pier run --rm -i bb wc -l")?.ok()?.has("2")?;
        bed.sh("head -c 3000000 /dev/zero | pier run --rm -i bb cat | wc -c")?.ok()?.has("3000000")?;
        bed.sh("pier run --rm --init bb sh -c 'kill -9 $$'")?.exits(137)?;
        bed.sh("pier run --rm bb no-such-program")?.exits(127)?;
        bed.sh("pier run --rm bb /etc/passwd")?.exits(126)?;
        bed.sh("pier ps -aq")?.ok().and_then(|seen| {
            ensure!(seen.out().is_empty(), "left: {seen}");
            Ok(())
        })?;
        // SIGTERM to the client ends the container, whose code the client has.
        bed.sh("pier run --rm --name t bb sh -c 'trap \"exit 5\" TERM; while :; do sleep 0.1; done' & p=$!; \
                until pier ps -q | grep -q .; do sleep 0.1; done; sleep 0.3; kill -TERM $p; wait $p")?
            .exits(5)?;
        Ok(())
    })
}

#[test]
fn terminals() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        let tty = |command: &str, input: &str| {
            bed.sh(&format!(
                "(sleep 1; printf '{input}'; sleep 1) | \
                 script -qec \"stty cols 91 rows 33; {command}; echo code=\\$?; stty -a | grep -o ' icanon'\" /dev/null"
            ))
        };
        tty("pier run --rm -it bb sh -c 'stty size; read x; echo got-\\$x; exit 3'", "word\\n")?
            .with("33 91")?
            .with("got-word")?
            .with("code=3")?
            .has(" icanon")?;
        // Detached with the keys: the container goes on, the terminal is back.
        tty("pier run -it --name kept bb sh", "\\020\\021")?.with("code=0")?.has(" icanon")?;
        bed.sh("pier ps --format '{{.Names}} {{.Status}}'")?.ok()?.has("kept Up")?;
        tty("pier attach kept", "echo x-$((40+2))\\nexit 4\\n")?.with("x-42")?.has("code=4")?;
        bed.sh("pier rm kept; pier run -d --name one bb sleep 1000")?.ok()?;
        tty("pier exec -it one sh -c 'stty size; exit 6'", "")?.with("33 91")?.has("code=6")?;
        bed.sh("pier rm -f one; pier run --rm -it bb sh")?.exits(125)?.has("needs a terminal")
    })
}

#[test]
fn listings_and_documents() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier network create blue && pier volume create -l a=b data")?.ok()?;
        let id = bed
            .sh("pier run -d --name web -l tier=front --network blue -p 127.0.0.1:8080:80 -v data:/data:ro -m 64m bb sleep 1000")?
            .ok()?;
        let id = id.out().to_owned();
        bed.sh("pier ps")?
            .ok()?
            .with("CONTAINER ID   IMAGE")?
            .with(&id[..12])?
            .with("\"sleep 1000\"")?
            .has("127.0.0.1:8080->80/tcp")?;
        bed.sh("pier ps -q --no-trunc -f label=tier=front -f name=web")?.ok()?.has(&id)?;
        bed.sh("pier ps -q -f label=tier=back")?.ok()?.without(&id[..12])?;
        let rows = bed.sh("pier ps --format json")?.ok()?.json()?;
        ensure!(rows["Names"] == "web" && rows["State"] == "running", "{rows}");
        let documents = bed.sh("pier inspect web")?.ok()?.json()?;
        let web = &documents[0];
        ensure!(web["Id"] == id && web["State"]["Running"] == true && web["HostConfig"]["Memory"] == 64 << 20, "{web}");
        ensure!(web["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"] == "8080", "{web}");
        ensure!(web["Mounts"][0]["Destination"] == "/data" && web["Mounts"][0]["RW"] == false, "{web}");
        bed.sh("pier inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web | grep -E '^[0-9.]+$'")?
            .ok()?;
        bed.sh("pier port web 80")?.ok()?.has("127.0.0.1:8080")?;
        bed.sh("pier network inspect -f '{{.Name}} {{.Driver}}' blue")?.ok()?.has("blue bridge")?;
        bed.sh("pier volume inspect -f '{{.Labels.a}}' data")?.ok()?.has("b")?;
        bed.sh("pier images --format '{{.Repository}}:{{.Tag}}'")?.ok()?.has("bb:latest")?;
        bed.sh("pier inspect nothing-like-this")?.exits(1)?.with("[]")?.has("no such object: nothing-like-this")?;
        bed.sh("pier stats --no-stream")?.ok()?.with("CPU %")?.with("64MiB")?.has("web")?;
        bed.sh("pier top web")?.ok()?.has("sleep 1000")?;
        bed.sh("pier rename web shop && pier pause shop && pier ps && pier unpause shop")?.ok()?.has("(Paused)")?;
        bed.sh("pier volume rm data")?.exits(1)?.has("in use")?;
        bed.sh("pier events --since 10m --until 0s")?.ok()?.has("container")?;
        bed.sh("pier rm -f shop && pier network rm blue && pier volume rm data && pier info && pier version && pier system df")?
            .ok()?
            .has("Server: pierd")
    })
}

#[test]
fn logs_and_exit_codes_later() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run -d --name n bb sh -c 'for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2; exit 9'")?
            .ok()?;
        bed.sh("pier wait n")?.ok()?.has("9")?;
        bed.sh("pier logs --tail 2 n 2>/dev/null")?.ok()?.without("line 3")?.has("line 5")?;
        bed.sh("pier logs n >/dev/null")?.ok()?.has("bad")?;
        bed.sh("pier logs -t n | grep -Ec '^20[0-9-]+T[0-9:.]+Z line'")?.ok()?.has("5")?;
        bed.sh("pier ps -a")?.ok()?.has("Exited (9)")?;
        bed.sh("pier start -a n; echo again=$?")?.ok()?.with("line 5")?.has("again=9")?;
        bed.sh("pier rm n nobody")?.exits(1)?.with("n\n")?.has("nobody")
    })
}

#[test]
fn follows_a_log_until_the_end() -> Result {
    isolated!(|bed| {
        engine(bed)?;
        bed.sh("pier run -d --name f bb sh -c 'i=0; while [ $i -lt 20 ]; do echo n$i; i=$((i+1)); sleep 0.05; done'")?
            .ok()?;
        let followed = bed.sh("timeout 20 pier logs -f f")?.ok()?;
        ensure!(followed.stdout.lines().count() == 20, "{followed}");
        eventually(Duration::from_secs(5), || bed.sh("pier rm f")?.ok().map(drop))
    })
}
