//! The database: who holds which volume where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use crate::{Error, Result, event};

/// What a release gave back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// Volumes that the consumer held.
    pub released: Vec<String>,
    /// Anonymous ones that were removed then.
    pub removed: Vec<String>,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS refs (
    volume TEXT NOT NULL, consumer TEXT NOT NULL, target TEXT NOT NULL, read_only INTEGER NOT NULL,
    PRIMARY KEY (volume, consumer, target)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refs_by_consumer ON refs (consumer);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, action TEXT NOT NULL, volume TEXT NOT NULL,
    attributes TEXT NOT NULL);
PRAGMA user_version = 1;";

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

    /// Consumers by volume.
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
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))?;
    }
    Ok(connection)
}

/// Who holds a volume.
pub(crate) fn consumers(connection: &Connection, volume: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement =
        connection.prepare_cached("SELECT DISTINCT consumer FROM refs WHERE volume = ?1 ORDER BY consumer")?;
    statement.query_map([volume], |row| row.get(0))?.collect()
}

/// Adds a reference; says whether it is new.
pub(crate) fn add(
    connection: &Connection,
    volume: &str,
    consumer: &str,
    target: &str,
    read_only: bool,
) -> rusqlite::Result<bool> {
    let added = connection.execute(
        "INSERT OR IGNORE INTO refs (volume, consumer, target, read_only) VALUES (?1, ?2, ?3, ?4)",
        params![volume, consumer, target, read_only],
    )?;
    if added == 1 {
        event::append(connection, "mount", volume, &about(consumer, target))?;
    }
    Ok(added == 1)
}

/// Takes references of a consumer away; returns the volumes they were on.
pub(crate) fn take(connection: &Connection, consumer: &str, volume: Option<&str>) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM refs WHERE consumer = ?1 AND (?2 IS NULL OR volume = ?2) RETURNING volume, target",
    )?;
    let rows: Vec<(String, String)> = statement
        .query_map(params![consumer, volume], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (volume, target) in &rows {
        event::append(connection, "unmount", volume, &about(consumer, target))?;
    }
    let mut volumes: Vec<String> = rows.into_iter().map(|(volume, _)| volume).collect();
    volumes.sort();
    volumes.dedup();
    Ok(volumes)
}

fn about(consumer: &str, target: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("container".into(), consumer.into()), ("destination".into(), target.into())])
}
