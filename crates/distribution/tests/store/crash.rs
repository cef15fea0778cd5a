//! What dead processes leave behind, full disks, and damaged objects.
use crate::{Bed, Tar, privately};
use distribution::snapshot::{Commit, Prepare};
use distribution::{Error, Store, check};
use oci::{Descriptor, Digest, media_type};
use rpc::Coded;
use rustix::fs::FlockOperation;
use std::io::{Read, Write};
use std::time::Duration;

#[test]
fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
    let bed = Bed::new();
    let root = bed.store.root().to_owned();
    for dir in ["staging/dead/fs", "staging/alive/fs", "layers/99/fs", "snapshots/7/work", "trash/x/y"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
        std::fs::write(root.join(dir).join("f"), b"").unwrap();
    }
    let alive = std::fs::File::open(root.join("staging/alive")).unwrap();
    rustix::fs::flock(&alive, FlockOperation::LockExclusive).unwrap();
    Store::open(&root).unwrap();
    let there = |p: &str| root.join(p).exists();
    assert!(!there("staging/dead") && there("staging/alive/fs/f"));
    assert!(!there("layers/99") && !there("snapshots/7") && !there("trash/x"));
    drop(alive);
    // A child that another test has just forked holds the lock, too, until its exec.
    for _ in 0..100 {
        Store::open(&root).unwrap();
        if !there("staging/alive") {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("staging/alive is still there");
}

fn sql(bed: &Bed, text: &str) {
    rusqlite::Connection::open(bed.store.root().join("store.db")).unwrap().execute_batch(text).unwrap();
}

#[test]
fn a_commit_that_died_is_finished_or_forgotten() {
    let diff_id = Digest::of(b"made up");
    let begin = format!(
        "INSERT INTO layers (diff_id, size_bytes, entries, created_at, root_entry, whiteouts, unresolved, from_snapshot)
         VALUES ('{diff_id}', 1, 1, '', 0, 0, '{{}}', 1)"
    );
    for moved in [true, false] {
        let bed = Bed::new();
        let root = bed.store.root().to_owned();
        bed.store.snapshots().prepare(&Prepare { key: "w", ..Prepare::default() }).unwrap();
        std::fs::write(root.join("snapshots/1/fs/f"), b"precious").unwrap();
        sql(&bed, &begin);
        assert!(!bed.store.layers().has(&diff_id).unwrap());
        if moved {
            std::fs::create_dir(root.join("layers/1")).unwrap();
            std::fs::rename(root.join("snapshots/1/fs"), root.join("layers/1/fs")).unwrap();
        }
        let store = Store::open(&root).unwrap();
        assert_eq!(store.layers().has(&diff_id).unwrap(), moved);
        assert_eq!(store.snapshots().get("w").unwrap().is_none(), moved);
        if moved {
            assert_eq!(std::fs::read(store.layers().path(&diff_id).unwrap().join("f")).unwrap(), b"precious");
            assert!(!root.join("snapshots/1").exists());
        } else {
            assert!(store.snapshots().commit("w", Commit::default()).unwrap().is_some());
            distribution::gc::collect(&store, false).unwrap();
        }
    }
}

/// A whole tree looks like somebody's data: only the name of its record tells whether its row was ever there.
#[test]
fn a_tree_without_a_row_is_kept_only_when_it_had_one() {
    for (record, kept) in [("record.new", 0), ("record.json", 1)] {
        let bed = Bed::new();
        let root = bed.store.root().to_owned();
        let parents = [bed.apply(&Tar::default().file("f", b"x").file("g", b"y").end()).unwrap()];
        let wanted = Prepare { key: "c", parents: &parents, snapshotter: "copy", ..Prepare::default() };
        bed.store.snapshots().prepare(&wanted).unwrap();
        let dir = root.join("snapshots/1");
        let died = || std::fs::rename(dir.join("record.json"), dir.join(record)).unwrap();
        died();
        assert!(Store::open(&root).unwrap().snapshots().get("c").unwrap().is_some());
        assert!(dir.join("record.json").exists(), "finished for who died");
        // A lost database comes back from either name.
        died();
        for name in ["store.db", "store.db-wal", "store.db-shm"] {
            let _ = std::fs::remove_file(root.join(name));
        }
        assert!(Store::open(&root).unwrap().snapshots().get("c").unwrap().is_some());
        std::fs::remove_dir_all(root.join("quarantine")).unwrap();
        died();
        sql(&bed, "DELETE FROM snapshots");
        Store::open(&root).unwrap();
        assert!(!dir.exists());
        assert_eq!(std::fs::read_dir(root.join("quarantine")).unwrap().count(), kept, "{record}");
        // One that was removed is nobody's, though a power cut brings it back.
        bed.store.snapshots().prepare(&wanted).unwrap();
        std::fs::rename(root.join("snapshots/2"), root.join("back")).unwrap();
        bed.store.snapshots().remove("c").unwrap();
        std::fs::rename(root.join("back"), root.join("snapshots/2")).unwrap();
        Store::open(&root).unwrap();
        assert_eq!(std::fs::read_dir(root.join("quarantine")).unwrap().count(), kept, "{record}");
        assert_eq!(std::fs::read_dir(root.join("snapshots")).unwrap().count(), 0);
    }
}

#[test]
fn ingests_resume_and_refuse() {
    let bed = Bed::new();
    let bytes = vec![9; 1_000_000];
    let blob = Descriptor::of(media_type::LAYER, &bytes);
    let mut first = bed.store.content().ingest(&blob, None).unwrap();
    first.write_all(&bytes[..600_000]).unwrap();
    drop(first);
    let other = Store::open(bed.store.root()).unwrap();
    let mut second = other.content().ingest(&blob, None).unwrap();
    assert_eq!(second.offset(), 600_000);
    let mut seen = Vec::new();
    second.partial().unwrap().take(second.offset()).read_to_end(&mut seen).unwrap();
    assert_eq!(seen, bytes[..600_000]);
    second.write_all(&bytes[600_000..]).unwrap();
    second.commit().unwrap();
    assert_eq!(bed.store.content().has(&blob.digest).unwrap(), Some(1_000_000));
    assert_eq!(bed.store.content().read(&blob.digest, 1 << 20).unwrap(), bytes);
    assert!(matches!(bed.store.content().read(&blob.digest, 10), Err(Error::TooBig { .. })));

    let wrong = Descriptor { digest: Digest::of(b"something else"), ..blob.clone() };
    let mut third = bed.store.content().ingest(&wrong, None).unwrap();
    third.write_all(&bytes).unwrap();
    assert_eq!(third.commit().unwrap_err().reason(), "DIGEST_MISMATCH");
    let short = Descriptor { digest: Digest::of(&bytes[1..]), ..blob };
    let mut fourth = bed.store.content().ingest(&short, None).unwrap();
    fourth.write_all(&bytes[1..]).unwrap();
    assert_eq!(fourth.commit().unwrap_err().reason(), "SIZE_MISMATCH");
    assert!(bed.leftovers().is_empty(), "{:?}", bed.leftovers());
}

/// Two ingests of one digest take turns.
#[test]
fn one_writer_at_a_time() {
    let bed = Bed::new();
    let blob = Descriptor::of(media_type::LAYER, b"abc");
    let mut first = bed.store.content().ingest(&blob, None).unwrap();
    let (store, wanted) = (bed.store.clone(), blob.clone());
    let waiting = std::thread::spawn(move || {
        let second = store.content().ingest(&wanted, None).unwrap();
        (second.offset(), store.content().has(&wanted.digest).unwrap())
    });
    std::thread::sleep(Duration::from_millis(50));
    first.write_all(b"abc").unwrap();
    first.commit().unwrap();
    assert_eq!(waiting.join().unwrap(), (0, Some(3)));
    assert!(bed.leftovers().is_empty());
}

#[test]
fn a_full_disk_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    privately(move || {
        let size = Some(c"size=3m");
        rustix::mount::mount("tmpfs", &root, "tmpfs", rustix::mount::MountFlags::empty(), size).unwrap();
        let store = Store::open(&root.join("s")).unwrap();
        let big = Tar::default().file("small", b"x").file("big", &vec![1; 8 << 20]).end();
        let id = Digest::of(&big);
        let error =
            store.layers().apply(&big[..], &oci::Descriptor::of(media_type::LAYER, b""), &id, None).unwrap_err();
        assert_eq!((error.code(), error.reason()), (rpc::Code::ResourceExhausted, "NO_SPACE"), "{error}");
        assert!(error.hint().is_some() && !store.layers().has(&id).unwrap());
        for name in ["staging", "layers", "trash", "ingest"] {
            assert_eq!(std::fs::read_dir(root.join("s").join(name)).unwrap().count(), 0, "{name}");
        }
        let blob = Descriptor::of(media_type::LAYER, &big);
        let mut ingest = store.content().ingest(&blob, None).unwrap();
        ingest.write_all(&big).unwrap_err();
        ingest.restart().unwrap();
        drop(ingest);
        let small = Tar::default().file("small", &[1; 100_000]).end();
        store
            .layers()
            .apply(&small[..], &oci::Descriptor::of(media_type::LAYER, b""), &Digest::of(&small), None)
            .unwrap();
        rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn damage_is_named_set_aside_and_healed() {
    let bed = Bed::new();
    let tar = Tar::default().file("f", b"x").end();
    let id = bed.apply(&tar).unwrap();
    let parents = [id.clone()];
    bed.store.snapshots().prepare(&Prepare { key: "s", parents: &parents, ..Prepare::default() }).unwrap();
    let blob = bed.store.content().write(b"{\"a\": 1}", media_type::CONFIG, None).unwrap();
    let path = bed.store.content().path(&blob.digest);
    std::fs::write(&path, b"{\"a\": 2}").unwrap();
    std::fs::remove_dir_all(bed.store.layers().path(&id).unwrap()).unwrap();
    let check = |repair| {
        let mut all = Vec::new();
        check::run(&bed.store, repair, |f| all.push(f)).unwrap();
        all.into_iter().filter(|f| f.problem.is_some()).map(|f| (f.object, f.repaired)).collect::<Vec<_>>()
    };
    let (b, l) = (format!("blob {}", blob.digest), format!("layer {id}"));
    assert_eq!(check(false), [(b.clone(), false), (l.clone(), false), ("snapshot s".into(), false)]);
    assert!(matches!(bed.store.content().read(&blob.digest, 100), Err(Error::DigestMismatch { .. })));
    assert_eq!(check(true), [(b, true), (l, true), ("snapshot s".into(), false)]);
    assert_eq!(bed.store.content().has(&blob.digest).unwrap(), None);
    assert_eq!(std::fs::read_dir(bed.store.root().join("quarantine")).unwrap().count(), 1);
    bed.store.content().write(b"{\"a\": 1}", media_type::CONFIG, None).unwrap();
    bed.apply(&tar).unwrap();
    assert_eq!(check(false), []);
    bed.store.snapshots().mounts("s").unwrap();
}

/// Run as a process of its own by the next test, and killed.
#[test]
#[ignore = "the victim of `killed_at_any_moment`"]
fn victim() {
    let Ok(root) = std::env::var("STORE_ROOT") else { return };
    let store = Store::open(std::path::Path::new(&root)).unwrap();
    for n in 0..10_000u32 {
        let data = vec![b'd'; 50_000];
        let tar = Tar::default().dir("d").file("d/a", &data).file("d/b", &n.to_le_bytes()).end();
        let id = Digest::of(&tar);
        store.layers().apply(&tar[..], &oci::Descriptor::of(media_type::LAYER, b""), &id, None).unwrap();
        let parents = [id];
        let key = format!("k{n}");
        store.snapshots().prepare(&Prepare { key: &key, parents: &parents, ..Prepare::default() }).unwrap();
        let (_, mounts) = store.snapshots().mounts(&key).unwrap();
        let upper = mounts[0].options.iter().find_map(|o| o.strip_prefix("upperdir=")).unwrap();
        std::fs::write(std::path::Path::new(upper).join("new"), n.to_le_bytes()).unwrap();
        store.snapshots().commit(&key, Commit::default()).unwrap();
        if n % 3 == 0 {
            distribution::gc::collect(&store, false).unwrap();
        }
    }
}

#[test]
fn killed_at_any_moment() {
    let bed = Bed::new();
    for round in 0..25u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::victim", "--ignored"])
            .env("STORE_ROOT", bed.store.root())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 + round * 13 % 150));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(bed.store.root()).unwrap();
        check::run(&store, false, |f| assert_eq!(f.problem, None, "round {round}: {f:?}")).unwrap();
        for snapshot in store.snapshots().list(false).unwrap() {
            store.snapshots().remove(&snapshot.key).unwrap();
        }
        for name in ["staging", "trash", "snapshots"] {
            assert_eq!(std::fs::read_dir(store.root().join(name)).unwrap().count(), 0, "round {round}: {name}");
        }
    }
    distribution::gc::collect(&bed.store, false).unwrap();
    assert_eq!(std::fs::read_dir(bed.store.root().join("layers")).unwrap().count(), 0);
    assert!(bed.leftovers().is_empty(), "{:?}", bed.leftovers());
}
