//! The database: who holds which volume (by id) where, and which mounts a driver has still to be told to undo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior, params};

use crate::{Error, Result};

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
    PRIMARY KEY (volume, consumer, target)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refs_by_consumer ON refs (consumer);
CREATE TABLE IF NOT EXISTS unmounts (
    driver TEXT NOT NULL, volume TEXT NOT NULL, name TEXT NOT NULL, mount_id TEXT NOT NULL,
    PRIMARY KEY (driver, volume, mount_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, action TEXT NOT NULL, volume TEXT NOT NULL,
    attributes TEXT NOT NULL);
PRAGMA user_version = 2;";

/// How long others may hold the database.
const BUSY_LIMIT: Duration = Duration::from_secs(30);
const BUSY_PAUSE: Duration = Duration::from_millis(10);

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

/// Opens the database. SQLite does not wait when several make a fresh one WAL at once, or when the last to leave takes the log
/// away: then it is tried again.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let end = Instant::now() + BUSY_LIMIT;
    loop {
        match try_connect(path) {
            Err(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) && Instant::now() < end =>
            {
                std::thread::sleep(BUSY_PAUSE);
            }
            other => return other,
        }
    }
}

fn try_connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < 2 {
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
    Ok(added == 1)
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

/// What a driver knows a mount by: the same for the same reference, whoever asks.
pub(crate) fn mount_id(consumer: &str, target: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    // Not secret, and per volume: 64 bits are plenty.
    let mut hasher = DefaultHasher::new();
    (consumer, target).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Consumers whose names begin so.
pub(crate) fn beginning(connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection
        .prepare_cached("SELECT DISTINCT consumer FROM refs WHERE consumer >= ?1 AND consumer < ?1 || '~'")?;
    statement.query_map([prefix], |row| row.get(0))?.collect()
}

/// Volumes and targets of a consumer.
pub(crate) fn of(connection: &Connection, consumer: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = connection.prepare_cached("SELECT volume, target FROM refs WHERE consumer = ?1")?;
    statement.query_map([consumer], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Volumes and mount ids of all references.
pub(crate) fn held(connection: &Connection) -> rusqlite::Result<BTreeSet<(String, String)>> {
    let mut statement = connection.prepare_cached("SELECT volume, consumer, target FROM refs")?;
    let rows = statement.query_map([], |row| {
        let (consumer, target): (String, String) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, mount_id(&consumer, &target)))
    })?;
    rows.collect()
}

/// A mount that a driver has to be told to undo.
#[derive(Debug, Clone)]
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
