//! One small file per manifest of a repository, `registry/<repository>-<manifest>.json`: its type and its tags. The database is
//! the truth and nothing reads these files while it is sound; when it is lost, the repositories come back from them and from
//! the manifests themselves. As with [images](crate::image_record), a process that dies says too little and never too much.
use oci::manifest::Document;
use oci::{Descriptor, Digest};
use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use super::catalog::{NewManifest, insert_blob, insert_manifest, insert_tag};
use crate::registry::MANIFEST_MAX;
use crate::store::names;
use crate::{Error, Result, Store};

/// What one file says.
#[derive(Debug, Serialize, Deserialize)]
struct Mirrored {
    repository: String,
    digest: Digest,
    media_type: String,
    /// With the time at which an upstream last said so, milliseconds since the epoch; 0: pushed here.
    tags: BTreeMap<String, i64>,
    /// It came from an upstream.
    #[serde(default)]
    cached: bool,
}

/// A repository's name may be longer than a file's.
fn path(store: &Store, repository: &str, digest: &Digest) -> PathBuf {
    let half = |digest: &Digest| digest.hex().get(..32).unwrap_or_default().to_owned();
    let repository = Digest::of(repository.as_bytes());
    store.dir("registry").join(format!("{}-{}.json", half(&repository), half(digest)))
}

/// Brings a manifest's file up to date. A file that cannot be written is a warning: the manifest itself is recorded.
pub(super) fn update(store: &Store, repository: &str, digest: &Digest) {
    // In a transaction, so that of two processes the later one writes what is true then.
    let written = store.db().transaction("write a manifest's file", |tx| {
        let read = || -> rusqlite::Result<Option<Mirrored>> {
            let key = [repository, digest.as_str()];
            let sql = "SELECT media_type, cached FROM registry_manifests WHERE repository = ?1 AND digest = ?2";
            let found = tx.prepare_cached(sql)?.query_row(key, |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
            let Some((media_type, cached)) = found else { return Ok(None) };
            let sql = "SELECT tag, checked_at_ms FROM registry_tags WHERE repository = ?1 AND digest = ?2";
            let mut q = tx.prepare_cached(sql)?;
            let tags = q.query_map(key, |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
            let (repository, digest) = (repository.to_owned(), digest.clone());
            Ok(Some(Mirrored { repository, digest, media_type, tags, cached }))
        };
        let found = read().map_err(Error::db("read a manifest's row"))?;
        let Some(own) = found else { return Ok(()) };
        store.write_record(&path(store, repository, digest), &own)
    });
    if let Err(error) = written {
        tracing::warn!(repository, %digest, %error, "a manifest is recorded in the database only");
    }
}

/// Removes a manifest's file; absent is fine.
pub(super) fn remove(store: &Store, repository: &str, digest: &Digest) {
    crate::store::empty(&path(store, repository, digest));
}

/// Writes the files that are not there: for stores that are older than these files.
pub(crate) fn ensure(store: &Store) -> Result<()> {
    let all: Vec<(String, String)> = store.db().read("list manifests", |c| {
        let mut q = c.prepare("SELECT repository, digest FROM registry_manifests")?;
        q.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
    })?;
    for (repository, digest) in all {
        if let Ok(digest) = digest.parse()
            && !path(store, &repository, &digest).exists()
        {
            update(store, &repository, &digest);
        }
    }
    Ok(())
}

/// Fills the tables from the files and from the manifests that are here, the oldest first: of two that claim a tag, the
/// later one had it.
pub(crate) fn restore(store: &Store) -> Result<()> {
    let mut found: Vec<(SystemTime, Mirrored)> = Vec::new();
    for (_, path) in names(&store.dir("registry"))? {
        let time = std::fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let own = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        found.extend(own.map(|own| (time, own)));
    }
    found.sort_by_key(|(time, _)| *time);
    found.into_iter().try_for_each(|(_, own)| restore_one(store, own))
}

fn restore_one(store: &Store, own: Mirrored) -> Result<()> {
    let Ok(bytes) = store.content().read(&own.digest, MANIFEST_MAX) else { return Ok(()) };
    let Ok(document) = Document::parse(&bytes, &own.media_type) else { return Ok(()) };
    let descriptor = Descriptor::new(&own.media_type, own.digest.clone(), bytes.len() as u64);
    let new = NewManifest { descriptor, document };
    store.db().transaction("record a manifest", |tx| {
        insert_manifest(tx, &own.repository, &new, own.cached)?;
        for (blob, _) in new.needs().into_iter().filter(|(_, manifest)| !manifest) {
            if store.content().has(blob)?.is_some() {
                insert_blob(tx, &own.repository, blob, own.cached)?;
            }
        }
        own.tags.iter().try_for_each(|(tag, checked)| insert_tag(tx, &own.repository, tag, &own.digest, *checked))
    })
}
