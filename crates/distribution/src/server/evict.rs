//! A cache that keeps to a size: what was asked for least recently goes first.
//!
//! What goes is a manifest with its tags and the blobs that no other manifest of its repository names, or a blob that no
//! manifest names. Only what came from an upstream goes, never what was pushed. "Asked for" is the modification time of the file,
//! which every answer sets; its access time is set by whoever reads it, be it to look at the size or to check. The size may be passed by what comes within [`PAUSE`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci::manifest::Document;
use oci::{Descriptor, Digest};
use rusqlite::params;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::catalog::NewManifest;
use super::{Shared, mirror};
use crate::gc::{self, Policy, Reached};
use crate::registry::MANIFEST_MAX;
use crate::transport::pump::blocking;
use crate::{Result, Store};

/// Between two looks at the size.
const PAUSE: Duration = Duration::from_secs(2);

/// Notes that a blob or manifest was asked for.
pub(super) fn used(store: &Store, digest: &Digest) {
    let at = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times = Timestamps { last_access: at(UTIME_OMIT), last_modification: at(UTIME_NOW) };
    if let Err(error) = rustix::fs::utimensat(CWD, store.content().path(digest), &times, AtFlags::empty()) {
        tracing::debug!(%digest, %error, "when it was asked for is not noted");
    }
}

/// Keeps the cache to `keep` bytes, looking after each download, as long as this is polled.
pub(super) async fn watch(shared: Arc<Shared>, keep: u64) {
    let Some(proxy) = &shared.proxy else { return };
    loop {
        let store = shared.store.clone();
        match blocking(move || keep_to(&store, keep)).await {
            Ok(0) => {}
            Ok(gone) => tracing::info!(gone, "the cache gave up what was asked for least recently"),
            Err(error) => tracing::warn!(%error, "the cache cannot keep to its size"),
        }
        tokio::join!(proxy.grown.notified(), tokio::time::sleep(PAUSE));
    }
}

/// What goes as one.
struct Item {
    repository: String,
    manifest: Option<Digest>,
    blobs: Vec<Digest>,
    used: SystemTime,
    /// From an upstream.
    cached: bool,
}

impl Item {
    fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.manifest.iter().chain(&self.blobs)
    }
}

/// Gives up items until what is left takes at most `keep` bytes. Gives the number of those that went.
fn keep_to(store: &Store, keep: u64) -> Result<usize> {
    let (mut cached, pushed): (Vec<Item>, Vec<Item>) = items(store)?.into_iter().partition(|item| item.cached);
    cached.sort_by_key(|item| item.used);
    let gone = surplus(&cached, keep, |digest| store.content().disk_usage(digest));
    if gone == 0 {
        return Ok(0);
    }
    let stays = cached.split_off(gone).into_iter().chain(pushed).collect::<Vec<_>>();
    forget(store, &cached, &stays)?;
    let released = Reached { blobs: cached.iter().flat_map(Item::digests).cloned().collect(), ..Reached::default() };
    let grace = gc::automatic::Automatic::default().grace;
    gc::run(store, &Policy { released, grace, ..Policy::default() })?;
    Ok(gone)
}

/// How many of the items, the first ones, have to go. What several are made of counts once, and goes with the last.
fn surplus(items: &[Item], keep: u64, bytes: impl Fn(&Digest) -> u64) -> usize {
    let mut users: HashMap<&Digest, (usize, u64)> = HashMap::new();
    for digest in items.iter().flat_map(Item::digests) {
        users.entry(digest).or_insert_with(|| (0, bytes(digest))).0 += 1;
    }
    let mut total: u64 = users.values().map(|(_, bytes)| bytes).sum();
    for (index, item) in items.iter().enumerate() {
        if total <= keep {
            return index;
        }
        for digest in item.digests() {
            if let Some((count, bytes)) = users.get_mut(digest) {
                *count -= 1;
                total -= if *count == 0 { *bytes } else { 0 };
            }
        }
    }
    items.len()
}

fn forget(store: &Store, gone: &[Item], stays: &[Item]) -> Result<()> {
    let kept: HashSet<(&str, &Digest)> =
        stays.iter().flat_map(|item| item.blobs.iter().map(|blob| (item.repository.as_str(), blob))).collect();
    for item in gone {
        item.manifest.iter().for_each(|digest| mirror::remove(store, &item.repository, digest));
    }
    store.db().write("shrink the cache", |tx| {
        for item in gone {
            if let Some(digest) = &item.manifest {
                let key = params![item.repository, digest.as_str()];
                tx.execute("DELETE FROM registry_tags WHERE repository = ?1 AND digest = ?2", key)?;
                tx.execute("DELETE FROM registry_manifests WHERE repository = ?1 AND digest = ?2", key)?;
            }
            for blob in item.blobs.iter().filter(|blob| !kept.contains(&(item.repository.as_str(), *blob))) {
                let sql = "DELETE FROM registry_blobs WHERE repository = ?1 AND digest = ?2 AND cached";
                tx.execute(sql, params![item.repository, blob.as_str()])?;
            }
        }
        Ok(())
    })
}

fn items(store: &Store) -> Result<Vec<Item>> {
    type Row = (String, String, String, bool);
    let (manifests, mut blobs) = store.db().read("list what is cached", |c| {
        let mut q = c.prepare("SELECT repository, digest, media_type, cached FROM registry_manifests")?;
        let manifests: Vec<Row> =
            q.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?.collect::<rusqlite::Result<_>>()?;
        let mut q = c.prepare("SELECT repository, digest FROM registry_blobs WHERE cached")?;
        let blobs: HashSet<(String, String)> =
            q.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        Ok((manifests, blobs))
    })?;
    let mut items = Vec::new();
    for (repository, digest, media_type, cached) in manifests {
        let Ok(digest) = digest.parse::<Digest>() else { continue };
        let own = named(store, &digest, &media_type);
        for blob in &own {
            blobs.remove(&(repository.clone(), blob.to_string()));
        }
        let used = asked(store, &digest);
        items.push(Item { repository, manifest: Some(digest), blobs: own, used, cached });
    }
    for (repository, digest) in blobs {
        let Ok(digest) = digest.parse::<Digest>() else { continue };
        let used = asked(store, &digest);
        items.push(Item { repository, manifest: None, blobs: vec![digest], used, cached: true });
    }
    Ok(items)
}

/// The blobs that a manifest names; none when it cannot be read.
fn named(store: &Store, digest: &Digest, media_type: &str) -> Vec<Digest> {
    let Ok(bytes) = store.content().read(digest, MANIFEST_MAX) else { return Vec::new() };
    let Ok(document) = Document::parse(&bytes, media_type) else { return Vec::new() };
    let descriptor = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
    let new = NewManifest { descriptor, document };
    let blobs = new.needs().into_iter().filter(|(_, manifest)| !manifest);
    blobs.map(|(digest, _)| digest.clone()).collect()
}

fn asked(store: &Store, digest: &Digest) -> SystemTime {
    let meta = std::fs::metadata(store.content().path(digest));
    meta.and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> Item {
        let blobs = text.split(' ').map(|name| Digest::of(name.as_bytes())).collect();
        Item { repository: "r".into(), manifest: None, blobs, used: SystemTime::UNIX_EPOCH, cached: true }
    }

    #[test]
    fn the_first_go_and_what_is_shared_goes_with_the_last() {
        let items = [item("a base"), item("b base"), item("c")];
        let gone = |keep| surplus(&items, keep, |digest| if *digest == Digest::of(b"base") { 100 } else { 10 });
        assert_eq!([130, 129, 120, 119, 10, 9].map(gone), [0, 1, 1, 2, 2, 3]);
        assert_eq!(surplus(&[], 0, |_| 1), 0);
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_look_is_no_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let blob = store.content().write(b"{}", "application/json", None).unwrap().digest;
        let pause = || std::thread::sleep(Duration::from_millis(20));
        let first = asked(&store, &blob);
        pause();
        used(&store, &blob);
        let second = asked(&store, &blob);
        pause();
        store.content().read(&blob, 10).unwrap();
        assert!(first < second && second == asked(&store, &blob));
    }
}
