//! Archives that try to write elsewhere, and archives that are broken: each refused, each leaving nothing.
use crate::{Bed, Tar};
use distribution::Error;
use oci::Digest;
use rpc::Coded;
use std::os::unix::fs::MetadataExt;

fn refused(tar: Vec<u8>) -> Error {
    let bed = Bed::new();
    let outside = bed.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let error = bed.apply(&tar).unwrap_err();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "written outside");
    assert!(bed.leftovers().is_empty(), "{:?}", bed.leftovers());
    assert_eq!(std::fs::read_dir(bed.store.root().join("layers")).unwrap().count(), 0);
    assert!(!bed.store.layers().has(&Digest::of(&tar)).unwrap());
    error
}

#[test]
fn escapes() {
    let cases: Vec<(&str, Tar)> = vec![
        ("dots", Tar::default().file("a/../../x", b"x")),
        ("dots at the end", Tar::default().dir("a/..")),
        ("hard link with dots", Tar::default().link("a", "../../../etc/shadow")),
        ("through an absolute symbolic link", Tar::default().symlink("l", "/etc").file("l/x", b"x")),
        ("through a climbing symbolic link", Tar::default().symlink("l", "../../../outside").file("l/x", b"x")),
        ("through two", Tar::default().symlink("a", "b").symlink("b", "/tmp").file("a/x", b"x")),
        ("through a loop", Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", b"x")),
        ("implicit directories below a link", Tar::default().symlink("l", "/tmp").file("l/d/e/x", b"x")),
        ("a whiteout of dots", Tar::default().dir("a").file("a/.wh...", b"")),
        ("a whiteout of a dot", Tar::default().dir("a").file("a/.wh..", b"")),
        ("a nameless whiteout", Tar::default().file(".wh.", b"")),
        ("PAX path", Tar::default().pax(&[("path", b"../../x")]).file("ok", b"x")),
        ("PAX linkpath", Tar::default().pax(&[("linkpath", b"../etc/passwd")]).link("a", "ok")),
    ];
    for (what, tar) in cases {
        let error = refused(tar.end());
        assert_eq!(error.reason(), "TAR_ESCAPES", "{what}: {error}");
        assert!(!error.subject().is_empty(), "{what}");
    }
}

/// What looks like an escape and is none: links stay inside, wherever they seem to lead.
#[test]
fn links_stay_inside() {
    let bed = Bed::new();
    let tar = Tar::default()
        .dir("run")
        .dir("var")
        .symlink("var/run", "/run")
        .symlink("var/up", "../../../../../run")
        .file("var/run/a", b"a")
        .file("var/up/b", b"b")
        .file("run/target", b"t")
        .link("hard", "var/run/target")
        .end();
    let fs = bed.store.layers().path(&bed.apply(&tar).unwrap()).unwrap();
    for name in ["run/a", "run/b", "hard"] {
        assert!(fs.join(name).is_file(), "{name}");
    }
    assert!(!std::path::Path::new("/run/a").exists() && !std::path::Path::new("/run/b").exists());
    // A leading slash is the layer's root.
    let tar = Tar::default().file("/etc/passwd", b"mine").link("/hard", "/etc/passwd").link("p", "/etc/shadow").end();
    let fs = bed.store.layers().path(&bed.apply(&tar).unwrap()).unwrap();
    assert_eq!(std::fs::read(fs.join("hard")).unwrap(), b"mine");
    assert!(!fs.join("p").exists(), "its target is a parent's, if anybody's");
    // A last component that is a link is replaced, never followed.
    let tar = Tar::default().symlink("passwd", "/etc/passwd").file("passwd", b"mine").end();
    let fs = bed.store.layers().path(&bed.apply(&tar).unwrap()).unwrap();
    assert_eq!(std::fs::read(fs.join("passwd")).unwrap(), b"mine");
}

/// A file with that many extended attributes.
fn attributes(count: usize) -> Vec<u8> {
    let keys: Vec<String> = (0..count).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
    let pairs: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), &b"1"[..])).collect();
    Tar::default().pax(&pairs).file("a", b"").end()
}

/// A sparse file with one extent of one byte at the beginning.
fn sparse_of(size: &[u8]) -> Vec<u8> {
    let keys: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", size), ("GNU.sparse.offset", b"0"), ("GNU.sparse.numbytes", b"1")];
    Tar::default().pax(&keys).file("s", b"x").end()
}

#[test]
fn sparse_formats_of_pax() {
    let bed = Bed::new();
    let fs = bed.store.layers().path(&bed.apply(&sparse_of(b"1000000")).unwrap()).unwrap();
    let meta = std::fs::metadata(fs.join("s")).unwrap();
    assert_eq!((meta.len(), meta.blocks()), (1_000_000, 8));
}

fn gzip_of(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    e.write_all(bytes).unwrap();
    e.finish().unwrap()
}

/// A gigabyte is anybody's right; what is more has to come out of something.
#[test]
fn a_decompression_bomb() {
    let mut blob = gzip_of(
        &Tar::default()
            .header(
                |h| {
                    h.set_path("zeros").unwrap();
                    h.set_size(8 << 30);
                },
                b"",
            )
            .0,
    );
    // gzip's members follow each other: 8 GiB in 8 MiB, without compressing 8 GiB.
    let zeros = gzip_of(&vec![0; 32 << 20]);
    (0..256).for_each(|_| blob.extend_from_slice(&zeros));
    let bed = Bed::new();
    let error = bed.store.layers().apply(&blob[..], &oci::Descriptor::of("", b""), &Digest::of(b""), None).unwrap_err();
    assert_eq!(error.reason(), "LAYER_EXPANDS", "{error}");
    assert!(bed.leftovers().is_empty());
}

#[test]
fn broken_archives() {
    let whole = Tar::default().file("a", &[1; 3000]).end();
    let mut checksum = whole.clone();
    checksum[0] = b'b';
    let mut cut = gzip_of(&whole);
    cut.truncate(cut.len() - 9);
    let mut flipped =
        gzip_of(&(0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<_>>());
    let middle = flipped.len() / 2;
    flipped[middle..middle + 8].fill(0xff);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("truncated in a file", whole[..2000].to_vec(), "LAYER_CORRUPT"),
        ("truncated in a header", whole[..100].to_vec(), "LAYER_CORRUPT"),
        ("checksum", checksum, "LAYER_CORRUPT"),
        ("no tar", b"hello".repeat(500), "LAYER_CORRUPT"),
        ("cut gzip", cut, "LAYER_CORRUPT"),
        ("flipped bits", flipped, "LAYER_CORRUPT"),
        ("uid beyond", Tar::default().pax(&[("uid", b"4294967295")]).file("a", b"").end(), "TAR_ENTRY"),
        ("gid beyond", Tar::default().pax(&[("gid", b"2147483648")]).file("a", b"").end(), "TAR_ENTRY"),
        ("unknown type", Tar::default().raw(b'Z', "a", "", 0, b"").end(), "TAR_ENTRY"),
        ("a file as a directory", Tar::default().file("a", b"").file("a/b", b"").end(), "TAR_ENTRY"),
        ("a link to itself", Tar::default().link("a", "./a").end(), "TAR_ENTRY"),
        ("a link to a directory", Tar::default().dir("d").link("a", "d").end(), "TAR_ENTRY"),
        ("a hidden whiteout", Tar::default().raw(b'3', "a", "", 0, b"").end(), "TAR_ENTRY"),
        (
            "PAX without an end",
            Tar::default().raw(b'x', "p", "", 0, b"30 path=a\n").file("a", b"").end(),
            "LAYER_CORRUPT",
        ),
        ("PAX with a negative size", Tar::default().pax(&[("size", b"-1")]).file("a", b"").end(), "LAYER_CORRUPT"),
        (
            "PAX that is huge",
            Tar::default()
                .header(
                    |h| {
                        h.set_entry_type(tar::EntryType::XHeader);
                        h.set_size(1 << 40);
                    },
                    b"",
                )
                .end(),
            "LAYER_CORRUPT",
        ),
        (
            "a sparse bomb's map",
            Tar::default()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.realsize", b"100"),
                ])
                .file("s", b"99999999999\n")
                .end(),
            "LAYER_CORRUPT",
        ),
        ("a path too long", Tar::default().pax(&[("path", &b"a/".repeat(2100))]).file("a", b"").end(), "TAR_ENTRY"),
        ("a name too long", Tar::default().pax(&[("path", &[b'a'; 256])]).file("a", b"").end(), "TAR_ENTRY"),
        (
            "an attribute too long",
            Tar::default().pax(&[("SCHILY.xattr.user.a", &[1; 70_000])]).file("a", b"").end(),
            "TAR_ENTRY",
        ),
        ("attributes without end", attributes(2000), "LAYER_CORRUPT"),
        (
            "headers without end",
            (0..5).fold(Tar::default(), |t, _| t.pax(&[("comment", &[b'x'; 300_000])])).file("a", b"").end(),
            "LAYER_CORRUPT",
        ),
        ("something after a lone zero block", [&[0; 512][..], &whole].concat(), "LAYER_CORRUPT"),
        ("a sparse file of exabytes", sparse_of(b"8000000000000000000"), "LAYER_CORRUPT"),
        ("a NUL in a name", Tar::default().pax(&[("path", b"a\0b")]).file("a", b"").end(), "TAR_ESCAPES"),
    ];
    for (what, blob, reason) in cases {
        let error = refused(blob);
        assert_eq!(error.reason(), reason, "{what}: {error}");
    }
}

#[test]
fn wrong_diff_id() {
    let bed = Bed::new();
    let tar = Tar::default().file("a", b"").end();
    let error = bed
        .store
        .layers()
        .apply(&tar[..], &oci::Descriptor::of(oci::media_type::LAYER, b""), &Digest::of(b"other"), None)
        .unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    assert!(bed.leftovers().is_empty());
}

/// A directory swapped for a link between two entries is not followed, however the cache of open directories stands.
#[test]
fn swapped_directories() {
    let bed = Bed::new();
    let tar = Tar::default().dir("d").file("d/one", b"1").symlink("d", "/tmp").file("d/two", b"2").end();
    assert_eq!(bed.apply(&tar).unwrap_err().reason(), "TAR_ESCAPES");
    assert!(!std::path::Path::new("/tmp/two").exists());
}

/// Somebody who may write into the layer swaps its directories for links to elsewhere, and back, while entries are written.
#[test]
fn directories_swapped_by_somebody_else() {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    let bed = Bed::new();
    let outside = bed.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("f7"), b"untouched").unwrap();
    let before = crate::describe(&outside);
    let mut tar = Tar::default().dir("d").dir("d/e");
    for n in 0..600 {
        // Two directories in turn and now and then a third, so that they are looked up again; modes that need a chmod.
        let (name, other) = (format!("d/e/f{}", n % 40), format!("d/g{}/f{}", n % 150, n % 3));
        tar = tar.raw(b'0', &name, "", 0o4755, &[b'x'; 600]).file(&other, b"y").raw(
            b'6',
            &format!("d/e/p{n}"),
            "",
            0o1666,
            b"",
        );
        tar = tar.link(&format!("d/l{n}"), &name).symlink(&format!("d/e/s{}", n % 7), "/").dir("d/e");
    }
    let tar = tar.file("d/.wh.f1", b"").file("d/e/.wh..wh..opq", b"");
    let (done, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let racer = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for staging in std::fs::read_dir(bed.store.root().join("staging")).unwrap().flatten() {
                    let fs = staging.path().join("fs");
                    for name in ["d/e", "d"] {
                        let (at, aside) = (fs.join(name), fs.join("aside"));
                        if std::fs::rename(&at, &aside).is_ok() {
                            let swapped = std::os::unix::fs::symlink(&outside, &at).is_ok();
                            swaps.fetch_add(swapped.into(), Ordering::Relaxed);
                            std::thread::yield_now();
                            let _ = std::fs::remove_file(&at);
                            let _ = std::fs::rename(&aside, &at);
                        }
                    }
                }
            }
        });
        // Most tries end at the first swap.
        for n in 0..1000 {
            if swaps.load(Ordering::Relaxed) < 150 {
                let another = Tar(tar.0.clone()).file(&n.to_string(), b"").end();
                let _ = bed.apply(&another);
            }
        }
        done.store(true, Ordering::Relaxed);
        racer.join().unwrap();
    });
    assert!(swaps.into_inner() > 50, "the race was not run");
    assert_eq!(crate::describe(&outside), before);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    /// Whatever the bytes are: an error or a layer, never a panic, and nothing left.
    #[test]
    fn noise(seed in proptest::collection::vec(0u8..=255, 0..1500), at in 0usize..1024, kind in 0u8..=255) {
        let mut tar = Tar::default().dir("a").file("a/b", b"data").raw(kind, "a/c", "a/b", 0o644, b"").end();
        for (i, byte) in seed.iter().enumerate().take(6) {
            let place = (at + i * 97) % tar.len();
            tar[place] = *byte;
        }
        // Half of the time with the checksum repaired, so that the fields are looked at.
        if seed.len() % 2 == 0 {
            let mut h = tar::Header::from_byte_slice(&tar[..512]).clone();
            h.set_cksum();
            tar[..512].copy_from_slice(h.as_bytes());
        }
        let bed = Bed::new();
        let _ = bed.apply(&tar);
        proptest::prop_assert!(bed.leftovers().is_empty());
    }
}
