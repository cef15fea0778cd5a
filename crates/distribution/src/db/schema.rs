//! The tables, and how older databases become like new ones.
use crate::{Error, Result};
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// One batch per format; the database's `user_version` counts those that were applied.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE leases (
    id            TEXT PRIMARY KEY,
    expires_at_ms INTEGER NOT NULL,
    labels        TEXT NOT NULL
) STRICT;
CREATE TABLE lease_refs (
    lease TEXT NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
    kind  TEXT NOT NULL,
    key   TEXT NOT NULL,
    PRIMARY KEY (lease, kind, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE layers (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    diff_id       TEXT NOT NULL UNIQUE,
    size_bytes    INTEGER NOT NULL,
    entries       INTEGER NOT NULL,
    created_at    TEXT NOT NULL,
    -- The archive had an entry for the root directory itself.
    root_entry    INTEGER NOT NULL,
    whiteouts     INTEGER NOT NULL,
    -- JSON: directories without an entry of their own, hard links to files of parents.
    unresolved    TEXT NOT NULL,
    -- Set while a snapshot's directory is on its way to become this layer.
    from_snapshot INTEGER
) STRICT;
CREATE TABLE images (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    target     TEXT NOT NULL,
    manifest   TEXT NOT NULL,
    config     TEXT NOT NULL,
    record     TEXT NOT NULL,
    -- Nameless and wanted only as long as a lease holds it.
    leased     INTEGER NOT NULL,
    UNIQUE (target, manifest)
) STRICT;
CREATE TABLE names (
    name  TEXT PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_image ON names (image);
CREATE TABLE snapshots (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    key         TEXT NOT NULL UNIQUE,
    snapshotter TEXT NOT NULL,
    read_only   INTEGER NOT NULL,
    image_id    TEXT,
    labels      TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    -- JSON: paths that preparation itself wrote into the snapshot.
    prepared    TEXT NOT NULL
) STRICT;
CREATE TABLE snapshot_layers (
    snapshot INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer    INTEGER NOT NULL REFERENCES layers (id) ON DELETE RESTRICT,
    PRIMARY KEY (snapshot, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshot_layers_by_layer ON snapshot_layers (layer);
",
    "
-- What the repositories of the registry server have: roots of garbage collection.
CREATE TABLE registry_blobs (
    repository TEXT NOT NULL,
    digest     TEXT NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX registry_blobs_by_digest ON registry_blobs (digest);
CREATE TABLE registry_manifests (
    repository    TEXT NOT NULL,
    digest        TEXT NOT NULL,
    media_type    TEXT NOT NULL,
    size_bytes    INTEGER NOT NULL,
    artifact_type TEXT,
    subject       TEXT,
    annotations   TEXT NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX registry_manifests_by_subject ON registry_manifests (repository, subject) WHERE subject IS NOT NULL;
CREATE TABLE registry_tags (
    repository    TEXT NOT NULL,
    tag           TEXT NOT NULL,
    digest        TEXT NOT NULL,
    -- When an upstream last said so; 0: it was pushed here.
    checked_at_ms INTEGER NOT NULL,
    PRIMARY KEY (repository, tag)
) STRICT, WITHOUT ROWID;
",
    "
-- The boot in which a layer was unpacked; NULL: it is on the disk.
ALTER TABLE layers ADD COLUMN volatile TEXT;
-- JSON: descriptor of a blob that unpacks to it, where it is known.
ALTER TABLE layers ADD COLUMN blob TEXT;
",
    "
-- Ids of a snapshot's files that are mapped where it is mounted, in the words of mount(8); empty: none.
ALTER TABLE snapshots ADD COLUMN idmap TEXT NOT NULL DEFAULT '';
",
    "
-- Came from an upstream, and may go when the cache is larger than it may be.
ALTER TABLE registry_manifests ADD COLUMN cached INTEGER NOT NULL DEFAULT 0;
ALTER TABLE registry_blobs ADD COLUMN cached INTEGER NOT NULL DEFAULT 0;
UPDATE registry_manifests SET cached = 1 WHERE repository IN (SELECT repository FROM registry_tags WHERE checked_at_ms > 0);
UPDATE registry_blobs SET cached = 1 WHERE repository IN (SELECT repository FROM registry_tags WHERE checked_at_ms > 0);
",
    "
-- Snapshots whose directories a power cut may bring back, and since when.
CREATE TABLE removed_snapshots (
    id    INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL
) STRICT;
",
];

/// Brings the tables up to date; refuses a database of a newer release.
pub(super) fn migrate(conn: &mut Connection, path: &Path, may_be_new: bool) -> Result<()> {
    let step = "prepare the tables";
    let known = MIGRATIONS.len();
    let version = |c: &Connection| c.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0));
    let at = |found: i64| usize::try_from(found).unwrap_or(0);
    if at(version(conn).map_err(Error::db(step))?) == known {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::db(step))?;
    let found = version(&tx).map_err(Error::db(step))?;
    if found == 0 && !may_be_new {
        let lost = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(Error::db(step)(rusqlite::Error::SqliteFailure(lost, Some("its tables are gone".into()))));
    }
    if at(found) > known {
        return Err(Error::TooNew { path: path.to_owned(), found, known: known as i64 });
    }
    for batch in &MIGRATIONS[at(found)..] {
        tx.execute_batch(batch).map_err(Error::db(step))?;
    }
    tx.execute_batch(&format!("PRAGMA user_version = {known}")).map_err(Error::db(step))?;
    tx.commit().map_err(Error::db(step))
}

/// Looks at every table, so that a damaged file shows when it is opened and not in the middle of work. Costs a page each.
pub(super) fn touch(conn: &Connection) -> Result<()> {
    for table in ["leases", "lease_refs", "layers", "images", "names", "snapshots", "snapshot_layers"] {
        conn.execute_batch(&format!("SELECT 1 FROM {table} LIMIT 1")).map_err(Error::db("read the tables"))?;
    }
    Ok(())
}
