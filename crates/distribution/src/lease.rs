//! Leases: what is made or used under one is kept from garbage collection until it expires or is deleted.
//!
//! A blob or layer gets its lease's reference *before* it becomes visible in the store, in a committed transaction;
//! garbage collection decides and renames inside one write transaction. So between them there is no window.
use crate::content::{lock_file, lock_file_now};
use crate::db::{self, Conn};
use crate::store::{empty, names};
use crate::{Error, Result, Store};
use oci::Digest;
use rusqlite::params;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Seconds that a lease lives when nothing is said.
pub const DEFAULT_TTL_SECONDS: u64 = 3600;

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: String,
    /// Milliseconds since the epoch.
    pub expires_at_ms: i64,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// What a lease can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Blob,
    Layer,
    Image,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::Image => "image",
        }
    }
}

/// The leases of a store.
pub struct Leases<'a>(pub(crate) &'a Store);

impl Leases<'_> {
    /// Makes a lease of `ttl_seconds` (0: one hour). Without an id it gets a random one; an id that exists and has
    /// not expired is [`Error::Exists`].
    pub fn create(&self, id: Option<&str>, ttl_seconds: u64, labels: &BTreeMap<String, String>) -> Result<Lease> {
        let id = match id.filter(|id| !id.is_empty()) {
            Some(id) if oci::name::is_valid(id) => id.to_owned(),
            Some(id) => return Err(Error::InvalidName { what: "lease id", name: id.into(), expected: db::NAME_RULE }),
            None => db::random_name(),
        };
        let ttl = if ttl_seconds == 0 { DEFAULT_TTL_SECONDS } else { ttl_seconds };
        let lease = Lease { id, expires_at_ms: expiry(ttl), labels: labels.clone() };
        self.0
            .db()
            .write("create a lease", |tx| insert(tx, &lease))?
            .then_some(())
            .ok_or_else(|| Error::Exists { what: "lease", name: lease.id.clone() })?;
        Ok(lease)
    }

    /// A lease for the time of an operation, which ends with its process: nobody waits until it is on the disk.
    pub(crate) fn begin(&self, ttl_seconds: u64) -> Result<Lease> {
        let lease = Lease { id: db::random_name(), expires_at_ms: expiry(ttl_seconds), labels: BTreeMap::new() };
        let step = "begin a lease";
        self.0.db().passing(step, |tx| insert(tx, &lease).map_err(Error::db(step)))?;
        Ok(lease)
    }

    /// Ends one of [`Self::begin`].
    pub(crate) fn end(&self, id: &str) -> Result<()> {
        let step = "end a lease";
        self.0
            .db()
            .passing(step, |tx| tx.execute("DELETE FROM leases WHERE id = ?1", [id]).map(drop).map_err(Error::db(step)))
    }

    /// Gives a lease `ttl_seconds` from now: for operations that take long.
    pub fn renew(&self, id: &str, ttl_seconds: u64) -> Result<()> {
        let ttl = if ttl_seconds == 0 { DEFAULT_TTL_SECONDS } else { ttl_seconds };
        let renewed = self.0.db().write("renew a lease", |tx| {
            tx.execute(
                "UPDATE leases SET expires_at_ms = ?2 WHERE id = ?1 AND expires_at_ms > ?3",
                params![id, expiry(ttl), db::now_ms()],
            )
        })?;
        if renewed == 1 { Ok(()) } else { Err(Error::LeaseExpired { id: id.into() }) }
    }

    /// Idempotent. What only this lease held goes with the next garbage collection.
    pub fn delete(&self, id: &str) -> Result<()> {
        self.0.db().write("delete a lease", |tx| tx.execute("DELETE FROM leases WHERE id = ?1", [id]))?;
        Ok(())
    }

    /// Those that have not expired.
    pub fn list(&self) -> Result<Vec<Lease>> {
        self.0.db().read("list leases", |c| {
            let mut q =
                c.prepare_cached("SELECT id, expires_at_ms, labels FROM leases WHERE expires_at_ms > ?1 ORDER BY id")?;
            q.query_map([db::now_ms()], |r| {
                Ok(Lease { id: r.get(0)?, expires_at_ms: r.get(1)?, labels: db::labels(r.get(2)?) })
            })?
            .collect()
        })
    }
}

impl Leases<'_> {
    /// Makes the mark that a lease's owner lives: a locked file, which a SIGKILL unlocks.
    pub(crate) fn mark_alive(&self, id: &str) -> Result<Alive> {
        let path = self.0.dir("leases").join(id);
        Ok(Alive { _lock: lock_file(&path)?, path })
    }

    /// Leases whose owner left a mark and is dead.
    pub fn abandoned(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (id, path) in names(&self.0.dir("leases"))? {
            if lock_file_now(&path)?.is_some() {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Ends the leases of dead owners before their time: what interrupted downloads have left is garbage from then on.
    pub(crate) fn end_abandoned(&self) -> Result<()> {
        for id in self.abandoned()? {
            self.delete(&id)?;
            empty(&self.0.dir("leases").join(&id));
        }
        Ok(())
    }

    /// Removes the marks of leases that are no more.
    pub(crate) fn sweep_marks(&self) -> Result<()> {
        let live: Vec<String> = self.list()?.into_iter().map(|lease| lease.id).collect();
        for id in self.abandoned()?.into_iter().filter(|id| !live.contains(id)) {
            empty(&self.0.dir("leases").join(&id));
        }
        Ok(())
    }
}

/// See [`Leases::mark_alive`]; gone with its value.
pub(crate) struct Alive {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Drop for Alive {
    fn drop(&mut self) {
        empty(&self.path);
    }
}

/// False when the id is taken.
fn insert(tx: &Conn, lease: &Lease) -> rusqlite::Result<bool> {
    let expired = "DELETE FROM leases WHERE id = ?1 AND expires_at_ms <= ?2";
    tx.execute(expired, params![lease.id, db::now_ms()])?;
    let new = tx.execute(
        "INSERT OR IGNORE INTO leases (id, expires_at_ms, labels) VALUES (?1, ?2, ?3)",
        params![lease.id, lease.expires_at_ms, db::to_json(&lease.labels)],
    )?;
    Ok(new == 1)
}

fn expiry(ttl_seconds: u64) -> i64 {
    let ms = i64::try_from(ttl_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    db::now_ms().saturating_add(ms)
}

/// Puts a digest under a lease; part of the caller's transaction. Without a lease, nothing.
pub(crate) fn hold(tx: &Conn, lease: Option<&str>, kind: Kind, key: &str) -> Result<()> {
    let Some(lease) = lease.filter(|l| !l.is_empty()) else { return Ok(()) };
    let live: bool = tx
        .query_row(
            "SELECT count(*) FROM leases WHERE id = ?1 AND expires_at_ms > ?2",
            params![lease, db::now_ms()],
            |r| r.get::<_, i64>(0).map(|n| n > 0),
        )
        .map_err(Error::db("read a lease"))?;
    if !live {
        return Err(Error::LeaseExpired { id: lease.into() });
    }
    tx.execute(
        "INSERT OR IGNORE INTO lease_refs (lease, kind, key) VALUES (?1, ?2, ?3)",
        params![lease, kind.as_str(), key],
    )
    .map_err(Error::db("hold an object under a lease"))?;
    Ok(())
}

impl Store {
    /// Puts a blob under a lease in a transaction of its own, before it becomes visible.
    pub(crate) fn hold_blob(&self, digest: &Digest, lease: Option<&str>) -> Result<()> {
        match lease {
            None | Some("") => Ok(()),
            some => self.db().passing("hold a blob", |tx| hold(tx, some, Kind::Blob, digest.as_str())),
        }
    }
}
