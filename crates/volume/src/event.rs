//! What happened to volumes, kept in the database so that events of other processes on the same root are seen too.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

/// How many events stay.
const KEPT: i64 = 4096;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Grows by one with each event of this root.
    pub sequence: i64,
    /// Nanoseconds since the epoch.
    pub time_unix_nano: i64,
    /// "create", "mount", "unmount", "rename", "update", "snapshot", "restore", "destroy", "prune".
    pub action: String,
    /// Name of the volume; empty: of no one alone.
    pub volume: String,
    /// The labels, and what the action has: "driver", "container", "destination", "oldName", "snapshot", "reclaimed".
    pub attributes: BTreeMap<String, String>,
}

pub(crate) fn append(
    connection: &Connection,
    action: &str,
    volume: &str,
    attributes: &BTreeMap<String, String>,
) -> rusqlite::Result<()> {
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let json = serde_json::to_string(attributes).unwrap_or_else(|_| "{}".into());
    connection.execute(
        "INSERT INTO events (time_ns, action, volume, attributes) VALUES (?1, ?2, ?3, ?4)",
        params![now, action, volume, json],
    )?;
    connection.execute("DELETE FROM events WHERE seq <= (SELECT MAX(seq) FROM events) - ?1", [KEPT])?;
    Ok(())
}

/// Events after a sequence number, oldest first.
pub(crate) fn after(connection: &Connection, sequence: i64) -> rusqlite::Result<Vec<Event>> {
    let mut statement = connection
        .prepare_cached("SELECT seq, time_ns, action, volume, attributes FROM events WHERE seq > ?1 ORDER BY seq")?;
    let rows = statement.query_map([sequence], |row| {
        Ok(Event {
            sequence: row.get(0)?,
            time_unix_nano: row.get(1)?,
            action: row.get(2)?,
            volume: row.get(3)?,
            attributes: serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default(),
        })
    })?;
    rows.collect()
}

pub(crate) fn last_sequence(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT COALESCE(MAX(seq), 0) FROM events", [], |row| row.get(0))
}
