//! `serve` of every program on TCP: with mutual TLS, and not otherwise.
use integration::{Bed, Result, eventually, isolated};
use std::time::Duration;

const PROGRAMS: [&str; 7] =
    ["pier-runtime", "pier-supervisor", "pier-distribution", "pier-network", "pier-volume", "pier-builder", "pierd"];

/// An authority, a server and a client that it knows, and a client that it does not.
const CERTIFICATES: &str = "set -e; mkdir tls; cd tls
    new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -subj /CN=$1 \"${@:2}\"; }
    new ca -x509 -out ca.crt -days 2 -addext keyUsage=keyCertSign; new stranger -x509 -out stranger.crt -days 2
    for who in server client; do
      new $who -out $who.csr; printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' >$who.ext
      openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out $who.crt -days 2 -extfile $who.ext
    done 2>log";

/// grpc.health.v1.Health/Check of everything, answered with SERVING.
fn healthy(bed: &Bed, port: u16, client: &str) -> Result<bool> {
    let script = format!(
        "printf '\\0\\0\\0\\0\\0' | curl -s --http2 --cacert tls/ca.crt {client} -H 'content-type: application/grpc' -H 'te: trailers' \
         --data-binary @- https://127.0.0.1:{port}/grpc.health.v1.Health/Check | od -An -tx1"
    );
    Ok(bed.sh(&script)?.out().trim() == "00 00 00 00 02 08 01")
}

#[test]
fn tcp_is_for_who_has_a_certificate() -> Result {
    isolated!(|bed| {
        bed.sh(CERTIFICATES)?.ok()?;
        for (program, port) in PROGRAMS.into_iter().zip(7001..) {
            let listen = format!("--listen=tcp://127.0.0.1:{port}");
            bed.sh(&format!("{program} serve {listen}"))?.fails()?.has("give --tls-cert, --tls-key and --tls-ca")?;
            let mut command = bed.command(bed.program(program));
            command.args([
                "serve",
                &listen,
                "--tls-cert",
                "tls/server.crt",
                "--tls-key",
                "tls/server.key",
                "--tls-ca",
                "tls/ca.crt",
            ]);
            let _served = bed.spawn(program, &mut command)?;
            eventually(Duration::from_secs(10), || {
                anyhow::ensure!(
                    healthy(bed, port, "--cert tls/client.crt --key tls/client.key")?,
                    "{program} does not answer"
                );
                Ok(())
            })?;
            for stranger in ["", "--cert tls/stranger.crt --key tls/stranger.key"] {
                anyhow::ensure!(!healthy(bed, port, stranger)?, "{program} answers {stranger:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_group_is_named_or_numbered() -> Result {
    isolated!(|bed| {
        let found = bed.sh("getent group daemon | cut -d: -f1,3")?.ok()?;
        for group in found.out().split(':') {
            let served = bed.serve_with("volume", &["--group", group])?;
            bed.sh("stat -c '%a %G' run/volume.sock")?.ok()?.has("660 daemon")?;
            served.kill()?;
        }
        bed.sh("pier-volume serve --group nobody-has-this")?.fails()?.has("there is no group").map(drop)
    })
}
