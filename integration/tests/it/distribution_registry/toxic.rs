//! Registries that are slow, broken or hostile: an error that says so, little memory, nothing left.
use super::server::{Answer, Ask, Server, answer};
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};
use serde_json::json;
use std::io::Read;

/// An image of one layer.
struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    fn new(bed: &Bed) -> Result<Self> {
        bed.sh("mkdir -p i && head -c 300K /dev/urandom >i/f && tar c -C i . >layer.tar && gzip -fk layer.tar")?
            .ok()?;
        let (tar, layer) =
            (std::fs::read(bed.dir().join("layer.tar"))?, std::fs::read(bed.dir().join("layer.tar.gz"))?);
        Self::of(layer, &oci::Digest::of(&tar))
    }

    fn of(layer: Vec<u8>, diff_id: &oci::Digest) -> Result<Self> {
        let platform = oci::Platform::host();
        let config = json!({
            "os": platform.os, "architecture": platform.architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        let config = serde_json::to_vec(&config)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": oci::media_type::MANIFEST,
            "config": oci::Descriptor::of(oci::media_type::CONFIG, &config),
            "layers": [oci::Descriptor::of(oci::media_type::LAYER_GZIP, &layer)],
        });
        Ok(Self { layer, config, manifest: serde_json::to_vec(&manifest)? })
    }

    fn is_layer(&self, ask: &Ask<'_>) -> bool {
        ask.path.ends_with(oci::Digest::of(&self.layer).as_str())
    }

    /// What an honest registry would say.
    fn answer(&self, ask: &Ask<'_>) -> Answer {
        let blob = |bytes: &[u8]| answer(200, bytes).with("Content-Type", "application/octet-stream");
        match () {
            () if ask.path == "/v2/" => answer(200, ""),
            () if ask.path.contains("/manifests/") => {
                answer(200, self.manifest.clone()).with("Content-Type", oci::media_type::MANIFEST)
            }
            () if ask.path.ends_with(oci::Digest::of(&self.config).as_str()) => blob(&self.config),
            () if self.is_layer(ask) => blob(&self.layer),
            () => answer(404, ""),
        }
    }
}

/// Runs a verb with little patience: it fails with `reason` and `words`, in less than 64 MB, and leaves nothing.
fn fails(bed: &Bed, case: &str, command: &str, reason: &str, words: &str) -> Result {
    bed.sh("rm -rf $PIER_ROOT")?.ok()?;
    let script = format!(
        "PIER_REGISTRY_TIMEOUT=2 /usr/bin/time -q -f 'peak %M' timeout 60 pier-distribution --error-format json {command}"
    );
    let outcome = bed.sh(&script)?.exits(1).context(case.to_string())?;
    let outcome = outcome.with(reason).and_then(|outcome| outcome.with(words)).context(case.to_string())?;
    let peak = outcome.stderr.lines().find_map(|line| line.strip_prefix("peak ")?.parse::<u64>().ok());
    let peak = peak.with_context(|| format!("{case}: no peak in {outcome}"))?;
    println!("{case}: {peak} KiB");
    ensure!(peak < 64_000, "{case}: {peak} KiB of memory");
    bed.sh("pier-distribution check && pier-distribution gc")?.ok()?.has(", 0 damaged").context(case.to_string())?;
    // What came of a download that may go on is not garbage; a layer, a blob or an image is.
    bed.sh("cd $PIER_ROOT/distribution && find layers staging trash snapshots -mindepth 1 | head; find blobs -type f; pier-distribution ls -q")?
        .ok()?
        .without("layers/")?
        .without("sha256")
        .map(drop)
        .context(case.to_string())
}

type Handler = Box<dyn Fn(&mut Ask<'_>, &Image) -> Answer + Send + Sync>;

fn layer(change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Handler {
    Box::new(move |ask, image| match image.is_layer(ask) {
        true => {
            let mut bytes = image.layer.clone();
            change(&mut bytes);
            answer(200, bytes)
        }
        false => image.answer(ask),
    })
}

fn manifests(reply: impl Fn(&Image) -> Answer + Send + Sync + 'static) -> Handler {
    Box::new(move |ask, image| if ask.path.contains("/manifests/") { reply(image) } else { image.answer(ask) })
}

/// A byte now and then.
struct Trickle;

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(std::time::Duration::from_millis(200));
        buffer[0] = 0x1f;
        Ok(1)
    }
}

fn pulls(bed: &Bed, cases: Vec<(&str, Handler, &str, &str)>) -> Result {
    for (case, handler, reason, words) in cases {
        let image = Image::new(bed)?;
        let server = Server::start(move |ask| handler(ask, &image))?;
        fails(bed, case, &format!("pull {}/a:1", server.address), reason, words)?;
    }
    Ok(())
}

#[test]
fn layers_that_are_not_what_they_should_be() -> Result {
    isolated!(|bed| {
        let slow: Handler = Box::new(|ask, image| match image.is_layer(ask) {
            true => Answer { body: Box::new(Trickle), length: image.layer.len() as u64, ..answer(200, "") },
            false => image.answer(ask),
        });
        pulls(
            bed,
            vec![
                ("too short", layer(|bytes| bytes.truncate(1000)), "SIZE_MISMATCH", "has 1000 bytes"),
                ("too long", layer(|bytes| bytes.extend([0; 10])), "SIZE_MISMATCH", "bytes, not"),
                ("wrong digest", layer(|bytes| bytes[1000] ^= 1), "DIGEST_MISMATCH", "sha256:"),
                ("slow", slow, "REGISTRY_UNREACHABLE", "came in 2 s"),
            ],
        )
    })
}

#[test]
fn registries_that_refuse() -> Result {
    isolated!(|bed| {
        let busy = manifests(|_| {
            answer(429, "")
                .with("Retry-After", 3600)
                .with("RateLimit-Limit", "100;w=21600")
                .with("RateLimit-Remaining", "0;w=21600")
        });
        let expired: Handler = Box::new(|ask, _| match ask.path.starts_with("/token") {
            true => answer(200, r#"{"token":"old","expires_in":60}"#),
            false => answer(401, "")
                .with("WWW-Authenticate", "Bearer realm=\"/token\",service=\"x\",error=\"invalid_token\""),
        });
        pulls(
            bed,
            vec![
                ("429", busy, "RATE_LIMITED", "0 of 100 requests left in 6 h; try again in 3600 s"),
                ("500", Box::new(|_, _| answer(500, "oh dear")), "REGISTRY_REFUSED", "oh dear"),
                (
                    "redirect loop",
                    manifests(|_| answer(307, "").with("Location", "?again")),
                    "REGISTRY_PROTOCOL",
                    "more than 10 redirects",
                ),
                ("expired token", expired, "UNAUTHORIZED", "does not allow pull"),
            ],
        )
    })
}

#[test]
fn manifests_that_are_none() -> Result {
    isolated!(|bed| {
        let declared = |length: u64| Answer { body: Box::new(std::io::repeat(b' ')), length, ..answer(200, "") };
        let cut = |image: &Image| Answer { length: 100_000, ..answer(200, image.manifest.clone()) };
        let short = |image: &Image| answer(200, &image.manifest[..100]).with("Content-Type", oci::media_type::MANIFEST);
        // As deep and as many as fit: a tree of it would take hundreds of megabytes.
        let many = |_: &Image| {
            let text = format!("{{\"schemaVersion\":2,\"manifests\":[{}{{}}]}}", "{},".repeat(2_700_000));
            answer(200, text).with("Content-Type", oci::media_type::INDEX)
        };
        let deep = |_: &Image| answer(200, "[".repeat(8 << 20)).with("Content-Type", oci::media_type::INDEX);
        pulls(
            bed,
            vec![
                ("declared as 10 GB", manifests(move |_| declared(10 << 30)), "MANIFEST_INVALID", "10737418240 bytes"),
                ("cut", manifests(cut), "REGISTRY_UNREACHABLE", "/manifests/1"),
                ("truncated", manifests(short), "MANIFEST_INVALID", "not valid JSON"),
                ("millions of entries", manifests(many), "MANIFEST_INVALID", "not valid JSON"),
                ("endlessly deep", manifests(deep), "MANIFEST_INVALID", "not valid JSON"),
            ],
        )
    })
}

#[test]
fn lists_that_do_not_end() -> Result {
    isolated!(|bed| {
        let page = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::start(move |ask| {
            let next = page.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let link = format!("<{}?last={next}>; rel=\"next\"", ask.path.split('?').next().unwrap_or_default());
            answer(200, r#"{"tags":["one"]}"#).with("Link", link)
        })?;
        fails(bed, "endless tags", &format!("tags {}/a", server.address), "REGISTRY_PROTOCOL", "the list does not end")
    })
}

#[test]
fn a_gzip_bomb_takes_the_space_there_is_and_gives_it_back() -> Result {
    isolated!(|bed| {
        // 400 MiB in one file, 2 MiB compressed.
        bed.sh("mkdir b && truncate -s 400M b/zero && tar c -C b . | tee >(sha256sum | cut -c1-64 >sum) | gzip -1 >bomb.gz; sleep 0.1; rm -r b")?.ok()?;
        let sum = std::fs::read_to_string(bed.dir().join("sum"))?;
        let image = Image::of(std::fs::read(bed.dir().join("bomb.gz"))?, &format!("sha256:{}", sum.trim()).parse()?)?;
        let server = Server::start(move |ask| image.answer(ask))?;
        bed.sh("mkdir small && mount -t tmpfs -o size=40m none small")?.ok()?;
        let result = (|| {
            let pull = format!(
                "/usr/bin/time -q -f 'peak %M' pier-distribution --root small --error-format json pull {}/a:1",
                server.address
            );
            let outcome = bed.sh(&pull)?.exits(1)?.with("NO_SPACE")?;
            let peak = outcome.stderr.lines().find_map(|line| line.strip_prefix("peak ")?.parse::<u64>().ok());
            ensure!(peak.is_some_and(|peak| peak < 64_000), "{outcome}");
            bed.sh("pier-distribution --root small check && pier-distribution --root small gc")?
                .ok()?
                .has(", 0 damaged")?;
            bed.sh("find small/distribution/layers small/distribution/staging -mindepth 1; find small/distribution/blobs -type f")?.ok()?.without("small").map(drop)
        })();
        bed.sh("umount small")?.ok()?;
        result
    })
}
