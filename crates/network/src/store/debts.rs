//! What plugins are to get back.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Durable, Store, to_json};
use crate::error::Result;
use crate::foreign::ipam::Debt;

/// A table that older databases lack: made with the first debt.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS debt (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    body TEXT NOT NULL
) STRICT";

impl Store {
    /// Writes down what is owed.
    ///
    /// # Errors
    /// [`crate::Error::Database`].
    pub(crate) fn owe(&self, debts: &[Debt]) -> Result<()> {
        self.write(Durable::Process, |db| Ok(Ok(insert(db, debts)?)))
    }

    /// What is owed, the oldest first, with its number. What cannot be read is left out.
    ///
    /// # Errors
    /// [`crate::Error::Database`].
    pub(crate) fn debts(&self) -> Result<Vec<(i64, Debt)>> {
        let rows: Vec<(i64, String)> = self.read(|db| {
            let there = "SELECT 1 FROM sqlite_schema WHERE name = 'debt'";
            if db.prepare_cached(there)?.query_row([], |_| Ok(())).optional()?.is_none() {
                return Ok(Vec::new());
            }
            let mut statement = db.prepare_cached("SELECT number, body FROM debt ORDER BY number")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        Ok(rows.into_iter().filter_map(|(number, body)| Some((number, serde_json::from_str(&body).ok()?))).collect())
    }

    /// It is paid.
    ///
    /// # Errors
    /// [`crate::Error::Database`].
    pub(crate) fn forget_debt(&self, number: i64) -> Result<()> {
        self.write(Durable::Process, |db| {
            db.execute("DELETE FROM debt WHERE number = ?1", [number])?;
            Ok(Ok(()))
        })
    }
}

pub(super) fn insert(db: &Transaction<'_>, debts: &[Debt]) -> rusqlite::Result<()> {
    if debts.is_empty() {
        return Ok(());
    }
    db.execute_batch(SCHEMA)?;
    let mut statement = db.prepare_cached("INSERT INTO debt (body) VALUES (?1)")?;
    debts.iter().try_for_each(|debt| statement.execute(params![to_json(debt)]).map(drop))
}
