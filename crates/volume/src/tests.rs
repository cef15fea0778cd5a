#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::{Acquire, CopyUp, Error, Filters, NewVolume, Volumes};

struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("pier-volume-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        Self(root)
    }

    fn open(&self) -> Volumes {
        Volumes::open(&self.0, &self.0.join("run")).unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn named(name: &str) -> NewVolume {
    NewVolume { name: name.into(), ..Default::default() }
}

fn by(name: &str, consumer: &str) -> Acquire {
    Acquire { name: name.into(), consumer: consumer.into(), target: "/data".into(), ..Default::default() }
}

#[test]
fn create_is_idempotent() {
    let root = Root::new("create");
    let volumes = root.open();
    let (first, new) = volumes.create(named("data")).unwrap();
    assert!(new && first.mountpoint.is_dir());
    let (second, new) = volumes.create(named("data")).unwrap();
    assert!(!new && second == first);
    let options = BTreeMap::from([("type".into(), "tmpfs".into())]);
    let other = NewVolume { options, ..named("data") };
    assert!(matches!(volumes.create(other), Err(Error::Conflict { field: "options", .. })));
    assert!(matches!(volumes.create(named("../x")), Err(Error::InvalidName(_))));
    let driver = NewVolume { driver: "nope".into(), ..named("x") };
    assert!(matches!(volumes.create(driver), Err(Error::UnknownDriver(_))));
    let (anonymous, _) = volumes.create(named("")).unwrap();
    assert!(anonymous.anonymous && anonymous.name.len() == 64);
}

#[test]
fn references_hold_across_processes() {
    let root = Root::new("references");
    let volumes = root.open();
    volumes.create(named("data")).unwrap();
    let mount = volumes.acquire(&by("data", "c1")).unwrap();
    assert_eq!(volumes.acquire(&by("data", "c1")).unwrap(), mount);
    // Another opening of the root stands for another process.
    let other = root.open();
    match other.remove("data", true) {
        Err(Error::InUse { consumers, .. }) => assert_eq!(consumers, ["c1"]),
        unexpected => panic!("{unexpected:?}"),
    }
    assert_eq!(other.get("data", false).unwrap().consumers, ["c1"]);
    assert_eq!(other.release("c1", None, true).unwrap().released, ["data"]);
    assert!(other.release("c1", None, true).unwrap().released.is_empty());
    volumes.remove("data", false).unwrap();
    assert!(matches!(volumes.remove("data", false), Err(Error::NotFound(_))));
    volumes.remove("data", true).unwrap();
    assert_eq!(fs::read_dir(root.0.join("removing")).unwrap().count(), 0);
    let actions: Vec<_> = other.events_after(0).unwrap().into_iter().map(|event| event.action).collect();
    assert_eq!(actions, ["create", "mount", "unmount", "destroy"]);
}

#[test]
fn anonymous_volumes_go_with_their_consumer() {
    let root = Root::new("anonymous");
    let volumes = root.open();
    let anonymous = volumes.create(named("")).unwrap().0.name;
    volumes.create(named("kept")).unwrap();
    for name in [anonymous.as_str(), "kept"] {
        volumes.acquire(&by(name, "c1")).unwrap();
    }
    volumes.acquire(&by(&anonymous, "c2")).unwrap();
    assert!(volumes.release("c1", None, true).unwrap().removed.is_empty());
    assert_eq!(volumes.release("c2", None, true).unwrap().removed, [anonymous]);
    let left: Vec<_> = volumes.list(&Filters::default(), false).unwrap().volumes.into_iter().map(|v| v.name).collect();
    assert_eq!(left, ["kept"]);
}

#[test]
fn prune_takes_what_nobody_holds() {
    let root = Root::new("prune");
    let volumes = root.open();
    let anonymous = volumes.create(named("")).unwrap().0.name;
    volumes.create(named("named")).unwrap();
    volumes.create(named("held")).unwrap();
    volumes.acquire(&by("held", "c")).unwrap();
    fs::write(volumes.get(&anonymous, false).unwrap().mountpoint.join("file"), vec![1; 10000]).unwrap();
    let pruned = volumes.prune(false, &Filters::default()).unwrap();
    assert!(pruned.removed == [anonymous] && pruned.reclaimed_bytes >= 10000);
    assert_eq!(volumes.prune(true, &Filters::default()).unwrap().removed, ["named"]);
}

#[test]
fn failed_acquisition_holds_nothing() {
    let root = Root::new("failed");
    let volumes = root.open();
    let (volume, _) = volumes.create(named("data")).unwrap();
    let sub = |subpath: &str| Acquire { subpath: subpath.into(), ..by("data", "c") };
    std::os::unix::fs::symlink("/etc", volume.mountpoint.join("out")).unwrap();
    fs::write(volume.mountpoint.join("file"), "").unwrap();
    let fifo = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0);
    rustix::fs::mknodat(rustix::fs::CWD, volume.mountpoint.join("fifo"), fifo.0, fifo.1, fifo.2).unwrap();
    for bad in ["../x", "/etc", "out", "missing", "out/ssl", "file/x", "fifo"] {
        assert!(matches!(volumes.acquire(&sub(bad)), Err(Error::Subpath { .. })), "{bad}");
    }
    assert!(matches!(volumes.acquire(&by("nope", "c")), Err(Error::NotFound(_))));
    assert!(volumes.get("data", false).unwrap().consumers.is_empty());
}

#[test]
fn copy_up_once() {
    let root = Root::new("copyup");
    let volumes = root.open();
    let (volume, _) = volumes.create(named("data")).unwrap();
    let layer = root.0.join("layer");
    fs::create_dir_all(layer.join("srv")).unwrap();
    fs::write(layer.join("srv/page"), "one").unwrap();
    let content = CopyUp { layers: vec![layer.clone()], path: "/srv".into() };
    let wanted = Acquire { copy_up: Some(content), ..by("data", "c") };
    volumes.acquire(&wanted).unwrap();
    fs::write(layer.join("srv/page"), "two").unwrap();
    volumes.acquire(&wanted).unwrap();
    assert_eq!(fs::read_to_string(volume.mountpoint.join("page")).unwrap(), "one");
}

#[test]
fn damage_is_named_and_left_alone() {
    let root = Root::new("damage");
    let volumes = root.open();
    volumes.create(named("good")).unwrap();
    let (bad, _) = volumes.create(named("bad")).unwrap();
    fs::write(bad.mountpoint.join("precious"), "x").unwrap();
    fs::write(bad.mountpoint.with_file_name("volume.json"), "{").unwrap();
    drop(volumes);
    fs::write(root.0.join("volume.db"), "not a database at all, but long enough to look like a damaged one").unwrap();
    let volumes = root.open();
    let listing = volumes.list(&Filters::default(), false).unwrap();
    assert!(listing.volumes.len() == 1 && listing.warnings.len() == 1 && listing.warnings[0].contains("bad"));
    assert!(bad.mountpoint.join("precious").exists());
    assert!(matches!(volumes.get("bad", false), Err(Error::Damaged { .. })));
    volumes.remove("bad", false).unwrap();
}

#[test]
fn sweep_removes_what_was_half_done() {
    let root = Root::new("sweep");
    drop(root.open());
    fs::create_dir_all(root.0.join("staging/half/_data")).unwrap();
    fs::create_dir_all(root.0.join("removing/half/_data")).unwrap();
    drop(root.open());
    assert_eq!(fs::read_dir(root.0.join("staging")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.0.join("removing")).unwrap().count(), 0);
}

#[test]
fn volumes_of_before_there_were_ids() {
    let root = Root::new("migration");
    let volumes = root.open();
    let (data, _) = volumes.create(named("data")).unwrap();
    let (anonymous, _) = volumes.create(named("")).unwrap();
    fs::write(data.mountpoint.join("file"), "kept").unwrap();
    // As release 1 had it: the directory has the name, the record no id, and so have references.
    let of = |path: &str| root.0.join("volumes").join(path);
    fs::remove_file(of("data")).unwrap();
    fs::rename(of(&data.id), of("data")).unwrap();
    for directory in ["data", anonymous.id.as_str()] {
        let text = fs::read_to_string(of(directory).join("volume.json")).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["format"] = 1.into();
        record.as_object_mut().unwrap().remove("id");
        fs::write(of(directory).join("volume.json"), record.to_string()).unwrap();
    }
    drop(volumes);
    let database = rusqlite::Connection::open(root.0.join("volume.db")).unwrap();
    database
        .execute_batch("INSERT INTO refs (volume, consumer, target, read_only) VALUES ('data', 'c', '/x', 0); DROP TABLE unmounts; PRAGMA user_version = 1")
        .unwrap();
    drop(database);
    let volumes = root.open();
    let data = volumes.get("data", false).unwrap();
    assert_eq!(data.consumers, ["c"]);
    assert_eq!(fs::read_to_string(data.mountpoint.join("file")).unwrap(), "kept");
    // Killed between the change of the directory and that of the references: they are found at the next open.
    drop(volumes);
    let database = rusqlite::Connection::open(root.0.join("volume.db")).unwrap();
    database.execute("UPDATE refs SET volume = 'data'", []).unwrap();
    drop(database);
    let volumes = root.open();
    assert_eq!(volumes.get("data", false).unwrap().consumers, ["c"]);
    // What was told of it before goes on to lead there.
    assert_eq!(fs::read_to_string(of("data/_data/file")).unwrap(), "kept");
    assert_eq!(volumes.get(&anonymous.name, false).unwrap().id, anonymous.id);
    assert_eq!(volumes.release("c", None, false).unwrap().released, ["data"]);
    assert_eq!(volumes.rename("data", "new").unwrap().mountpoint, data.mountpoint);
}

#[test]
fn a_rename_keeps_holders_and_data() {
    let root = Root::new("rename");
    let volumes = root.open();
    let (data, _) = volumes.create(named("data")).unwrap();
    volumes.create(named("other")).unwrap();
    volumes.acquire(&by("data", "c")).unwrap();
    assert!(matches!(volumes.rename("data", "other"), Err(Error::NameTaken(_))));
    assert!(matches!(volumes.rename("nope", "x"), Err(Error::NotFound(_))));
    assert!(matches!(volumes.rename("data", &"a".repeat(64)), Err(Error::Invalid { .. })));
    let renamed = volumes.rename("data", "new").unwrap();
    assert_eq!((renamed.id, renamed.mountpoint, renamed.consumers.len()), (data.id.clone(), data.mountpoint, 1));
    assert!(matches!(volumes.get("data", false), Err(Error::NotFound(_))));
    assert_eq!(volumes.get(&data.id, false).unwrap().name, "new");
    assert!(matches!(volumes.remove("new", false), Err(Error::InUse { .. })));
    volumes.create(named("data")).unwrap();
    // The name is lost, the record knows it.
    fs::remove_file(root.0.join("volumes/new")).unwrap();
    assert_eq!(volumes.get(&data.id, false).unwrap().name, data.id);
    let found = volumes.check(true).unwrap();
    assert!(found.len() == 1 && found[0].kind == "nameless" && found[0].repaired, "{found:?}");
    assert_eq!(volumes.get("new", false).unwrap().id, data.id);
    assert_eq!(volumes.release("c", None, false).unwrap().released, ["new"]);
}
