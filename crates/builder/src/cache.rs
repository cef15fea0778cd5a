//! Which results are known: `<root>/builder/cache.db`, SQLite. A record is a key, the layers that came of it, and the
//! lease that holds the newest of these layers in the store.
//!
//! A record is `pending` from before its lease exists until its layer is committed. One whose process died is found
//! by the lock of that process's working directory and removed with its lease.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::layer::Chain;
use crate::solve::Key;

const SCHEMA: &str = "
    CREATE TABLE records (
        id          TEXT PRIMARY KEY,
        key         TEXT NOT NULL,
        state       INTEGER NOT NULL,
        owner       TEXT NOT NULL,
        lease       TEXT NOT NULL,
        outputs     TEXT NOT NULL,
        description TEXT NOT NULL,
        size        INTEGER NOT NULL,
        created     INTEGER NOT NULL,
        last_used   INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX records_by_key ON records (key, state);
    PRAGMA user_version = 1;";

/// How long another process may hold the database.
const PATIENCE: Duration = Duration::from_secs(10);
const PENDING: i64 = 0;
const READY: i64 = 1;

/// The database.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// What is known of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Random.
    pub id: String,
    /// In the store; empty when the step made no layer.
    pub lease: String,
    /// The step.
    pub description: String,
    /// Of its layer, compressed, in bytes.
    pub size_bytes: i64,
    /// Seconds since the epoch.
    pub created: i64,
    /// Seconds since the epoch.
    pub last_used: i64,
    /// A build is making it now.
    pub pending: bool,
    /// The working directory of that build.
    pub owner: String,
}

/// What a prune takes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Not what was used in the last so many seconds.
    pub keep_seconds: i64,
    /// Not the most recently used up to so many bytes.
    pub keep_bytes: i64,
}

impl Cache {
    /// Opens or makes the database.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |cause| Error::Cache { path: path.to_owned(), cause };
        let prepare = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                transaction.execute_batch(SCHEMA)?;
            }
            transaction.commit()
        };
        let connection = statedir::database::open(path, PATIENCE, prepare).map_err(failed)?;
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, what: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        what(&mut self.lock()).map_err(|cause| Error::Cache { path: self.path.clone(), cause })
    }

    /// The newest finished record of a key.
    pub fn find(&self, key: &Key) -> Result<Option<(Record, Vec<Chain>)>, Error> {
        let found = self.with(|connection| {
            let query = "SELECT id, lease, description, size, created, last_used, state, owner, outputs FROM records
                         WHERE key = ?1 AND state = ?2 ORDER BY created DESC, rowid DESC LIMIT 1";
            let read = |row: &rusqlite::Row<'_>| Ok((record(row)?, row.get::<_, String>(8)?));
            connection.query_row(query, params![key.as_str(), READY], read).optional()
        })?;
        // A record that cannot be read is as good as none.
        Ok(found.and_then(|(record, outputs)| Some((record, serde_json::from_str(&outputs).ok()?))))
    }

    /// Notes that `owner` is about to make `key` under the lease of the same name as the record, which is returned.
    pub fn reserve(&self, key: &Key, owner: &str) -> Result<String, Error> {
        let id = format!("build-cache-{}", random());
        self.with(|connection| {
            let now = now();
            connection.execute(
                "INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?1, '[]', '', 0, ?5, ?5)",
                params![id, key.as_str(), PENDING, owner, now],
            )
        })?;
        Ok(id)
    }

    /// Finishes a record. `lease` is empty when there is no new layer. Returns the leases of older records of the
    /// same key, which are gone now.
    pub fn finish(
        &self,
        key: &Key,
        lease: &str,
        outputs: &[Chain],
        size: i64,
        name: &str,
    ) -> Result<Vec<String>, Error> {
        let outputs = serde_json::to_string(outputs).unwrap_or_else(|_| "[]".into());
        let id = if lease.is_empty() { format!("build-cache-{}", random()) } else { lease.to_owned() };
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let older =
                leases(&transaction, "SELECT lease FROM records WHERE key = ?1 AND state = 1", params![key.as_str()])?;
            transaction.execute("DELETE FROM records WHERE key = ?1 AND state = 1", params![key.as_str()])?;
            let now = now();
            transaction.execute(
                "INSERT OR REPLACE INTO records VALUES (?1, ?2, ?3, '', ?4, ?5, ?6, ?7, ?8, ?8)",
                params![id, key.as_str(), READY, lease, outputs, name, size, now],
            )?;
            transaction.commit()?;
            Ok(older)
        })
    }

    /// Removes a record.
    pub fn remove(&self, id: &str) -> Result<(), Error> {
        self.with(|connection| connection.execute("DELETE FROM records WHERE id = ?1", params![id])).map(drop)
    }

    /// Notes that a record was of use.
    pub fn touch(&self, id: &str) -> Result<(), Error> {
        let update = "UPDATE records SET last_used = ?2 WHERE id = ?1 AND last_used < ?2";
        self.with(|connection| connection.execute(update, params![id, now()])).map(drop)
    }

    /// All records, the most recently used first.
    pub fn list(&self) -> Result<Vec<Record>, Error> {
        self.with(|connection| {
            let query = "SELECT id, lease, description, size, created, last_used, state, owner FROM records
                         ORDER BY last_used DESC, rowid DESC";
            connection.prepare(query)?.query_map([], record)?.collect()
        })
    }

    /// What a prune with these limits would remove.
    pub fn prunable(&self, limits: Limits) -> Result<Vec<Record>, Error> {
        Ok(choose(self.list()?, limits, now()))
    }
}

/// Decides what goes: what is neither recent nor within the bytes to keep.
fn choose(records: Vec<Record>, limits: Limits, now: i64) -> Vec<Record> {
    let mut kept = 0;
    let mut gone = Vec::new();
    for record in records {
        let recent = limits.keep_seconds > 0 && now - record.last_used < limits.keep_seconds;
        let fits = limits.keep_bytes > 0 && kept + record.size_bytes <= limits.keep_bytes;
        if record.pending || recent || fits {
            kept += record.size_bytes;
        } else {
            gone.push(record);
        }
    }
    gone
}

fn record(row: &rusqlite::Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get(0)?,
        lease: row.get(1)?,
        description: row.get(2)?,
        size_bytes: row.get(3)?,
        created: row.get(4)?,
        last_used: row.get(5)?,
        pending: row.get::<_, i64>(6)? == PENDING,
        owner: row.get(7)?,
    })
}

fn leases(connection: &Connection, query: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<Vec<String>> {
    let all = connection
        .prepare(query)?
        .query_map(parameters, |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().filter(|lease| !lease.is_empty()).collect())
}

/// Sixteen hex digits.
pub(crate) fn random() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layer::Layer;
    use crate::solve::KeyWriter;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache.db")).unwrap();
        (dir, cache)
    }

    fn key(name: &str) -> Key {
        KeyWriter::new(name).finish()
    }

    fn chain(name: &str) -> Chain {
        let descriptor = oci::Descriptor::of(oci::media_type::LAYER_GZIP, name.as_bytes());
        Chain(vec![Layer { diff_id: name.into(), descriptor, lease: "l".into() }])
    }

    #[test]
    fn finds_what_is_finished() {
        let (_dir, cache) = cache();
        assert!(cache.find(&key("a")).unwrap().is_none());
        let lease = cache.reserve(&key("a"), "me").unwrap();
        assert!(cache.find(&key("a")).unwrap().is_none(), "pending");
        assert!(cache.finish(&key("a"), &lease, &[chain("1")], 7, "RUN").unwrap().is_empty());
        let (record, outputs) = cache.find(&key("a")).unwrap().unwrap();
        assert_eq!((record.lease.as_str(), record.size_bytes, outputs), (lease.as_str(), 7, vec![chain("1")]));
        let newer = cache.reserve(&key("a"), "me").unwrap();
        assert_eq!(cache.finish(&key("a"), &newer, &[chain("2")], 7, "RUN").unwrap(), [lease]);
        assert_eq!(cache.list().unwrap().len(), 1);
        cache.remove(&newer).unwrap();
        assert!(cache.find(&key("a")).unwrap().is_none());
    }

    #[test]
    fn is_there_for_the_next_process() {
        let (dir, cache) = cache();
        cache.finish(&key("a"), "", &[chain("1")], 0, "WORKDIR").unwrap();
        let again = Cache::open(&dir.path().join("cache.db")).unwrap();
        assert!(again.find(&key("a")).unwrap().is_some());
    }

    #[test]
    fn chooses_what_goes() {
        let record = |id: &str, last_used, pending| Record {
            id: id.into(),
            lease: String::new(),
            description: String::new(),
            size_bytes: 10,
            created: 0,
            last_used,
            pending,
            owner: String::new(),
        };
        let records = vec![
            record("new", 100, false),
            record("busy", 60, true),
            record("mid", 50, false),
            record("old", 1, false),
        ];
        let gone = |keep_seconds, keep_bytes| -> Vec<String> {
            let limits = Limits { keep_seconds, keep_bytes };
            choose(records.clone(), limits, 100).into_iter().map(|record| record.id).collect()
        };
        assert_eq!(gone(0, 0), ["new", "mid", "old"]);
        assert_eq!(gone(60, 0), ["old"]);
        assert_eq!(gone(0, 20), ["mid", "old"]);
        assert_eq!(gone(0, 30), ["old"]);
    }
}
