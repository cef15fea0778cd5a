//! Garbage collection, leases, image rows.
use crate::{Bed, Tar};
use distribution::snapshot::Prepare;
use distribution::{ImageRecord, gc};
use oci::{Descriptor, Digest, Platform, media_type};
use rpc::Coded;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// An image of one layer in the store; everything under `lease`.
fn image(bed: &Bed, content: &[u8], lease: Option<&str>) -> ImageRecord {
    let tar = Tar::default().file("f", content).end();
    let diff_id = Digest::of(&tar);
    let store = &bed.store;
    store.layers().apply(&tar[..], &oci::Descriptor::of(media_type::LAYER, b""), &diff_id, lease).unwrap();
    let layer = store.content().write(&tar, media_type::LAYER, lease).unwrap();
    let config =
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
    let config = store.content().write(config.as_bytes(), media_type::CONFIG, lease).unwrap();
    let text = |d: &Descriptor| serde_json::to_string(d).unwrap();
    let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, text(&config), text(&layer));
    let manifest = store.content().write(manifest.as_bytes(), media_type::MANIFEST, lease).unwrap();
    ImageRecord {
        target: manifest.clone(),
        manifest,
        config: config.digest,
        layers: vec![layer],
        diff_ids: vec![diff_id],
        created_at: "2026-11-21T00:00:00Z".into(),
        platform: Platform::host(),
        repo_digests: vec![],
        attached: vec![],
        dropped: vec![],
        names: vec![],
    }
}

fn collected(bed: &Bed) -> (usize, usize) {
    let dry = gc::collect(&bed.store, true).unwrap();
    let report = gc::collect(&bed.store, false).unwrap();
    assert_eq!((&dry.removed_blobs, &dry.removed_layers), (&report.removed_blobs, &report.removed_layers));
    let again = gc::collect(&bed.store, false).unwrap();
    assert_eq!((again.removed_blobs.len(), again.removed_layers.len()), (0, 0));
    assert!(bed.leftovers().is_empty(), "{:?}", bed.leftovers());
    (report.removed_blobs.len(), report.removed_layers.len())
}

#[test]
fn names_images_and_leases_keep() {
    let bed = Bed::new();
    let images = bed.store.images();
    let lease = bed.store.leases().create(None, 0, &Default::default()).unwrap().id;
    let one = image(&bed, b"one", Some(&lease));
    assert_eq!(collected(&bed), (0, 0), "leased");
    images.put(&one, Some("docker.io/library/one:latest"), Some(&lease)).unwrap();
    bed.store.leases().delete(&lease).unwrap();
    assert_eq!(collected(&bed), (0, 0), "named");
    assert_eq!(bed.store.usage().unwrap().reclaimable_bytes, 0);
    images.tag("docker.io/library/one:latest", "b:2").unwrap();
    assert_eq!(images.get("b:2").unwrap().unwrap().names, ["b:2", "docker.io/library/one:latest"]);
    assert_eq!(images.tag("nobody", "b:3").unwrap_err().reason(), "IMAGE_NOT_FOUND");
    assert!(images.untag("b:2").unwrap() && !images.untag("b:2").unwrap());
    assert_eq!(images.by_prefix(&one.config.hex()[..8]).unwrap().len(), 1);

    // A name that moves leaves the old image nameless, and kept, until it is removed.
    let two = image(&bed, b"two", None);
    images.put(&two, Some("docker.io/library/one:latest"), None).unwrap();
    let all = images.list().unwrap();
    assert_eq!((all.len(), all[0].names.len(), all[1].names.len()), (2, 0, 1));
    assert_eq!(collected(&bed), (0, 0), "dangling");

    let parents = one.diff_ids.clone();
    bed.store.snapshots().prepare(&Prepare { key: "c", parents: &parents, ..Prepare::default() }).unwrap();
    images.remove(&one).unwrap();
    assert_eq!(collected(&bed), (3, 0), "a snapshot keeps the layer");
    bed.store.snapshots().remove("c").unwrap();
    assert_eq!(collected(&bed), (0, 1));
    images.remove(&two).unwrap();
    images.remove(&two).unwrap();
    assert_eq!(collected(&bed), (3, 1));
}

#[test]
fn nameless_images_live_as_long_as_their_lease() {
    let bed = Bed::new();
    let lease = bed.store.leases().create(Some("build"), 60, &Default::default()).unwrap().id;
    let record = image(&bed, b"x", Some(&lease));
    bed.store.images().put(&record, None, Some(&lease)).unwrap();
    assert_eq!(collected(&bed), (0, 0));
    bed.store.leases().delete(&lease).unwrap();
    assert_eq!(collected(&bed), (3, 1));
    assert!(bed.store.images().list().unwrap().is_empty());
}

#[test]
fn an_index_keeps_what_it_mentions() {
    let bed = Bed::new();
    let mine = image(&bed, b"mine", None);
    let other = image(&bed, b"other", None);
    let text = |d: &Descriptor| serde_json::to_string(d).unwrap();
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, text(&mine.manifest), text(&other.manifest));
    let target = bed.store.content().write(index.as_bytes(), media_type::INDEX, None).unwrap();
    bed.store.images().put(&ImageRecord { target, ..mine }, Some("a:1"), None).unwrap();
    assert_eq!(collected(&bed), (0, 0));
}

#[test]
fn images_need_their_content() {
    let bed = Bed::new();
    let mut record = image(&bed, b"x", None);
    record.config = Digest::of(b"nowhere");
    let error = bed.store.images().put(&record, Some("a:1"), None).unwrap_err();
    assert_eq!((error.reason(), error.subject()), ("BLOB_NOT_FOUND", record.config.to_string()));
}

#[test]
fn leases() {
    let bed = Bed::new();
    let leases = bed.store.leases();
    leases.create(Some("a"), 60, &Default::default()).unwrap();
    assert_eq!(leases.create(Some("a"), 60, &Default::default()).unwrap_err().reason(), "LEASE_EXISTS");
    assert_eq!(leases.create(Some("../x"), 60, &Default::default()).unwrap_err().reason(), "NAME_INVALID");
    assert_eq!(bed.store.content().write(b"x", "t", Some("gone")).unwrap_err().reason(), "LEASE_EXPIRED");
    leases.renew("a", 120).unwrap();
    assert_eq!(leases.renew("b", 1).unwrap_err().reason(), "LEASE_EXPIRED");
    let db = rusqlite::Connection::open(bed.store.root().join("store.db")).unwrap();
    bed.store.content().write(b"x", "t", Some("a")).unwrap();
    db.execute("UPDATE leases SET expires_at_ms = 1", []).unwrap();
    assert_eq!(leases.list().unwrap(), []);
    assert_eq!(collected(&bed), (1, 0));
    leases.create(Some("a"), 60, &Default::default()).unwrap();
    leases.delete("nobody").unwrap();
}

#[test]
fn partial_content() {
    let bed = Bed::new();
    let lease = bed.store.leases().create(None, 0, &Default::default()).unwrap().id;
    let blob = Descriptor::of(media_type::LAYER, &[1; 1000]);
    let mut ingest = bed.store.content().ingest(&blob, Some(&lease)).unwrap();
    ingest.write_all(&[1; 500]).unwrap();
    bed.store.leases().delete(&lease).unwrap();
    gc::collect(&bed.store, false).unwrap();
    assert_eq!(bed.leftovers().len(), 1, "somebody writes it");
    drop(ingest);
    assert!(gc::collect(&bed.store, false).unwrap().reclaimed_bytes >= 500);
    assert!(bed.leftovers().is_empty());
}

/// Whatever collection runs meanwhile: what was held once stays until its lease goes.
#[test]
fn collection_beside_work() {
    let bed = Bed::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = bed.store.clone();
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                gc::collect(&collector, false).unwrap();
            }
        });
        for n in 0..30u32 {
            let lease = bed.store.leases().create(None, 0, &Default::default()).unwrap().id;
            let record = image(&bed, &n.to_le_bytes(), Some(&lease));
            bed.store.images().put(&record, Some(&format!("i:{n}")), Some(&lease)).unwrap();
            bed.store.leases().delete(&lease).unwrap();
            let key = format!("s{n}");
            let wanted = Prepare { key: &key, parents: &record.diff_ids, ..Prepare::default() };
            bed.store.snapshots().prepare(&wanted).unwrap();
            bed.store.images().remove(&record).unwrap();
            bed.store.snapshots().mounts(&key).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(bed.store.layers().list().unwrap().len(), 30);
}

#[test]
fn what_a_removal_released_goes_and_what_is_young_stays() {
    let bed = Bed::new();
    let (one, two) = (image(&bed, b"one", None), image(&bed, b"two", None));
    bed.store.images().put(&one, Some("a:1"), None).unwrap();
    let released = gc::reachable(&bed.store, &one).unwrap();
    bed.store.images().remove(&one).unwrap();
    let report = gc::automatic::after_removal(&bed.store, released).unwrap();
    assert_eq!((report.removed_blobs.len(), report.removed_layers.len()), (3, 1));
    assert!(report.reclaimed_bytes > 0 && report.reclaimed_bytes.is_multiple_of(512));
    assert!(bed.store.content().has(&two.config).unwrap().is_some(), "nobody holds it, but it is young");
    assert_eq!(collected(&bed), (3, 1));
}

#[test]
fn a_store_that_is_too_large_gives_up_nameless_images() {
    use gc::automatic::{Automatic, turn};
    use std::time::Duration;
    let bed = Bed::new();
    let images = bed.store.images();
    let (old, used, named) = (image(&bed, b"old", None), image(&bed, b"used", None), image(&bed, b"named", None));
    for (n, record) in [&old, &used, &named].iter().enumerate() {
        images.put(record, Some(&format!("x:{n}")), None).unwrap();
    }
    images.untag("x:0").unwrap();
    images.untag("x:1").unwrap();
    let id = used.config.to_string();
    let wanted = Prepare { key: "c", parents: &used.diff_ids, image_id: Some(&id), ..Prepare::default() };
    bed.store.snapshots().prepare(&wanted).unwrap();
    let roomy = Automatic { min_free_percent: 0, ..Automatic::default() };
    assert_eq!(turn(&bed.store, &roomy, Duration::ZERO).unwrap(), None, "not due, and there is room");
    assert!(turn(&bed.store, &roomy, roomy.interval).unwrap().is_some(), "due");
    assert_eq!(images.list().unwrap().len(), 3);
    let tight = Automatic { keep_bytes: Some(1), ..roomy };
    let report = turn(&bed.store, &tight, Duration::ZERO).unwrap().unwrap();
    assert_eq!((report.removed_blobs.len(), report.removed_layers.len()), (3, 1));
    let left: Vec<Digest> = images.list().unwrap().into_iter().map(|image| image.config).collect();
    assert_eq!(left, [used.config, named.config], "what is used or has a name stays");
}

#[test]
fn shared_and_unique_sizes_add_up() {
    let bed = Bed::new();
    let one = image(&bed, &[1; 50_000], None);
    // The same layer with another config.
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","author":"x","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        one.diff_ids[0]
    );
    let config = bed.store.content().write(config.as_bytes(), media_type::CONFIG, None).unwrap();
    let text = |d: &Descriptor| serde_json::to_string(d).unwrap();
    let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, text(&config), text(&one.layers[0]));
    let manifest = bed.store.content().write(manifest.as_bytes(), media_type::MANIFEST, None).unwrap();
    let two = ImageRecord { target: manifest.clone(), manifest, config: config.digest, ..one.clone() };
    bed.store.images().put(&one, Some("a:1"), None).unwrap();
    bed.store.images().put(&two, Some("a:2"), None).unwrap();
    let detail = bed.store.usage_detail().unwrap();
    let (a, b) = (&detail.images[0], &detail.images[1]);
    assert!(a.shared_bytes >= 100_000 && a.shared_bytes == b.shared_bytes, "blob and unpacked layer: {a:?}");
    assert_eq!(a.size_bytes, a.shared_bytes + a.unique_bytes);
    let sum = detail.usage.blobs_bytes + detail.usage.layers_bytes;
    assert_eq!(sum, a.shared_bytes + a.unique_bytes + b.unique_bytes);
    assert_eq!(detail.usage.reclaimable_bytes, 0);
    bed.store.images().remove(&two).unwrap();
    assert_eq!(gc::collect(&bed.store, true).unwrap().reclaimed_bytes, b.unique_bytes);
    assert_eq!(gc::collect(&bed.store, false).unwrap().reclaimed_bytes, b.unique_bytes);
}

#[test]
fn a_damaged_row_does_not_stop_collection_and_keeps_its_content() {
    let bed = Bed::new();
    let one = image(&bed, b"one", None);
    bed.store.images().put(&one, Some("a:1"), None).unwrap();
    image(&bed, b"two", None);
    let db = rusqlite::Connection::open(bed.store.root().join("store.db")).unwrap();
    db.execute("UPDATE images SET record = '?'", []).unwrap();
    assert_eq!(collected(&bed), (3, 1));
    assert!(bed.store.content().has(&one.layers[0].digest).unwrap().is_some());
}
