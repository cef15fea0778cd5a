//! Archives that are right, in all their variants.
use crate::{Bed, Tar, describe};
use oci::{Digest, media_type};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

#[test]
fn metadata_arrives_whole() {
    let bed = Bed::new();
    // A capability: version 2, cap_net_raw effective and permitted.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
    let tar = Tar::default()
        .raw(b'5', "./", "", 0o750, b"")
        .header(
            |h| {
                h.set_path("bin/").unwrap();
                h.set_entry_type(tar::EntryType::Directory);
                h.set_mode(0o2775);
                h.set_gid(8);
            },
            b"",
        )
        .pax(&[
            ("mtime", b"1234567890.123456789"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"hi"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("uid", b"3000000"),
        ])
        .raw(b'0', "bin/ping", "", 0o4755, b"elf")
        .link("bin/ping4", "bin/ping")
        .symlink("bin/sh", "../../../../bin/busybox")
        .pax(&[("path", long.as_bytes())])
        .file("short", b"long name")
        .raw(b'6', "pipe", "", 0o622, b"")
        .header(
            |h| {
                h.set_path("null").unwrap();
                h.set_entry_type(tar::EntryType::Char);
                h.set_device_major(1).unwrap();
                h.set_device_minor(3).unwrap();
                h.set_mode(0o666);
            },
            b"",
        )
        .raw(b'L', "././@LongLink", "", 0, &[b"g".repeat(150), vec![0]].concat())
        .raw(b'0', "g", "", 0o600, b"gnu")
        .raw(b'7', "contiguous", "", 0o640, b"c")
        .raw(b'0', "old-dir/", "", 0o700, b"")
        .end();
    let id = bed.apply(&tar).unwrap();
    let fs = bed.store.layers().path(&id).unwrap();
    let meta = |p: &str| std::fs::symlink_metadata(fs.join(p)).unwrap();
    assert_eq!(meta("").mode() & 0o7777, 0o750);
    assert_eq!((meta("bin").mode() & 0o7777, meta("bin").gid(), meta("bin").mtime()), (0o2775, 8, 5));
    let ping = meta("bin/ping");
    assert_eq!((ping.mode() & 0o7777, ping.uid(), ping.gid(), ping.nlink()), (0o4755, 3_000_000, 0, 2));
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (1_234_567_890, 123_456_789));
    let mut value = [0; 64];
    assert_eq!(rustix::fs::lgetxattr(fs.join("bin/ping"), "security.capability", &mut value).unwrap(), 20);
    assert_eq!(rustix::fs::lgetxattr(fs.join("bin/ping"), "user.note", &mut value).unwrap(), 2);
    assert!(rustix::fs::lgetxattr(fs.join("bin/ping"), "trusted.overlay.redirect", &mut value).is_err());
    assert_eq!(std::fs::read_link(fs.join("bin/sh")).unwrap().to_str().unwrap(), "../../../../bin/busybox");
    assert_eq!(std::fs::read(fs.join(long)).unwrap(), b"long name");
    assert_eq!(std::fs::read(fs.join("g".repeat(150))).unwrap(), b"gnu");
    assert!(meta("pipe").file_type().is_fifo() && meta("pipe").mode() & 0o777 == 0o622);
    assert!(meta("null").file_type().is_char_device() && meta("null").rdev() == rustix::fs::makedev(1, 3));
    assert!(meta("old-dir").is_dir() && meta("old-dir").permissions().mode() & 0o777 == 0o700);
    assert!(bed.leftovers().is_empty(), "{:?}", bed.leftovers());
}

#[test]
fn all_packings_and_several_members() {
    let tar = Tar::default().dir("a").file("a/b", &[7; 100_000]).end();
    let id = Digest::of(&tar);
    let gzip = |bytes: &[u8]| {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(bytes).unwrap();
        e.finish().unwrap()
    };
    let two_members = [gzip(&tar[..1000]), gzip(&tar[1000..])].concat();
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    let cases = [
        (two_members.clone(), media_type::LAYER_GZIP),
        (two_members, media_type::DOCKER_LAYER_GZIP),
        (zstd.clone(), media_type::LAYER_ZSTD),
        // What the bytes are wins.
        (zstd, media_type::LAYER_GZIP),
        (tar.clone(), media_type::LAYER),
        (tar.clone(), media_type::LAYER_GZIP),
    ];
    for (blob, media_type) in cases {
        let bed = Bed::new();
        let info = bed.store.layers().apply(&blob[..], &oci::Descriptor::of(media_type, b""), &id, None).unwrap();
        assert!(info.new && info.diff_id == id && info.entries == 2 && info.size_bytes >= 100_000);
        assert!(!bed.store.layers().apply(&blob[..], &oci::Descriptor::of(media_type, b""), &id, None).unwrap().new);
        assert_eq!(std::fs::read(bed.store.layers().path(&id).unwrap().join("a/b")).unwrap(), [7; 100_000]);
    }
    let bed = Bed::new();
    let error =
        bed.store.layers().apply(&tar[..], &oci::Descriptor::of("application/json", b""), &id, None).unwrap_err();
    assert!(matches!(error, distribution::Error::UnknownLayerType { .. }), "{error:?}");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let bed = Bed::new();
    let tar = Tar::default()
        .file("f", b"one")
        .file("f", b"two")
        .dir("d")
        .file("d/x", b"x")
        .file("d", b"now a file")
        .symlink("l", "f")
        .dir("l")
        .file("l/inside", b"i")
        .file("z", b"file")
        .dir("z")
        .file("z/in", b"")
        .end();
    let fs = bed.store.layers().path(&bed.apply(&tar).unwrap()).unwrap();
    assert_eq!(std::fs::read(fs.join("f")).unwrap(), b"two");
    assert_eq!(std::fs::read(fs.join("d")).unwrap(), b"now a file");
    assert_eq!(std::fs::read(fs.join("l/inside")).unwrap(), b"i");
    assert!(fs.join("z/in").exists());
    assert_eq!(describe(&fs).len(), 6);
}

#[test]
fn files_with_holes() {
    let bed = Bed::new();
    // GNU's PAX format 1.0: the map at the beginning of the data.
    let mut data = b"2\n0\n5\n1048576\n5\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"hello");
    data.extend_from_slice(b"world");
    let tar = Tar::default()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", b"2097152"),
        ])
        .file("GNUSparseFile.0/sparse", &data)
        .file("after", b"after")
        .end();
    let fs = bed.store.layers().path(&bed.apply(&tar).unwrap()).unwrap();
    let bytes = std::fs::read(fs.join("sparse")).unwrap();
    assert_eq!((bytes.len(), &bytes[..5], &bytes[1_048_576..1_048_581]), (2_097_152, &b"hello"[..], &b"world"[..]));
    assert!(std::fs::metadata(fs.join("sparse")).unwrap().blocks() < 64);
    assert_eq!(std::fs::read(fs.join("after")).unwrap(), b"after");
}

/// GNU tar itself as the judge: what it writes of a real tree arrives as it was.
#[test]
fn what_gnu_tar_writes() {
    let source = tempfile::tempdir().unwrap();
    let make = format!(
        "cd {} && mkdir -p a/b && echo x > a/b/c && ln a/b/c hard && ln -s a/b/c soft && mkfifo p && truncate -s 3M holes && \
         printf end >> holes && chmod 4711 a/b/c && chown 12:34 a && touch -d @1.5 a/b && mkdir {} && touch -d @-5 old",
        source.path().display(),
        "x".repeat(150)
    );
    assert!(std::process::Command::new("sh").args(["-c", &make]).status().unwrap().success());
    for format in ["gnu", "pax"] {
        let out = std::process::Command::new("tar")
            .args(["-C", source.path().to_str().unwrap(), "-S", &format!("--format={format}"), "-cf", "-", "."])
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        let bed = Bed::new();
        let fs = bed.store.layers().path(&bed.apply(&out.stdout).unwrap()).unwrap();
        let strip = |m: std::collections::BTreeMap<std::path::PathBuf, String>| -> Vec<_> {
            // The gnu format has no nanoseconds.
            m.into_iter()
                .map(|(p, l)| if format == "gnu" { (p, l.split('.').next().unwrap().to_owned()) } else { (p, l) })
                .collect()
        };
        assert_eq!(strip(describe(&fs)), strip(describe(source.path())), "{format}");
    }
}
