//! The wire protocol of registries (OCI distribution specification 1.1).
//!
//! - [`Host`]: where a registry is and which scheme it speaks;
//! - [`Registry`]: one registry, with its connections and tokens: manifests, tags, referrers, existence of blobs;
//! - [`fetch`]: blobs as streams that resume where a connection broke;
//! - [`upload`]: blobs to the registry, mounted from a sister repository, or resumed where a connection broke;
//! - [`credentials`]: the docker credentials file and credential helpers.
//!
//! The transport is our own on `reqwest`, because `oci-distribution` swallows failed logins, has no retries, no resume of uploads
//! and no limits on what it reads into memory; its error envelope is what we take from it.

mod auth;
mod client;
pub mod credentials;
mod error;
pub mod fetch;
mod host;
mod listing;
mod manifest;
mod referrers;
pub mod upload;

use std::path::PathBuf;

pub use auth::{Scope, realms};
pub use client::Registry;
pub use credentials::Credentials;
pub use error::{Cause, Error};
pub use host::Host;
pub use manifest::RawManifest;

/// How a registry is reached. The default: docker's rules, no credentials.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Used before any file or helper is asked.
    pub credentials: Option<Credentials>,
    /// Docker credentials file; none: anonymous.
    pub auth_file: Option<PathBuf>,
    /// Plain HTTP for a host that is not a loopback address.
    pub plain_http: bool,
    /// Accept any TLS certificate.
    pub tls_skip_verify: bool,
    /// Which images are let in; see [`crate::trust`].
    pub trust: crate::trust::Setting,
}

/// Largest manifest, index or config that is read, in bytes.
pub const MANIFEST_MAX: u64 = 8 << 20;
/// Most layers that an image may have.
pub const LAYERS_MAX: usize = 512;
