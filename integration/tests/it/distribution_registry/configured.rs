//! Mirrors, certificates, credentials, proxies: what is configured is what happens.
use super::random_image;
use super::server::{Answer, Ask, Server, answer};
use anyhow::ensure;
use integration::{Bed, Result, eventually, isolated};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn write(bed: &Bed, name: &str, text: &str) -> Result<String> {
    let path = bed.dir().join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(bed.dir()))?;
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// An image at Debian's registry, and not in the store.
fn only_at_registry(bed: &Bed) -> Result<&'static str> {
    let registry = bed.registry()?;
    random_image(bed, &format!("{registry}/team/a:1"), 1)?;
    bed.sh(&format!("pier-distribution push {registry}/team/a:1 && rm -r $PIER_ROOT"))?.ok()?;
    Ok(registry)
}

#[test]
fn mirrors_are_asked_in_order_and_each_failure_is_named() -> Result {
    isolated!(|bed| {
        let registry = only_at_registry(bed)?;
        let broken = Server::start(|_| answer(500, "broken"))?;
        let mirrors = |last: &str| {
            format!(
                "[[registry]]\nprefix = \"*.example.invalid\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1\"\n\
                 [[registry.mirror]]\nlocation = \"{}\"\nheaders = {{ \"X-Pier\" = \"secret\" }}\n\
                 [[registry.mirror]]\nlocation = \"{last}\"\n",
                broken.address
            )
        };
        let good = write(bed, "good.conf", &mirrors(&format!("{registry}/team")))?;
        bed.sh(&format!("PIER_LOG=info pier-distribution pull --registries-conf {good} hub.example.invalid/a:1"))?
            .ok()?
            .has("127.0.0.1:1")?;
        ensure!(broken.count("/manifests/1") == 2, "asked, and once more: {:?}", broken.asked);
        bed.sh("pier-distribution ls && rm -r $PIER_ROOT")?.ok()?.has("hub.example.invalid/a")?;
        let bad = write(bed, "bad.conf", &mirrors("127.0.0.1:2"))?;
        bed.sh(&format!("PIER_REGISTRIES_CONF={bad} pier-distribution pull hub.example.invalid/a:1"))?
            .exits(1)?
            .with("127.0.0.1:1: ")?
            .with("broken")?
            .with("127.0.0.1:2: ")?
            .has("nor could hub.example.invalid")?;
        let only = format!(
            "[[registry]]\nlocation = \"example.invalid\"\n[[registry.mirror]]\nlocation = \"{registry}/team\"\n\
             pull-from-mirror = \"digest-only\"\n[[registry]]\nprefix = \"evil.example\"\nblocked = true\n"
        );
        let only = write(bed, "only.conf", &only)?;
        let digest = bed
            .sh(&format!("pier-distribution inspect --raw docker://{registry}/team/a:1 | sha256sum | cut -c1-64"))?
            .ok()?;
        bed.sh(&format!("pier-distribution pull --registries-conf {only} example.invalid/a:1"))?
            .exits(1)?
            .without(registry)?;
        bed.sh(&format!("pier-distribution pull --registries-conf {only} example.invalid/a@sha256:{}", digest.out()))?
            .ok()?;
        bed.sh(&format!("pier-distribution pull --registries-conf {only} evil.example/a"))?
            .exits(1)?
            .has("only.conf:6")?;
        let wrong = write(bed, "wrong.conf", "[[registry]]\nlocation = \"a\"\n\ninsecure = 1\n")?;
        bed.sh(&format!("pier-distribution pull --registries-conf {wrong} a.example/b"))?.exits(1)?.has("wrong.conf:4")
    })
}

/// The body of a GET, over a connection of its own.
fn fetched(host: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut connection = std::net::TcpStream::connect(host)?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut all = Vec::new();
    connection.read_to_end(&mut all)?;
    let body = all.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    Ok(all.split_off(body))
}

#[test]
fn a_mirror_with_damaged_blobs_is_passed_over() -> Result {
    isolated!(|bed| {
        let registry = only_at_registry(bed)?;
        let to = registry.to_string();
        // It has the manifests, sends them on, and damages every blob.
        let liar = Server::start(move |ask| match ask.path.split_once("/blobs/sha256:") {
            None => answer(307, "").with("Location", format!("http://{to}{}", ask.path)),
            Some(_) => {
                let mut bytes = fetched(&to, &ask.path).unwrap_or_default();
                bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
                answer(200, bytes)
            }
        })?;
        let file =
            format!("[[registry]]\nlocation = \"{registry}\"\n[[registry.mirror]]\nlocation = \"{}\"\n", liar.address);
        let file = write(bed, "liar.conf", &file)?;
        bed.sh(&format!("pier-distribution pull --registries-conf {file} {registry}/team/a:1"))?.ok()?;
        ensure!(liar.count("/blobs/") > 0, "the mirror was asked: {:?}", liar.asked);
        bed.sh("pier-distribution check")?.ok()?.has(", 0 damaged")
    })
}

#[test]
fn the_engine_and_the_builder_use_the_same_mirrors() -> Result {
    isolated!(|bed| {
        let registry = bed.registry()?;
        let tar = bed.fixture().busybox_tar()?.display().to_string();
        bed.sh(&format!(
            "pier-distribution import --change 'CMD [\"sh\"]' {tar} {registry}/bb:1 && pier-distribution push {registry}/bb:1 && rm -r $PIER_ROOT"
        ))?
        .ok()?;
        let file = format!(
            "[[registry]]\nlocation = \"hub.example.invalid\"\n[[registry.mirror]]\nlocation = \"{registry}\"\n"
        );
        let file = write(bed, "registries.conf", &file)?;
        bed.spawn("pierd", bed.command("pierd").arg("serve").env("PIER_REGISTRIES_CONF", file))?;
        eventually(Duration::from_secs(10), || bed.sh("pier ps")?.ok().map(drop))?;
        bed.sh("pier pull hub.example.invalid/bb:1")?.ok()?;
        bed.sh("pier rmi hub.example.invalid/bb:1 && pier run --rm --network none hub.example.invalid/bb:1 echo ran")?
            .ok()?
            .has("ran")?;
        bed.sh("pier rmi hub.example.invalid/bb:1 && mkdir c && printf 'FROM hub.example.invalid/bb:1\\nENV A=b\\n' >c/Dockerfile && pier build -t built c")?.ok()?;
        bed.sh("pier inspect built")?.ok()?.has("A=b")
    })
}

/// Debian's registry with TLS on 127.0.0.1:5443, that wants a client certificate; CA and client in `<dir>/certs/<host>`.
fn with_tls(bed: &Bed) -> Result<&'static str> {
    const ADDRESS: &str = "127.0.0.1:5443";
    bed.sh(&format!(
        "set -e; mkdir -p tls certs/{ADDRESS}; cd tls
         openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=ca -days 2 -addext keyUsage=keyCertSign
         issue() {{ openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj /CN=$1
           printf \"subjectAltName=IP:127.0.0.1,DNS:localhost\\nextendedKeyUsage=serverAuth,clientAuth\\n\" >$1.ext
           openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out $1.crt -days 2 -extfile $1.ext; }}
         issue server; issue client
         cp ca.crt ../certs/{ADDRESS}/ca.crt; cp client.crt ../certs/{ADDRESS}/client.cert; cp client.key ../certs/{ADDRESS}/"
    ))?
    .ok()?;
    let dir = bed.dir().display();
    let config = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {dir}/tls/data}}\nhttp:\n  addr: \"{ADDRESS}\"\n  \
         tls: {{certificate: {dir}/tls/server.crt, key: {dir}/tls/server.key, clientcas: [{dir}/tls/ca.crt]}}\n"
    );
    let config = write(bed, "tls.yml", &config)?;
    bed.spawn("registry-tls", bed.command("docker-registry").args(["serve", &config]))?;
    eventually(Duration::from_secs(10), || Ok(std::net::TcpStream::connect(ADDRESS).map(drop)?))?;
    Ok(ADDRESS)
}

#[test]
fn tls_with_an_own_ca_and_client_certificates() -> Result {
    isolated!(|bed| {
        let registry = with_tls(bed)?;
        random_image(bed, "a:1", 1)?;
        bed.sh(&format!("pier-distribution push --certs-dir certs a:1 {registry}/a:1"))?.ok()?;
        bed.sh(&format!("PIER_CERTS_DIR=certs pier-distribution --root other pull {registry}/a:1"))?.ok()?;
        ensure!(bed.log("registry-tls").contains("HTTP/2.0"), "no HTTP/2 in\n{}", bed.log("registry-tls"));
        bed.sh(&format!("PIER_CERTS_DIR=certs pier-distribution tags {registry}/a"))?.ok()?.has("1")?;
        // Nobody to trust, then nobody to be.
        bed.sh(&format!("pier-distribution tags {registry}/a"))?.exits(1)?.with("certificate")?.has("certs.d")?;
        bed.sh(&format!("rm certs/{registry}/client.*; pier-distribution tags --certs-dir certs {registry}/a"))?
            .exits(1)?
            .with("ertificate")?
            .has(registry)?;
        bed.sh(&format!("skopeo inspect --cert-dir tls --tls-verify=false docker://{registry}/a:1"))?;
        bed.sh(&format!("echo x >certs/{registry}/ca.crt; pier-distribution tags --certs-dir certs {registry}/a"))?
            .exits(1)?
            .has("ca.crt cannot be used")
    })
}

/// Tokens that are good for one use each; the credentials are user:secret, or a refresh token.
fn one_token_each(ask: &mut Ask<'_>, next: &AtomicUsize) -> Option<Answer> {
    if ask.path.starts_with("/token") {
        let mut form = String::new();
        let _ = ask.body.read_to_string(&mut form);
        let known = ask.header("authorization") == "Basic dXNlcjpzZWNyZXQ="
            || (form.contains("grant_type=refresh_token") && form.contains("refresh_token=identity"));
        let token = next.fetch_add(1, Ordering::SeqCst) + 1;
        return Some(if known {
            answer(200, format!("{{\"token\":\"t{token}\",\"expires_in\":300}}"))
        } else {
            answer(401, "")
        });
    }
    let good = format!("Bearer t{}", next.load(Ordering::SeqCst));
    if ask.header("authorization") != good {
        return Some(answer(401, "").with("WWW-Authenticate", "Bearer realm=\"/token\",service=\"x\",scope=\"y\""));
    }
    None
}

#[test]
fn tokens_are_renewed_in_the_middle_of_a_transfer() -> Result {
    isolated!(|bed| {
        let layer = vec![7u8; 1 << 20];
        let digest = oci::Digest::of(&layer).to_string();
        let tokens = std::sync::Arc::new(AtomicUsize::new(0));
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/x","digest":"{}","size":2}},"layers":[{{"mediaType":"application/y","digest":"{digest}","size":{}}}]}}"#,
            oci::Digest::of(b"{}"),
            layer.len()
        );
        let (counter, name) = (tokens.clone(), digest.clone());
        let server = Server::start(move |ask| {
            if let Some(refusal) = one_token_each(ask, &counter) {
                return refusal;
            }
            if ask.path.contains("/manifests/") {
                return answer(200, manifest.clone()).with("Content-Type", oci::media_type::MANIFEST);
            }
            if !ask.path.ends_with(&name) {
                return answer(200, "{}");
            }
            // The connection breaks every 300 kB, and each time the token has ended, too.
            counter.fetch_add(100, Ordering::SeqCst);
            let from: usize =
                ask.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
            let rest = (layer.len() - from) as u64;
            let some = layer[from..(from + 300_000).min(layer.len())].to_vec();
            let range = format!("bytes {from}-{}/{}", layer.len() - 1, layer.len());
            let status = if from == 0 { 200 } else { 206 };
            Answer { length: rest, ..answer(status, some) }.with("Content-Range", range)
        })?;
        let at = &server.address;
        bed.sh(&format!("pier-distribution copy --creds user:secret docker://{at}/a:1 dir:$DIR/out"))?.ok()?;
        ensure!(server.count("/token") >= 4, "{:?}", server.asked);
        // The same with an identity token in podman's file, which is found by itself.
        let auth = format!(r#"{{"auths":{{"{at}/team":{{"auth":"PHRva2VuPjo=","identitytoken":"identity"}}}}}}"#);
        write(bed, "run/containers/auth.json", &auth)?;
        bed.sh(&format!("XDG_RUNTIME_DIR=$DIR/run pier-distribution copy docker://{at}/team/a:1 dir:$DIR/out2"))?
            .ok()?;
        bed.sh(&format!("XDG_RUNTIME_DIR=$DIR/run pier-distribution copy docker://{at}/other/a:1 dir:$DIR/out3"))?
            .exits(1)?
            .has("these credentials")
    })
}

#[test]
fn credential_helpers_answer_or_are_given_up() -> Result {
    isolated!(|bed| {
        let next = AtomicUsize::new(0);
        let server =
            Server::start(move |ask| one_token_each(ask, &next).unwrap_or_else(|| answer(200, r#"{"tags":["yes"]}"#)))?;
        let script = "#!/bin/sh\nread host; case $0 in *slow) exec sleep 100;; esac\n\
                      echo \"{\\\"ServerURL\\\":\\\"$host\\\",\\\"Username\\\":\\\"user\\\",\\\"Secret\\\":\\\"secret\\\"}\"\n";
        for name in ["good", "slow"] {
            write(bed, &format!("bin/docker-credential-{name}"), script)?;
            write(bed, &format!("{name}.json"), &format!(r#"{{"credHelpers":{{"{}":"{name}"}}}}"#, server.address))?;
        }
        bed.sh("chmod +x bin/*")?.ok()?;
        let tags = format!(
            "PATH=$DIR/bin:$PATH PIER_CREDENTIAL_HELPER_TIMEOUT=1 pier-distribution tags {}/a --auth-file",
            server.address
        );
        bed.sh(&format!("{tags} good.json"))?.ok()?.has("yes")?;
        bed.sh(&format!("{tags} slow.json"))?.exits(1)?.has("docker-credential-slow: no answer in 1 s")?;
        bed.sh(&format!("pier-distribution tags {}/a", server.address))?.exits(1)?.has("these credentials")
    })
}

#[test]
fn proxies_of_the_environment_are_used_but_not_for_this_machine() -> Result {
    isolated!(|bed| {
        let proxy = Server::start(|_| answer(200, r#"{"tags":["by-proxy"]}"#))?;
        let address = &proxy.address;
        let tags = format!("HTTP_PROXY=http://{address} pier-distribution tags --plain-http");
        bed.sh(&format!("{tags} example.invalid/a"))?.ok()?.has("by-proxy")?;
        ensure!(proxy.count("GET http://example.invalid/v2/a/tags/list") == 1, "{:?}", proxy.asked);
        bed.sh(&format!("NO_PROXY=example.invalid {tags} example.invalid/a"))?.exits(1)?;
        bed.sh(&format!("{tags} 127.0.0.1:1/a"))?.exits(1)?.has("127.0.0.1:1")
    })
}

#[test]
fn secrets_stay_with_the_host_they_are_for() -> Result {
    isolated!(|bed| {
        let leaked = std::sync::Arc::new(AtomicUsize::new(0));
        let count = leaked.clone();
        let other = Server::start(move |ask| {
            if ask.headers.contains_key("authorization") || ask.headers.contains_key("x-pier") {
                count.fetch_add(1, Ordering::SeqCst);
            }
            answer(200, r#"{"tags":["elsewhere"]}"#)
        })?;
        let to = other.address.clone();
        let server = Server::start(move |ask| match ask.header("x-pier") {
            "secret" if ask.path != "/v2/" => answer(307, "").with("Location", format!("http://{to}{}", ask.path)),
            "secret" => answer(200, ""),
            _ => answer(403, "no header"),
        })?;
        let file = format!("[[registry]]\nlocation = \"{}\"\nheaders = {{ X-Pier = \"secret\" }}\n", server.address);
        let file = write(bed, "h.conf", &file)?;
        bed.sh(&format!("pier-distribution tags --registries-conf {file} --creds a:b {}/a", server.address))?
            .ok()?
            .has("elsewhere")?;
        ensure!(leaked.load(Ordering::SeqCst) == 0, "the other host was told");
        bed.sh(&format!("pier-distribution tags {}/a", server.address))?.exits(1)?.has("no header")
    })
}

#[test]
fn a_large_blob_that_comes_slowly_is_fetched_over_several_connections() -> Result {
    isolated!(|bed| {
        let layer: Vec<u8> = (0..32u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let digest = oci::Digest::of(&layer).to_string();
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/x","digest":"{}","size":2}},"layers":[{{"mediaType":"application/y","digest":"{digest}","size":{}}}]}}"#,
            oci::Digest::of(b"{}"),
            layer.len()
        );
        let name = digest.clone();
        // Every connection gives at most 8 MiB a second; the most at once are counted.
        struct Slow(std::io::Cursor<Vec<u8>>, std::sync::Arc<AtomicUsize>);
        impl Drop for Slow {
            fn drop(&mut self) {
                self.1.fetch_sub(1, Ordering::SeqCst);
            }
        }
        impl Read for Slow {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                std::thread::sleep(Duration::from_millis(8));
                let most = buffer.len().min(64 << 10);
                self.0.read(&mut buffer[..most])
            }
        }
        let (running, most) = (std::sync::Arc::new(AtomicUsize::new(0)), std::sync::Arc::new(AtomicUsize::new(0)));
        let peak = most.clone();
        let server = Server::start(move |ask| {
            if ask.path.contains("/manifests/") {
                return answer(200, manifest.clone()).with("Content-Type", oci::media_type::MANIFEST);
            }
            if !ask.path.ends_with(&name) {
                return answer(200, "{}");
            }
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let range = ask.header("range").trim_start_matches("bytes=").to_string();
            let (from, to) = range.split_once('-').unwrap_or(("0", ""));
            let (from, to): (usize, usize) =
                (from.parse().unwrap_or(0), to.parse().map_or(layer.len(), |last: usize| last + 1));
            let part = layer[from..to].to_vec();
            let status = if range.is_empty() { 200 } else { 206 };
            let length = part.len() as u64;
            Answer { body: Box::new(Slow(std::io::Cursor::new(part), running.clone())), length, ..answer(status, "") }
                .with("Accept-Ranges", "bytes")
                .with("Content-Range", format!("bytes {from}-{}/{}", to - 1, layer.len()))
        })?;
        let script = format!(
            "/usr/bin/time -f 'peak %M' pier-distribution copy docker://{}/a:1 dir:$DIR/out && sha256sum out/*",
            server.address
        );
        let outcome = bed.sh(&script)?.ok()?.with(digest.trim_start_matches("sha256:"))?;
        let memory = outcome.stderr.lines().find_map(|line| line.strip_prefix("peak ")?.parse::<u64>().ok());
        println!("{memory:?} KiB, {most:?} connections");
        ensure!(most.load(Ordering::SeqCst) >= 3, "{most:?} connections at once: {:?}", server.asked);
        ensure!(memory.is_some_and(|peak| peak < 64_000), "{outcome}");
        Ok(())
    })
}
