//! Opening an SQLite database that several processes share.
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// Opens or makes a database: with a write-ahead log, with what is committed on the disk, with foreign keys, and waiting up
/// to `patience` for other processes. `prepare` is run on each connection that opened, and again when it was too early.
///
/// Of processes that make a new database at once, or when the last one takes the log away, one changes its journal mode;
/// the others are told that it is locked without their busy handler being asked, lest they wait for each other
/// (sqlite3_busy_handler). So they try again.
///
/// # Errors
/// SQLite's.
pub fn open(
    path: &Path,
    patience: Duration,
    prepare: impl Fn(&mut Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<Connection> {
    let end = Instant::now() + patience;
    let attempt = || {
        let mut connection = connect(path, patience)?;
        prepare(&mut connection).map(|()| connection)
    };
    loop {
        match attempt() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < end => {
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

fn connect(path: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(patience)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_crowd_makes_one() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let path = dir.path().join(format!("{round}.db"));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| open(&path, Duration::from_secs(20), |_| Ok(())).unwrap());
                }
            });
            let connection = open(&path, PAUSE, |_| Ok(())).unwrap();
            let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
    }

    #[test]
    fn what_is_no_database_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        std::fs::write(&path, "no database, and longer than its header is: ".repeat(9)).unwrap();
        let error = open(&path, Duration::from_secs(20), |_| Ok(())).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase));
    }
}
