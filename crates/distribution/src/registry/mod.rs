//! The wire protocol of registries (OCI distribution specification 1.1).
//!
//! - [`Registry`]: one registry as references name it: manifests, tags, referrers, existence of blobs. What configuration says
//!   of mirrors and other locations is applied here, so that everyone who reads or writes gets it;
//! - [`fetch`]: blobs as streams that resume where a connection broke;
//! - [`upload`]: blobs to the registry, mounted from a sister repository, or resumed where a connection broke;
//! - [`credentials`]: the credentials files of docker and podman, and credential helpers.
//!
//! Inside, an `Endpoint` is one host with its tokens, on a `Connection` with its TLS and time limits.
//!
//! The transport is our own on `reqwest`, because `oci-distribution` swallows failed logins, has no retries, no resume of uploads
//! and no limits on what it reads into memory; its error envelope is what we take from it.
//!
//! `PIER_REGISTRY_TIMEOUT` is how long a registry may stay silent, in seconds; 60 without it.

mod auth;
mod certificates;
mod challenge;
mod client;
mod configuration;
mod connection;
pub mod credentials;
mod endpoint;
mod error;
pub mod fetch;
mod host;
mod listing;
mod manifest;
mod referrers;
mod retry;
mod search;
pub mod upload;

use std::path::PathBuf;

pub use auth::Scope;
pub use challenge::realms;
pub use client::Registry;
pub use credentials::Credentials;
pub use error::{Cause, Error};
pub use host::Host;
pub use manifest::RawManifest;
pub use search::Hit;

/// How a registry is reached. The default: the system's configuration and credentials files.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Used before any file or helper is asked.
    pub credentials: Option<Credentials>,
    /// The credentials file that is asked; none: podman's and docker's, see [`credentials::files`].
    pub auth_file: Option<PathBuf>,
    /// Plain HTTP for a host that is not a loopback address.
    pub plain_http: bool,
    /// Accept any TLS certificate.
    pub tls_skip_verify: bool,
    /// Accept any TLS certificate, and plain HTTP from a host that speaks no TLS: as an insecure registry of the configuration.
    pub insecure: bool,
    /// The configuration in the format of containers-registries.conf(5); none: the system's.
    pub registries_conf: Option<PathBuf>,
    /// Certificates per host in the format of containers-certs.d(5); none: the system's.
    pub certs_dir: Option<PathBuf>,
    /// Where unfinished uploads are remembered, to go on with after a restart; none: nowhere.
    pub uploads: Option<PathBuf>,
    /// Which images are let in; see [`crate::trust`].
    pub trust: crate::trust::Setting,
}

/// Largest manifest, index or config that is read, in bytes.
pub const MANIFEST_MAX: u64 = 8 << 20;
/// Most layers that an image may have.
pub const LAYERS_MAX: usize = 512;

/// `$XDG_CONFIG_HOME`, or `~/.config`.
fn user_config_dir() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))
}
