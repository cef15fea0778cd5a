//! Images and their names, as rows. How a person's text becomes one of these is not decided here.
use crate::db::{self, Conn};
use crate::lease::{Kind, hold};
use crate::registry::MANIFEST_MAX;
use crate::transport::referrers::Attached;
use crate::{Error, Result, Store};
use oci::manifest::Manifest;
use oci::{Descriptor, Digest, ImageConfig, Platform, media_type};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

pub(crate) mod mirror;

/// One image: a manifest and what its names point at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// What a name of it points at: an index, or the manifest itself.
    pub target: Descriptor,
    /// The manifest that was chosen for the platform.
    pub manifest: Descriptor,
    /// Digest of the config: docker's image id.
    pub config: Digest,
    /// The blobs of its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The uncompressed digests, lowest first.
    pub diff_ids: Vec<Digest>,
    /// RFC 3339; the config's own, or when the image came here.
    pub created_at: String,
    /// What it runs on.
    pub platform: Platform,
    /// "repository@sha256:..." for those that came from or went to a registry.
    pub repo_digests: Vec<String>,
    /// What belongs to it and came along: signatures, attestations. It is kept and removed with the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<Attached>,
    /// Manifests of the target that were taken out of it: they are not kept, and not offered as long as they are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Digest>,
    /// Canonical names, sorted. Filled by reading; writing goes through `name` of [`Images::put`].
    #[serde(skip)]
    pub names: Vec<String>,
}

/// The images of a store.
pub struct Images<'a>(pub(crate) &'a Store);

impl Images<'_> {
    /// Records an image and, with a name, points that name at it: an image that loses its last name this way stays,
    /// nameless, until it is removed. Without a name and with a lease, the image lives as long as the lease.
    /// Everything it needs must be in the store: [`Error::NotFound`] names a blob that is not.
    pub fn put(&self, record: &ImageRecord, name: Option<&str>, lease: Option<&str>) -> Result<()> {
        let lease = lease.filter(|l| !l.is_empty());
        let id = self.0.db().transaction("record an image", |tx| {
            self.require_content(record)?;
            let id = upsert(tx, record, name.is_none() && lease.is_some())?;
            if let Some(name) = name {
                point(tx, name, id).map_err(Error::db("name an image"))?;
            }
            hold(tx, lease, Kind::Image, &id.to_string())?;
            Ok(id)
        })?;
        mirror::update(self.0, id);
        Ok(())
    }

    /// What a canonical name points at.
    pub fn get(&self, name: &str) -> Result<Option<ImageRecord>> {
        let sql = "WHERE id = (SELECT image FROM names WHERE name = ?1)";
        Ok(self.select(sql, &[&name])?.pop())
    }

    /// All images, oldest record first.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        self.select("", &[])
    }

    /// The names of the image with this row id.
    pub(crate) fn names(&self, id: i64) -> Result<Vec<String>> {
        self.0.db().read("list names", |c| {
            let mut q = c.prepare("SELECT name FROM names WHERE image = ?1 ORDER BY name")?;
            q.query_map([id], text)?.collect()
        })
    }

    /// All but those that live as long as a lease, oldest record first.
    pub(crate) fn unleased(&self) -> Result<Vec<ImageRecord>> {
        self.select("WHERE NOT leased", &[])
    }

    /// Those with this digest as config, manifest or target.
    pub fn by_digest(&self, digest: &Digest) -> Result<Vec<ImageRecord>> {
        self.select("WHERE config = ?1 OR manifest = ?1 OR target = ?1", &[&digest.as_str()])
    }

    /// Those whose config, manifest or target digest begins with `sha256:<hex>`.
    pub fn by_prefix(&self, hex: &str) -> Result<Vec<ImageRecord>> {
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let pattern = format!("sha256:{}*", hex.to_ascii_lowercase());
        self.select("WHERE config GLOB ?1 OR manifest GLOB ?1 OR target GLOB ?1", &[&pattern])
    }

    /// Gives the image that `source` (a canonical name) points at one more name.
    pub fn tag(&self, source: &str, name: &str) -> Result<()> {
        let id = self.0.db().transaction("tag an image", |tx| {
            let image: Option<i64> = tx
                .query_row("SELECT image FROM names WHERE name = ?1", [source], |r| r.get(0))
                .optional()
                .map_err(Error::db("look up a name"))?;
            let image = image.ok_or_else(|| Error::not_found("image", source))?;
            point(tx, name, image).map_err(Error::db("name an image"))?;
            Ok(image)
        })?;
        mirror::update(self.0, id);
        Ok(())
    }

    /// Removes one name; the image stays, nameless if it was its last. False when there was no such name.
    pub fn untag(&self, name: &str) -> Result<bool> {
        let id: Option<i64> = self.0.db().write("untag an image", |tx| {
            let sql = "DELETE FROM names WHERE name = ?1 RETURNING image";
            tx.query_row(sql, [name], |r| r.get(0)).optional()
        })?;
        if let Some(id) = id {
            mirror::update(self.0, id);
        }
        Ok(id.is_some())
    }

    /// Takes from what belongs to an image what `gone` says. False when there was nothing.
    pub(crate) fn detach(&self, image: &ImageRecord, gone: impl Fn(&Attached) -> bool) -> Result<bool> {
        if !image.attached.iter().any(&gone) {
            return Ok(false);
        }
        let (step, key) = ("detach from an image", [image.target.digest.as_str(), image.manifest.digest.as_str()]);
        mirror::remove(self.0, &image.target.digest, &image.manifest.digest);
        let id = self.0.db().write(step, |tx| {
            let sql = "SELECT id, record FROM images WHERE target = ?1 AND manifest = ?2";
            let found = tx.query_row(sql, key, |r| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?))).optional()?;
            let Some((id, json)) = found else { return Ok(None) };
            if let Ok(mut record) = serde_json::from_str::<ImageRecord>(&json) {
                record.attached.retain(|own| !gone(own));
                tx.execute("UPDATE images SET record = ?2 WHERE id = ?1", params![id, db::to_json(&record)])?;
            }
            Ok(Some(id))
        })?;
        if let Some(id) = id {
            mirror::update(self.0, id);
        }
        Ok(true)
    }

    /// Removes an image with all its names. Its content goes with garbage collection. Idempotent.
    pub fn remove(&self, record: &ImageRecord) -> Result<()> {
        mirror::remove(self.0, &record.target.digest, &record.manifest.digest);
        self.0.db().write("remove an image", |tx| {
            tx.execute(
                "DELETE FROM images WHERE target = ?1 AND manifest = ?2",
                params![record.target.digest.as_str(), record.manifest.digest.as_str()],
            )
        })?;
        Ok(())
    }

    fn require_content(&self, record: &ImageRecord) -> Result<()> {
        let content = self.0.content();
        let own = [&record.target.digest, &record.manifest.digest, &record.config];
        let attached = record.attached.iter().map(|own| &own.manifest.digest);
        for digest in own.into_iter().chain(record.layers.iter().map(|l| &l.digest)).chain(attached) {
            if content.has(digest)?.is_none() {
                return Err(Error::not_found("blob", digest));
            }
        }
        Ok(())
    }

    fn select(&self, filter: &str, args: &[&dyn rusqlite::ToSql]) -> Result<Vec<ImageRecord>> {
        let sql = format!("SELECT id, record FROM images {filter} ORDER BY id");
        let rows: Vec<(String, Vec<String>)> = self.0.db().read("list images", |c| {
            let mut q = c.prepare_cached(&sql)?;
            let mut names = c.prepare_cached("SELECT name FROM names WHERE image = ?1 ORDER BY name")?;
            let mut all = Vec::new();
            let mut rows = q.query(args)?;
            while let Some(row) = rows.next()? {
                let own = names.query_map([row.get::<_, i64>(0)?], text)?.collect::<rusqlite::Result<_>>()?;
                all.push((row.get(1)?, own));
            }
            Ok(all)
        })?;
        // A damaged row is named and left out, so that it does not hide the others.
        Ok(rows
            .into_iter()
            .filter_map(|(json, names)| match serde_json::from_str::<ImageRecord>(&json) {
                Ok(record) => Some(ImageRecord { names, ..record }),
                Err(error) => {
                    tracing::warn!(?names, %error, "a damaged image record is left out");
                    None
                }
            })
            .collect())
    }
}

fn text(row: &Row<'_>) -> rusqlite::Result<String> {
    row.get(0)
}

/// Inserts or updates the row; repository digests and what is attached are joined with what was known.
fn upsert(tx: &Conn, record: &ImageRecord, leased: bool) -> Result<i64> {
    let step = "record an image";
    let key = params![record.target.digest.as_str(), record.manifest.digest.as_str()];
    let known: Option<String> = tx
        .query_row("SELECT record FROM images WHERE target = ?1 AND manifest = ?2", key, text)
        .optional()
        .map_err(Error::db(step))?;
    let known = known.and_then(|json| serde_json::from_str::<ImageRecord>(&json).ok());
    let mut record = record.clone();
    if let Some(known) = known {
        let joined: BTreeSet<String> = known.repo_digests.into_iter().chain(record.repo_digests).collect();
        record.repo_digests = joined.into_iter().collect();
        record.attached = joined_with(known.attached, record.attached);
    }
    tx.query_row(
        "INSERT INTO images (target, manifest, config, record, leased) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (target, manifest) DO UPDATE SET record = ?4, leased = min(leased, ?5) RETURNING id",
        params![
            record.target.digest.as_str(),
            record.manifest.digest.as_str(),
            record.config.as_str(),
            db::to_json(&record),
            leased
        ],
        |r| r.get(0),
    )
    .map_err(Error::db(step))
}

/// Under one tag lies what came last.
fn joined_with(mut known: Vec<Attached>, new: Vec<Attached>) -> Vec<Attached> {
    let same = |a: &Attached, b: &Attached| match (&a.tag, &b.tag) {
        (None, None) => a.manifest.digest == b.manifest.digest,
        (a, b) => a == b,
    };
    known.retain(|old| !new.iter().any(|new| same(old, new)));
    known.extend(new);
    known
}

fn point(tx: &Conn, name: &str, image: i64) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO names (name, image) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET image = ?2",
        params![name, image],
    )?;
    tx.execute("UPDATE images SET leased = 0 WHERE id = ?1", [image])?;
    Ok(())
}

/// Writes a damaged row anew: from the image's file, or from its blobs.
pub(crate) fn restore(store: &Store, id: i64, target: &str, manifest: &str) -> Result<()> {
    let damaged = |problem: String| Error::Record { what: format!("image {manifest}"), problem };
    let parse = |text: &str| text.parse::<Digest>().map_err(|e| damaged(e.to_string()));
    let (target, manifest) = (parse(target)?, parse(manifest)?);
    let record = match mirror::of(store, &target, &manifest) {
        Some(found) => found.record,
        None => from_blobs(store, &target, &manifest)?,
    };
    store.db().write("renew an image's row", |tx| {
        let sql = "UPDATE images SET config = ?2, record = ?3 WHERE id = ?1";
        tx.execute(sql, params![id, record.config.as_str(), db::to_json(&record)])
    })?;
    mirror::update(store, id);
    Ok(())
}

/// An image as its manifest and config say. Where it came from they do not know.
pub(crate) fn from_blobs(store: &Store, target: &Digest, manifest: &Digest) -> Result<ImageRecord> {
    let fail = |digest: &Digest| {
        let what = digest.to_string();
        move |e: serde_json::Error| Error::manifest(what, e)
    };
    let describe = |digest: &Digest| -> Result<(Descriptor, Vec<u8>)> {
        let bytes = store.content().read(digest, MANIFEST_MAX)?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(fail(digest))?;
        let of_list = if value.get("manifests").is_some() { media_type::INDEX } else { media_type::MANIFEST };
        let media_type = value.get("mediaType").and_then(|m| m.as_str()).unwrap_or(of_list);
        Ok((Descriptor::new(media_type, digest.clone(), bytes.len() as u64), bytes))
    };
    let (manifest_descriptor, bytes) = describe(manifest)?;
    let document: Manifest = serde_json::from_slice(&bytes).map_err(fail(manifest))?;
    let config_bytes = store.content().read(&document.config.digest, MANIFEST_MAX)?;
    let config: ImageConfig = serde_json::from_slice(&config_bytes).map_err(fail(&document.config.digest))?;
    Ok(ImageRecord {
        target: describe(target)?.0,
        manifest: manifest_descriptor,
        config: document.config.digest,
        layers: document.layers,
        platform: config.platform(),
        created_at: config.created.unwrap_or_else(db::now_text),
        diff_ids: config.rootfs.diff_ids,
        repo_digests: Vec::new(),
        attached: Vec::new(),
        dropped: Vec::new(),
        names: Vec::new(),
    })
}
