//! What is needed.
use super::{Mentioned, Reached, leased, mentioned};
use crate::db::Conn;
use crate::{Error, Result, Store};
use oci::Digest;
use serde::Deserialize;
use std::collections::HashSet;

/// Manifests and indexes larger than this are not read: no registry accepts them.
const MAX_MANIFEST: u64 = 8 << 20;

/// Everything that must stay.
pub(super) fn mark(store: &Store, c: &Conn) -> Result<Reached> {
    let mut live = Reached::default();
    let (whole, parted): (Vec<_>, Vec<_>) = mentioned(c)?.into_iter().partition(|own| own.dropped.is_empty());
    for own in &whole {
        image(store, own, &mut live);
    }
    for digest in crate::server::catalog::roots(c)? {
        follow(store, &digest, &HashSet::new(), &mut live);
    }
    let held = leased(c)?;
    for key in held.get("blob").into_iter().flatten() {
        if let Ok(digest) = key.parse() {
            follow(store, &digest, &HashSet::new(), &mut live);
        }
    }
    // What one image does without another one may need: each of these by itself, after all others.
    for own in &parted {
        let mut reached = Reached::default();
        image(store, own, &mut reached);
        live.blobs.extend(reached.blobs);
        live.layers.extend(reached.layers);
    }
    live.layers.extend(held.get("layer").into_iter().flatten().filter_map(|key| key.parse().ok()));
    live.layers.extend(snapshot_layers(c)?);
    Ok(live)
}

/// Marks what an image mentions.
pub(super) fn image(store: &Store, own: &Mentioned, live: &mut Reached) {
    for digest in &own.blobs {
        follow(store, digest, &own.dropped, live);
    }
    live.layers.extend(own.diff_ids.iter().cloned());
}

/// Marks a blob, unless it is left out, and, when it is a manifest, an index or a config, what it mentions. What cannot be read is marked and
/// not followed: saying what is wrong with it is `check`'s job.
fn follow(store: &Store, digest: &Digest, without: &HashSet<Digest>, live: &mut Reached) {
    // Not by calling itself: who may push can make a chain of subjects as long as he likes.
    let mut queue = vec![digest.clone()];
    while let Some(digest) = queue.pop() {
        if without.contains(&digest) || !live.blobs.insert(digest.clone()) {
            continue;
        }
        let Some(document) = read(store, &digest) else { continue };
        let one = document.config.into_iter().chain(document.subject);
        queue.extend(one.chain(document.layers).chain(document.manifests).map(|mentioned| mentioned.digest));
        if let Some(rootfs) = document.rootfs {
            live.layers.extend(rootfs.diff_ids);
        }
    }
}

fn read(store: &Store, digest: &Digest) -> Option<Document> {
    use std::io::Read;
    let mut file = store.content().open(digest).ok()?;
    if file.metadata().ok()?.len() > MAX_MANIFEST {
        return None;
    }
    // Layers are seen by their first byte.
    let mut text = vec![0];
    file.read_exact(&mut text).ok()?;
    if text[0] != b'{' && !text[0].is_ascii_whitespace() {
        return None;
    }
    file.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The parts of manifest, index and config that lead on.
#[derive(Deserialize)]
struct Document {
    #[serde(default, deserialize_with = "lenient")]
    config: Option<Mention>,
    #[serde(default, deserialize_with = "lenient")]
    subject: Option<Mention>,
    #[serde(default, deserialize_with = "lenient")]
    layers: Vec<Mention>,
    #[serde(default, deserialize_with = "lenient")]
    manifests: Vec<Mention>,
    #[serde(default, deserialize_with = "lenient")]
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct Mention {
    digest: Digest,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// `config` is a descriptor in a manifest and settings in an image config: what does not fit is as if it were absent.
fn lenient<'de, D: serde::Deserializer<'de>, T: Default + serde::de::DeserializeOwned>(d: D) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(d)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

fn snapshot_layers(c: &Conn) -> Result<Vec<Digest>> {
    let sql = "SELECT DISTINCT l.diff_id FROM snapshot_layers s JOIN layers l ON l.id = s.layer";
    let texts: Vec<String> = c
        .prepare(sql)
        .and_then(|mut q| q.query_map([], |r| r.get(0))?.collect())
        .map_err(Error::db("read the snapshots' layers"))?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_long_chain_of_subjects_is_followed_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut last: Option<Digest> = None;
        const LENGTH: usize = 20_000;
        for n in 0..LENGTH {
            let subject = last.map(|digest| serde_json::json!({"digest": digest}));
            let text = serde_json::json!({"n": n, "subject": subject}).to_string();
            let digest = Digest::of(text.as_bytes());
            std::fs::write(store.content().path(&digest), text).unwrap();
            last = Some(digest);
        }
        let mut live = Reached::default();
        // A thread of a server has no more.
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let follow = move || {
            follow(&store, &last.unwrap(), &HashSet::new(), &mut live);
            live.blobs.len()
        };
        assert_eq!(thread.spawn(follow).unwrap().join().unwrap(), LENGTH);
    }
}
