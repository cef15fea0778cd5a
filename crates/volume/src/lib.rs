//! Named storage: directories (or what `mount(8)` can mount) that outlive the containers that use them.
//!
//! A volume has an id, a name, a driver (`local`, `image`, or a plugin), options, labels and data. Whoever runs a container *acquires* a volume for a
//! consumer and a target and gets back a mount to apply; it *releases* the consumer when that is gone. A volume with
//! consumers cannot be removed. This crate knows no containers: a consumer is a string.
//!
//! State below the root:
//! ```text
//! volumes/<id>/volume.json     the record, replaced whole
//! volumes/<id>/_data           the data, or disk.img: a file system with `_data` in it
//! volumes/<id>/snapshots/      states that were kept
//! volumes/<id>/copy-up.*       content on its way in: `partial` is thrown away, `ready` is finished
//! volumes/<name> -> <id>       the name
//! overlays/                    what consumers wrote over a volume, each for itself
//! staging/<random>             a volume that is being made; swept at open
//! removing/<random>            a volume that is being deleted; swept at open
//! volume.db                    SQLite: who holds what, and the last events
//! ```
//! and below the run directory `<id>`, where a volume that has to be mounted is, while somebody holds it, and
//! `<id>.<mount id>`, where what has to be mounted for one reference alone is.
//!
//! A volume exists exactly when its directory below `volumes/` does: one rename makes it, one rename removes it, and
//! another name is one rename of a link.
//! Several processes may work on one root: removal and acquisition exclude each other by the database's write lock.
//!
//! ```no_run
//! use volume::{Acquire, NewVolume, Volumes};
//! # fn main() -> Result<(), volume::Error> {
//! let volumes = Volumes::open("/var/lib/pier/volume".as_ref(), "/run/pier/volume".as_ref())?;
//! volumes.create(NewVolume { name: "data".into(), ..Default::default() })?;
//! let mount = volumes.acquire(&Acquire { name: "data".into(), consumer: "c1".into(), target: "/data".into(), ..Default::default() })?;
//! assert_eq!(mount.fstype, "bind");
//! volumes.release("c1", None, false)?;
//! # Ok(()) }
//! ```

mod acquire;
mod archive;
mod attach;
mod check;
mod chown;
mod convert;
mod copy_up;
mod error;
mod event;
mod filter;
mod handle;
mod idmap;
mod image_file;
mod luks;
mod mounted;
mod names;
pub mod option;
mod overlay;
mod owners;
mod plugin;
mod project;
mod record;
mod references;
mod remove;
mod replace;
mod service;
mod size;
mod snapshot;
mod store;
mod subpath;
mod update;
mod view;
mod volumes;

pub use acquire::{Acquire, CopyUp};
pub use attach::{attach, detach};
pub use check::Finding;
pub use error::Error;
pub use event::Event;
pub use filter::{EventFilter, Filters};
pub use option::Mount;
pub use plugin::Driver;
pub use record::{NewVolume, Volume};
pub use references::Released;
pub use remove::Pruned;
pub use service::Service;
pub use snapshot::Snapshot;
pub use update::Changes;
pub use volumes::{Listing, Volumes};

/// What operations of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests;
