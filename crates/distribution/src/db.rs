//! The database: SQLite in WAL mode, several processes at once, one connection per operation from a small pool.
//!
//! Writers take the write lock at once (`BEGIN IMMEDIATE`), so that a decision and what follows from it are one
//! step for every process; readers never wait.
use crate::{Error, Result};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod schema;

/// A connection or transaction.
pub(crate) type Conn = Connection;

/// What names may look like, for messages.
pub(crate) const NAME_RULE: &str = "letters, digits, '_', '.' and '-', beginning with a letter or digit";

const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
const POOLED: usize = 8;
/// What is committed is on the disk.
const SYNCHRONOUS: &str = "PRAGMA synchronous = FULL";

/// The database file and its idle connections, each with the file's inode: a rebuilt database is another file.
pub(crate) struct Db {
    path: PathBuf,
    idle: Mutex<Vec<(u64, Connection)>>,
    /// Threads of this process write one after the other: SQLite itself would make them wait by sleeping.
    turn: Mutex<()>,
}

impl Db {
    /// Opens or creates it and brings its tables up to date. One without tables that may not be new is a damaged one.
    pub(crate) fn open(path: &Path, may_be_new: bool) -> Result<Self> {
        let db = Self { path: path.to_owned(), idle: Mutex::default(), turn: Mutex::default() };
        let mut conn = db.take()?;
        schema::migrate(&mut conn.1, path, may_be_new)?;
        schema::touch(&conn.1)?;
        db.put_back(conn);
        Ok(db)
    }

    /// Runs statements that only read.
    pub(crate) fn read<T>(&self, step: &'static str, f: impl FnOnce(&Conn) -> rusqlite::Result<T>) -> Result<T> {
        let conn = self.take()?;
        let result = f(&conn.1).map_err(Error::db(step));
        self.put_back(conn);
        result
    }

    /// [`Self::read`] for a function with this crate's errors.
    pub(crate) fn look<T>(&self, f: impl FnOnce(&Conn) -> Result<T>) -> Result<T> {
        let conn = self.take()?;
        let result = f(&conn.1);
        self.put_back(conn);
        result
    }

    /// Runs statements in a write transaction.
    pub(crate) fn write<T>(&self, step: &'static str, f: impl FnOnce(&Conn) -> rusqlite::Result<T>) -> Result<T> {
        self.transaction(step, |tx| f(tx).map_err(Error::db(step)))
    }

    /// Runs a write transaction that may also touch files; rolled back when `f` fails.
    pub(crate) fn transaction<T>(&self, step: &'static str, f: impl FnOnce(&Conn) -> Result<T>) -> Result<T> {
        let mut conn = self.take()?;
        let value = self.run(&mut conn.1, step, f, |tx| tx.commit())?;
        self.put_back(conn);
        Ok(value)
    }

    /// [`Self::transaction`] for what only lives as long as processes do: every process sees it at once, a power cut may
    /// take it back, and nobody waits for the disk.
    pub(crate) fn passing<T>(&self, step: &'static str, f: impl FnOnce(&Conn) -> Result<T>) -> Result<T> {
        let mut conn = self.take()?;
        conn.1.execute_batch("PRAGMA synchronous = NORMAL").map_err(Error::db(step))?;
        let value = self.run(&mut conn.1, step, f, |tx| tx.commit())?;
        conn.1.execute_batch(SYNCHRONOUS).map_err(Error::db(step))?;
        self.put_back(conn);
        Ok(value)
    }

    /// Runs a write transaction and takes it back: what would be.
    pub(crate) fn rehearsal<T>(&self, step: &'static str, f: impl FnOnce(&Conn) -> Result<T>) -> Result<T> {
        let mut conn = self.take()?;
        let value = self.run(&mut conn.1, step, f, |tx| tx.rollback())?;
        self.put_back(conn);
        Ok(value)
    }

    fn run<T>(
        &self,
        conn: &mut Connection,
        step: &'static str,
        f: impl FnOnce(&Conn) -> Result<T>,
        end: impl FnOnce(Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<T> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::db(step))?;
        let value = f(&tx)?;
        end(tx).map_err(Error::db(step))?;
        Ok(value)
    }

    fn take(&self) -> Result<(u64, Connection)> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        match idle {
            Some(idle) if self.inode() == idle.0 => Ok(idle),
            _ => {
                let conn = self.connect()?;
                Ok((self.inode(), conn))
            }
        }
    }

    fn put_back(&self, conn: (u64, Connection)) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < POOLED
        {
            idle.push(conn);
        }
    }

    fn inode(&self) -> u64 {
        rustix::fs::stat(&self.path).map_or(0, |stat| stat.st_ino)
    }

    fn connect(&self) -> Result<Connection> {
        statedir::database::open(&self.path, BUSY_TIMEOUT, |_| Ok(())).map_err(Error::db("open a connection"))
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Now, RFC 3339.
pub(crate) fn now_text() -> String {
    jiff::Timestamp::now().to_string()
}

/// Sixteen random hex digits: names of staging directories and leases.
pub(crate) fn random_name() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}

/// JSON of a value that always has one.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A labels column.
pub(crate) fn labels(text: String) -> BTreeMap<String, String> {
    serde_json::from_str(&text).unwrap_or_default()
}
