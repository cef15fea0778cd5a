//! What each repository has, as rows of the store's database. Rows are roots of garbage collection; what loses its last row
//! goes with the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use oci::manifest::Document;
use oci::{Descriptor, Digest, media_type};
use rusqlite::{OptionalExtension as _, params};

use super::{mirror, offered};
use crate::db::{self, Conn, now_ms};
use crate::store::sync_dir;
use crate::{Error, Result, Store};

/// The repositories of a store.
pub(crate) struct Catalog<'a>(pub(crate) &'a Store);

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    pub digest: Digest,
    /// When an upstream last said so, milliseconds since the epoch; 0: pushed here.
    pub checked_at_ms: i64,
}

/// A manifest on its way in.
pub(crate) struct NewManifest {
    pub descriptor: Descriptor,
    pub document: Document,
}

/// Why a manifest was not taken.
pub(crate) enum Taken {
    Yes,
    /// It names a blob or manifest that the repository does not have.
    Lacks(Digest),
}

impl NewManifest {
    /// The manifest that it is about.
    pub fn subject(&self) -> Option<&Digest> {
        let (Document::Manifest(oci::manifest::Manifest { subject, .. })
        | Document::Index(oci::manifest::Index { subject, .. })) = &self.document;
        subject.as_ref().map(|subject| &subject.digest)
    }

    /// distribution-spec, "Listing Referrers": the config's type stands in for a missing one.
    fn artifact_type(&self) -> Option<&str> {
        let text = match &self.document {
            Document::Manifest(manifest) => {
                let own = manifest.artifact_type.as_deref().filter(|text| !text.is_empty());
                Some(own.unwrap_or(&manifest.config.media_type))
            }
            Document::Index(index) => index.artifact_type.as_deref(),
        };
        text.filter(|text| !text.is_empty())
    }

    fn annotations(&self) -> &BTreeMap<String, String> {
        match &self.document {
            Document::Manifest(manifest) => &manifest.annotations,
            Document::Index(index) => &index.annotations,
        }
    }

    /// What must be there before it: for each digest whether it is a manifest. What may be had elsewhere only need not be.
    pub(super) fn needs(&self) -> Vec<(&Digest, bool)> {
        match &self.document {
            Document::Index(index) => index.manifests.iter().map(|entry| (&entry.digest, true)).collect(),
            Document::Manifest(manifest) => {
                let layers = manifest.layers.iter().filter(|layer| !is_foreign(layer));
                std::iter::once(&manifest.config).chain(layers).map(|blob| (&blob.digest, false)).collect()
            }
        }
    }
}

/// Layers that registries are not meant to have.
fn is_foreign(layer: &Descriptor) -> bool {
    layer.media_type.contains(".nondistributable.")
        || layer.media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
}

impl Catalog<'_> {
    /// Bytes of a blob that the repository has.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        let own = self.0.db().look(|c| has_blob(c, repository, digest))?;
        if own || offered::Offered::of(self.0, repository)?.blobs.contains(digest) {
            return self.0.content().has(digest);
        }
        Ok(None)
    }

    /// Gives a repository a blob that `from` (none: any repository) has. False when it is not there.
    pub fn mount(&self, repository: &str, digest: &Digest, from: Option<&str>) -> Result<bool> {
        let offered = match from {
            Some(from) => offered::Offered::of(self.0, from)?.blobs.contains(digest),
            None => false,
        };
        self.0.db().transaction("mount a blob", |tx| {
            let known = match from {
                Some(from) => offered || has_blob(tx, from, digest)?,
                None => exists(tx, "SELECT 1 FROM registry_blobs WHERE digest = ?1", &[&digest.as_str()])?,
            };
            // Inside the transaction, garbage collection does not come between the look and the row.
            let there = known && self.0.content().has(digest)?.is_some();
            if there {
                insert_blob(tx, repository, digest, false)?;
            }
            Ok(there)
        })
    }

    /// Brings a verified, synced file in as a blob of the repository.
    pub fn add_blob(&self, repository: &str, digest: &Digest, file: &Path) -> Result<()> {
        self.publish(file, digest, |tx| insert_blob(tx, repository, digest, false))
    }

    /// A blob that came from an upstream, which the store has already, under a lease.
    pub fn cache_blob(&self, repository: &str, digest: &Digest) -> Result<()> {
        self.0.db().transaction("record a blob", |tx| insert_blob(tx, repository, digest, true))
    }

    /// Takes a blob from the repository. False when it was not the repository's own.
    pub fn remove_blob(&self, repository: &str, digest: &Digest) -> Result<bool> {
        let sql = "DELETE FROM registry_blobs WHERE repository = ?1 AND digest = ?2";
        self.0.db().write("remove a blob", |tx| Ok(tx.execute(sql, params![repository, digest.as_str()])? > 0))
    }

    /// The type of a manifest that the repository has.
    pub fn manifest(&self, repository: &str, digest: &Digest) -> Result<Option<String>> {
        if self.0.content().has(digest)?.is_none() {
            return Ok(None);
        }
        let own = self.0.db().look(|c| manifest_type(c, repository, digest))?;
        match own {
            Some(own) => Ok(Some(own)),
            None => Ok(offered::Offered::of(self.0, repository)?.manifests.get(digest).cloned()),
        }
    }

    /// Brings a verified, synced file in as a manifest of the repository, with tags. With `complete`, only when all that it
    /// names is there; its subject may come later (distribution-spec, "Pushing Manifests").
    pub fn add_manifest(
        &self,
        repository: &str,
        new: &NewManifest,
        file: &Path,
        tags: &[String],
        complete: bool,
    ) -> Result<Taken> {
        let offered = offered::Offered::of(self.0, repository)?;
        let mut lacks = None;
        let result = self.publish(file, &new.descriptor.digest, |tx| {
            for (digest, manifest) in new.needs().into_iter().filter(|_| complete) {
                let known = match manifest {
                    true => offered.manifests.contains_key(digest) || manifest_type(tx, repository, digest)?.is_some(),
                    false => offered.blobs.contains(digest) || has_blob(tx, repository, digest)?,
                };
                if !known || self.0.content().has(digest)?.is_none() {
                    lacks = Some(digest.clone());
                    return Err(Error::not_found("blob", digest));
                }
            }
            insert_manifest(tx, repository, new, !complete)?;
            let checked = if complete { 0 } else { now_ms() };
            tags.iter().try_for_each(|tag| insert_tag(tx, repository, tag, &new.descriptor.digest, checked))
        });
        match lacks {
            Some(digest) => Ok(Taken::Lacks(digest)),
            None => {
                result?;
                mirror::update(self.0, repository, &new.descriptor.digest);
                Ok(Taken::Yes)
            }
        }
    }

    /// Takes a manifest and its tags from the repository. False when it was not there.
    pub fn remove_manifest(&self, repository: &str, digest: &Digest) -> Result<bool> {
        let images = offered::remove(self.0, repository, digest)?;
        mirror::remove(self.0, repository, digest);
        let key = params![repository, digest.as_str()];
        self.0.db().write("remove a manifest", |tx| {
            tx.execute("DELETE FROM registry_tags WHERE repository = ?1 AND digest = ?2", key)?;
            let own = tx.execute("DELETE FROM registry_manifests WHERE repository = ?1 AND digest = ?2", key)?;
            Ok(own > 0 || images)
        })
    }

    /// What a tag stands for.
    pub fn tag(&self, repository: &str, tag: &str) -> Result<Option<Tag>> {
        let sql = "SELECT digest, checked_at_ms FROM registry_tags WHERE repository = ?1 AND tag = ?2";
        let row: Option<(String, i64)> = self.0.db().read("read a tag", |c| {
            c.prepare_cached(sql)?.query_row([repository, tag], |r| Ok((r.get(0)?, r.get(1)?))).optional()
        })?;
        if let Some((Ok(digest), checked_at_ms)) = row.map(|(digest, at)| (digest.parse(), at)) {
            return Ok(Some(Tag { digest, checked_at_ms }));
        }
        let found = match self.0.images().get(&format!("{repository}:{tag}"))? {
            Some(image) => Some(image.target.digest),
            None => offered::companion(self.0, repository, tag)?,
        };
        Ok(found.map(|digest| Tag { digest, checked_at_ms: 0 }))
    }

    /// The manifest that a tag stands for, when it is here.
    pub fn tagged(&self, repository: &str, tag: &str) -> Result<Option<Descriptor>> {
        let Some(Tag { digest, .. }) = self.tag(repository, tag)? else { return Ok(None) };
        let (kind, size) = (self.manifest(repository, &digest)?, self.0.content().has(&digest)?);
        Ok(kind.zip(size).map(|(kind, size)| Descriptor::new(&kind, digest, size)))
    }

    /// Notes that the upstream says the same of a tag as before.
    pub fn confirm_tag(&self, repository: &str, tag: &str, digest: &Digest) -> Result<()> {
        self.0.db().transaction("confirm a tag", |tx| insert_tag(tx, repository, tag, digest, now_ms()))?;
        mirror::update(self.0, repository, digest);
        Ok(())
    }

    /// Removes a tag. False when it was not there.
    pub fn remove_tag(&self, repository: &str, tag: &str) -> Result<bool> {
        let sql = "DELETE FROM registry_tags WHERE repository = ?1 AND tag = ?2 RETURNING digest";
        let was: Option<String> =
            self.0.db().write("remove a tag", |tx| tx.query_row(sql, [repository, tag], |r| r.get(0)).optional())?;
        if let Some(Ok(digest)) = was.as_ref().map(|digest| digest.parse()) {
            mirror::update(self.0, repository, &digest);
        }
        let image = self.0.images().untag(&format!("{repository}:{tag}"))?;
        let companion = offered::detach(self.0, repository, |own| own.tag.as_deref() == Some(tag))?;
        Ok(image || companion || was.is_some())
    }

    /// Tags of a repository, in byte order; `None` when there is no such repository.
    pub fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        let own: Vec<String> = self.0.db().read("list tags", |c| {
            let mut q = c.prepare_cached("SELECT tag FROM registry_tags WHERE repository = ?1")?;
            q.query_map([repository], |r| r.get(0))?.collect()
        })?;
        let images = offered::names(self.0)?;
        let images = images.into_iter().filter(|(name, _)| name == repository).map(|(_, tag)| tag);
        let tags: BTreeSet<String> = own.into_iter().chain(images).collect();
        if tags.is_empty() && !self.0.db().look(|c| is_repository(c, repository))? {
            return Ok(None);
        }
        Ok(Some(tags.into_iter().collect()))
    }

    /// All repositories, in byte order.
    pub fn repositories(&self) -> Result<Vec<String>> {
        let sql = "SELECT repository FROM registry_blobs UNION SELECT repository FROM registry_manifests
            UNION SELECT repository FROM registry_tags";
        let own: Vec<String> =
            self.0.db().read("list repositories", |c| c.prepare(sql)?.query_map([], |r| r.get(0))?.collect())?;
        let all: BTreeSet<String> =
            own.into_iter().chain(offered::names(self.0)?.into_iter().map(|(name, _)| name)).collect();
        Ok(all.into_iter().collect())
    }

    /// Manifests whose subject is `digest`, in the order of their digests.
    pub fn referrers(&self, repository: &str, digest: &Digest) -> Result<Vec<Descriptor>> {
        type Row = (String, String, i64, Option<String>, String);
        let sql = "SELECT digest, media_type, size_bytes, artifact_type, annotations FROM registry_manifests
            WHERE repository = ?1 AND subject = ?2 ORDER BY digest";
        let rows: Vec<Row> = self.0.db().read("list referrers", |c| {
            let mut q = c.prepare_cached(sql)?;
            let read = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?));
            q.query_map([repository, digest.as_str()], read)?.collect()
        })?;
        let descriptor = |(digest, media_type, size, artifact_type, annotations): Row| {
            let mut descriptor = Descriptor::new(&media_type, digest.parse().ok()?, size.unsigned_abs());
            descriptor.artifact_type = artifact_type;
            descriptor.annotations = db::labels(annotations);
            Some(descriptor)
        };
        let own = rows.into_iter().filter_map(descriptor);
        let all = offered::referrers(self.0, repository, digest)?.into_iter().chain(own);
        let all: BTreeMap<Digest, Descriptor> = all.map(|entry| (entry.digest.clone(), entry)).collect();
        Ok(all.into_values().collect())
    }

    /// Row and file become visible together; a crash between the two leaves a row without a file (which counts as absent)
    /// or a file without a row (which garbage collection takes).
    fn publish(&self, file: &Path, digest: &Digest, rows: impl FnOnce(&Conn) -> Result<()>) -> Result<()> {
        let to = self.0.content().path(digest);
        self.0.db().transaction("record content", |tx| {
            rows(tx)?;
            std::fs::rename(file, &to).map_err(Error::io("publish", &to))
        })?;
        sync_dir(to.parent().unwrap_or(&to))
    }
}

/// Everything that repositories hold: roots of garbage collection.
pub(crate) fn roots(c: &Conn) -> Result<Vec<Digest>> {
    let sql = "SELECT digest FROM registry_blobs UNION SELECT digest FROM registry_manifests";
    let texts: Vec<String> = c
        .prepare(sql)
        .and_then(|mut q| q.query_map([], |r| r.get(0))?.collect())
        .map_err(Error::db("read the registry's content"))?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

fn exists(c: &Conn, sql: &str, args: &[&dyn rusqlite::ToSql]) -> Result<bool> {
    c.prepare_cached(sql).and_then(|mut q| q.exists(args)).map_err(Error::db("look into a repository"))
}

fn has_blob(c: &Conn, repository: &str, digest: &Digest) -> Result<bool> {
    let sql = "SELECT 1 FROM registry_blobs WHERE repository = ?1 AND digest = ?2";
    exists(c, sql, &[&repository, &digest.as_str()])
}

fn is_repository(c: &Conn, repository: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM registry_blobs WHERE repository = ?1
        UNION SELECT 1 FROM registry_manifests WHERE repository = ?1";
    exists(c, sql, &[&repository])
}

fn manifest_type(c: &Conn, repository: &str, digest: &Digest) -> Result<Option<String>> {
    let sql = "SELECT media_type FROM registry_manifests WHERE repository = ?1 AND digest = ?2";
    c.prepare_cached(sql)
        .and_then(|mut q| q.query_row([repository, digest.as_str()], |r| r.get(0)).optional())
        .map_err(Error::db("read a manifest's row"))
}

/// `cached`: it came from an upstream, and may go when space is short; unless it was pushed before.
pub(super) fn insert_blob(tx: &Conn, repository: &str, digest: &Digest, cached: bool) -> Result<()> {
    let sql = "INSERT INTO registry_blobs (repository, digest, cached) VALUES (?1, ?2, ?3)
        ON CONFLICT (repository, digest) DO UPDATE SET cached = cached AND excluded.cached";
    let row = params![repository, digest.as_str(), cached];
    tx.execute(sql, row).map(drop).map_err(Error::db("record a blob"))
}

/// `cached` as in [`insert_blob`].
pub(super) fn insert_manifest(tx: &Conn, repository: &str, new: &NewManifest, cached: bool) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO registry_manifests
        (repository, digest, media_type, size_bytes, artifact_type, subject, annotations, cached)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 AND
            coalesce((SELECT cached FROM registry_manifests WHERE repository = ?1 AND digest = ?2), 1))";
    let Descriptor { media_type, digest, size, .. } = &new.descriptor;
    let row = params![
        repository,
        digest.as_str(),
        media_type,
        i64::try_from(*size).unwrap_or(i64::MAX),
        new.artifact_type(),
        new.subject().map(Digest::as_str),
        db::to_json(new.annotations()),
        cached,
    ];
    tx.execute(sql, row).map(drop).map_err(Error::db("record a manifest"))
}

pub(super) fn insert_tag(tx: &Conn, repository: &str, tag: &str, digest: &Digest, checked_at_ms: i64) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO registry_tags (repository, tag, digest, checked_at_ms) VALUES (?1, ?2, ?3, ?4)";
    let row = params![repository, tag, digest.as_str(), checked_at_ms];
    tx.execute(sql, row).map(drop).map_err(Error::db("record a tag"))
}

/// The type under which bytes without a type of their own are kept.
pub(crate) fn default_type(document: &Document) -> &'static str {
    match document {
        Document::Manifest(_) => media_type::MANIFEST,
        Document::Index(_) => media_type::INDEX,
    }
}
