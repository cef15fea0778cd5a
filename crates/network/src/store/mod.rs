//! The records: SQLite at `<root>/network/network.db`, shared by all processes of a stack.
//!
//! Networks are written with `synchronous=FULL`. Endpoints, addresses and events with `NORMAL`: what they describe
//! (links, rules) is gone after a power loss anyhow, and in WAL mode that setting loses no consistency and survives
//! the death of any process. So an attach waits for no disk.

mod debts;
mod endpoints;
mod events;
mod networks;
mod policies;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::{Error, Result};

pub use endpoints::{EndpointFilter, StoredEndpoint};
pub use events::StoredEvent;
pub use networks::StoredNetwork;

/// Format of the database, in `user_version`.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE network (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL,
    up INTEGER NOT NULL DEFAULT 0,          -- its bridge is, or is about to be, on the host
    removing INTEGER NOT NULL DEFAULT 0     -- removal has begun and is finished after a crash
) STRICT;
CREATE TABLE endpoint (
    id TEXT PRIMARY KEY,
    network TEXT NOT NULL REFERENCES network(id),
    owner TEXT NOT NULL,
    netns TEXT NOT NULL,
    state INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (network, netns, owner)
) STRICT;
CREATE INDEX endpoint_owner ON endpoint(owner);
CREATE INDEX endpoint_netns ON endpoint(netns);
CREATE TABLE address (
    network TEXT NOT NULL REFERENCES network(id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    endpoint TEXT NOT NULL REFERENCES endpoint(id) ON DELETE CASCADE,
    PRIMARY KEY (network, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX address_endpoint ON address(endpoint);
CREATE TABLE cursor (                       -- the address given last, so that a freed one rests
    network TEXT NOT NULL REFERENCES network(id) ON DELETE CASCADE,
    subnet TEXT NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (network, subnet)
) STRICT, WITHOUT ROWID;
CREATE TABLE port (
    endpoint TEXT NOT NULL REFERENCES endpoint(id) ON DELETE CASCADE,
    protocol TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX port_endpoint ON port(endpoint);
CREATE INDEX port_number ON port(protocol, first);
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    action TEXT NOT NULL,
    id TEXT NOT NULL,
    attributes TEXT NOT NULL
) STRICT;
";

/// How long another process may hold the database.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a committed write is worth waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Survives a power loss.
    Disk,
    /// Survives the process; describes what a power loss takes away.
    Process,
}

/// An open database.
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Written to after each commit, for [`crate::Watch`].
    changed: File,
}

impl Store {
    /// Opens the database, and makes it when missing.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::NewerDatabase`].
    pub fn open(path: &Path) -> Result<Self> {
        // The log stays when the last process closes: to fold it in would cost every one-shot verb two waits for the disk.
        let keep_log =
            |db: &mut Connection| db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop);
        let connection = statedir::database::open(path, PATIENCE, keep_log)
            .map_err(|source| Error::Database { path: path.to_owned(), source })?;
        let mark = path.with_extension("changed");
        let changed = File::options().create(true).truncate(false).write(true).open(&mark).map_err(Error::io(&mark))?;
        let store = Self { path: path.to_owned(), connection: Mutex::new(connection), changed };
        store.prepare()?;
        Ok(store)
    }

    fn prepare(&self) -> Result<()> {
        let found: i64 = self.read(|db| db.query_row("PRAGMA user_version", [], |row| row.get(0)))?;
        match found {
            FORMAT => Ok(()),
            0 => self.write(Durable::Disk, |db| {
                // Another process may have been faster.
                let found: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
                if found == 0 {
                    db.execute_batch(SCHEMA)?;
                    db.pragma_update(None, "user_version", FORMAT)?;
                }
                Ok(Ok(()))
            }),
            found => Err(Error::NewerDatabase { path: self.path.clone(), found, known: FORMAT }),
        }
    }

    /// One consistent read.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&self.lock()).map_err(|source| self.error(source))
    }

    /// One transaction. An inner error rolls it back as well.
    fn write<T>(
        &self,
        durable: Durable,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T>>,
    ) -> Result<T> {
        self.transact(durable, true, work)
    }

    /// One transaction, which is only tried unless `keep`.
    fn transact<T>(
        &self,
        durable: Durable,
        keep: bool,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T>>,
    ) -> Result<T> {
        let error = |source| self.error(source);
        let mut connection = self.lock();
        let level = if durable == Durable::Disk { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", level).map_err(error)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error)?;
        let value = work(&transaction).map_err(error)??;
        if keep {
            transaction.commit().map_err(error)?;
            // The log was written to before the commit could be seen: who read then has to read again.
            if let Err(error) = self.changed.write_all_at(b".", 0) {
                tracing::warn!(%error, "others may see the change late");
            }
        }
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic between two statements leaves at worst an open transaction, which SQLite rolls back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, source: rusqlite::Error) -> Error {
        Error::Database { path: self.path.clone(), source }
    }
}

/// Record to text. Our own values always have one.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn from_json<T: serde::de::DeserializeOwned>(id: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| Error::Damaged { id: id.to_owned(), source })
}
