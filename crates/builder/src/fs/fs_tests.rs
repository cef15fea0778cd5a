#![allow(clippy::unwrap_used)]
use super::copy::{CopyOptions, copy};
use super::digest::digest;
use super::ignore::{self, Ignore};
use super::root::Root;
use super::source::{Select, Source};
use crate::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const SELECT: Select = Select { wildcards: true, allow_empty: true, follow: true };

struct Bed {
    from: TempDir,
    to: TempDir,
}

impl Bed {
    fn new() -> Self {
        Self { from: tempfile::tempdir().unwrap(), to: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.from.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn source(&self, ignored: &str) -> Source {
        Source {
            root: Root::open(self.from.path()).unwrap(),
            ignore: Ignore::new(&ignore::parse(ignored)).unwrap(),
            own_by_root: true,
            place: "the build context".into(),
        }
    }

    fn copy_with(&self, source: &Source, path: &str, to: &str, options: &CopyOptions) -> Result<(), Error> {
        let matches = source.select(path, SELECT)?;
        let target = Root::open(self.to.path())?;
        copy(source, &matches, &target, to, options, &CancellationToken::new())
    }

    fn copy(&self, path: &str, to: &str) -> Result<(), Error> {
        self.copy_with(&self.source(""), path, to, &CopyOptions { contents: true, ..CopyOptions::default() })
    }

    fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(self.to.path(), self.to.path(), &mut found);
        found.sort();
        found
    }

    fn digest(&self, path: &str) -> String {
        let source = self.source("ignored\n");
        digest(&source, &source.select(path, SELECT).unwrap()).unwrap()
    }
}

fn list(base: &Path, at: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.strip_prefix(base).unwrap().to_str().unwrap().into());
        if path.symlink_metadata().unwrap().is_dir() {
            list(base, &path, found);
        }
    }
}

#[test]
fn destinations() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("f", "/g", &["g"]),
        ("f", "/d/", &["d", "d/f"]),
        ("f", "/a/b/g", &["a", "a/b", "a/b/g"]),
        ("dir", "/x", &["x", "x/one", "x/sub", "x/sub/two"]),
        ("dir", "/", &["one", "sub", "sub/two"]),
        ("dir/*", "/x/", &["x", "x/one", "x/two"]),
        ("*.none", "/x/", &[]),
        ("f", "/", &["f"]),
    ];
    for (from, to, expected) in cases {
        let bed = Bed::new();
        bed.write("f", "file");
        bed.write("dir/one", "1");
        bed.write("dir/sub/two", "2");
        bed.copy(from, to).unwrap();
        assert_eq!(&bed.tree(), expected, "COPY {from} {to}");
    }
}

#[test]
fn keeps_modes_times_links_and_hard_links() {
    let bed = Bed::new();
    bed.write("d/f", "x");
    let file = bed.from.path().join("d/f");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(&file, bed.from.path().join("d/g")).unwrap();
    symlink("/etc/passwd", bed.from.path().join("d/link")).unwrap();
    bed.copy("d", "/d").unwrap();
    let (from, to) = (file.metadata().unwrap(), bed.to.path().join("d/f").metadata().unwrap());
    assert_eq!((to.mode() & 0o777, to.mtime(), to.mtime_nsec()), (0o640, from.mtime(), from.mtime_nsec()));
    assert_eq!(to.ino(), bed.to.path().join("d/g").metadata().unwrap().ino());
    assert_eq!(fs::read_link(bed.to.path().join("d/link")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn links_do_not_lead_out_of_either_root() {
    let bed = Bed::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    symlink(outside.path().join("secret"), bed.from.path().join("leak")).unwrap();
    assert!(matches!(bed.copy("leak", "/leak"), Err(Error::Missing { .. })));
    bed.write("f", "x");
    symlink(outside.path(), bed.to.path().join("out")).unwrap();
    // The link is dangling inside of the root, and nothing is written outside.
    drop(bed.copy("f", "/out/f"));
    drop(bed.copy("f", "/../../../f2"));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(bed.to.path().join("f2").exists());
}

#[test]
fn a_link_in_the_target_is_replaced_not_followed() {
    let bed = Bed::new();
    bed.write("f", "new");
    fs::write(bed.to.path().join("real"), "old").unwrap();
    symlink("real", bed.to.path().join("link")).unwrap();
    bed.copy("f", "/link").unwrap();
    assert_eq!(fs::read_to_string(bed.to.path().join("real")).unwrap(), "old");
    assert_eq!(fs::read_to_string(bed.to.path().join("link")).unwrap(), "new");
}

#[test]
fn ignores() {
    let bed = Bed::new();
    for path in ["a.md", "keep.md", "src/x.rs", "target/big", "deep/er/keep", "deep/er/drop"] {
        bed.write(path, "");
    }
    let source = bed.source("*.md\n!keep.md\ntarget\ndeep\n!deep/er/keep\n");
    bed.copy_with(&source, "/", "/", &CopyOptions { contents: true, ..CopyOptions::default() }).unwrap();
    assert_eq!(bed.tree(), ["deep", "deep/er", "deep/er/keep", "keep.md", "src", "src/x.rs"]);
    assert!(matches!(source.select("target", SELECT), Err(Error::Missing { .. })));
    assert!(matches!(source.select("a.md", SELECT), Err(Error::Missing { .. })));
}

#[test]
fn overrides_mode_and_excludes() {
    let bed = Bed::new();
    bed.write("d/a", "");
    bed.write("d/b.tmp", "");
    let options = CopyOptions {
        mode: Some(0o700),
        contents: true,
        exclude: Ignore::new(&["*.tmp".into()]).unwrap(),
        ..CopyOptions::default()
    };
    bed.copy_with(&bed.source(""), "d", "/d", &options).unwrap();
    assert_eq!(bed.tree(), ["d", "d/a"]);
    assert_eq!(bed.to.path().join("d/a").metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn refuses_what_does_not_fit() {
    let bed = Bed::new();
    bed.write("d/a", "");
    bed.write("f", "");
    bed.write("g", "");
    fs::create_dir_all(bed.to.path().join("x/f")).unwrap();
    fs::write(bed.to.path().join("file"), "").unwrap();
    assert!(bed.copy("[fg]", "/one").is_err());
    assert!(bed.copy("f", "/x/").is_err(), "a file over a directory");
    assert!(bed.copy("d", "/file").is_err(), "a directory over a file");
    assert!(matches!(bed.copy("nope", "/y"), Err(Error::Missing { .. })));
}

#[test]
fn digest_is_of_content_not_of_times() {
    let bed = Bed::new();
    bed.write("d/a", "1");
    bed.write("ignored", "1");
    let first = bed.digest("/");
    bed.write("d/a", "1");
    bed.write("ignored", "2");
    assert_eq!(bed.digest("/"), first, "the same content, written again");
    bed.write("d/a", "2");
    assert_ne!(bed.digest("/"), first, "other content");
    bed.write("d/a", "1");
    fs::set_permissions(bed.from.path().join("d/a"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(bed.digest("/"), first, "other permissions");
}

fn archive(gzip: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &[u8], kind, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(1000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_cksum();
        builder.append(&header, data).unwrap();
    };
    add(b"a/b", tar::EntryType::Regular, "", b"hello");
    add(b"a/hard", tar::EntryType::Link, "a/b", b"");
    add(b"../../up", tar::EntryType::Regular, "", b"x");
    add(b"out", tar::EntryType::Symlink, "/../../..", b"");
    add(b"out/escaped", tar::EntryType::Regular, "", b"x");
    let bytes = builder.into_inner().unwrap();
    if !gzip {
        return bytes;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn unpacks_archives_within_the_root() {
    for gzip in [false, true] {
        let bed = Bed::new();
        fs::write(bed.from.path().join("x.tar"), archive(gzip)).unwrap();
        let options = CopyOptions { unpack: true, contents: true, ..CopyOptions::default() };
        bed.copy_with(&bed.source(""), "x.tar", "/d/", &options).unwrap();
        let expected = ["d", "d/a", "d/a/b", "d/a/hard", "d/out", "d/up", "escaped"];
        assert_eq!(bed.tree(), expected);
        assert_eq!(bed.to.path().join("d/a/b").metadata().unwrap().mtime(), 1000);
    }
}

#[test]
fn what_is_no_archive_is_copied() {
    let bed = Bed::new();
    bed.write("plain.tar", "not a tar");
    let options = CopyOptions { unpack: true, contents: true, ..CopyOptions::default() };
    bed.copy_with(&bed.source(""), "plain.tar", "/d/", &options).unwrap();
    assert_eq!(bed.tree(), ["d", "d/plain.tar"]);
}
