//! Named storage: directories (or what `mount(8)` can mount) that outlive the containers that use them.
//!
//! A volume has a name, a driver (`local`), options, labels and data. Whoever runs a container *acquires* a volume for a
//! consumer and a target and gets back a mount to apply; it *releases* the consumer when that is gone. A volume with
//! consumers cannot be removed. This crate knows no containers: a consumer is a string. It
//! mounts nothing but what [`attach`] is asked for by hand.
//!
//! State below the root:
//! ```text
//! volumes/<name>/volume.json   the record; written once, moved into place together with the directory
//! volumes/<name>/_data         the data
//! volumes/<name>/copy-up.*     image content on its way in: `partial` is thrown away, `ready` is finished
//! staging/<random>             a volume that is being made; swept at open
//! removing/<random>            a volume that is being deleted; swept at open
//! volume.db                    SQLite: who holds what, and the last events
//! ```
//! A volume exists exactly when its directory below `volumes/` does: one rename makes it, one rename removes it.
//! Several processes may work on one root: removal and acquisition exclude each other by the database's write lock.
//!
//! ```no_run
//! use volume::{Acquire, NewVolume, Volumes};
//! # fn main() -> Result<(), volume::Error> {
//! let volumes = Volumes::open("/var/lib/pier/volume".as_ref())?;
//! volumes.create(NewVolume { name: "data".into(), ..Default::default() })?;
//! let mount = volumes.acquire(&Acquire { name: "data".into(), consumer: "c1".into(), target: "/data".into(), ..Default::default() })?;
//! assert_eq!(mount.fstype, "bind");
//! volumes.release("c1", None, false)?;
//! # Ok(()) }
//! ```

mod acquire;
mod attach;
mod convert;
mod copy_up;
mod error;
mod event;
mod filter;
mod option;
mod record;
mod references;
mod remove;
mod service;
mod size;
mod subpath;
mod volumes;

pub use acquire::{Acquire, CopyUp};
pub use attach::{attach, detach};
pub use error::Error;
pub use event::Event;
pub use filter::{EventFilter, Filters};
pub use option::Mount;
pub use record::{NewVolume, Volume};
pub use references::Released;
pub use remove::Pruned;
pub use service::Service;
pub use volumes::{Listing, Volumes};

/// What operations of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests;
