//! Durable records on disk: written whole or not at all, locked by one writer at a time, with a format version, and
//! scanned at start so that a damaged one is set aside by name and never keeps a tool from starting.
//!
//! It is not a database: what is queried lives in SQLite, which [`database`] opens. A record is one JSON file, `{"format":1,"record":{...}}`.
//!
//! ```
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("web.json");
//! statedir::write_json(&path, 1, &vec!["a"])?;
//! let back: Vec<String> = statedir::read_json(&path, 1)?;
//! assert_eq!(back, ["a"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#[cfg(feature = "database")]
pub mod database;
mod file;
mod lock;
mod record;
pub mod segments;

pub use file::{atomic_write, create_dir_durable, remove_dir_durable, sync_dir};
pub use lock::Lock;
pub use record::{Scanned, read_json, scan, write_json};

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{action} {}", path.display())]
    Io {
        /// "read", "write", "lock", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Not JSON, or not this record.
    #[error("damaged record {}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Written by another release.
    #[error("record {} has format {found}, this program reads {wanted}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What was expected.
        wanted: u32,
    },
}

impl Error {
    /// True when the file is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
        move |source| Error::Io { action, path: path.into(), source }
    }
}
