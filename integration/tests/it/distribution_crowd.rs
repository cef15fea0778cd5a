//! `pier-distribution`: sixteen pulls at once of images that share layers, by as many processes and through one server, while
//! garbage is collected, with and without SIGKILLs.
use crate::distribution_crash::{REGISTRY, fetched, recording_registry};
use anyhow::{Context, ensure};
use api::distribution::v1 as pb;
use api::distribution::v1::distribution_service_client::DistributionServiceClient;
use integration::{Bed, Result, isolated};
use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const PULLS: usize = 16;
const IMAGES: usize = 4;

/// Four images of four layers of a few megabytes: one they all share, one that two share, two of their own.
fn images(bed: &Bed) -> Result {
    let script = format!(
        r#"
        set -eu
        export PIER_ROOT=$DIR/maker
        layer() {{ mkdir -p l/$1; head -c $2 /dev/urandom >l/$1/$1; tar c -C l/$1 . | gzip -1 >l/$1.tgz; }}
        layer all 4000000; layer pair0 3000000; layer pair1 3000000
        for i in 0 1 2 3; do layer own$i 2000000; layer top$i 100000; done
        for i in 0 1 2 3; do
            rm -rf lay; mkdir -p lay/blobs/sha256; cd lay
            put() {{ d=$(sha256sum $1 | cut -c-64); cp $1 blobs/sha256/$d; echo $d; }}
            ids=; descs=
            for l in all pair$((i % 2)) own$i top$i; do
                d=$(put ../l/$l.tgz); u=$(zcat ../l/$l.tgz | sha256sum | cut -c-64)
                ids="$ids${{ids:+,}}\"sha256:$u\""
                descs="$descs${{descs:+,}}{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$d\",\"size\":$(stat -c %s ../l/$l.tgz)}}"
            done
            echo "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[$ids]}}}}" >config
            c=$(put config)
            printf '{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s}},"layers":[%s]}}' $c $(stat -c %s config) "$descs" >manifest
            m=$(put manifest); rm config manifest
            echo '{{"imageLayoutVersion":"1.0.0"}}' >oci-layout
            echo "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:$m\",\"size\":$(stat -c %s blobs/sha256/$m)}}]}}" >index.json
            cd ..
            pier-distribution copy -q oci:lay docker://{REGISTRY}/app:$i
        done
        rm -rf l lay"#
    );
    bed.sh(&script)?.ok().map(drop)
}

fn pull(bed: &Bed, image: usize) -> Result<Child> {
    let mut command = bed.command("pier-distribution");
    command.args(["pull", "-q", &format!("{REGISTRY}/app:{image}")]).stdout(Stdio::null());
    let log = std::fs::File::options().create(true).append(true).open(bed.dir().join("pulls.log"))?;
    Ok(command.stderr(log).spawn()?)
}

/// Blobs by the times they were fetched.
fn times(bed: &Bed, from: usize) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for digest in fetched(bed, from) {
        *all.entry(digest).or_default() += 1;
    }
    all
}

/// All that was pulled is there and whole, and nothing else is.
fn whole(bed: &Bed) -> Result {
    bed.sh("pier-distribution check")?.ok()?.has(", 0 damaged")?;
    for image in 0..IMAGES {
        let export = format!("pier-distribution export {REGISTRY}/app:{image} | tar t | sort | tr '\\n' ' '");
        bed.sh(&export)?
            .ok()?
            .has(&format!("all ./own{image} ./pair{} ./top{image}", image % 2))
            .or_else(|_| bed.sh(&export)?.ok()?.has(&format!("all own{image} pair{} top{image}", image % 2)))?;
    }
    bed.sh("pier-distribution gc --abandoned && cd $PIER_ROOT/distribution && find ingest staging trash leases quarantine -mindepth 1")?
        .ok()?
        .without("ingest/")?
        .without("staging/")?
        .without("trash/")?
        .without("leases/")?
        .without("quarantine/")?;
    // 3 shared layers, 2 of its own, config and manifest of each.
    let count = bed.sh("ls $PIER_ROOT/distribution/blobs/sha256 | wc -l; ls $PIER_ROOT/distribution/layers | wc -l")?;
    ensure!(count.out() == "19\n11", "{count}");
    bed.sh("pier-distribution check")?.ok()?.has(", 0 damaged")
}

fn collector(bed: &Bed) -> Result<integration::Daemon> {
    bed.spawn("collector", bed.command("bash").args(["-c", "while :; do pier-distribution gc || exit 1; done"]))
}

#[test]
fn sixteen_processes_fetch_each_blob_once() -> Result {
    isolated!(|bed| {
        let _registry = recording_registry(bed)?;
        images(bed)?;
        let log = bed.log("recording").len();
        let collector = collector(bed)?;
        let mut pulls = (0..PULLS).map(|n| pull(bed, n % IMAGES)).collect::<Result<Vec<_>>>()?;
        for pull in &mut pulls {
            ensure!(pull.wait()?.success(), "{}", bed.log("pulls"));
        }
        collector.stop()?;
        let times = times(bed, log);
        ensure!(times.len() == 15 && times.values().all(|n| *n == 1), "{times:?}");
        whole(bed)
    })
}

#[test]
fn sixteen_processes_of_which_some_die() -> Result {
    isolated!(|bed| {
        let _registry = recording_registry(bed)?;
        images(bed)?;
        let log = bed.log("recording").len();
        let collector = collector(bed)?;
        let mut kills = 0;
        let mut pulls = (0..PULLS).map(|n| Ok((n % IMAGES, pull(bed, n % IMAGES)?))).collect::<Result<Vec<_>>>()?;
        let end = Instant::now() + Duration::from_secs(100);
        let mut dice: usize = 7;
        while !pulls.is_empty() {
            ensure!(Instant::now() < end, "they do not come to an end");
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(20 + (dice >> 40) as u64 % 60));
            let at = (dice >> 33) % pulls.len();
            let (image, child) = &mut pulls[at];
            match child.try_wait()? {
                Some(status) => {
                    ensure!(status.success(), "{}", bed.log("pulls"));
                    pulls.swap_remove(at);
                }
                None if kills < 40 => {
                    child.kill()?;
                    child.wait()?;
                    kills += 1;
                    *child = pull(bed, *image)?;
                }
                None => {}
            }
        }
        collector.stop()?;
        let times = times(bed, log);
        let again: usize = times.values().map(|n| n - 1).sum();
        println!("{kills} kills, {again} fetched again: {times:?}");
        // A kill interrupts at most the layers that its process was fetching, and a config.
        ensure!(times.len() == 15 && again <= kills * 5, "{times:?}");
        whole(bed)
    })
}

#[test]
fn sixteen_pulls_through_a_server_that_dies() -> Result {
    isolated!(|bed| {
        let _registry = recording_registry(bed)?;
        images(bed)?;
        let log = bed.log("recording").len();
        let mut server = bed.serve("distribution")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        for die_after in [Some(300), Some(700), None] {
            let pulls: Vec<_> = (0..PULLS).map(|n| runtime.spawn(through(bed.run(), n % IMAGES))).collect();
            let collecting = runtime.spawn(collect(bed.run()));
            if let Some(after) = die_after {
                std::thread::sleep(Duration::from_millis(after));
                server.kill()?;
                let _ = std::fs::remove_file(bed.run().join("distribution.sock"));
                server = bed.serve("distribution")?;
            }
            let ends = runtime.block_on(futures::future::join_all(pulls));
            collecting.abort();
            if die_after.is_none() {
                for end in ends {
                    end??;
                }
            }
        }
        let times = times(bed, log);
        // Twice the server died: what was on its way then, of fifteen blobs.
        ensure!(times.len() == 15 && times.values().all(|n| *n <= 3), "{times:?}");
        server.stop()?;
        whole(bed)
    })
}

async fn through(run: std::path::PathBuf, image: usize) -> Result {
    let channel = rpc::wait_serving(&rpc::socket_path(&run, "distribution"), Duration::from_secs(10)).await?;
    let mut client = DistributionServiceClient::new(channel);
    let request = pb::PullRequest { reference: format!("{REGISTRY}/app:{image}"), ..pb::PullRequest::default() };
    let mut stream = client.pull(request).await?.into_inner();
    let mut result = None;
    while let Some(message) = stream.message().await? {
        if let Some(pb::pull_response::Payload::Result(done)) = message.payload {
            result = Some(done);
        }
    }
    result.map(drop).context("no result")
}

async fn collect(run: std::path::PathBuf) -> Result {
    let channel = rpc::wait_serving(&rpc::socket_path(&run, "distribution"), Duration::from_secs(10)).await?;
    let mut client = DistributionServiceClient::new(channel);
    loop {
        client.collect_garbage(pb::CollectGarbageRequest::default()).await?;
    }
}
