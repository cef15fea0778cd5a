//! pier-builder's library: images from sources.
//!
//! A [frontend] turns a Dockerfile into BuildKit's LLB ([llb]), the [graph] reads it, the [solver](solve) runs its
//! vertices in parallel with a content-keyed [cache], and the [operations](op) do the work: they take filesystems from
//! the image [store] (pier-distribution, by gRPC) and give layers back. The image is made in that store, so nothing
//! is copied to run it.
//!
//! It is not an image store, and it keeps no layers itself: its [cache] remembers which layers a step gave. It runs
//! commands with an OCI runtime's command line in the caller's mount namespace, which must be a private one.
//!
//! ```text
//! Dockerfile ─ lex ─ parse ─ plan ─▶ images to find ─▶ lower ─▶ pb.Definition ─ graph ─▶ vertices
//!                                                                                         │ solve
//!                     image config ◀─ history ◀──────────── chains of layers ◀─ source · exec · file
//! ```
//!
//! On disk, `<root>/builder/`: `cache.db` (see [cache]), `work/` (see [work]), `cache-mounts/<sha256 of the id>/`.
//!
//! ```
//! use builder::frontend::dockerfile::parse;
//! let error = parse("Dockerfile", "FROM busybox\nRUNN make\n").unwrap_err();
//! assert_eq!(error.to_string(), "Dockerfile:2: unknown instruction RUNN\n   2 | RUNN make");
//! ```

pub mod build;
pub mod cache;
pub mod config;
pub mod convert;
pub mod dump;
pub mod error;
pub mod frontend;
pub mod fs;
pub mod graph;
mod image;
pub mod layer;
pub mod llb;
pub mod op;
mod output;
pub mod progress;
mod recover;
pub mod service;
pub mod solve;
pub mod store;
pub mod work;

pub use build::{Builder, Built, Request};
pub use config::Config;
pub use error::Error;
pub use store::Store;
