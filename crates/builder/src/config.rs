//! How a builder is set up.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of a builder, given once.
#[derive(Debug, Clone)]
pub struct Config {
    /// `<root>/builder`: the cache database, cache mounts, working directories.
    pub root: PathBuf,
    /// OCI runtime that RUN steps use: a program with runc's command line.
    pub runtime: PathBuf,
    /// How many steps run at once.
    pub parallelism: usize,
    /// The cache may hold this many bytes of layers after a build; 0: no limit.
    pub cache_limit_bytes: u64,
}

/// Life of a build's lease: longer than any build, so that a builder that died frees its content in the end.
pub const BUILD_LEASE: Duration = Duration::from_secs(24 * 3600);

/// Life of a cache record's lease; it ends with the record.
pub const CACHE_LEASE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

impl Config {
    /// Directory of things in the making, one directory each.
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Held shared while a working directory is made, exclusively while dead ones are looked for.
    pub fn work_lock(&self) -> PathBuf {
        self.root.join("work.lock")
    }

    /// Directory of `--mount=type=cache`, one directory each.
    pub fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    /// The cache database.
    pub fn cache_db(&self) -> PathBuf {
        self.root.join("cache.db")
    }
}
