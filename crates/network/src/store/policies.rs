//! Records of policies.

use rusqlite::{OptionalExtension, params};

use super::{Durable, Store, from_json, to_json};
use crate::error::{Error, Result};
use crate::policy::Policy;

/// A table that older databases lack: made with the first policy.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS policy (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL
) STRICT";

impl Store {
    /// Policies in the order of their making.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Damaged`]: a policy that is left out would open what it closes.
    pub(crate) fn policies(&self) -> Result<Vec<Policy>> {
        let rows: Vec<(String, String)> = self.read(|db| {
            let there = "SELECT 1 FROM sqlite_schema WHERE name = 'policy'";
            if db.prepare_cached(there)?.query_row([], |_| Ok(())).optional()?.is_none() {
                return Ok(Vec::new());
            }
            let mut statement = db.prepare_cached("SELECT name, body FROM policy ORDER BY sequence")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        rows.iter().map(|(name, body)| from_json(name, body)).collect()
    }

    /// Records a policy.
    ///
    /// # Errors
    /// [`Error::PolicyExists`].
    pub(crate) fn insert_policy(&self, policy: &Policy) -> Result<()> {
        self.write(Durable::Disk, |db| {
            db.execute_batch(SCHEMA)?;
            let sql = "INSERT OR IGNORE INTO policy (name, body) VALUES (?1, ?2)";
            let exists = || Error::PolicyExists { name: policy.name.clone() };
            Ok(if db.execute(sql, params![policy.name, to_json(policy)])? == 0 { Err(exists()) } else { Ok(()) })
        })
    }

    /// Forgets a policy; whether it was there.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) fn delete_policy(&self, name: &str) -> Result<bool> {
        self.write(Durable::Disk, |db| {
            db.execute_batch(SCHEMA)?;
            Ok(Ok(db.execute("DELETE FROM policy WHERE name = ?1", [name])? > 0))
        })
    }
}
