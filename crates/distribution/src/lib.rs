//! Images: registries, content, layers, snapshots.
//!
//! The inner half is the [`Store`]: a directory that several processes use at once, where any of them may be killed at any
//! instruction. It knows digests, layers and snapshots; it knows nothing of registries. What it hands out for running are
//! *mounts*, which somebody else applies.
//!
//! The outer half moves images: a [`transport`] is something that manifests and blobs are read from (`Source`) or written to
//! (`Sink`), and [`pull`], [`push`], [`save`] and [`copy`](mod@copy) connect two of them. [`registry`] is the wire protocol. [`service`] offers
//! all of it over gRPC; the one-shot verbs of `pier-distribution` call the same functions.
//!
//! It runs nothing but mkfs.erofs(1), mounts nothing (but what it tries for itself, in a mount namespace of its own) and knows
//! no containers.
//!
//! Snapshots are made by the first driver that works in the store's directory: `overlay`; `btrfs` (a subvolume per
//! container, of one merged tree per chain of layers); `fuse-overlayfs`; `copy`, whose files share their blocks where the
//! file system can. `erofs` (an overlay above images of the layers) is for who asks for it. `info` names it, and why the others do not work. A snapshot for a user namespace differs only in its
//! mounts, which carry the mapping: files keep the ids of the image. A store that is made without the machine's privilege
//! marks opaque directories by `user.` attributes (the file `userxattr` says so), gives owners that its user namespace does
//! not have to its own root, and leaves devices out.
//!
//! ```text
//! <root>/store.db               names, images, layers, snapshots, leases (SQLite, WAL)
//!        blobs/<algo>/<hex>     verified content, named by its digest
//!        ingest/<algo>-<hex>    partial content; its writer holds a flock on it
//!        staging/<random>/      layers being unpacked, blobs being made; the maker holds a flock on it
//!        layers/<id>/fs         an unpacked layer, independent of its parents, keyed by diff ID in the database
//!        layers/<id>/image.erofs the same as an image, where a snapshot of that kind needed it
//!        snapshots/<id>/{fs,work}
//!        chains/<digest>/fs     on btrfs, the merged tree of a chain of layers
//!        remount                there while what snapshots have made of layers is made again after a restart of the machine
//!        userxattr              there when opaque directories are marked by user attributes
//!        uploads/               unfinished uploads to the registry server; whoever writes to one holds a flock on it
//!        {layers,snapshots}/<id>/record.json, images/<target>-<manifest>.json
//!                               what the database says of each, from which a lost one is made anew
//!        leases/<id>            locked while the owner of the lease lives
//!        reserve                space that is given up when the disk is full
//!        trash/                 renamed away, being deleted
//!        events/                journal of what happened to images
//!        pushes/                where unfinished pushes go on, one small record each
//!        indexes/               indexes that are being put together
//!        quarantine/            damaged objects that `check` set aside; deleted after 30 days
//! ```
//!
//! ```no_run
//! # fn main() -> Result<(), distribution::Error> {
//! let store = distribution::Store::open(std::path::Path::new("/var/lib/pier/distribution"))?;
//! let lease = store.leases().create(None, 0, &Default::default())?;
//! let blob = store.content().write(b"{}", oci::media_type::CONFIG, Some(&lease.id))?;
//! assert_eq!(store.content().read(&blob.digest, 16)?, b"{}");
//! # Ok(())
//! # }
//! ```
pub mod artifact;
pub mod change;
pub mod check;
pub mod content;
pub mod convert;
pub mod copy;
pub mod create;
mod db;
pub mod delete;
pub mod difference;
pub mod error;
pub mod events;
pub mod flatten;
pub mod gc;
pub mod image;
pub mod image_record;
pub mod import;
pub mod index;
pub mod layer;
pub mod lease;
pub mod login;
pub mod mutate;
pub mod progress;
pub mod pull;
pub mod push;
pub mod rebase;
pub mod registry;
pub mod save;
pub mod search;
pub mod server;
pub mod service;
pub mod snapshot;
pub mod store;
pub mod sync;
pub mod transport;
pub mod trust;

pub use error::{Error, Result};
pub use image_record::ImageRecord;
pub use store::Store;
