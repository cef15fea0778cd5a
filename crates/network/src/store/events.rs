//! The journal of events: bounded, and readable by every process of the stack.

use std::collections::BTreeMap;

use rusqlite::{Row, params};

use super::{Durable, Store, to_json};
use crate::error::Result;

/// Events that are kept.
const KEPT: i64 = 4096;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Ascending, without gaps for a reader that keeps up.
    pub sequence: i64,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
    /// Docker's verbs: create, destroy, connect, disconnect; and `update`, `reconcile`.
    pub action: String,
    /// Id of the network.
    pub id: String,
    /// Name, driver, container and the like.
    pub attributes: BTreeMap<String, String>,
}

impl Store {
    /// Adds an event. An event that cannot be written is logged: it must not undo what happened.
    pub(crate) fn record_event(&self, action: &str, id: &str, attributes: &[(&str, &str)]) {
        let attributes: BTreeMap<&str, &str> = attributes.iter().copied().collect();
        let time = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let written = self.write(Durable::Process, |db| {
            let sql = "INSERT INTO event (time, action, id, attributes) VALUES (?1, ?2, ?3, ?4)";
            db.prepare_cached(sql)?.execute(params![time, action, id, to_json(&attributes)])?;
            let oldest = db.last_insert_rowid() - KEPT;
            db.prepare_cached("DELETE FROM event WHERE sequence <= ?1")?.execute([oldest])?;
            Ok(Ok(()))
        });
        if let Err(error) = written {
            tracing::warn!(%error, action, id, "event not recorded");
        }
    }

    /// Events after a sequence number, at or after a time in nanoseconds.
    ///
    /// # Errors
    /// [`crate::Error::Database`].
    pub fn events(&self, after: i64, since: i64) -> Result<Vec<StoredEvent>> {
        self.read(|db| {
            let sql = "SELECT sequence, time, action, id, attributes FROM event
                       WHERE sequence > ?1 AND time >= ?2 ORDER BY sequence";
            db.prepare_cached(sql)?.query_map([after, since], event)?.collect()
        })
    }

    /// Sequence number of the newest event.
    ///
    /// # Errors
    /// [`crate::Error::Database`].
    pub fn last_event(&self) -> Result<i64> {
        self.read(|db| db.query_row("SELECT coalesce(max(sequence), 0) FROM event", [], |row| row.get(0)))
    }
}

fn event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let attributes: String = row.get(4)?;
    Ok(StoredEvent {
        sequence: row.get(0)?,
        time: row.get(1)?,
        action: row.get(2)?,
        id: row.get(3)?,
        attributes: serde_json::from_str(&attributes).unwrap_or_default(),
    })
}
