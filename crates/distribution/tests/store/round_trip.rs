//! Layers to snapshots to layers, through real mounts and without.
use crate::{Bed, Tar, describe, privately};
use distribution::layer::{ChangeKind, Compression};
use distribution::snapshot::{Commit, Prepare};
use oci::Digest;
use std::path::{Path, PathBuf};

fn base(bed: &Bed) -> Vec<Digest> {
    let lower = Tar::default()
        .raw(b'5', "./", "", 0o711, b"")
        .dir("etc")
        .file("etc/passwd", b"root")
        .file("etc/gone", b"x")
        .dir("opt")
        .file("opt/a", b"a")
        .dir("opt/sub")
        .file("opt/sub/b", b"b")
        .dir("keep")
        .file("keep/k", b"k")
        .end();
    let upper = Tar::default().dir("etc").file("etc/.wh.gone", b"").file("etc/new", b"n").end();
    vec![bed.apply(&lower).unwrap(), bed.apply(&upper).unwrap()]
}

const CHANGES: &str = r#"
    test ! -e etc/gone && cat etc/passwd etc/new >/dev/null
    echo changed > etc/passwd
    rm keep/k
    rm -r opt && mkdir opt && echo fresh > opt/fresh && mkdir opt/sub && echo 2 > opt/sub/c
    mkdir -p deep/er && echo 1 > deep/er/file && ln deep/er/file deep/hard && ln -s /nowhere deep/soft
    mkfifo deep/pipe && mknod deep/null c 1 3 && chmod 6755 deep/er/file && chown 7:8 deep/er && touch -d @1.25 deep/er
    truncate -s 200000 deep/zeros && touch "deep/$(printf 'n%.0s' $(seq 180))"
"#;

/// Mounts a snapshot, runs a script in it, and describes what is there then.
fn run(bed: &Bed, key: &str, script: &'static str) -> std::collections::BTreeMap<PathBuf, String> {
    let (_, mounts) = bed.store.snapshots().mounts(key).unwrap();
    let target = bed.dir.path().join("mnt");
    std::fs::create_dir_all(&target).unwrap();
    privately(move || {
        sys::mount::mount_all(&target, &mounts).unwrap();
        let status = std::process::Command::new("sh").args(["-ec", script]).current_dir(&target).status().unwrap();
        assert!(status.success());
        let seen = describe(&target);
        sys::mount::unmount(&target).unwrap();
        seen
    })
}

fn commit_and_compare(snapshotter: &str, keep: bool, compression: Compression) {
    let bed = Bed::new();
    let parents = base(&bed);
    let snapshots = bed.store.snapshots();
    snapshots.prepare(&Prepare { key: "w", parents: &parents, snapshotter, ..Prepare::default() }).unwrap();
    let seen = run(&bed, "w", CHANGES);

    let mut listed: Vec<_> = snapshots.diff("w").unwrap().into_iter().map(|c| (c.path, c.kind)).collect();
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    for expected in [
        ("/etc/passwd", ChangeKind::Modified),
        ("/keep/k", ChangeKind::Deleted),
        ("/opt/a", ChangeKind::Deleted),
        ("/opt/sub/b", ChangeKind::Deleted),
        ("/opt/fresh", ChangeKind::Added),
        ("/deep/er/file", ChangeKind::Added),
    ] {
        assert!(listed.iter().any(|(p, k)| (p.as_str(), *k) == expected), "{expected:?} in {listed:?}");
    }
    assert!(!listed.iter().any(|(p, _)| p == "/etc/gone" || p == "/etc/new" || p == "/"), "{listed:?}");

    let mut flat = Vec::new();
    assert_eq!(snapshots.export("w", &mut flat).unwrap(), flat.len() as u64);

    let how = Commit { compression, keep, ..Commit::default() };
    let made = snapshots.commit("w", how).unwrap().unwrap();
    assert_eq!(snapshots.get("w").unwrap().is_some(), keep);
    assert_eq!(made.descriptor.media_type, compression.media_type());
    let chain: Vec<Digest> = parents.iter().cloned().chain([made.diff_id.clone()]).collect();

    // The committed layer, the same blob in another store, and the export all show the same tree.
    snapshots.prepare(&Prepare { key: "again", parents: &chain, ..Prepare::default() }).unwrap();
    assert_eq!(run(&bed, "again", ":"), seen, "committed");
    let other = Bed::new();
    base(&other);
    let blob = bed.store.content().open(&made.descriptor.digest).unwrap();
    other.store.layers().apply(blob, &made.descriptor, &made.diff_id, None).unwrap();
    for snapshotter in ["overlay", "copy"] {
        let prepare = Prepare { key: snapshotter, parents: &chain, snapshotter, ..Prepare::default() };
        other.store.snapshots().prepare(&prepare).unwrap();
        assert_eq!(run(&other, snapshotter, ":"), seen, "applied elsewhere, {snapshotter}");
    }
    let third = Bed::new();
    let flat = third.apply(&flat).unwrap();
    assert_eq!(describe(&third.store.layers().path(&flat).unwrap()), seen, "exported");
    for bed in [&bed, &other, &third] {
        assert!(bed.leftovers().is_empty(), "{:?}", bed.leftovers());
    }
}

#[test]
fn overlay_consumed() {
    commit_and_compare("overlay", false, Compression::Gzip);
}

#[test]
fn overlay_kept() {
    commit_and_compare("overlay", true, Compression::Zstd);
}

#[test]
fn copy_consumed() {
    commit_and_compare("copy", false, Compression::None);
}

#[test]
fn nothing_changed() {
    let bed = Bed::new();
    let parents = base(&bed);
    for snapshotter in ["overlay", "copy"] {
        let prepare = Prepare { key: "w", parents: &parents, snapshotter, ..Prepare::default() };
        bed.store.snapshots().prepare(&prepare).unwrap();
        run(&bed, "w", "cat etc/passwd > /dev/null");
        assert_eq!(bed.store.snapshots().diff("w").unwrap(), []);
        assert_eq!(bed.store.snapshots().commit("w", Commit::default()).unwrap(), None);
        assert_eq!(bed.store.snapshots().get("w").unwrap(), None);
    }
}

#[test]
fn the_same_change_is_the_same_blob() {
    let script = "mkdir -p d && echo x > d/x && touch -d @5 d/x && touch -d @5 d && rm etc/new && touch -d @5 etc";
    let one = |snapshotter: &str| {
        let bed = Bed::new();
        let parents = base(&bed);
        let prepare = Prepare { key: "w", parents: &parents, snapshotter, ..Prepare::default() };
        bed.store.snapshots().prepare(&prepare).unwrap();
        run(&bed, "w", script);
        bed.store.snapshots().commit("w", Commit::default()).unwrap().unwrap()
    };
    let first = one("overlay");
    assert_eq!(first, one("overlay"));
    assert_eq!(first, one("copy"));
}

#[test]
fn the_root_directory_has_its_mode() {
    let bed = Bed::new();
    let parents = base(&bed);
    let snapshots = bed.store.snapshots();
    snapshots.prepare(&Prepare { key: "w", parents: &parents, ..Prepare::default() }).unwrap();
    run(&bed, "w", "test $(stat -c %a .) = 711 && chmod 1777 . && chown 5:6 .");
    let made = snapshots.commit("w", Commit::default()).unwrap().unwrap();
    let chain: Vec<Digest> = parents.into_iter().chain([made.diff_id]).collect();
    snapshots.prepare(&Prepare { key: "x", parents: &chain, read_only: true, ..Prepare::default() }).unwrap();
    run(&bed, "x", "test $(stat -c %a:%u:%g .) = 1777:5:6 && ! touch y 2>/dev/null");
}

#[test]
fn read_only_and_empty() {
    let bed = Bed::new();
    let only = bed.apply(&Tar::default().file("f", b"").end()).unwrap();
    let snapshots = bed.store.snapshots();
    let one = [only];
    let (_, mounts) =
        snapshots.prepare(&Prepare { key: "ro", parents: &one, read_only: true, ..Prepare::default() }).unwrap();
    assert_eq!(
        (mounts[0].fstype.as_str(), mounts[0].source.as_path()),
        ("bind", bed.store.layers().path(&one[0]).unwrap().as_path())
    );
    run(&bed, "ro", "test -e f && ! touch y 2>/dev/null");
    snapshots.prepare(&Prepare { key: "empty", ..Prepare::default() }).unwrap();
    run(&bed, "empty", "test -z \"$(ls)\" && echo x > y");
    let made = snapshots.commit("empty", Commit::default()).unwrap().unwrap();
    assert_eq!(std::fs::read(bed.store.layers().path(&made.diff_id).unwrap().join("y")).unwrap(), b"x\n");
}

#[test]
fn names_and_states() {
    let bed = Bed::new();
    let snapshots = bed.store.snapshots();
    snapshots.prepare(&Prepare { key: "a", ..Prepare::default() }).unwrap();
    let reason = |r: distribution::Result<_>| rpc::Coded::reason(&r.map(drop).unwrap_err());
    assert_eq!(reason(snapshots.prepare(&Prepare { key: "a", ..Prepare::default() })), "SNAPSHOT_EXISTS");
    assert_eq!(reason(snapshots.prepare(&Prepare { key: "a/b", ..Prepare::default() })), "NAME_INVALID");
    assert_eq!(
        reason(snapshots.prepare(&Prepare { key: "b", snapshotter: "zfs", ..Prepare::default() })),
        "NAME_INVALID"
    );
    let unknown = [Digest::of(b"unknown")];
    assert_eq!(
        reason(snapshots.prepare(&Prepare { key: "b", parents: &unknown, ..Prepare::default() })),
        "LAYER_NOT_FOUND"
    );
    assert_eq!(reason(snapshots.mounts("nobody")), "SNAPSHOT_NOT_FOUND");
    snapshots.remove("nobody").unwrap();
    std::fs::remove_dir_all(bed.store.root().join("snapshots/1")).unwrap();
    assert_eq!(reason(snapshots.mounts("a")), "SNAPSHOT_DAMAGED");
    snapshots.remove("a").unwrap();
    assert_eq!(snapshots.list(true).unwrap(), []);
}

/// The mount of many layers outgrows a page of options; it still mounts.
#[test]
fn a_hundred_layers() {
    let bed = Bed::new();
    let chain: Vec<Digest> =
        (0..120).map(|n| bed.apply(&Tar::default().file(&format!("f{n}"), b"").end()).unwrap()).collect();
    bed.store.snapshots().prepare(&Prepare { key: "many", parents: &chain, ..Prepare::default() }).unwrap();
    assert_eq!(run(&bed, "many", "rm f7").len(), 119);
    assert!(Path::new("/").exists());
}

/// What archives leave to their parents: directories without entries, links to parents' files, parents' links.
#[test]
fn archives_that_lean_on_their_parents() {
    let base = Tar::default()
        .raw(b'5', "srv", "", 0o1777, b"")
        .dir("usr")
        .raw(b'5', "usr/bin", "", 0o751, b"")
        .file("usr/bin/sh", b"sh")
        .symlink("bin", "usr/bin")
        .file("usr/data", b"data")
        .end();
    let top = Tar::default().file("srv/deep/new", b"n").file("bin/tool", b"t").link("usr/again", "usr/data").end();
    for snapshotter in ["overlay", "copy"] {
        let bed = Bed::new();
        let chain = [bed.apply(&base).unwrap(), bed.apply(&top).unwrap()];
        let prepare = Prepare { key: "w", parents: &chain, snapshotter, ..Prepare::default() };
        bed.store.snapshots().prepare(&prepare).unwrap();
        let check = "test $(stat -c %a srv) = 1777 && test -h bin && test $(cat bin/tool bin/sh) = tsh && \
                     test $(cat usr/again) = data && test $(stat -c %a usr/bin) = 751 && test -f srv/deep/new";
        run(&bed, "w", check);
        assert_eq!(bed.store.snapshots().commit("w", Commit::default()).unwrap(), None, "{snapshotter}");
    }
    let bed = Bed::new();
    let alone = [bed.apply(&top).unwrap()];
    let error =
        bed.store.snapshots().prepare(&Prepare { key: "w", parents: &alone, ..Prepare::default() }).unwrap_err();
    assert_eq!(rpc::Coded::reason(&error), "TAR_ENTRY", "{error}");
    assert!(bed.leftovers().is_empty());
}

/// A layer may hide everything below it at once.
#[test]
fn opaque_directories_and_roots() {
    for snapshotter in ["overlay", "copy"] {
        let bed = Bed::new();
        let base = bed.apply(&Tar::default().dir("d").file("d/old", b"").file("r", b"").end()).unwrap();
        let middle = bed.apply(&Tar::default().dir("d").file("d/new", b"").file("d/.wh..wh..opq", b"").end()).unwrap();
        let chain = [base, middle];
        bed.store
            .snapshots()
            .prepare(&Prepare { key: "a", parents: &chain, snapshotter, ..Prepare::default() })
            .unwrap();
        run(&bed, "a", "test ! -e d/old && test -e d/new && test -e r");
        let top = bed.apply(&Tar::default().file(".wh..wh..opq", b"").file("only", b"").end()).unwrap();
        let chain = [chain[0].clone(), chain[1].clone(), top];
        bed.store
            .snapshots()
            .prepare(&Prepare { key: "b", parents: &chain, snapshotter, ..Prepare::default() })
            .unwrap();
        run(&bed, "b", "test $(ls) = only");
    }
}
