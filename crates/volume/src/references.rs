//! The database: who holds which volume (by id) where, and which mounts a driver has still to be told to undo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};
use sha2::{Digest, Sha256};

use crate::{Acquire, Error, Result};

/// What a release gave back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// Names of the volumes that the consumer held.
    pub released: Vec<String>,
    /// Anonymous ones that were removed then.
    pub removed: Vec<String>,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS refs (
    volume TEXT NOT NULL, consumer TEXT NOT NULL, target TEXT NOT NULL, read_only INTEGER NOT NULL,
    subpath TEXT NOT NULL DEFAULT '', map TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (volume, consumer, target)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refs_by_consumer ON refs (consumer);
CREATE TABLE IF NOT EXISTS unmounts (
    driver TEXT NOT NULL, volume TEXT NOT NULL, name TEXT NOT NULL, mount_id TEXT NOT NULL,
    PRIMARY KEY (driver, volume, mount_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, action TEXT NOT NULL, volume TEXT NOT NULL,
    attributes TEXT NOT NULL);
PRAGMA user_version = 3;";

/// Of the schema.
const FORMAT: i64 = 3;
/// References of before their views were kept.
const OLD_REFS: &str = "ALTER TABLE refs ADD COLUMN subpath TEXT NOT NULL DEFAULT '';
ALTER TABLE refs ADD COLUMN map TEXT NOT NULL DEFAULT '';";

/// How long others may hold the database.
const BUSY_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct References {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl References {
    /// Opens the database. A damaged one is set aside with its name said in the log: references come back when their
    /// holders acquire again, and a volume's data does not depend on them.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let error = |source| Error::Database { step: "open", path: path.into(), source };
        let connection = match connect(path) {
            Err(rusqlite::Error::SqliteFailure(code, _))
                if matches!(code.code, rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) =>
            {
                let aside = path.with_extension(format!("db.damaged-{}", jiff::Timestamp::now().as_second()));
                tracing::error!(database = %path.display(), aside = %aside.display(), "damaged volume database set aside");
                std::fs::rename(path, &aside).map_err(Error::io("set aside", path))?;
                for side in ["db-wal", "db-shm"] {
                    let _ = std::fs::remove_file(path.with_extension(side));
                }
                connect(path).map_err(error)?
            }
            other => other.map_err(error)?,
        };
        Ok(Self { path: path.into(), connection: Mutex::new(connection) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in another thread rolled its transaction back; the connection is good.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` with the write lock of the database held, so that no acquisition and no removal comes between.
    pub(crate) fn write<T>(
        &self,
        step: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T> {
        let database = |source| Error::Database { step, path: self.path.clone(), source };
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(database)?;
        match work(&transaction) {
            Ok(value) => transaction.commit().map(|()| value).map_err(database),
            Err(Failure::Database(source)) => Err(database(source)),
            Err(Failure::Volume(error)) => Err(error),
        }
    }

    /// Reads; never waits for writers.
    pub(crate) fn read<T>(
        &self,
        step: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        work(&self.lock()).map_err(|source| Error::Database { step, path: self.path.clone(), source })
    }

    /// Consumers by volume's id.
    pub(crate) fn all(&self) -> Result<BTreeMap<String, Vec<String>>> {
        self.read("read references", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT DISTINCT volume, consumer FROM refs ORDER BY 1, 2")?;
            let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            for row in rows {
                let (volume, consumer) = row?;
                found.entry(volume).or_default().push(consumer);
            }
            Ok(found)
        })
    }
}

/// Why work inside a transaction stopped.
pub(crate) enum Failure {
    Database(rusqlite::Error),
    Volume(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Volume(error)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    statedir::database::open(path, BUSY_LIMIT, prepare)
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    if version(connection)? >= FORMAT {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been first.
    if version(&transaction)? < FORMAT {
        transaction.execute_batch(SCHEMA)?;
        if !transaction.column_exists(None, "refs", "subpath")? {
            transaction.execute_batch(OLD_REFS)?;
        }
    }
    transaction.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Who holds a volume.
pub(crate) fn consumers(connection: &Connection, volume: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement =
        connection.prepare_cached("SELECT DISTINCT consumer FROM refs WHERE volume = ?1 ORDER BY consumer")?;
    statement.query_map([volume], |row| row.get(0))?.collect()
}

/// Adds a reference; says whether it is new.
pub(crate) fn add(connection: &Connection, volume: &str, wanted: &Acquire) -> rusqlite::Result<bool> {
    let Acquire { consumer, target, read_only, subpath, .. } = wanted;
    let known = connection.execute(
        "UPDATE refs SET read_only = ?4, subpath = ?5, map = '' WHERE volume = ?1 AND consumer = ?2 AND target = ?3",
        params![volume, consumer, target, read_only, subpath],
    )?;
    if known == 0 {
        connection.execute(
            "INSERT INTO refs (volume, consumer, target, read_only, subpath) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![volume, consumer, target, read_only, subpath],
        )?;
    }
    Ok(known == 0)
}

/// Notes how the owners of files look through the overlay of a reference.
pub(crate) fn note_map(connection: &Connection, volume: &str, wanted: &Acquire, map: &str) -> rusqlite::Result<()> {
    connection
        .execute(
            "UPDATE refs SET map = ?4 WHERE volume = ?1 AND consumer = ?2 AND target = ?3",
            params![volume, wanted.consumer, wanted.target, map],
        )
        .map(drop)
}

/// Whether there are references of before there were ids.
pub(crate) fn any_by_name(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM refs WHERE length(volume) <> 64)", [], |row| row.get(0))
}

/// References of before there were ids go to the ids that their names stand for.
pub(crate) fn by_id(connection: &Connection, id_of: impl Fn(&str) -> Option<String>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT DISTINCT volume FROM refs")?;
    let held: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for name in held.iter().filter(|name| !oci::name::is_id(name)) {
        if let Some(id) = id_of(name) {
            connection.execute("UPDATE OR REPLACE refs SET volume = ?2 WHERE volume = ?1", [name.as_str(), &id])?;
        }
    }
    Ok(())
}

/// Takes references of a consumer away; returns the ids of the volumes they were on, and the targets.
pub(crate) fn take(
    connection: &Connection,
    consumer: &str,
    volume: Option<&str>,
) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM refs WHERE consumer = ?1 AND (?2 IS NULL OR volume = ?2) RETURNING volume, target",
    )?;
    statement.query_map(params![consumer, volume], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

pub(crate) fn about(consumer: &str, target: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("container".into(), consumer.into()), ("destination".into(), target.into())])
}

/// What a driver knows a mount by, and what is of one reference alone: the same for the same reference, whoever asks, and
/// in every release.
pub(crate) fn mount_id(consumer: &str, target: &str) -> String {
    let digest = Sha256::new().chain_update(consumer).chain_update([0]).chain_update(target).finalize();
    // Not secret, and per volume: 64 bits are plenty.
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Consumers whose names begin so.
pub(crate) fn beginning(connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection
        .prepare_cached("SELECT DISTINCT consumer FROM refs WHERE consumer >= ?1 AND consumer < ?1 || '~'")?;
    statement.query_map([prefix], |row| row.get(0))?.collect()
}

/// What has to be mounted for a reference.
#[derive(Debug)]
pub(crate) struct Reference {
    pub volume: String,
    pub consumer: String,
    pub target: String,
    /// Directory of the volume that it shows; empty: all.
    pub subpath: String,
    /// How owners look through its overlay; empty: none is mounted for it.
    pub map: String,
}

/// References, those of one consumer or all.
pub(crate) fn of(connection: &Connection, consumer: Option<&str>) -> rusqlite::Result<Vec<Reference>> {
    let mut statement = connection
        .prepare_cached("SELECT volume, consumer, target, subpath, map FROM refs WHERE ?1 IS NULL OR consumer = ?1")?;
    let rows = statement.query_map([consumer], |row| {
        let (volume, consumer, target) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Reference { volume, consumer, target, subpath: row.get(3)?, map: row.get(4)? })
    })?;
    rows.collect()
}

/// Volumes and mount ids of references: those on one volume, or all.
pub(crate) fn held(connection: &Connection, volume: Option<&str>) -> rusqlite::Result<BTreeSet<(String, String)>> {
    let mut statement =
        connection.prepare_cached("SELECT volume, consumer, target FROM refs WHERE ?1 IS NULL OR volume = ?1")?;
    let rows = statement.query_map([volume], |row| {
        let (consumer, target): (String, String) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, mount_id(&consumer, &target)))
    })?;
    rows.collect()
}

/// A mount that a driver has to be told to undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unmount {
    pub driver: String,
    pub volume: String,
    pub name: String,
    pub mount_id: String,
}

/// Notes it, in the transaction that takes the reference away.
pub(crate) fn note_unmount(connection: &Connection, unmount: &Unmount) -> rusqlite::Result<()> {
    let Unmount { driver, volume, name, mount_id } = unmount;
    connection
        .execute("INSERT OR REPLACE INTO unmounts VALUES (?1, ?2, ?3, ?4)", params![driver, volume, name, mount_id])
        .map(drop)
}

/// What is still to be undone.
pub(crate) fn unmounts(connection: &Connection) -> rusqlite::Result<Vec<Unmount>> {
    let mut statement = connection.prepare_cached("SELECT driver, volume, name, mount_id FROM unmounts")?;
    let rows = statement.query_map([], |row| {
        Ok(Unmount { driver: row.get(0)?, volume: row.get(1)?, name: row.get(2)?, mount_id: row.get(3)? })
    })?;
    rows.collect()
}

/// It is undone.
pub(crate) fn forget_unmount(connection: &Connection, unmount: &Unmount) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM unmounts WHERE driver = ?1 AND volume = ?2 AND mount_id = ?3",
            [&unmount.driver, &unmount.volume, &unmount.mount_id],
        )
        .map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Names of directories, and what drivers know: they outlive the program.
    #[test]
    fn mount_ids_stay() {
        assert_eq!(mount_id("c", "/x"), "5e4c1674a1103c6b");
        assert_ne!(mount_id("c/", "x"), mount_id("c", "/x"));
    }

    #[test]
    fn an_old_database_is_taken_over() {
        let path = std::env::temp_dir().join(format!("pier-volume-old-{}.db", std::process::id()));
        let old = SCHEMA.replace("subpath TEXT NOT NULL DEFAULT '', map TEXT NOT NULL DEFAULT '',", "");
        Connection::open(&path)
            .unwrap()
            .execute_batch(&format!("{old} PRAGMA user_version = 2; INSERT INTO refs VALUES ('v', 'c', '/x', 0);"))
            .unwrap();
        for _ in 0..2 {
            let references = References::open(&path).unwrap();
            let [one] = &references.read("test", |connection| of(connection, None)).unwrap()[..] else { panic!() };
            assert_eq!((&*one.volume, &*one.target, &*one.subpath, &*one.map), ("v", "/x", "", ""));
        }
        std::fs::remove_file(&path).unwrap();
    }
}
