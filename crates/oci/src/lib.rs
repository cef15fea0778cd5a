//! The values of the OCI specifications: digests, references, descriptors, platforms, image and runtime
//! configuration. Pure: nothing here reads a file, a clock or the environment.
//!
//! It is not a registry client and not a runtime; it is what those agree on.
//!
//! ```
//! use oci::Reference;
//! let r: Reference = "busybox".parse()?;
//! assert_eq!(r.to_string(), "docker.io/library/busybox:latest");
//! # Ok::<(), oci::reference::InvalidReference>(())
//! ```
pub mod descriptor;
pub mod digest;
pub mod idmap;
pub mod image;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod platform;
pub mod reference;
pub mod runtime;
pub mod seccomp;
pub mod shim;
pub mod ulimit;
pub mod user;

pub use descriptor::Descriptor;
pub use digest::Digest;
pub use image::ImageConfig;
pub use platform::Platform;
pub use reference::Reference;
