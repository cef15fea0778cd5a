//! Hostile layers, as `pier-distribution` meets them: whatever an archive says, nothing outside of its layer is touched, and
//! what is refused leaves nothing behind.
use anyhow::{Context, ensure};
use integration::{Bed, Result, isolated};
use oci::Digest;
use serde_json::json;
use std::path::Path;

use crate::runtime_seccomp::compile;

/// Builds archives entry by entry, also impossible ones.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    /// A header with everything given as it is to be written, and what follows it.
    fn entry(mut self, kind: u8, name: &str, link: &str, mode: u32, size: &[u8], data: &[u8]) -> Self {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000\x000000000\0");
        put(124, size);
        put(136, b"07346545000\0        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, b"0000001\x000000003\0");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn raw(self, kind: u8, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        self.entry(kind, name, link, mode, format!("{:011o}\0", data.len()).as_bytes(), data)
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.raw(b'0', name, "", 0o644, data.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.raw(b'5', name, "", 0o755, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name, target, 0o777, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name, target, 0o644, b"")
    }

    fn pax(self, records: &[(&str, &str)]) -> Self {
        let all: String = records.iter().map(|(key, value)| record(key, value)).collect();
        self.raw(b'x', "PaxHeaders/x", "", 0o644, all.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|n| *n == rest + n.to_string().len()).unwrap_or(rest);
    format!("{length} {key}={value}\n")
}

/// Writes an OCI layout with one image of one plain layer.
fn layout(at: &Path, layer: &[u8]) -> Result {
    let blobs = at.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let put = |bytes: &[u8], kind: &str| -> Result<serde_json::Value> {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes)?;
        let media_type = format!("application/vnd.oci.image.{kind}");
        Ok(json!({"mediaType": media_type, "digest": digest.as_str(), "size": bytes.len()}))
    };
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer).as_str()]}});
    let config = put(&serde_json::to_vec(&config)?, "config.v1+json")?;
    let layer = put(layer, "layer.v1.tar")?;
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let mut manifest = put(&serde_json::to_vec(&manifest)?, "manifest.v1+json")?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "hostile:1"});
    std::fs::write(at.join("index.json"), serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [manifest]}))?)?;
    std::fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// Everything outside of the store that an archive here could reach, with what it is.
fn outside(bed: &Bed) -> Result<String> {
    let look = "find $DIR/outside /etc /tmp/hostile* $PIER_ROOT/distribution -maxdepth 1 \
        -printf '%p %M %U:%G %s %n %l\\n' 2>/dev/null | grep -v distribution/store.db | sort; \
        cat $DIR/outside/* /etc/passwd | sha256sum; ls $PIER_ROOT/distribution/layers | wc -l";
    Ok(bed.sh(look)?.stdout)
}

/// Loads an image of this layer; gives the exit code and the reason of the error.
fn load(bed: &Bed, layer: &[u8]) -> Result<(i32, String)> {
    let at = bed.dir().join("layout");
    layout(&at, layer)?;
    let outcome = bed.sh("pier-distribution --error-format json load layout")?;
    std::fs::remove_dir_all(&at)?;
    let reason = serde_json::from_str::<serde_json::Value>(outcome.stderr.lines().last().unwrap_or_default())
        .ok()
        .and_then(|error| error["reason"].as_str().or(error["error"]["reason"].as_str()).map(str::to_owned));
    Ok((outcome.code, reason.unwrap_or(outcome.stderr)))
}

fn prepare(bed: &Bed) -> Result {
    bed.sh("mkdir outside && echo secret >outside/secret && chmod 600 outside/secret && pier-distribution ls")?.ok()?;
    Ok(())
}

#[test]
fn refused_and_nothing_touched() -> Result {
    isolated!(|bed| {
        prepare(bed)?;
        let away = bed.dir().join("outside").display().to_string();
        let up = format!("{}{away}", "../".repeat(20).trim_end_matches('/'));
        let t = Tar::default;
        let pax = |key: &str, value: &str| Tar::default().pax(&[(key, value)]);
        let negative = [0xff; 12];
        let cases: Vec<(&str, &str, Tar)> = vec![
            ("climbs", "TAR_ESCAPES", t().file("../../../../outside/x", "x")),
            ("climbs in the middle", "TAR_ESCAPES", t().dir("a").file("a/../../x", "x")),
            ("climbs by PAX", "TAR_ESCAPES", pax("path", &format!("{up}/x")).file("ok", "x")),
            ("climbs by a long name", "TAR_ESCAPES", t().raw(b'L', "l", "", 0, b"../x\0").file("ok", "x")),
            ("a link above", "TAR_ESCAPES", t().symlink("l", &away).file("l/x", "x")),
            ("a link above, relative", "TAR_ESCAPES", t().symlink("l", &up).file("l/x", "x")),
            ("two links", "TAR_ESCAPES", t().symlink("a", "b").symlink("b", &away).dir("a/x")),
            ("a loop", "TAR_ESCAPES", t().symlink("a", "b").symlink("b", "a").file("a/x", "")),
            (
                "a directory made a link",
                "TAR_ESCAPES",
                t().dir("d").file("d/1", "").symlink("d", &away).file("d/2", ""),
            ),
            ("a device through a link", "TAR_ESCAPES", t().symlink("l", &away).raw(b'3', "l/null", "", 0o666, b"")),
            ("a fifo through a link", "TAR_ESCAPES", t().symlink("l", &away).raw(b'6', "l/fifo", "", 0o666, b"")),
            ("a hard link that climbs", "TAR_ESCAPES", t().link("h", &format!("{up}/secret"))),
            ("a hard link by PAX", "TAR_ESCAPES", pax("linkpath", "../../etc/passwd").link("h", "ok")),
            ("a deletion of ..", "TAR_ESCAPES", t().dir("a").file("a/.wh...", "")),
            ("a deletion of .", "TAR_ESCAPES", t().dir("a").file("a/.wh..", "")),
            ("a deletion of nothing", "TAR_ESCAPES", t().file(".wh.", "")),
            ("a deletion through a link", "TAR_ESCAPES", t().symlink("l", &away).file("l/.wh.secret", "")),
            ("an opaque mark through a link", "TAR_ESCAPES", t().symlink("l", &away).file("l/.wh..wh..opq", "")),
            ("a NUL", "TAR_ESCAPES", pax("path", "a\0b").file("a", "")),
            ("a name of 5000 bytes", "LAYER_CORRUPT", pax("path", &"a/".repeat(2500)).file("a", "")),
            ("a part of 300 bytes", "LAYER_CORRUPT", pax("path", &"a".repeat(300)).file("a", "")),
            ("overlay's deletion as a device", "LAYER_CORRUPT", deletion_device()),
            ("a file as a directory", "LAYER_CORRUPT", t().file("a", "").file("a/b", "")),
            ("a hard link to a directory", "LAYER_CORRUPT", t().dir("d").link("h", "d")),
            ("an id beyond", "LAYER_CORRUPT", pax("uid", "2147483648").file("a", "")),
            (
                "an attribute of a megabyte",
                "LAYER_CORRUPT",
                pax("SCHILY.xattr.user.a", &"x".repeat(900_000)).file("a", ""),
            ),
            (
                "five megabytes of headers",
                "LAYER_CORRUPT",
                (0..6).fold(t(), |t, _| t.pax(&[("comment", &"x".repeat(900_000))])).file("a", ""),
            ),
            ("a negative size", "LAYER_CORRUPT", t().entry(b'0', "a", "", 0o644, &negative, b"")),
            ("a size beyond the archive", "LAYER_CORRUPT", t().entry(b'0', "a", "", 0o644, b"77777777777\0", b"x")),
            ("a PAX size beyond", "LAYER_CORRUPT", pax("size", "99999999").file("a", "x")),
            ("a negative PAX size", "LAYER_CORRUPT", pax("size", "-512").file("a", "x")),
            ("a sparse file of exabytes", "LAYER_CORRUPT", sparse("8000000000000000000", "0,1")),
            ("a sparse map out of order", "LAYER_CORRUPT", sparse("1000", "100,1,0,1")),
            ("a sparse map past the end", "LAYER_CORRUPT", sparse("10", "9,18446744073709551615")),
            (
                "a lone zero block in the middle",
                "LAYER_CORRUPT",
                Tar([t().file("a", "").0, vec![0; 512], t().file("b", "").0].concat()),
            ),
        ];
        let before = outside(bed)?;
        for (what, wanted, tar) in cases {
            let (code, reason) = load(bed, &tar.end()).context(what)?;
            ensure!(code == 1 && reason == wanted, "{what}: {code} {reason}");
            ensure!(outside(bed)? == before, "{what} touched something:\n{before}\n{}", outside(bed)?);
        }
        // Configs come before layers; garbage collection takes what no image came of.
        let left = "pier-distribution gc >/dev/null; cd $PIER_ROOT/distribution; find blobs layers staging ingest trash -type f";
        bed.sh(left)?.ok()?.without("/")?;
        bed.sh("pier-distribution check")?.ok()?.has(", 0 damaged")
    })
}

/// The character device 0:0, which overlay takes for a deletion.
fn deletion_device() -> Tar {
    let mut tar = Tar::default().raw(b'3', "gone", "", 0o644, b"");
    tar.0[329..345].copy_from_slice(b"0000000\x000000000\0");
    tar.0[148..156].fill(b' ');
    let sum: u32 = tar.0[..512].iter().map(|b| u32::from(*b)).sum();
    tar.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar
}

/// A file in GNU's sparse format 0.1 with one byte of data.
fn sparse(size: &str, map: &str) -> Tar {
    Tar::default().pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map), ("GNU.sparse.name", "s")]).file("s", "x")
}

/// What looks like an attack and is an honest archive somewhere: it is taken, and stays inside.
#[test]
fn taken_and_contained() -> Result {
    isolated!(|bed| {
        prepare(bed)?;
        let t = Tar::default;
        let inner = t().file("smuggled", "no").end();
        let before = bed
            .sh("cat outside/secret /etc/passwd | sha256sum; stat -c '%a %h %Y' outside outside/secret /etc/passwd")?;
        let tar = t()
            // A leading slash is the layer's root, and a link's absolute target as well.
            .file("/etc/passwd", "mine")
            .link("/etc/linked", "/etc/passwd")
            .symlink("run", "/var/run")
            .dir("var/run")
            .file("run/inside", "here")
            // The last of several entries of a name counts, whatever the others were.
            .symlink("last", "/etc/passwd")
            .file("last", "file")
            .dir("tree")
            .file("tree/deep", "")
            .symlink("tree", "/etc")
            .raw(b'6', "tree", "", 0o600, b"")
            .symlink("mode", "/etc/passwd")
            .raw(b'0', "mode", "", 0o4755, b"x")
            // A size in the header of what has no data; a PAX size that overrides the header's.
            .entry(b'2', "sized", "etc/passwd", 0o777, b"00000001000\0", b"")
            .pax(&[("size", "4")])
            .entry(b'0', "four", "", 0o644, b"00000000000\0", b"four")
            .pax(&[("size", "5")])
            .dir("sized-dir")
            .raw(b'0', "inner.tar", "", 0o644, &inner)
            // Sparse: all but nothing on the disk.
            .pax(&[
                ("GNU.sparse.size", "1000000000000"),
                ("GNU.sparse.map", "999999999999,1"),
                ("GNU.sparse.name", "sparse"),
            ])
            .file("s", "x")
            // Of the host alone, and left out.
            .pax(&[
                ("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
                ("SCHILY.xattr.trusted.x", "y"),
                ("SCHILY.xattr.user.ours", "z"),
            ])
            .file("attributes", "");
        let (code, reason) = load(bed, &tar.end())?;
        ensure!(code == 0, "{reason}");
        let look = "cd $PIER_ROOT/distribution/layers/*/fs && cat etc/passwd etc/linked var/run/inside last four && \
            stat -c '%n %F %a %h' etc/passwd tree mode sized sized-dir sparse && ls && du -k sparse && \
            getfattr -m - -d attributes; test ! -e smuggled";
        let seen = bed.sh(look)?.ok()?;
        for wanted in [
            "mineminehere",
            "filefour",
            "etc/passwd regular file 644 2",
            "tree fifo 600 1",
            "mode regular file 4755 1",
            "sized symbolic link 777",
            "sized-dir directory",
            "user.ours",
        ] {
            ensure!(seen.stdout.contains(wanted), "no {wanted:?} in {seen}");
        }
        seen.without("trusted")?;
        let after = bed.sh(&before.command)?;
        ensure!(after.stdout == before.stdout, "{before}{after}");
        bed.sh("pier-distribution check")?.ok()?.has(", 0 damaged")
    })
}

/// Somebody who may write into the layer swaps its directories for links to elsewhere while it is being unpacked.
#[test]
fn directories_swapped_while_unpacking() -> Result {
    isolated!(|bed| {
        prepare(bed)?;
        let mut tar = Tar::default().dir("d").dir("d/e");
        for n in 0..1500 {
            let name = format!("d/e/f{}", n % 50);
            tar = tar.raw(b'0', &name, "", 0o4755, &[b'x'; 700]).file(&format!("d/g{n}/secret"), "y");
            tar = tar.raw(b'6', &format!("d/e/p{n}"), "", 0o1666, b"").link(&format!("d/l{n}"), &name).dir("d/e");
        }
        layout(&bed.dir().join("layout"), &tar.end())?;
        let race = "
            : >running; swaps=0
            (n=0; while [ -e running ]; do for fs in $PIER_ROOT/distribution/staging/*/fs; do for d in d/e d; do
                mv -T $fs/$d $fs/aside 2>/dev/null && ln -s $DIR/outside $fs/$d && n=$((n+1)) && rm -f $fs/$d && mv -T $fs/aside $fs/$d
             done; done; done; echo $n >swaps) &
            end=$((SECONDS+8)); while [ $SECONDS -lt $end ]; do pier-distribution load layout >/dev/null 2>&1; pier-distribution rm -f hostile:1 >/dev/null 2>&1; pier-distribution gc >/dev/null 2>&1; done
            rm running; wait; cat swaps; ls outside; stat -c %a outside outside/secret; cat outside/secret";
        let seen = bed.sh(race)?.ok()?;
        let lines: Vec<&str> = seen.stdout.lines().collect();
        ensure!(lines.first().is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 0)), "the race was not run: {seen}");
        ensure!(lines[1..] == ["secret", "755", "600", "secret"], "{seen}");
        Ok(())
    })
}

/// Without openat2 (Linux before 5.6, or a filter that does not know it) layers are the same, and the tricks are refused.
#[test]
fn without_openat2() -> Result {
    isolated!(|bed| {
        prepare(bed)?;
        compile(bed, "old-kernel", "old-kernel")?;
        let away = bed.dir().join("outside").display().to_string();
        let good = Tar::default()
            .dir("a")
            .symlink("l", "/a")
            .file("l/x", "x")
            .file("b/c/d", "y")
            .symlink("a/up", "..")
            .file("a/up/z", "z");
        for (tar, reason) in [
            (good, None),
            (Tar::default().symlink("l", &away).file("l/x", "x"), Some("TAR_ESCAPES")),
            (Tar::default().symlink("l", "../../../../etc").file("l/x", "x"), Some("TAR_ESCAPES")),
            (Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", ""), Some("TAR_ESCAPES")),
        ] {
            layout(&bed.dir().join("layout"), &tar.end())?;
            let outcome = bed.sh("$DIR/old-kernel openat2 pier-distribution --error-format json load layout; code=$?; rm -r layout; exit $code")?;
            match reason {
                Some(reason) => outcome.exits(1)?.has(reason)?,
                None => drop(outcome.ok()?),
            }
        }
        bed.sh("cd $PIER_ROOT/distribution/layers/*/fs && cat a/x b/c/d z && ls $DIR/outside")?.ok()?.has("xyzsecret")
    })
}
